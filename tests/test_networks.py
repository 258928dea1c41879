"""Networks: how they are put together, which branches exist, what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from method_helpers import values

from dsprh_tf.networks import (
    ImageNetwork,
    TextNetwork,
    fused_image_network,
    plain_networks,
    straight_through_sign,
)

INPUTS = {"feature": values(3, 6), "conv_map": values(3, 4, 5, 4, seed=1)}


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)  # a row may be zero


def relu_dense(x, layer):
    kernel, bias = layer.get_weights()
    return np.maximum(x @ kernel + bias, 0)


def dense(x, layer):
    kernel, bias = layer.get_weights()
    return x @ kernel + bias


def test_image_network_fuses_three_features():
    network = ImageNetwork(8, (0.2, 0.3, 0.5), cov_channels=3)
    fused, hashed = network(INPUTS).values()
    strip, strip_covariance, strip_dense = network.branches[0]
    covariance, plain_dense = network.branches[1]
    f1 = relu_dense(strip_covariance(strip(INPUTS["conv_map"])).numpy(), strip_dense)
    f2 = relu_dense(covariance(INPUTS["conv_map"]).numpy(), plain_dense)
    expected = 0.2 * unit(f1) + 0.3 * unit(f2) + 0.5 * unit(INPUTS["feature"])
    np.testing.assert_allclose(fused, expected, rtol=1e-4, atol=1e-6)
    scaled = 6**0.5 * expected
    np.testing.assert_allclose(hashed, dense(scaled, network.hash_layer), rtol=1e-4, atol=1e-5)


def test_every_weight_of_the_image_network_is_tracked_once():
    network = ImageNetwork(8, cov_channels=3)
    network(INPUTS)
    parts = [layer for branch in network.branches for layer in branch] + [network.hash_layer]
    expected = {id(v) for part in parts for v in part.trainable_variables}
    # Strip pooling 8, covariance pooling 3 and dense 2 on one branch, 3 and 2 on the other.
    assert len(expected) == 8 + 3 + 2 + 3 + 2 + 2
    assert sorted(id(v) for v in network.trainable_variables) == sorted(expected)


@pytest.mark.parametrize("weights, branches", [
    ((0.5, 0, 0.5), 1), ((0, 0.5, 0.5), 1), ((0, 0, 1), 0), ((0.5, 0.5, 0), 2),
])  # fmt: skip
def test_a_branch_of_weight_zero_is_not_built(weights, branches):
    network = ImageNetwork(8, weights, cov_channels=3)
    fused, hashed = network(INPUTS).values()
    assert len(network.branches) == branches
    assert ("conv_map" in network.reads) == (branches > 0)
    assert fused.shape == (3, 6)
    assert hashed.shape == (3, 8)


def test_precomputed_features_need_no_map():
    network = ImageNetwork(8, (0, 0, 1))
    fused = network({"feature": INPUTS["feature"]})["fused"]
    np.testing.assert_allclose(fused, unit(INPUTS["feature"]), rtol=1e-5)
    network = ImageNetwork(8, (0, 0, 1), normalize=False)
    fused, hashed = network({"feature": INPUTS["feature"]}).values()
    np.testing.assert_array_equal(fused, INPUTS["feature"])
    np.testing.assert_allclose(hashed, dense(INPUTS["feature"], network.hash_layer), rtol=1e-5)


def test_average_pooling_takes_the_place_of_the_covariance():
    network = ImageNetwork(8, (0, 1, 0), covariance=False)
    fused = network(INPUTS)["fused"]
    mean = INPUTS["conv_map"].mean(axis=(1, 2))
    expected = unit(relu_dense(mean, network.branches[0][-1]))
    np.testing.assert_allclose(fused, expected, rtol=1e-4, atol=1e-6)


def test_text_network_equals_numpy():
    network = TextNetwork(8, hidden=7)
    bow = (values(3, 5) < 0.5).astype(np.float32)
    hashed = network(bow)["hash"]
    expected = dense(relu_dense(bow, network.hidden_layer), network.hash_layer)
    np.testing.assert_allclose(hashed, expected, rtol=1e-5, atol=1e-6)


def test_plain_networks_hash_the_feature_as_it_is():
    image, text = plain_networks(8, 7)
    fused, hashed = image({"feature": 3 * INPUTS["feature"]}).values()
    np.testing.assert_array_equal(fused, 3 * INPUTS["feature"])
    np.testing.assert_allclose(hashed, dense(fused.numpy(), image.hash_layer), rtol=1e-5)
    assert (image.reads, text.bits, text.hidden) == (("feature",), 8, 7)


@pytest.mark.parametrize("channels, kept", [(3, 3), (0, None)])
def test_fused_networks_take_the_map_where_there_is_one(channels, kept):
    weights = (0.2, 0.3, 0.5)
    network = fused_image_network(8, {"conv_map": (4, 5, 4)}, weights, channels, True)
    assert (network.fusion_weights, network.cov_channels) == (weights, kept)
    for sizes in ({}, {"conv_map": None}):
        network = fused_image_network(16, sizes, weights, channels, False)
        assert (network.fusion_weights, network.covariance) == ((0, 0, 1), False)
        assert network.bits == 16


def test_straight_through_sign():
    x = tf.Variable([-2.0, -0.0, 0.0, 0.3])
    upstream = tf.constant([1.0, -2.0, 3.0, 0.5])
    with tf.GradientTape() as tape:
        y = straight_through_sign(x)
    np.testing.assert_array_equal(y, [-1, 1, 1, 1])
    np.testing.assert_array_equal(tape.gradient(y, x, output_gradients=upstream), upstream)


@pytest.mark.parametrize("make, message", [
    (lambda: ImageNetwork(8, (1, 1)), r"fusion_weights is \(1.0, 1.0\), expected three non-neg"),
    (lambda: ImageNetwork(8, (0, 0, 0)), r"fusion_weights is \(0.0, 0.0, 0.0\), .* not all zero"),
    (lambda: ImageNetwork(8, (-1, 0, 2)), r"fusion_weights is \(-1.0, 0.0, 2.0\), expected three"),
    (lambda: ImageNetwork(8, (float("nan"), 0, 2)), r"fusion_weights is \(nan"),
    (lambda: ImageNetwork(8, normalize=False), r"normalize=False needs fusion weights \(0, 0"),
    (
        lambda: ImageNetwork(8).build({"feature": (None, 6)}),
        "the inputs have no conv_map, .* set them to 0,0,1 for precomputed features",
    ),
])  # fmt: skip
def test_bad_arguments_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
