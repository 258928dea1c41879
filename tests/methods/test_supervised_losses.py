"""The losses that read labels, against naive NumPy loops, and their behaviour at the edges."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from dsprh_tf import supervised_losses as losses

M, K, L, D = 5, 8, 4, 3


def make(seed=0):
    """Codes of both sides and labels; the last item has none, two items have the same."""
    rng = np.random.default_rng(seed)
    image, text = (np.tanh(rng.normal(size=(M, K))).astype(np.float32) for _ in range(2))
    labels = (rng.random((M, L)) < 0.5).astype(np.float32)
    labels[0] = labels[1] = [1, 0, 1, 0]
    labels[-1] = 0
    return image, text, labels


def cos(a, b):
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms else 0.0


def mean_over_pairs(image, text, function):
    """Mean over (II, TT, IT) and all i, j of function(code i, code j, i, j)."""
    values = [
        function(a[i], b[j], i, j)
        for a, b in ((image, image), (text, text), (image, text))
        for i in range(M)
        for j in range(M)
    ]
    return np.mean(values)


def test_label_similarity_is_the_share_of_common_labels():
    labels = tf.constant([[1.0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]])
    expected = np.eye(4)
    expected[0, 1] = expected[1, 0] = 1 / np.sqrt(2)
    expected[3, 3] = 0  # no label: like nothing, itself included
    np.testing.assert_allclose(losses.label_similarity(labels), expected, atol=1e-6)


def test_hard_similarity_equals_the_naive_computation():
    image, text, labels = make()

    def likelihood(a, b, i, j):
        odds = 6.0 * (cos(a, b) - 0.1)
        probability = 1 / (1 + np.exp(-odds))
        return -np.log(probability if labels[i] @ labels[j] > 0 else 1 - probability)

    found = losses.hard_similarity_loss(image, text, labels, steepness=6.0, threshold=0.1)
    assert float(found) == pytest.approx(mean_over_pairs(image, text, likelihood), rel=1e-4)


def test_soft_similarity_equals_the_naive_computation():
    image, text, labels = make()

    def error(a, b, i, j):
        return (1.5 * cos(labels[i], labels[j]) - cos(a, b)) ** 2

    found = losses.soft_similarity_loss(image, text, labels, 1.5)
    assert float(found) == pytest.approx(mean_over_pairs(image, text, error), rel=1e-4)


def test_quantization_is_the_distance_to_a_code_that_is_not_moved():
    image, text, _ = make()
    code = tf.Variable(np.sign(image + text))
    expected = (np.mean((image - code) ** 2) + np.mean((text - code) ** 2)) / 2
    with tf.GradientTape() as tape:
        found = losses.quantization_loss(image, text, code)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    gradient = tape.gradient(found, code)
    assert gradient is None or not np.any(gradient)
    assert float(losses.quantization_loss(code, code, code)) == 0


def test_signs_are_those_of_packed_codes():
    np.testing.assert_array_equal(losses.signs(tf.constant([-2.0, 0.0, 3.0])), [-1, 1, 1])


def test_balance():
    even = np.float32([[1, 1], [-1, -1]])
    constant = np.ones((2, 2), np.float32)
    assert float(losses.balance_loss(even, even)) == 0
    assert float(losses.balance_loss(constant, constant)) == 1
    assert float(losses.balance_loss(even, constant)) == 0.5


def test_classification_equals_the_naive_computation():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(M, L)).astype(np.float32), make()[2]
    p = 1 / (1 + np.exp(-logits))
    expected = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).sum(axis=1).mean()
    assert float(losses.classification_loss(logits, labels)) == pytest.approx(expected, rel=1e-5)


def test_alignment_looks_at_present_labels_alone():
    rng = np.random.default_rng(2)
    image, text = (rng.normal(size=(M, L, D)).astype(np.float32) for _ in range(2))
    labels = make()[2]
    present = [(i, j) for i in range(M) for j in range(L) if labels[i, j]]
    expected = np.mean([1 - cos(image[i, j], text[i, j]) for i, j in present])
    assert float(losses.alignment_loss(image, text, labels)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.alignment_loss(image, text, 0 * labels)) == 0
    assert float(losses.alignment_loss(image, 3 * image, labels)) == pytest.approx(0, abs=1e-5)


def test_mmd_equals_the_naive_computation():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(M, D)), rng.normal(1.0, size=(M, D))
    both = np.concatenate([a, b])
    width = np.mean([np.sum((x - y) ** 2) for x in both for y in both])

    def kernel(x, y):
        factors = (0.25, 0.5, 1, 2, 4)
        return np.mean([np.exp(-np.sum((x - y) ** 2) / (f * width)) for f in factors])

    def mean(rows, others):
        return np.mean([kernel(x, y) for x in rows for y in others])

    expected = mean(a, a) + mean(b, b) - 2 * mean(a, b)
    found = losses.maximum_mean_discrepancy(tf.constant(a, tf.float32), tf.constant(b, tf.float32))
    assert float(found) == pytest.approx(expected, rel=1e-3)


def test_mmd_is_zero_for_the_same_rows_in_any_order_and_finite_for_one_point():
    a = np.random.default_rng(4).normal(size=(M, D)).astype(np.float32)
    assert float(losses.maximum_mean_discrepancy(a, a[::-1])) == pytest.approx(0, abs=1e-6)
    point = tf.Variable(tf.ones([2, D]))
    with tf.GradientTape() as tape:
        found = losses.maximum_mean_discrepancy(point, point)
    assert float(found) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(tf.convert_to_tensor(tape.gradient(found, point))).all()


OBJECTIVES = [
    losses.HSIDHNObjective(0.2, 0.7, 0.3, 0.4, 1.2),
    losses.SDEHObjective(0.7, 0.2, 0.3, 0.4, 1.2),
]


def outputs(image, text):
    rng = np.random.default_rng(5)
    found = {}
    for side, code in (("image", image), ("text", text)):
        found[f"{side}_code"] = tf.constant(code)
        found[f"{side}_hash"] = tf.constant(2 * code)
        for name, shape in (("logits", (M, L)), ("decomposed", (M, L, D)), ("semantic", (M, D))):
            found[f"{side}_{name}"] = tf.constant(rng.normal(size=shape), tf.float32)
    return found


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["hsidhn", "sdeh"])
def test_the_total_is_the_weighted_sum_of_the_terms(objective):
    image, text, labels = make()
    terms = objective({"labels": tf.constant(labels)}, outputs(image, text))
    assert set(terms) == {*objective.terms, "total"}
    names = [f.name for f in dataclasses.fields(objective) if f.name.endswith("_weight")]
    weights = [getattr(objective, name) for name in names]
    if isinstance(objective, losses.HSIDHNObjective):
        assert names == ["hard_weight", "soft_weight", "quantization_weight", "balance_weight"]
        expected = losses.quantization_loss(image, text, np.sign(image)) * 0  # each its own sign
        expected += (np.mean((image - np.sign(image)) ** 2) + np.mean((text - np.sign(text)) ** 2)
                     ) / 2  # fmt: skip
    else:
        expected = losses.quantization_loss(image, text, np.sign(image + text))
    assert float(terms["L_Q"]) == pytest.approx(float(expected), rel=1e-5)
    total = sum(w * float(terms[name]) for w, name in zip(weights, objective.terms))
    assert float(terms["total"]) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["hsidhn", "sdeh"])
@pytest.mark.parametrize("labels", [np.zeros((M, L)), np.ones((M, L))], ids=["none", "all"])
def test_degenerate_batches_are_finite_with_their_gradients(objective, labels):
    rows = np.zeros((M, K), np.float32)
    found = {name: tf.Variable(value) for name, value in outputs(rows, rows).items()}
    with tf.GradientTape() as tape:
        terms = objective({"labels": tf.constant(labels, tf.float32)}, found)
    assert all(np.isfinite(value) for value in terms.values())
    gradients = tape.gradient(terms["total"], list(found.values()))
    for gradient in gradients:
        assert gradient is None or np.isfinite(tf.convert_to_tensor(gradient)).all()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["hsidhn", "sdeh"])
def test_labels_make_the_objective_supervised(objective):
    assert objective.needs_labels
    image, text, labels = make()
    first = objective({"labels": tf.constant(labels)}, outputs(image, text))
    other = objective({"labels": tf.constant(labels[::-1].copy())}, outputs(image, text))
    assert float(first["total"]) != float(other["total"])
