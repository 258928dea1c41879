"""The methods: their losses against naive NumPy, their networks, their recipes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from dsprh_tf import methods, neighbour_graph, training
from dsprh_tf.losses import DJSRHObjective, DSPRHObjective, GraphObjective

SIZES = {"bow": 7, "feature": 6, "conv_map": (3, 3, 4), "labels": 3}
SIZES.update({f"stage_{n}": (21, n + 1) for n in (1, 2, 3)})


def make_batch(n=5, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "feature": tf.constant(rng.random((n, 6)).astype(np.float32)),
        "conv_map": tf.constant(rng.random((n, 3, 3, 4)).astype(np.float32)),
        "bow": tf.constant((rng.random((n, 7)) > 0.5).astype(np.float32)),
        "labels": tf.constant(np.eye(3, dtype=np.float32)[rng.integers(0, 3, n)]),
        **{f"stage_{s}": tf.constant(rng.random((n, 21, s + 1), np.float32)) for s in (1, 2, 3)},
    }


SMALL = {"cov_channels": 2, "text_hidden": 5, "width": 4, "heads": 2}


def cosines(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None]
    return a @ b.T / np.maximum(lengths, 1e-9)


def test_djsrh_equals_the_naive_computation():
    batch, rng = make_batch(), np.random.default_rng(1)
    batch["target_feature"] = batch["feature"]
    image, text = (np.tanh(rng.normal(size=(5, 8))).astype(np.float32) for _ in range(2))
    found = DJSRHObjective(image_weight=0.6, second_order=0.4)(
        batch, {"image_code": tf.constant(image), "text_code": tf.constant(text)}
    )
    joint = 0.6 * (2 * cosines(batch["feature"], batch["feature"]) - 1)
    joint += 0.4 * (2 * cosines(batch["bow"], batch["bow"]) - 1)
    target = 1.5 * (0.6 * joint + 0.4 * joint @ joint.T / 5)
    expected = 0.1 * np.mean((target - cosines(image, image)) ** 2)
    expected += 0.1 * np.mean((target - cosines(text, text)) ** 2)
    expected += np.mean((target - cosines(image, text)) ** 2)
    np.testing.assert_allclose(found["total"], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["djsrh", "dsah"])
def test_parents_hash_the_plain_feature(name):
    model = methods.METHODS[name].build(8, SIZES, text_hidden=5, fusion_weights=(1, 1, 1))
    batch = make_batch()
    outputs = model(batch)
    np.testing.assert_array_equal(outputs["image_fused"], batch["feature"])
    kernel, bias = model.image_network.hash_layer.get_weights()
    np.testing.assert_allclose(
        outputs["image_hash"], batch["feature"].numpy() @ kernel + bias, rtol=1e-5, atol=1e-6
    )


def test_dsah_is_l1_with_its_own_constants():
    model = methods.METHODS["dsah"].build(8, SIZES, text_hidden=5)
    expected = DSPRHObjective(beta=0.0, gamma=0.0, diagonal_target=1.5, symmetry_weight=2.0)
    assert model.objective == expected
    recipe = methods.METHODS["dsah"].recipe
    for name in ("beta", "gamma", "diagonal_target", "symmetry_weight", "image_weight"):
        assert recipe[name] == getattr(expected, name)


@pytest.mark.parametrize("decoder_input, reaches", [("tanh", True), ("sign", False)])
def test_the_released_decoder_of_dsah_is_inert(decoder_input, reaches):
    model = methods.METHODS["dsah"].build(8, SIZES, text_hidden=5, decoder_input=decoder_input)
    batch = make_batch()
    with tf.GradientTape() as tape:
        decoded = tf.reduce_sum(model(batch)["text_from_image"] ** 2)
    gradients = tape.gradient(decoded, model.image_variables)
    hash_size = len(model.image_network.trainable_variables)
    assert all(g is not None for g in gradients[:hash_size]) == reaches
    assert any(np.any(g.numpy()) for g in gradients[hash_size:])  # the decoder learns


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_every_method_trains_a_step(name):
    method = methods.METHODS[name]
    model = method.build(8, SIZES, **{n: v for n, v in SMALL.items() if n in method.network})
    batch = make_batch()
    if method.objective is GraphObjective:
        built = neighbour_graph.build_graph(batch["feature"].numpy(), batch["bow"].numpy(), neighbours=3)
        model.objective = model.objective.fitted(built)
        batch["graph_neighbours"] = tf.constant(built.neighbours)
        batch["graph_weights"] = tf.constant(built.weights)
    terms, image_gradients, text_gradients = model.local_gradients(batch)
    assert np.isfinite(terms["total"])
    for gradients, variables, network in (
        (image_gradients, model.image_variables, model.image_network),
        (text_gradients, model.text_variables, model.text_network),
    ):
        at = next(i for i, v in enumerate(variables) if v is network.hash_layer.kernel)
        assert np.any(gradients[at].numpy())
    assert all(np.isfinite(g.numpy()).all() for g in image_gradients + text_gradients)


def test_the_example_of_a_new_method_learns(monkeypatch):
    """The code of BUILD.md, as it stands there."""
    text = (Path(__file__).parents[1] / "BUILD.md").read_text()
    code = re.search(r"^## A new method$.*?```python\n(.*?)```", text, re.DOTALL | re.MULTILINE)[1]
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    exec(compile(code, "BUILD.md", "exec"), {"__name__": __name__})
    method = methods.METHODS["contrastive"]
    model = method.build(16, SIZES, cov_channels=2, text_hidden=16)
    model.compile(*(training.make_optimizer("adamw", 0.01) for _ in range(2)))
    batch, first = make_batch(), None
    step = tf.function(model.local_gradients)
    for _ in range(40):
        terms, image, text = step(batch)
        first = float(terms["total"]) if first is None else first
        model.optimizer.apply_gradients(zip(image, model.image_variables))
        model.text_optimizer.apply_gradients(zip(text, model.text_variables))
    assert first > 1 and float(terms["total"]) < 0.3 * first


def test_recipes_are_used_where_nothing_is_given(program, small_flags, tmp_path):
    outcome = program(
        "train", *small_flags, "--method=djsrh", "--epochs=1", "--lr_text=0.02",
        f"--run_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err[-2000:]
    flags = json.loads((tmp_path / "run" / "flags.json").read_text())
    assert flags["momentum"] == 0.9 and flags["nesterov"] is False
    assert flags["lr_text"] == 0.02 and flags["epochs"] == 1


def test_the_graph_method_trains_and_resumes(program, small_flags, tmp_path):
    flags = [*small_flags, "--method=dsprh_plus", "--neighbours=5", f"--run_dir={tmp_path / 'run'}"]
    outcome = program("train", *flags)
    assert outcome.code == 0, outcome.err[-2000:]
    assert "graph: 72 pairs, 5 neighbours, exact" in outcome.out
    again = program("train", *flags)
    assert again.code == 0 and "resuming" in again.out


@pytest.mark.parametrize("features, rate", [(64, 0.001), (1280, 0.001), (2560, 0.0005)])
def test_wide_features_are_learnt_from_in_smaller_steps(features, rate):
    assert methods.image_rate(features) == pytest.approx(rate)


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_the_rate_follows_the_feature_only_where_the_hash_layer_stands_on_it(name):
    method = methods.METHODS[name]
    if method.settings(frozen=True)["lr_image"] is None:
        model = method.build(8, SIZES, text_hidden=5, cov_channels=2)
        assert model.image_network.hash_layer.kernel.shape[0] == model.feature_size
    assert method.settings(frozen=False).get("lr_image", 0.1) is not None


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
