"""Layers against naive NumPy (and PyTorch where installed), degenerate maps, mixed precision."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from method_helpers import normal, unit_mean_square, values

from dsprh_tf import layers
from dsprh_tf.layers import (
    CovariancePooling,
    FeatureFusion,
    PyramidPooling,
    SeededDropout,
    StripPooling,
    l2_normalize,
    newton_schulz_sqrt,
)


def randomise(layer, seed=0):
    """Every weight random, so that none can be ignored or exchanged; variances positive."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.uniform(0.2, 0.9, w.shape).astype(w.dtype) for w in layer.get_weights()])
    return layer


def batch_norm(x, layer):
    gamma, beta, mean, variance = layer.get_weights()
    return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta


def conv1d(x, kernel):
    """Three taps with zero padding: x [length, in], kernel [3 * in, out], tap by tap."""
    kernel = kernel.reshape(3, -1, kernel.shape[-1])
    padded = np.pad(x, ((1, 1), (0, 0)))
    return np.stack([
        sum(padded[i + tap] @ kernel[tap] for tap in range(3)) for i in range(len(x))
    ])  # fmt: skip


# Strip pooling


@pytest.mark.parametrize("channels, strips", [(None, 5), (2, 2), (256, 5)])
def test_strip_pooling_equals_the_naive_loop(channels, strips):
    x = normal(2, 4, 6, 5)
    layer = StripPooling(channels=channels)
    layer(x)
    randomise(layer)
    assert layer.column_conv.get_weights()[0].shape == (3 * 5, strips)
    kernel, bias = layer.gate_conv.get_weights()  # [1, 1, strips, 5]
    kernel -= 0.5  # gates on both sides of 1/2
    layer.gate_conv.set_weights([kernel, bias])
    expected = np.empty_like(x)
    for n in range(len(x)):
        column = np.stack([x[n, i, :, :].mean(axis=0) for i in range(4)])
        row = np.stack([x[n, :, j, :].mean(axis=0) for j in range(6)])
        column = batch_norm(conv1d(column, layer.column_conv.get_weights()[0]), layer.column_norm)
        row = batch_norm(conv1d(row, layer.row_conv.get_weights()[0]), layer.row_norm)
        for i in range(4):
            for j in range(6):
                strip = np.maximum(column[i] + row[j], 0)
                gate = 1 / (1 + np.exp(-(strip @ kernel[0, 0] + bias)))
                expected[n, i, j] = x[n, i, j] * gate
    np.testing.assert_allclose(layer(x, training=False), expected, rtol=1e-5, atol=1e-6)


def test_strip_pooling_normalises_by_the_batch_only_while_training():
    layer = StripPooling(momentum=0.8)
    x = normal(3, 4, 4, 2)
    still = layer(x, training=False)
    before = [w.copy() for w in layer.get_weights()]
    np.testing.assert_array_equal(layer(x, training=False), still)
    for old, new in zip(before, layer.get_weights()):
        np.testing.assert_array_equal(old, new)
    layer(x, training=True)
    strips = np.stack([conv1d(c, layer.column_conv.get_weights()[0]) for c in x.mean(axis=2)])
    mean = layer.column_norm.get_weights()[2]
    np.testing.assert_allclose(mean, 0.2 * strips.mean(axis=(0, 1)), rtol=1e-4, atol=1e-6)


def test_strip_pooling_does_not_overflow_on_large_maps_in_float16():
    y = StripPooling(dtype="mixed_float16")(np.full((1, 160, 160, 1), 1000, np.float32))
    assert y.dtype == tf.float16
    assert np.isfinite(y.numpy()).all()


# Covariance pooling


def naive_newton_schulz(a, iterations):
    y, z, identity = a, np.eye(len(a)), np.eye(len(a))
    for _ in range(iterations):
        step = 0.5 * (3 * identity - z @ y)
        y, z = y @ step, step @ z
    return y


def naive_covariance(positions, epsilon):
    """positions [h * w, C'] in float64, one pair of channels at a time."""
    n, size = positions.shape
    mean = positions.mean(axis=0)
    covariance = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            products = (positions[:, i] - mean[i]) * (positions[:, j] - mean[j])
            covariance[i, j] = products.sum() / n + (epsilon if i == j else 0)
    return covariance


def upper_triangle(matrix):
    return [matrix[i, j] for i in range(len(matrix)) for j in range(i, len(matrix))]


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_newton_schulz_equals_the_coupled_loop(iterations):
    x = np.random.default_rng(1).standard_normal((3, 6, 9))
    a = x @ x.transpose(0, 2, 1)
    a /= np.trace(a, axis1=1, axis2=2)[:, None, None]
    expected = np.stack([naive_newton_schulz(m, iterations) for m in a])
    np.testing.assert_allclose(newton_schulz_sqrt(tf.constant(a), iterations), expected, rtol=1e-12)


def test_newton_schulz_converges_to_the_square_root():
    values = np.array([0.4, 0.3, 0.2, 0.1])
    vectors, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))
    matrix = tf.constant((vectors * values @ vectors.T)[None])
    root = vectors * np.sqrt(values) @ vectors.T
    errors = [np.abs(newton_schulz_sqrt(matrix, n)[0].numpy() - root).max() for n in (1, 2, 5, 12)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.05
    assert errors[3] < 1e-10


def test_newton_schulz_gradient_equals_finite_differences():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 5, 8))
    a = x @ x.transpose(0, 2, 1) / 60
    upstream, direction = rng.standard_normal((2, 1, 5, 5))
    variable = tf.Variable(a)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(newton_schulz_sqrt(variable, 5) * upstream)
    gradient = tape.gradient(loss, variable)

    def value(step):
        return np.sum(naive_newton_schulz((a + step * direction)[0], 5) * upstream[0])

    slope = (value(1e-6) - value(-1e-6)) / 2e-6
    assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("iterations", [1, 5])
def test_covariance_pooling_equals_the_naive_loop(iterations):
    x = normal(2, 3, 5, 6) * 3 + 1
    layer = CovariancePooling(channels=4, iterations=iterations, epsilon=1e-3)
    layer(x)
    randomise(layer)
    kernel = layer.reduce_conv.get_weights()[0][0, 0]
    kernel -= 0.5
    layer.reduce_conv.set_weights([kernel[None, None]])
    pooled = layer(x, training=False).numpy()
    assert pooled.shape == (2, 10)
    for n in range(2):
        reduced = np.stack([position @ kernel for position in x[n].reshape(15, 6)])
        reduced = np.maximum(batch_norm(reduced.astype(np.float64), layer.reduce_norm), 0)
        covariance = naive_covariance(reduced, 1e-3)
        trace = np.trace(covariance)
        root = naive_newton_schulz(covariance / trace, iterations) * np.sqrt(trace)
        np.testing.assert_allclose(pooled[n], upper_triangle(root), rtol=1e-4, atol=1e-5)


def test_covariance_pooling_is_the_square_root_by_eigenvalues_given_enough_steps():
    x = normal(2, 7, 7, 4)
    layer = CovariancePooling(channels=None, iterations=15, epsilon=1e-5)
    pooled = layer(x).numpy()
    assert not layer.weights
    for n in range(2):
        values, vectors = np.linalg.eigh(naive_covariance(x[n].reshape(49, 4).astype(float), 1e-5))
        root = vectors * np.sqrt(values) @ vectors.T
        np.testing.assert_allclose(pooled[n], upper_triangle(root), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 3, 4), (1, 1, 1, 4)])
def test_a_constant_map_has_finite_pooling_and_gradient(shape):
    layer = CovariancePooling(channels=None, epsilon=1e-5)
    x = tf.Variable(tf.fill(shape, 7.0))
    with tf.GradientTape() as tape:
        pooled = layer(x)
        loss = tf.reduce_sum(pooled**2)
    assert np.isfinite(tape.gradient(loss, x)).all()
    # Covariance epsilon I: five steps take its root near sqrt(epsilon) I.
    expected = naive_newton_schulz(np.eye(4) / 4, 5) * np.sqrt(4e-5)
    np.testing.assert_allclose(pooled[0], upper_triangle(expected), rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("policy, dtype", [("mixed_float16", "float16"),
                                           ("mixed_bfloat16", "bfloat16")])  # fmt: skip
def test_covariance_pooling_computes_in_float32_under_mixed_precision(policy, dtype):
    # A channel of mean 200 and deviation 1: half precision inside would lose its variance,
    # and 2,000 times that the float16 range. The values themselves are exact in both types.
    x = np.random.default_rng(0).integers(-1, 2, (2, 9, 9, 3)).astype(np.float32)
    x[..., 0] += 200
    x[..., 1] *= 2048
    exact = CovariancePooling(channels=None)(x).numpy()
    pooled = CovariancePooling(channels=None, dtype=policy)(x)
    assert pooled.dtype == dtype
    np.testing.assert_array_equal(pooled, tf.cast(exact, dtype))


def test_covariance_pooling_equals_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = normal(3, 5, 4, 6, seed=4)
    layer = CovariancePooling(channels=None, iterations=5, epsilon=1e-4)
    upstream = normal(3, 21, seed=5)
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        pooled = layer(variable)
    gradient = tape.gradient(pooled, variable, output_gradients=tf.constant(upstream))
    theirs = torch.tensor(x.astype(np.float64), requires_grad=True)
    covariance = torch.stack([torch.cov(m.reshape(20, 6).T, correction=0) for m in theirs])
    covariance = covariance + 1e-4 * torch.eye(6)
    trace = covariance.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    y, z = covariance / trace, torch.eye(6, dtype=torch.float64).expand(3, 6, 6)
    for _ in range(5):
        step = 1.5 * torch.eye(6, dtype=torch.float64) - 0.5 * z @ y
        y, z = y @ step, step @ z
    rows, columns = torch.triu_indices(6, 6)
    expected = (y * trace.sqrt())[:, rows, columns]
    expected.backward(torch.tensor(upstream, dtype=torch.float64))
    np.testing.assert_allclose(pooled, expected.detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad, rtol=1e-3, atol=1e-5)


# Feature fusion


def test_fusion_equals_the_naive_loop_and_ignores_scale():
    features = [normal(3, 4, seed=s) for s in range(3)]
    features[1][2] = 0  # a zero row adds nothing
    weights = (0.25, 0.25, 0.5)
    expected = np.zeros((3, 4))
    for w, f in zip(weights, features):
        for n in range(3):
            expected[n] += w * f[n] / (np.linalg.norm(f[n]) or 1)
    layer = FeatureFusion(weights)
    np.testing.assert_allclose(layer(features), expected, rtol=1e-5)
    scaled = [f * s for f, s in zip(features, (1e-3, 1.0, 1e4))]
    np.testing.assert_allclose(layer(scaled), expected, rtol=1e-5)


def test_a_zero_row_stays_zero_and_has_no_gradient():
    x = tf.Variable([[0.0, 0.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        y = l2_normalize(x)
        loss = tf.reduce_sum(y * [[5.0, 5.0], [1.0, 0.0]])
    np.testing.assert_allclose(y, [[0, 0], [0.6, 0.8]], rtol=1e-6)
    expected = [[0, 0], [1 / 5 - 3 * 3 / 125, -3 * 4 / 125]]
    np.testing.assert_allclose(tape.gradient(loss, x), expected, rtol=1e-5)


def test_unit_mean_square_equals_the_naive_computation():
    x = normal(3, 5)
    x[1] = 0
    np.testing.assert_allclose(layers.unit_mean_square(x), unit_mean_square(x), rtol=1e-5)


# Means over regions


def test_pyramid_pooling_is_the_mean_of_each_region():
    x = values(2, 8, 4, 3)
    expected = [x.mean((1, 2))]
    expected += [x[:, 4 * r : 4 * r + 4, 2 * c : 2 * c + 2].mean((1, 2)) for r in (0, 1)
                 for c in (0, 1)]  # fmt: skip
    found = PyramidPooling((1, 2))(x)
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-5)
    with pytest.raises(ValueError, match="levels is \\(0,\\), expected regions per side"):
        PyramidPooling((0,))


# Dropout


def test_seeded_dropout_sets_its_share_to_zero_and_scales_the_others():
    x = np.ones((40, 50), np.float32)
    layer = SeededDropout(0.2, seed=3)
    np.testing.assert_array_equal(layer(x), x)
    first, second = (layer(x, training=True).numpy() for _ in range(2))
    for y in (first, second):
        assert (y == 0).mean() == pytest.approx(0.2, abs=0.03)
        np.testing.assert_allclose(y[y > 0], 1 / 0.8, rtol=1e-6)
    assert (first != second).any()
    again, other = SeededDropout(0.2, seed=3), SeededDropout(0.2, seed=4)
    np.testing.assert_array_equal(again(x, training=True), first)
    assert (other(x, training=True).numpy() != first).any()
    # The masks go on from the counter.
    again.counter.assign(layer.counter - 1)
    np.testing.assert_array_equal(again(x, training=True), second)
    np.testing.assert_array_equal(SeededDropout(0.0)(x, training=True), x)


# Bad arguments and inputs

PIXELS = np.zeros((2, 4, 4, 3), np.float32)
ROWS = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: StripPooling(channels=0), "channels is 0, expected a positive number or None"),
        (lambda: CovariancePooling(channels=-1), "channels is -1, expected a positive number"),
        (lambda: CovariancePooling(iterations=0), "iterations is 0, expected at least 1"),
        (lambda: CovariancePooling(epsilon=0), "epsilon is 0, expected a positive number"),
        (lambda: CovariancePooling(epsilon=float("nan")), "epsilon is nan, expected a positive"),
        (lambda: SeededDropout(1.0), r"got the dropout rate 1.0, expected a number in \[0, 1\)"),
        (lambda: SeededDropout(-0.1), "got the dropout rate -0.1"),
        (lambda: FeatureFusion(()), r"fusion weights are \(\), expected non-negative"),
        (lambda: FeatureFusion((1, -1)), r"fusion weights are \(1.0, -1.0\), expected non-neg"),
        (lambda: FeatureFusion((0, 0)), "not all zero"),
        (lambda: FeatureFusion((float("nan"), 1)), "fusion weights are"),
        (lambda: StripPooling()(ROWS), r"StripPooling received an input of shape \(2, 3\)"),
        (lambda: CovariancePooling()(ROWS), r"CovariancePooling received .* before any global"),
        (lambda: FeatureFusion((1, 1))([ROWS]), "received 1 features, expected 2, one per weight"),
        (lambda: FeatureFusion((1, 1))([ROWS, ROWS[:, :2]]), r"received sizes \[3, 2\]"),
        (
            lambda: StripPooling()(keras.Input((4, 4, None))),
            "StripPooling received an unknown size of the channels axis, expected a fixed one",
        ),
        (
            lambda: CovariancePooling()(keras.Input((4, 4, None))),
            "CovariancePooling received an unknown size of the channels axis",
        ),
    ],
)
def test_bad_arguments_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_maps_of_unknown_size_are_pooled():
    inputs = keras.Input((None, None, 3))
    outputs = CovariancePooling(channels=None)(StripPooling()(inputs))
    model = keras.Model(inputs, outputs)
    assert tuple(outputs.shape) == (None, 6)
    assert model(normal(2, 5, 7, 3)).shape == (2, 6)
