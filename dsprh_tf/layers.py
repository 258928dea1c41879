"""Keras layers: strip pooling, iSQRT-COV covariance pooling, fusion, region means, dropout.

All layers take and return channels-last tensors, round-trip through `get_config`, and keep
sensitive arithmetic in float32 under a mixed-precision policy.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

_PACKAGE = "dsprh_tf"


def _check_rank(shape, rank: int, layer: str, expected: str) -> None:
    if len(shape) != rank:
        raise ValueError(
            f"{layer} received an input of shape {tuple(shape)}, expected {expected}: "
            "hand over the convolution map before any global pooling"
        )


def _static(value, name: str, layer: str) -> int:
    if value is None:
        raise ValueError(
            f"{layer} received an unknown size of the {name} axis, expected a fixed one: "
            "give the backbone a fixed image size"
        )
    return int(value)


def l2_normalize(x: tf.Tensor) -> tf.Tensor:
    """Rows of x [..., n] divided by their l2 norm, in float32; a zero row stays zero.

    The gradient of a zero row is zero too. `tf.math.l2_normalize` would multiply it by 1e6: one
    text without a known word, whose first hash value is 0, would ruin the whole text network.
    """
    x = tf.cast(x, tf.float32)
    square = tf.reduce_sum(tf.square(x), axis=-1, keepdims=True)
    inverse = tf.math.rsqrt(tf.maximum(square, 1e-12))
    return x * tf.where(square > 1e-12, inverse, 0.0)


def unit_mean_square(x: tf.Tensor) -> tf.Tensor:
    """Rows of x [..., n] scaled to a mean square of 1; a zero row stays zero.

    The next layer then learns at the same rate whatever the scale of its input.
    """
    return tf.cast(l2_normalize(x) * x.shape[-1] ** 0.5, x.dtype)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class StripPooling(keras.layers.Layer):
    """Rank-1 spatial attention from horizontal and vertical strips.

    A map is averaged over its width and over its height; the two strips, each after a 3-tap
    convolution and batch normalisation, are added back to a full map, which gates the input:

        y = x * sigmoid(conv1x1(relu(bn(conv3x1(mean_w x)) + bn(conv1x3(mean_h x)))))

    This is the strip pooling block of SPNet (Hou et al., CVPR 2020), which DSPRH puts on conv5
    (section 3.2) and calls a tensor decomposition into rank-1 tensors (section 1): the gate of each
    channel is built from the outer sum of two vectors.

    Args:
        channels: largest number of channels of the strips after their convolutions; None for as
            many as the input has. 64 is a quarter of AlexNet's conv5, the ratio of SPNet's mixed
            pooling module; on a map of 1,280 channels wider strips cost time and brought nothing
            (RESULTS.md, "Tried once").
        momentum: of the two batch normalisations.

    Input shape: [batch, height, width, channels]. Output shape: the same.

    Example:
        gated = StripPooling()(tf.ones([2, 13, 13, 256]))  # [2, 13, 13, 256]
    """

    def __init__(self, channels=64, momentum=0.9, **kwargs):
        super().__init__(**kwargs)
        if channels is not None and channels < 1:
            raise ValueError(f"channels is {channels}, expected a positive number or None")
        self.channels = channels
        self.momentum = momentum

    def build(self, input_shape):
        """Creates the two strip convolutions and the gate for `channels` of the input."""
        _check_rank(input_shape, 4, "StripPooling", "[batch, height, width, channels]")
        batch, height, width, channels = input_shape
        channels = _static(channels, "channels", "StripPooling")
        policy = self.dtype_policy
        strips = min(channels, self.channels or channels)

        def conv():
            return keras.layers.Dense(strips, use_bias=False, dtype=policy)

        def norm():
            return keras.layers.BatchNormalization(
                momentum=self.momentum, epsilon=1e-5, dtype=policy
            )

        self.column_conv, self.column_norm = conv(), norm()
        self.row_conv, self.row_norm = conv(), norm()
        self.gate_conv = keras.layers.Conv2D(channels, 1, dtype=policy)
        self.column_conv.build((batch, height, 3 * channels))
        self.column_norm.build((batch, height, strips))
        self.row_conv.build((batch, width, 3 * channels))
        self.row_norm.build((batch, width, strips))
        self.gate_conv.build((batch, height, width, strips))
        super().build(input_shape)

    def call(self, inputs, training=None):
        """Gates the map [batch, height, width, channels] by its strips."""
        # In float32: sums over a side would overflow in float16 and lose precision in bfloat16.
        exact = tf.cast(inputs, tf.float32)
        column = tf.cast(tf.reduce_mean(exact, axis=2), inputs.dtype)  # [batch, height, channels]
        column = self.column_norm(self.column_conv(_three_taps(column)), training=training)
        row = tf.cast(tf.reduce_mean(exact, axis=1), inputs.dtype)  # [batch, width, channels]
        row = self.row_norm(self.row_conv(_three_taps(row)), training=training)
        strips = tf.nn.relu(column[:, :, None, :] + row[:, None, :, :])
        return inputs * tf.sigmoid(self.gate_conv(strips))

    def compute_output_shape(self, input_shape):
        """The input's shape."""
        return tuple(input_shape)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "channels": self.channels, "momentum": self.momentum}


def _three_taps(strip: tf.Tensor) -> tf.Tensor:
    """Each position and its two neighbours, zeros beyond the ends: [batch, n, C] -> [.., 3 C].

    A dense layer on it is a 3-tap convolution. For strips as short as these it is several times
    faster on a CPU than TensorFlow's convolution.
    """
    padded = tf.pad(strip, [[0, 0], [1, 1], [0, 0]])
    return tf.concat([padded[:, :-2], strip, padded[:, 2:]], axis=-1)


def newton_schulz_sqrt(matrix: tf.Tensor, iterations: int) -> tf.Tensor:
    """Square root of symmetric positive matrices by coupled Newton-Schulz steps.

    Y <- Y T, Z <- T Z with T = (3 I - Z Y) / 2, from Y = A, Z = I (Li et al., CVPR 2018, Eq. 4).
    It converges for eigenvalues in (0, 1], hence the division by the trace in `CovariancePooling`.

    Args:
        matrix: [batch, n, n] float32, symmetric, eigenvalues in (0, 1].
        iterations: number of steps, at least 1.

    Returns:
        [batch, n, n], the approximate square root.
    """
    three = 3.0 * tf.eye(tf.shape(matrix)[-1], dtype=matrix.dtype)
    step = 0.5 * (three - matrix)  # Z = I in the first step.
    y, z = matrix @ step, step
    for _ in range(iterations - 2):
        step = 0.5 * (three - z @ y)
        y, z = y @ step, step @ z
    if iterations > 1:  # The last step needs no new Z.
        y = 0.5 * y @ (three - z @ y)
    return y


@keras.saving.register_keras_serializable(package=_PACKAGE)
class CovariancePooling(keras.layers.Layer):
    """Global covariance pooling with a fast matrix square root (iSQRT-COV).

    Second-order statistics of the channels instead of their means: the covariance over all
    positions, its square root by Newton-Schulz iteration, and its upper triangle as the feature
    (Li et al., "Towards Faster Training of Global Covariance Pooling Networks by Iterative
    Matrix Square Root Normalization", CVPR 2018; DSPRH section 3.2).

        A = cov(x) + epsilon I,  y = sqrt(trace A) * NewtonSchulz(A / trace A),  triu(y) row-major

    After the channel reduction the arithmetic is float32 under every policy.

    Args:
        channels: channels C' after a 1x1 convolution with batch normalisation and ReLU;
            None keeps all channels and adds no convolution.
        iterations: Newton-Schulz steps (N = 5 in Li et al.).
        epsilon: added to the diagonal; a constant map has covariance 0, whose root has no
            gradient.
        momentum: of the batch normalisation.

    Input shape: [batch, height, width, channels].
    Output shape: [batch, C' (C' + 1) / 2].

    Example:
        CovariancePooling(channels=128)(tf.ones([2, 13, 13, 256]))  # [2, 8256]
    """

    def __init__(self, channels=128, iterations=5, epsilon=1e-5, momentum=0.9, **kwargs):
        super().__init__(**kwargs)
        if channels is not None and channels < 1:
            raise ValueError(f"channels is {channels}, expected a positive number or None")
        if iterations < 1:
            raise ValueError(f"iterations is {iterations}, expected at least 1")
        if not epsilon > 0:
            raise ValueError(
                f"epsilon is {epsilon}, expected a positive number: a constant map would give NaN"
            )
        self.channels = channels
        self.iterations = iterations
        self.epsilon = epsilon
        self.momentum = momentum

    def build(self, input_shape):
        """Creates the channel reduction, if any."""
        _check_rank(input_shape, 4, "CovariancePooling", "[batch, height, width, channels]")
        size = _static(input_shape[-1], "channels", "CovariancePooling")
        if self.channels is not None:
            size = self.channels
            self.reduce_conv = keras.layers.Conv2D(size, 1, use_bias=False, dtype=self.dtype_policy)
            self.reduce_norm = keras.layers.BatchNormalization(
                momentum=self.momentum, epsilon=1e-5, dtype=self.dtype_policy
            )
            self.reduce_conv.build(input_shape)
            self.reduce_norm.build((*input_shape[:-1], size))
        self._size = size
        super().build(input_shape)

    def call(self, inputs, training=None):
        """Pools the map [batch, height, width, channels] to [batch, C' (C' + 1) / 2]."""
        x = inputs
        if self.channels is not None:
            x = tf.nn.relu(self.reduce_norm(self.reduce_conv(x), training=training))
        shape = tf.shape(x)
        # [batch, positions, C']
        x = tf.reshape(tf.cast(x, tf.float32), [shape[0], shape[1] * shape[2], self._size])
        x -= tf.reduce_mean(x, axis=1, keepdims=True)
        positions = tf.cast(tf.shape(x)[1], tf.float32)
        covariance = tf.matmul(x, x, transpose_a=True) / positions  # [batch, C', C']
        covariance += self.epsilon * tf.eye(self._size)
        trace = tf.linalg.trace(covariance)[:, None, None]
        root = newton_schulz_sqrt(covariance / trace, self.iterations) * tf.sqrt(trace)
        pooled = _upper_triangle(root, self._size)
        return tf.cast(pooled, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """[batch, C' (C' + 1) / 2]."""
        size = self.channels or input_shape[-1]
        return (input_shape[0], size * (size + 1) // 2)

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "channels": self.channels,
            "iterations": self.iterations,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
        }


def _upper_triangle(matrix: tf.Tensor, size: int) -> tf.Tensor:
    """Row-major upper triangle with the diagonal: [batch, n, n] -> [batch, n (n + 1) / 2]."""
    flat = [row * size + column for row in range(size) for column in range(row, size)]
    pooled = tf.gather(tf.reshape(matrix, [-1, size * size]), flat, axis=1)
    return tf.ensure_shape(pooled, [None, len(flat)])


@keras.saving.register_keras_serializable(package=_PACKAGE)
class FeatureFusion(keras.layers.Layer):
    """Weighted sum of l2-normalised features: sum_n w_n l2(f_n).

    DSPRH describes the weighted sum in sections 3.2 and 4.3.2, without a numbered equation and
    without the normalisation, but for which the weights would depend on the features' scales.

    Args:
        fusion_weights: one non-negative number per feature, not all zero; (.25, .25, .5) for
            MIRFlickr-25K and (.125, .125, .75) for NUS-WIDE in the paper.

    Input shape: a list of as many tensors [batch, size] as there are weights.
    Output shape: [batch, size].

    Example:
        FeatureFusion((0.25, 0.75))([tf.ones([2, 8]), tf.ones([2, 8])])  # [2, 8]
    """

    def __init__(self, fusion_weights, **kwargs):
        super().__init__(**kwargs)
        weights = tuple(float(w) for w in fusion_weights)
        if not weights or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise ValueError(
                f"fusion weights are {weights}, expected non-negative numbers, not all zero"
            )
        self.fusion_weights = weights

    def build(self, input_shape):
        """Checks that there are as many features as weights, all of the same size."""
        if len(input_shape) != len(self.fusion_weights):
            raise ValueError(
                f"FeatureFusion received {len(input_shape)} features, expected "
                f"{len(self.fusion_weights)}, one per weight"
            )
        sizes = [shape[-1] for shape in input_shape]
        if len(set(sizes)) != 1:
            raise ValueError(f"FeatureFusion received sizes {sizes}, expected them to be equal")
        super().build(input_shape)

    def call(self, inputs):
        """Adds the normalised features."""
        fused = sum(w * l2_normalize(x) for w, x in zip(self.fusion_weights, inputs))
        return tf.cast(fused, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """The shape of one feature."""
        return tuple(input_shape[0])

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "fusion_weights": self.fusion_weights}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class AdaptiveAveragePooling(keras.layers.Layer):
    """Means over a grid of fixed size, for maps of any size (pool5 of torchvision's AlexNet).

    Cell i of s covers rows floor(i·n/s) to ceil((i+1)·n/s) of n; cells overlap if s does not
    divide n, and repeat if n < s.

    Args:
        size: cells per side.

    Input shape: [batch, height, width, channels]. Output shape: [batch, size, size, channels].
    """

    def __init__(self, size: int, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs):
        """Averages the cells."""
        return _grid_means(inputs, self.size)

    def compute_output_shape(self, input_shape):
        """The shape [batch, size, size, channels]."""
        return (input_shape[0], self.size, self.size, input_shape[3])

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class PyramidPooling(keras.layers.Layer):
    """Means of a map over grids of regions, from coarse to fine (Lazebnik et al., CVPR 2006).

    Args:
        levels: regions per side of each grid; (1, 2, 4) are 1 + 4 + 16 regions.

    Input shape: [batch, height, width, channels].
    Output shape: [batch, regions, channels]; the grids one after another, each row by row.
    """

    def __init__(self, levels=(1, 2, 4), **kwargs):
        super().__init__(**kwargs)
        self.levels = tuple(int(level) for level in levels)
        if not self.levels or min(self.levels) < 1:
            raise ValueError(f"levels is {self.levels}, expected regions per side, such as (1, 2)")

    def call(self, inputs):
        """Averages the regions."""
        channels = inputs.shape[-1]
        grids = [tf.reshape(_grid_means(inputs, n), [-1, n * n, channels]) for n in self.levels]
        return tf.concat(grids, axis=1)

    def compute_output_shape(self, input_shape):
        """The shape [batch, regions, channels]."""
        return (input_shape[0], sum(n * n for n in self.levels), input_shape[3])

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "levels": self.levels}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class SeededDropout(keras.layers.Layer):
    """Dropout whose masks are the same when a run is resumed.

    The generator state of Keras' own dropout is not saved in checkpoints on every stack. Here the
    mask is a function of the seed, the replica and the number of training calls so far, a counter
    that `tf.train.Checkpoint` saves.

    Args:
        rate: share of the entries set to 0, in [0, 1); the others are divided by 1 - rate.
        seed: seed of the masks.

    Input and output shape: any.

    Raises:
        ValueError: a rate outside [0, 1).
    """

    def __init__(self, rate: float, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"got the dropout rate {rate!r}, expected a number in [0, 1)")
        self.rate = float(rate)
        self.seed = int(seed)
        # Replicas count the same, so each has its own copy, and the first one is saved.
        self.counter = tf.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            name="counter",
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def call(self, inputs, training=False):
        """Masks the inputs while training."""
        if not training or not self.rate:
            return inputs
        self.counter.assign_add(1)
        replica = tf.distribute.get_replica_context()
        key = tf.random.experimental.stateless_fold_in(
            tf.stack([tf.constant(self.seed, tf.int64), self.counter.read_value()]),
            replica.replica_id_in_sync_group if replica else 0,
        )
        kept = tf.random.stateless_uniform(tf.shape(inputs), key) >= self.rate
        return tf.where(kept, inputs / (1.0 - self.rate), tf.zeros_like(inputs))

    def compute_output_shape(self, input_shape):
        """The input's shape."""
        return input_shape

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def _grid_means(inputs: tf.Tensor, size: int) -> tf.Tensor:
    """Means over size x size cells: [batch, height, width, C] -> [batch, size, size, C]."""
    sides = []
    for length in inputs.shape[1:3]:
        means = np.zeros((size, length), np.float32)  # rows sum to 1
        for i in range(size):
            start, stop = i * length // size, -(-(i + 1) * length // size)
            means[i, start:stop] = 1.0 / (stop - start)
        sides.append(tf.constant(means, inputs.dtype))
    return tf.einsum("ih,bhwc,jw->bijc", sides[0], inputs, sides[1])
