"""DJSRH: its loss against naive NumPy, what it hashes, its recipe in a run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from method_helpers import (
    check_small_gradients,
    codes,
    cosines,
    features_flags,
    make_batch,
    mse,
    small_model,
)

from dsprh_tf.methods import DJSRH


def naive(s, batch, image, text):
    joint = s.image_weight * (2 * cosines(batch["feature"], batch["feature"]) - 1)
    joint += (1 - s.image_weight) * (2 * cosines(batch["bow"], batch["bow"]) - 1)
    target = (1 - s.second_order) * joint + s.second_order * joint @ joint.T / len(joint)
    target *= s.scale
    within = mse(target, cosines(image, image)) + mse(target, cosines(text, text))
    return s.within_weight * within + mse(target, cosines(image, text))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"image_weight": 0.6},
        {"second_order": 0.7},
        {"scale": 1.1},
        {"within_weight": 0.6},
    ],
    ids=str,
)
def test_the_loss_equals_the_naive_computation_and_each_setting_has_an_effect(settings):
    batch = make_batch()
    batch["target_feature"] = batch["feature"]
    image, text = codes(5, 8)
    outputs = {"image_code": tf.constant(image), "text_code": tf.constant(text)}
    method = DJSRH(8, **settings)
    found = method.loss(batch, outputs)
    assert set(found) == {*method.terms, "total"}
    np.testing.assert_allclose(found["L_W"], found["total"])
    np.testing.assert_allclose(
        found["total"], naive(method.settings, batch, image, text), rtol=1e-5
    )
    default = float(DJSRH(8).loss(batch, outputs)["total"])
    assert not settings or float(found["total"]) != pytest.approx(default, rel=1e-3)


@pytest.mark.parametrize("size, blank", [(1, False), (1, True), (3, True)])
def test_a_batch_of_one_and_blank_pairs_have_small_gradients(size, blank):
    check_small_gradients(DJSRH(8), size, blank)


def test_no_gradient_flows_into_the_similarity_of_images():
    batch, (image, text) = make_batch(), codes(5, 8)
    feature, code = tf.Variable(batch["feature"]), tf.Variable(image)
    with tf.GradientTape() as tape:
        outputs = {"image_code": code, "text_code": tf.constant(text)}
        total = DJSRH(8).loss({**batch, "target_feature": feature}, outputs)["total"]
    target, moved = tape.gradient(total, [feature, code])
    assert target is None
    assert np.abs(moved).max() > 0


def test_the_plain_feature_is_hashed_and_nothing_is_decoded():
    model, batch = small_model("djsrh"), make_batch()
    outputs = model(batch)
    np.testing.assert_array_equal(outputs["image_fused"], batch["feature"])
    kernel, bias = model.image_network.hash_layer.get_weights()
    np.testing.assert_allclose(
        outputs["image_hash"], batch["feature"].numpy() @ kernel + bias, rtol=1e-5, atol=1e-6
    )
    assert "text_from_image" not in outputs
    assert model.image_decoder is None and model.text_decoder is None


def test_the_recipe_is_used_where_nothing_is_given(program, tmp_path):
    outcome = program("train", *features_flags(tmp_path), "--method=djsrh", "--lr_text=0.02")
    assert outcome.code == 0, outcome.err[-2000:]
    flags = json.loads((tmp_path / "run" / "flags.json").read_text())
    assert flags["momentum"] == 0.9 and flags["nesterov"] is False
    assert flags["lr_text"] == 0.02 and flags["epochs"] == 1
