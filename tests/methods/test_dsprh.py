"""DSPRH: its loss against naive NumPy under every setting, and what batches need for it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from method_helpers import (
    check_small_gradients,
    close,
    cosines,
    loss_batch,
    make_batch,
    mse,
    naive_pairwise,
    naive_triplet,
    normal,
    small_model,
    unit_rows,
)

from dsprh_tf import losses, similarity
from dsprh_tf.methods import DSPRH
from dsprh_tf.methods.base import FusionSettings


def naive_loss(s, batch, outputs):
    """All terms from their definitions; related items and targets as they are named."""
    outputs = {name: value.numpy() for name, value in outputs.items()}
    image, text = outputs["image_code"], outputs["text_code"]
    source = batch["target_feature"] if s.similarity_source == "frozen" else outputs["image_fused"]
    s_i = 2 * cosines(source, source) - 1
    s_t = 2 * cosines(batch["bow"], batch["bow"]) - 1
    joint = s.image_weight * s_i + (1 - s.image_weight) * s_t
    ii, tt, it = cosines(image, image), cosines(text, text), cosines(image, text)
    size = len(image)
    masks = {name: np.eye(size, dtype=bool) for name in ("pair", "neighbours", "labels")}
    for i in range(size):
        for j in range(size):
            threshold = batch["neighbour_threshold"]
            if joint[i, j] >= threshold[i] or joint[j, i] >= threshold[j]:
                masks["neighbours"][i, j] = True
            if (batch["labels"][i] & batch["labels"][j]).any():
                masks["labels"][i, j] = True
    masks["soft"] = np.clip((joint + 1) / 2, 0, 1)

    def error(a, b):
        return mse(a, b) * (1 if s.alignment_reduction == "mean" else np.size(a))

    terms = {
        "L_F": error(outputs["text_from_image"], unit_rows(batch["bow"]))
        + error(outputs["image_from_text"], unit_rows(outputs["image_fused"])),
        "L_R": error(np.diag(it), np.full(size, s.diagonal_target))
        + s.symmetry_weight * error(it, it.T),
        "L_W": s.within_weight * (error(s.scale * s_i, ii) + error(s.scale * s_t, tt))
        + sum(error(s.scale * joint, x) for x in (ii, tt, it)),
        "L_2": naive_triplet(image, text, masks[s.related], s.margin, s.triplet_reduction),
    }
    entries = naive_pairwise(image, text, masks[s.pairwise_target])
    terms["L_3"] = entries.mean() if s.pairwise_reduction == "mean" else entries.sum()
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
    "image_weight": 0.5,
    "scale": 1.2,
    "within_weight": 0.7,
    "diagonal_target": 1.5,
    "symmetry_weight": 2.0,
    "similarity_source": "fused",
    "related": "labels",
    "pairwise_target": "pair",
    "margin": 0.3,
    "alignment_reduction": "sum",
    "triplet_reduction": "sum",
    "pairwise_reduction": "sum",
}


def test_every_setting_of_the_loss_has_a_case():
    own = {field.name for field in dataclasses.fields(DSPRH.Settings)}
    networks = {field.name for field in dataclasses.fields(FusionSettings)}
    # How thresholds are found does not enter the loss of a batch.
    assert own - networks == {*OTHERS, "neighbour_share"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        *({name: value} for name, value in OTHERS.items()),
        {"related": "neighbours"},
        {"pairwise_target": "neighbours"},
        {"pairwise_target": "labels"},
        OTHERS,
    ],
    ids=str,
)
def test_the_loss_equals_the_naive_loop_and_each_setting_has_an_effect(settings):
    batch, outputs = loss_batch()
    method = DSPRH(8, **settings)
    terms = method.loss(batch, outputs)
    expected = naive_loss(method.settings, batch, outputs)
    assert terms.keys() == expected.keys() == {*method.terms, "total"}
    for name, value in expected.items():
        close(terms[name], value)
    default = DSPRH(8).loss(batch, outputs)
    changed = [n for n in terms if float(terms[n]) != pytest.approx(float(default[n]), rel=1e-3)]
    assert changed or not settings


def test_embeddings_with_negative_entries_have_targets_of_at_least_zero():
    batch, outputs = loss_batch()
    batch["target_feature"] = normal(6, 7, seed=3)
    method = DSPRH(8)
    expected = naive_loss(method.settings, batch, outputs)
    assert (cosines(batch["target_feature"], batch["target_feature"]) < -0.2).any()
    for name, value in method.loss(batch, outputs).items():
        close(value, expected[name])


@pytest.mark.parametrize("settings", [{}, OTHERS], ids=["default", "other"])
@pytest.mark.parametrize("size, blank", [(1, False), (1, True), (3, True)])
def test_a_batch_of_one_and_blank_pairs_have_small_gradients(settings, size, blank):
    check_small_gradients(DSPRH(8, **settings), size, blank)


@pytest.mark.parametrize("source", ["frozen", "fused"])
def test_no_gradient_flows_into_similarity_targets(source):
    batch, outputs = loss_batch()
    batch = {**batch, "target_feature": tf.constant(batch["target_feature"])}
    with tf.GradientTape() as tape:
        tape.watch([batch["target_feature"], outputs["image_fused"], outputs["image_code"]])
        total = DSPRH(8, similarity_source=source).loss(batch, outputs)["total"]
    target, fused, code = tape.gradient(
        total, [batch["target_feature"], outputs["image_fused"], outputs["image_code"]]
    )
    assert target is None
    assert fused is None
    assert np.abs(code).max() > 0


# What batches need


def test_batches_need_labels_or_thresholds_only_if_asked(capsys):
    batch, outputs = loss_batch()
    image, text = np.abs(normal(20, 6)), np.abs(normal(20, 5, seed=1))
    labels = np.eye(4, dtype=np.uint8)[np.arange(20) % 4]
    bare = {name: batch[name] for name in ("bow", "target_feature")}
    for settings in ({}, {"pairwise_target": "pair"}):
        method = DSPRH(8, **settings)
        assert method.prepare(None, text, None) == {}
        method.loss(bare, outputs)
    DSPRH(8, similarity_source="fused").loss({"bow": batch["bow"]}, outputs)
    assert not capsys.readouterr().out
    for settings in ({"related": "labels"}, {"pairwise_target": "labels"}):
        found = DSPRH(8, **settings).prepare(None, text, labels)
        assert list(found) == ["labels"]
        np.testing.assert_array_equal(found["labels"], labels)
        assert "note: labels enter the loss of dsprh: a diagnostic" in capsys.readouterr().out
        with pytest.raises(ValueError, match="is labels, but the data has no labels"):
            DSPRH(8, **settings).prepare(image, text, None)
    for settings in ({"related": "neighbours"}, {"pairwise_target": "neighbours"}):
        method = DSPRH(8, **settings, image_weight=0.7, neighbour_share=0.1)
        found = method.prepare(image, text, None)
        assert list(found) == ["neighbour_threshold"]
        expected = similarity.neighbour_thresholds(image, text, 0.7, 0.1)
        np.testing.assert_array_equal(found["neighbour_threshold"], expected)
        with pytest.raises(ValueError, match="features of all training pairs: drop --nocache"):
            method.prepare(None, text, labels)
    both = DSPRH(8, related="neighbours", pairwise_target="labels")
    assert set(both.prepare(image, text, labels)) == {"neighbour_threshold", "labels"}


def test_all_nearest_neighbours_are_found_again_in_a_batch():
    # The batch computes S~ with other rounding than the thresholds: none may fall out.
    image, text = np.abs(normal(64, 40)), (normal(64, 30, seed=1) > 0).astype(np.float32)
    method = DSPRH(8, related="neighbours", neighbour_share=0.01)
    thresholds = method.prepare(image, text, None)["neighbour_threshold"]
    joint = 0.9 * (2 * cosines(image, image) - 1) + 0.1 * (2 * cosines(text, text) - 1)
    near = np.zeros((64, 64), bool)
    for i in range(64):
        near[i, max((j for j in range(64) if j != i), key=lambda j: joint[i, j])] = True  # noqa: B023
    rng = np.random.default_rng(2)
    for _ in range(5):
        rows = rng.permutation(64)[:50]
        joint = losses.joint_similarity(
            losses.feature_similarity(image[rows]), losses.feature_similarity(text[rows]), 0.9
        )
        batch = {"neighbour_threshold": tf.constant(thresholds[rows])}
        related = method._related("neighbours", batch, joint)
        expected = near[np.ix_(rows, rows)]
        np.testing.assert_array_equal(related, expected | expected.T | np.eye(50, dtype=bool))


@pytest.mark.parametrize("decoder_input", ["tanh", "sign"])
def test_gradients_pass_through_the_bottleneck(decoder_input):
    model, batch = small_model("dsprh", decoder_input=decoder_input), make_batch()
    with tf.GradientTape() as tape:
        decoded = tf.reduce_sum(model(batch)["text_from_image"] ** 2)
    gradients = tape.gradient(decoded, model.image_network.trainable_variables)
    assert all(g is not None for g in gradients)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"related": "near"}, "related is 'near', expected one of pair, neighbours, labels"),
        ({"pairwise_target": "hard"}, "pairwise_target is 'hard', expected one of soft, neigh"),
        ({"similarity_source": "live"}, "similarity_source is 'live', expected one of frozen"),
        ({"alignment_reduction": "l1"}, "alignment_reduction is 'l1', expected one of mean, sum"),
        ({"triplet_reduction": "max"}, "triplet_reduction is 'max', expected one of mean, sum"),
        ({"pairwise_reduction": ""}, "pairwise_reduction is '', expected one of mean, sum"),
        ({"image_weight": 1.1}, "image_weight is 1.1, expected a finite number from 0 to 1"),
        ({"image_weight": float("nan")}, "image_weight is nan"),
        ({"neighbour_share": 0.0}, "neighbour_share is 0, expected more than 0 and less than 1"),
        ({"neighbour_share": 1.0}, "neighbour_share is 1, expected more than 0 and less than 1"),
        (
            {"related": "neighbours", "similarity_source": "fused"},
            "neighbours are found once, .* use --similarity_source=frozen",
        ),
        ({"pairwise_target": "neighbours", "similarity_source": "fused"}, "found once"),
    ],
)
def test_unknown_choices_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        DSPRH(8, **settings)
    assert "\n" not in str(error.value)
