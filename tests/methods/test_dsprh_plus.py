"""DSPRH+: targets against dense NumPy, its loss against naive loops, its runs."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from method_helpers import (
    clustered,
    codes,
    cosines,
    features_flags,
    mse,
    naive_pairwise,
    naive_triplet,
    normal,
    unit_rows,
)

from dsprh_tf.methods import DSPRHPlus
from dsprh_tf.methods.base import FusionSettings
from dsprh_tf.methods.dsprh_plus import graph_similarity


def standardised(x):
    different = x[~np.eye(len(x), dtype=bool)]
    return (x - different.mean()) / different.std()


def naive_target(image, words, share, k, second_order):
    """R [n, n], with matrices of all pairs."""
    count = np.count_nonzero(words, axis=0)
    weights = np.where(count > 0, np.log(len(words) / np.maximum(count, 1)), 0)
    first = share * standardised(cosines(image, image))
    text = words * weights
    first = standardised(first + (1 - share) * standardised(cosines(text, text)))
    rows = np.zeros_like(first)
    for i, row in enumerate(first):
        others = [j for j in np.argsort(-row, kind="stable") if j != i][: k - 1]
        # An item is as near to itself as first order can be: cosine 1 in both modalities.
        rows[i, others], rows[i, i] = np.maximum(row[others], 0), first.diagonal().max()
    rows = np.array(unit_rows(np.maximum(rows, rows.T)))
    return standardised((1 - second_order) * first + second_order * standardised(rows @ rows.T))


def batch_of(prepared, image, words, rows):
    return {
        "target_feature": tf.constant(image[rows]),
        "bow": tf.constant(words[rows].astype(np.float32)),
        **{name: tf.constant(value[rows]) for name, value in prepared.items()},
    }


# Targets


@pytest.mark.parametrize("share, k, second_order", [(0.5, 8, 0.5), (0.3, 5, 1.0), (1.0, 8, 0.2)])
def test_targets_equal_the_dense_computation(share, k, second_order):
    image, words = clustered()
    method = DSPRHPlus(
        8,
        image_weight=share,
        neighbours=k,
        second_order=second_order,
        target_deviation=0.01,
        diagonal_target=1e6,
    )
    prepared = method.prepare(image, words, None)
    assert set(prepared) == {"graph_neighbours", "graph_weights"}
    rows = np.array([3, 17, 20, 41, 59])
    found = method.target(batch_of(prepared, image, words, rows)) / 0.01
    expected = naive_target(image, words, share, k, second_order)[np.ix_(rows, rows)]
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_targets_are_bounded_and_carry_no_gradient():
    image, words = clustered()
    method = DSPRHPlus(8, neighbours=8)
    batch = batch_of(method.prepare(image, words, None), image, words, np.arange(20))
    with tf.GradientTape() as tape:
        tape.watch(batch["target_feature"])
        target = method.target(batch)
    assert tape.gradient(target, batch["target_feature"]) is None
    assert float(tf.reduce_max(target)) <= 1.5


def test_the_seed_draws_the_sample_of_the_graph(monkeypatch):
    monkeypatch.setattr("dsprh_tf.neighbour_graph._SAMPLE", 20)
    image, words = clustered()
    offsets = []
    for seed in (0, 0, 1):
        method = DSPRHPlus(8, seed, neighbours=8)
        method.prepare(image, words, None)
        offsets.append(method.graph.offset)
    assert offsets[0] == offsets[1] != offsets[2]


def test_a_method_without_a_graph_and_a_graph_without_features_are_refused():
    with pytest.raises(ValueError, match="dsprh_plus knows no graph yet: call prepare"):
        DSPRHPlus(8).target({})
    with pytest.raises(ValueError, match="features of all training pairs: drop --nocache"):
        DSPRHPlus(8).prepare(None, clustered()[1], None)


def test_sparse_rows_as_inner_products():
    neighbours = np.array([[0, 5, 9], [5, 2, -1], [7, -1, -1]])
    weights = np.array([[0.5, 0.5, 0.7], [0.6, 0.8, 0.0], [1.0, 0.0, 0.0]], np.float32)
    dense = np.zeros((3, 10), np.float32)
    for i in range(3):
        for j, w in zip(neighbours[i], weights[i]):
            if j >= 0:
                dense[i, j] = w
    found = graph_similarity(tf.constant(neighbours, tf.int32), tf.constant(weights))
    np.testing.assert_allclose(found, dense @ dense.T, rtol=1e-6)


# The loss


def naive_loss(s, target, batch, outputs):
    outputs = {name: value.numpy() for name, value in outputs.items()}
    image, text = outputs["image_code"], outputs["text_code"]
    it = cosines(image, text)
    near = (target > 2 * s.target_deviation) | np.eye(len(target), dtype=bool)
    terms = {
        "L_F": mse(outputs["text_from_image"], unit_rows(batch["bow"]))
        + mse(outputs["image_from_text"], unit_rows(outputs["image_fused"])),
        "L_R": s.diagonal_weight * np.mean((s.diagonal_target - np.diag(it)) ** 2)
        + s.symmetry_weight * mse(it, it.T),
        "L_W": sum(mse(target, x) for x in (cosines(image, image), cosines(text, text), it)),
        "L_2": naive_triplet(image, text, near, s.margin, "mean"),
        "L_3": naive_pairwise(image, text, 1 / (1 + np.exp(-4 * target))).mean(),
    }
    terms["total"] = (
        s.alpha * (terms["L_F"] + terms["L_R"] + terms["L_W"])
        + s.beta * terms["L_2"]
        + s.gamma * terms["L_3"]
    )
    return terms


OTHERS = {
    "alpha": 0.4,
    "beta": 0.9,
    "gamma": 0.2,
    "image_weight": 0.8,
    "second_order": 0.2,
    "neighbours": 4,
    "target_deviation": 0.2,
    "diagonal_target": 0.9,
    "diagonal_weight": 0.7,
    "symmetry_weight": 1.3,
    "margin": 0.05,
}


def test_every_setting_of_the_loss_has_a_case():
    own = {field.name for field in dataclasses.fields(DSPRHPlus.Settings)}
    assert own - {field.name for field in dataclasses.fields(FusionSettings)} == set(OTHERS)


@pytest.fixture(scope="module")
def default_terms():
    return loss_of({})[0]


def loss_of(settings):
    """Terms of a batch, and of the naive loops on the same targets, whose values vary."""
    image, words = clustered()
    method = DSPRHPlus(8, **{"neighbours": 8, **settings})
    rows = np.arange(10)
    batch = batch_of(method.prepare(image, words, None), image, words, rows)
    image_code, text_code = (tf.constant(code) for code in codes(10, 8))
    outputs = {
        "image_code": image_code,
        "text_code": text_code,
        "image_fused": tf.constant(np.abs(normal(10, 12, seed=3))),
        "text_from_image": tf.constant(normal(10, 30, seed=4)),
        "image_from_text": tf.constant(normal(10, 12, seed=5)),
    }
    target = method.target(batch).numpy()
    assert ((target > 0) & (target > method.settings.target_deviation)).sum() > 10
    if not settings:  # some in between, which "related" must leave out
        d = method.settings.target_deviation
        assert ((target > d) & (target < 2 * d)).any()
    return method.loss(batch, outputs), naive_loss(method.settings, target, batch, outputs)


@pytest.mark.parametrize(
    "settings", [{}, *({name: value} for name, value in OTHERS.items()), OTHERS], ids=str
)
def test_the_loss_equals_the_naive_loop_and_each_setting_has_an_effect(settings, default_terms):
    terms, expected = loss_of(settings)
    assert terms.keys() == expected.keys() == {*DSPRHPlus.terms, "total"}
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(float(value), rel=1e-4, abs=1e-6), name
    changed = [
        n for n in terms if float(terms[n]) != pytest.approx(float(default_terms[n]), rel=1e-3)
    ]
    assert changed or not settings


def test_a_batch_of_one_has_a_finite_loss_and_gradients():
    image, words = clustered()
    method = DSPRHPlus(8, neighbours=8)
    batch = batch_of(method.prepare(image, words, None), image, words, np.arange(1))
    outputs = {
        "image_code": tf.zeros([1, 8]),
        "text_code": tf.zeros([1, 8]),
        "image_fused": tf.zeros([1, 12]),
        "text_from_image": tf.zeros([1, 30]),
        "image_from_text": tf.zeros([1, 12]),
    }
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        terms = method.loss(batch, outputs)
    assert all(np.isfinite(value) for value in terms.values())
    for gradient in tape.gradient(terms["total"], list(outputs.values())):
        assert gradient is None or np.abs(gradient).max() < 10


def test_a_target_deviation_of_zero_is_refused():
    with pytest.raises(ValueError, match="target_deviation is 0.0, expected a number above 0"):
        DSPRHPlus(8, target_deviation=0.0)


# Runs


def test_it_trains_and_resumes(program, tmp_path):
    flags = [*features_flags(tmp_path), "--method=dsprh_plus", "--neighbours=5"]
    outcome = program("train", *flags)
    assert outcome.code == 0, outcome.err[-2000:]
    assert "graph: 72 pairs, 5 neighbours, exact" in outcome.out
    again = program("train", *flags)
    assert again.code == 0 and "resuming" in again.out


def test_wide_features_do_not_saturate_the_codes(program, tmp_path):
    """Rectified features of 8,192 values, as wide as Adam's steps at a fixed rate cannot stand."""
    rng = np.random.default_rng(0)
    classes = np.arange(240) % 6
    image = np.maximum(rng.normal(size=(6, 8192))[classes] + 2 * rng.normal(size=(240, 8192)), 0)
    text = rng.random((240, 30)) < 0.05 + 0.3 * np.repeat(np.eye(6), 5, axis=1)[classes]
    path = tmp_path / "wide.npz"
    labels = np.eye(6, dtype=np.uint8)[classes]
    np.savez(path, image=np.float32(image), text=np.float32(text), labels=labels)

    outcome = program(
        "train", "--dataset=features", f"--data_dir={path}", "--queries=40", "--train_pairs=200",
        "--validation=0", "--select=last", "--method=dsprh_plus", "--bits=32", "--text_hidden=64",
        "--epochs=15", f"--run_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err[-2000:]
    assert "learning rate of the image side 0.00015625, for features of 8,192" in outcome.out
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    # .74; .22 at the rate of narrow features, .16 by chance
    assert record["image_to_text"]["map"] > 0.5
