"""DSAH: its loss is DSPRH's first family with constants of its own; its decoders."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from method_helpers import check_small_gradients, close, loss_batch, make_batch, small_model

from dsprh_tf.methods import DSAH, DSPRH

# DSPRH's own defaults are 1 and 0.5.
CONSTANTS = {"diagonal_target": 1.5, "symmetry_weight": 2.0}
OTHERS = {
    "image_weight": 0.5,
    "scale": 1.2,
    "within_weight": 0.7,
    "diagonal_target": 1.1,
    "symmetry_weight": 0.6,
}


def test_every_setting_of_the_loss_has_a_case():
    own = {field.name for field in dataclasses.fields(DSAH.Settings)}
    assert own == {*OTHERS, "decoder_input", "text_hidden"}


@pytest.mark.parametrize(
    "settings", [{}, *({name: value} for name, value in OTHERS.items())], ids=str
)
def test_the_loss_is_l1_of_dsprh_with_its_own_constants(settings):
    # DSPRH's terms are compared with naive loops in test_dsprh.py.
    batch, outputs = loss_batch()
    found = DSAH(8, **settings).loss(batch, outputs)
    oracle = DSPRH(8, beta=0.0, gamma=0.0, **{**CONSTANTS, **settings}).loss(batch, outputs)
    assert set(found) == {*DSAH.terms, "total"} == set(oracle)
    for name, value in oracle.items():
        close(found[name], value)
    default = DSAH(8).loss(batch, outputs)["total"]
    assert not settings or float(found["total"]) != pytest.approx(float(default), rel=1e-3)


def test_watched_terms_move_nothing():
    batch, outputs = loss_batch()
    codes = [outputs["image_code"], outputs["text_code"]]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(codes)
        terms = DSAH(8).loss(batch, outputs)
        first = terms["L_F"] + terms["L_R"] + terms["L_W"]
    assert float(terms["L_2"]) > 0 and float(terms["L_3"]) > 0
    for ours, expected in zip(*(tape.gradient(x, codes) for x in (terms["total"], first))):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size, blank", [(1, False), (1, True), (3, True)])
def test_a_batch_of_one_and_blank_pairs_have_small_gradients(size, blank):
    check_small_gradients(DSAH(8), size, blank)


def test_the_plain_feature_is_hashed():
    model, batch = small_model("dsah"), make_batch()
    outputs = model(batch)
    np.testing.assert_array_equal(outputs["image_fused"], batch["feature"])
    kernel, bias = model.image_network.hash_layer.get_weights()
    np.testing.assert_allclose(
        outputs["image_hash"], batch["feature"].numpy() @ kernel + bias, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("decoder_input, reaches", [("tanh", True), ("sign", False)])
def test_the_released_decoder_is_inert(decoder_input, reaches):
    model = small_model("dsah", decoder_input=decoder_input)
    batch = make_batch()
    with tf.GradientTape() as tape:
        decoded = tf.reduce_sum(model(batch)["text_from_image"] ** 2)
    gradients = tape.gradient(decoded, model.image_variables)
    hash_size = len(model.image_network.trainable_variables)
    assert all(g is not None for g in gradients[:hash_size]) == reaches
    assert any(np.any(g.numpy()) for g in gradients[hash_size:])  # the decoder learns
