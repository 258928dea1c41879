"""Losses against naive NumPy loops, with no triplet, huge inputs and zero rows."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from method_helpers import (
    close,
    codes,
    cosines,
    mse,
    naive_pairwise,
    naive_soft_similarity,
    naive_triplet,
    normal,
    supervised_codes,
    unit_rows,
)

from dsprh_tf import losses
from dsprh_tf.compat import KERAS_3

# Similarities


def test_similarities_equal_the_naive_loop():
    a, b = normal(4, 5), normal(3, 5, seed=1)
    a[1] = 0  # a zero row has cosine 0 with everything
    np.testing.assert_allclose(losses.cosine_matrix(a, b), cosines(a, b), atol=1e-6)
    features = np.abs(a)
    s = losses.feature_similarity(features)
    np.testing.assert_allclose(s, 2 * cosines(features, features) - 1, atol=1e-6)
    assert float(s[1, 1]) == -1
    other = normal(4, 4, seed=2)
    joint = losses.joint_similarity(s, other, 0.9)
    for i in range(4):
        for j in range(4):
            close(joint[i, j], 0.9 * s[i, j] + 0.1 * other[i, j])


def test_shared_labels_equal_the_naive_loop():
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], np.uint8)
    expected = [[bool((x & y).any()) for y in labels] for x in labels]
    np.testing.assert_array_equal(losses.shared_labels(labels), expected)


def test_label_similarity_is_the_share_of_common_labels():
    labels = tf.constant([[1.0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]])
    expected = np.eye(4)
    expected[0, 1] = expected[1, 0] = 1 / np.sqrt(2)
    expected[3, 3] = 0  # no label: like nothing, itself included
    np.testing.assert_allclose(losses.label_similarity(labels), expected, atol=1e-6)


# L_F, L_R, L_W


def test_reconstruction_loss_crosses_modalities_and_stops_gradients_into_targets():
    text_from_image, image_from_text = tf.Variable(normal(3, 4)), tf.Variable(normal(3, 5, seed=1))
    text, image = tf.Variable(normal(3, 4, seed=2)), tf.Variable(normal(3, 5, seed=3))
    text[2].assign(tf.zeros(4))
    with tf.GradientTape() as tape:
        loss = losses.reconstruction_loss(text_from_image, image_from_text, text, image)
    unit = [unit_rows(target.numpy()) for target in (text, image)]
    close(loss, mse(text_from_image.numpy(), unit[0]) + mse(image_from_text.numpy(), unit[1]))
    gradients = tape.gradient(loss, [text_from_image, image_from_text, text, image])
    assert gradients[2] is None
    assert gradients[3] is None
    np.testing.assert_allclose(gradients[0], 2 * (text_from_image - unit[0]) / 12, rtol=1e-5)


@pytest.mark.parametrize("target, symmetry, diagonal", [(1.0, 0.5, 1.0), (1.5, 2.0, 0.1)])
def test_ranking_loss_equals_the_naive_loop(target, symmetry, diagonal):
    s = normal(4, 4)
    expected = diagonal * np.mean([(target - s[i, i]) ** 2 for i in range(4)])
    expected += symmetry * np.mean([(s[i, j] - s[j, i]) ** 2 for i in range(4) for j in range(4)])
    close(losses.ranking_loss(tf.constant(s), target, symmetry, diagonal), expected)
    if diagonal == 1:
        close(losses.ranking_loss(tf.constant(s), target, symmetry), expected)


def test_similarity_loss_equals_the_naive_loop():
    ii, tt, it, s_i, s_t, joint = (normal(4, 4, seed=s) for s in range(6))
    expected = 0.1 * (mse(1.5 * s_i, ii) + mse(1.5 * s_t, tt))
    expected += sum(mse(1.5 * joint, s) for s in (ii, tt, it))
    close(losses.similarity_loss(ii, tt, it, s_i, s_t, joint, 1.5, 0.1), expected)


# L_2


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("margin", [0.001, 0.4])
@pytest.mark.parametrize("mask", ["pair", "symmetric", "asymmetric", "sparse"])
def test_triplet_loss_equals_the_naive_loop(mask, margin, reduction):
    image, text = codes(6)
    rng = np.random.default_rng(3)
    related = {
        "pair": np.eye(6, dtype=bool),
        "symmetric": np.add.outer(np.arange(6), np.arange(6)) % 3 == 0,
        "asymmetric": rng.random((6, 6)) < 0.4,
        "sparse": np.arange(36).reshape(6, 6) == 8,
    }[mask]
    loss = losses.cosine_triplet_loss(image, text, tf.constant(related), margin, reduction)
    close(loss, naive_triplet(image, text, related, margin, reduction))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("size, value", [(1, True), (4, True), (4, False)])
def test_triplet_loss_without_a_valid_triplet_is_zero(size, value, reduction):
    image, text = (tf.Variable(c) for c in codes(size))
    related = tf.fill([size, size], value)
    with tf.GradientTape() as tape:
        loss = losses.cosine_triplet_loss(image, text, related, 0.1, reduction)
    assert float(loss) == 0
    for gradient in tape.gradient(loss, [image, text]):
        np.testing.assert_array_equal(gradient, np.zeros_like(image))


def test_triplet_loss_survives_zero_rows():
    image, text = codes(4)
    image[0] = 0
    text[2] = 0
    image, text, related = tf.Variable(image), tf.Variable(text), np.eye(4, dtype=bool)
    with tf.GradientTape() as tape:
        loss = losses.cosine_triplet_loss(image, text, related, 0.2)
    close(loss, naive_triplet(image.numpy(), text.numpy(), related, 0.2, "mean"))
    for gradient in tape.gradient(loss, [image, text]):
        assert np.abs(gradient).max() < 10


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("block", [1, 100, 200, 10**6])
def test_triplet_loss_in_blocks(block, reduction, monkeypatch):
    """Values and gradients are those of automatic differentiation, in graphs and with XLA too."""
    image, text = (tf.constant(c) for c in codes(7))
    related = tf.constant(np.random.default_rng(3).random((7, 7)) < 0.4)

    def plain(image, text):
        cosines, loss = losses.cosine_matrix(image, text), 0.0
        for s, p in ((cosines, related), (tf.transpose(cosines), tf.transpose(related))):
            valid = tf.cast(p[:, :, None] & ~p[:, None, :], tf.float32)
            total = tf.reduce_sum(tf.nn.relu(s[:, None, :] - s[:, :, None] + 0.3) * valid)
            loss += total if reduction == "sum" else total / tf.reduce_sum(valid)
        return loss

    def both(loss, image, text):
        with tf.GradientTape() as tape:
            tape.watch([image, text])
            value = loss(image, text)
        return value, *tape.gradient(value, [image, text])

    def ours(image, text):
        return losses.cosine_triplet_loss(image, text, related, 0.3, reduction)

    monkeypatch.setattr(losses, "_BLOCK_TRIPLETS", block)
    expected = both(plain, image, text)
    spec = tf.TensorSpec([None, None], tf.float32)
    for run in (
        both,
        tf.function(both, jit_compile=True),
        tf.function(both, input_signature=None),
        lambda loss, *c: tf.function(lambda a, b: both(loss, a, b), [spec, spec])(*c),
    ):
        for found, right in zip(run(ours, image, text), expected):
            np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)


# L_3


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_pairwise_loss_equals_the_naive_loop(reduction):
    image, text = codes(5)
    target = np.random.default_rng(1).random((5, 5)).astype(np.float32)
    entries = naive_pairwise(image, text, target)
    expected = entries.sum() if reduction == "sum" else entries.mean()
    close(losses.pairwise_loss(image, text, target, reduction), expected)


def test_pairwise_loss_does_not_overflow():
    image = tf.Variable([[3e4], [-3e4]])  # omega up to 4.5e8
    target = tf.constant([[0.0, 0.5], [0.0, 1.0]])
    with tf.GradientTape() as tape:
        loss = losses.pairwise_loss(image, tf.constant([[3e4], [3e4]]), target)
    # omega = +-4.5e8; softplus is omega or 0.
    close(loss, (4.5e8 + 0.5 * 4.5e8 + 0 + 4.5e8) / 4)
    assert np.isfinite(tape.gradient(loss, image)).all()


# Losses that read labels, and what they need


def test_soft_similarity_equals_the_naive_computation():
    image, text, labels = supervised_codes()
    for scale in (1.0, 1.5):
        found = losses.soft_similarity_loss(image, text, labels, scale)
        close(found, naive_soft_similarity(image, text, labels, scale), rel=1e-4)


def test_signs_are_those_of_packed_codes():
    np.testing.assert_array_equal(losses.signs(tf.constant([-2.0, 0.0, 3.0])), [-1, 1, 1])


def test_the_total_is_the_weighted_sum_in_the_order_of_the_terms():
    terms = {"b": tf.constant(2.0), "a": tf.constant(3.0)}
    found = losses.with_total(terms, {"a": 0.1, "b": 10.0})
    assert list(found) == ["b", "a", "total"]
    close(found["total"], 20.3)


# Independent oracles


def test_losses_equal_those_of_keras_where_it_has_them():
    image, text = codes(5)
    target = np.random.default_rng(1).random((5, 5)).astype(np.float32)
    omega = image @ text.T / 2
    oracle = keras.losses.BinaryCrossentropy(from_logits=True)(target, omega)
    close(losses.pairwise_loss(image, text, target), oracle)
    oracle = keras.losses.CosineSimilarity(reduction="sum")(image, text)
    close(-tf.linalg.trace(losses.cosine_matrix(image, text)), oracle)
    close(losses.mean_squared_error(image, text), keras.losses.MeanSquaredError()(image, text))


@pytest.mark.skipif(KERAS_3, reason="TensorFlow Addons does not run beside Keras 3")
def test_losses_equal_those_of_tensorflow_addons():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_addons as tfa
    image, _ = codes(5)
    distance = tfa.losses.metric_learning.angular_distance(tf.constant(image))
    np.testing.assert_allclose(1 - losses.cosine_matrix(image, image), distance, atol=1e-6)
    # Addons mines the hardest triplets of one set. Two pairs whose images are opposite, and
    # whose texts are, have only those triplets that cross modalities: four, two per direction.
    image = np.array([[1, 0.1, 0], [-1, 0.1, 0]], np.float32)
    text = np.array([[0.3, 1, 0.2], [-0.1, -1, 0.6]], np.float32)
    for margin in (0.001, 0.5, 2.0):
        oracle = tfa.losses.TripletHardLoss(margin, distance_metric="angular")(
            tf.constant([0, 1, 0, 1]), np.concatenate([image, text])
        )
        ours = losses.cosine_triplet_loss(image, text, np.eye(2, dtype=bool), margin)
        assert margin < 0.01 or float(ours) > 0
        close(ours, 2 * oracle)
