"""HSIDHN's networks: levels of several scales, and the bilinear interaction between them.

Only the abstract of the paper (Chen, Wu and Wang, "Hierarchical semantic interaction-based deep
hashing network for cross-modal retrieval", PeerJ Computer Science 2021) is at hand. It names the
three ideas; everything below is a reconstruction of them:

| the abstract says | here |
|---|---|
| "multi-scale and fusion operations ... applied to each layer of the network" | pictures: the last three stages of the backbone, each averaged over 1, 4 and 16 regions, a 1x1 convolution over the regions, a projection to `width` values. Texts: means over windows of 1, 2, 4 and 8 words of the bag, fused by a 1x1 convolution, then three dense layers, each projected to `width` |
| "Bidirectional Bi-linear Interaction (BBI) policy ... among different layers" | Hadamard products of projected neighbours, once from the first level up and once from the last one down |
"""  # noqa: E501

from __future__ import annotations

import keras
import tensorflow as tf

from dsprh_tf.backbones import STAGES
from dsprh_tf.layers import SeededDropout, unit_mean_square
from dsprh_tf.networks import relu_dense, torch_uniform

_PACKAGE = "dsprh_tf"
_FUSED = 64  # channels a region keeps
_WINDOWS = (1, 2, 4, 8)  # words a mean


@keras.saving.register_keras_serializable(package=_PACKAGE)
class BilinearInteraction(keras.layers.Layer):
    """Levels beside what neighbouring ones have in common, bottom-up and top-down (BBI).

        up_1 = f_1,  up_s = (P_s up_{s-1}) * (Q_s f_s),   s = 2 ... S
        down_S = f_S,  down_s = (P'_s down_{s+1}) * (Q'_s f_s),   s = S - 1 ... 1

    with * the Hadamard product, which is a bilinear form of rank `size` (Kim et al., "Hadamard
    product for low-rank bilinear pooling", ICLR 2017). A chain: up_s has met all levels up to s.
    Every block is scaled to a mean square of 1.

    Args:
        enabled: False hands the levels on alone (an ablation).

    Input: a list of S tensors [batch, size].
    Output shape: [batch, (3 S - 2) size], or [batch, S size] without the interaction.
    """

    def __init__(self, enabled: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.enabled = enabled

    def build(self, input_shape):
        """Creates two projections for each step of the two chains."""
        size = input_shape[0][-1]
        if self.enabled:
            for name in self._steps(len(input_shape)):
                dense = keras.layers.Dense(size, use_bias=False, dtype=self.dtype_policy)
                dense.build(tuple(input_shape[0]))
                setattr(self, name, dense)
        super().build(input_shape)

    @staticmethod
    def _steps(levels: int) -> list[str]:
        return [
            f"{way}_{step}_{part}"
            for way in ("up", "down")
            for step in range(1, levels)
            for part in ("chain", "level")
        ]

    def call(self, inputs):
        """Concatenates levels and interactions."""
        levels = [unit_mean_square(level) for level in inputs]
        blocks = list(levels)
        if self.enabled:
            for way, order in (("up", levels), ("down", levels[::-1])):
                chain = order[0]
                for step, level in enumerate(order[1:], start=1):
                    left = getattr(self, f"{way}_{step}_chain")(chain)
                    chain = unit_mean_square(left * getattr(self, f"{way}_{step}_level")(level))
                    blocks.append(chain)
        return tf.concat(blocks, axis=-1)

    def compute_output_shape(self, input_shape):
        """The shape of all blocks side by side."""
        levels = len(input_shape)
        blocks = 3 * levels - 2 if self.enabled else levels
        return (*input_shape[0][:-1], blocks * input_shape[0][-1])

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "enabled": self.enabled}


class _Hierarchical:
    """What both networks share: levels -> interaction -> dropout -> hash layer."""

    def __init__(
        self,
        bits,
        width=128,
        multi_scale=True,
        interaction=True,
        hash_dropout=0.0,
        seed=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.bits = bits
        self.width = width
        self.multi_scale = multi_scale
        self.interaction = interaction
        self.hash_dropout = hash_dropout
        self.seed = seed

    def _build_head(self):
        levels = [(None, self.width)] * STAGES
        self.bilinear = BilinearInteraction(self.interaction, dtype=self.dtype_policy)
        self.bilinear.build(levels)
        self.dropout = SeededDropout(self.hash_dropout, self.seed, dtype=self.dtype_policy)
        self.hash_layer = keras.layers.Dense(
            self.bits, kernel_initializer=torch_uniform(), dtype=self.dtype_policy
        )
        self.hash_layer.build(self.bilinear.compute_output_shape(levels))

    def _hash(self, levels, training):
        joined = self.dropout(self.bilinear(levels), training=training)
        return {"hash": tf.cast(self.hash_layer(joined), tf.float32)}

    def get_config(self):
        """The constructor's arguments."""
        names = ("bits", "width", "multi_scale", "interaction", "hash_dropout", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class HierarchicalImageNetwork(_Hierarchical, keras.layers.Layer):
    """Image hash value from the pooled stages of a backbone (HSIDHN).

    Each stage [batch, regions, C]: a 1x1 convolution to 64 channels a region, its regions side by
    side projected to a level of `width` values; then `BilinearInteraction` and the hash layer.

    Args:
        bits: length K of the hash value.
        width: values of a level.
        multi_scale: False reads the mean of each stage alone, its first region (an ablation).
        interaction: see `BilinearInteraction`.
        hash_dropout: rate before the hash layer.
        seed: of the dropout's masks.

    Inputs: a dict "stage_1", "stage_2", "stage_3" of `build_backbone(pyramid=True)`.
    Output: a dict with "hash" H_I [batch, bits], float32.
    """

    reads = tuple(f"stage_{number}" for number in range(1, STAGES + 1))

    def build(self, input_shape):
        """Creates the layers; `input_shape` is a dict of the inputs' shapes."""
        for name in self.reads:
            _, regions, channels = input_shape[name]
            fuse = relu_dense(_FUSED, self.dtype_policy)
            fuse.build((None, None, channels))
            project = relu_dense(self.width, self.dtype_policy)
            project.build((None, (regions if self.multi_scale else 1) * _FUSED))
            setattr(self, f"{name}_fuse", fuse)
            setattr(self, f"{name}_project", project)
        self._build_head()
        super().build(input_shape)

    def call(self, inputs, training=None):
        """Hashes the stages."""
        levels = []
        for name in self.reads:
            x = unit_mean_square(tf.cast(inputs[name], self.compute_dtype))
            fused = getattr(self, f"{name}_fuse")(x if self.multi_scale else x[:, :1])
            project = getattr(self, f"{name}_project")
            levels.append(project(tf.reshape(fused, [-1, fused.shape[1] * _FUSED])))
        return self._hash(levels, training)

    def compute_output_shape(self, input_shape):
        """Shape of the output."""
        return {"hash": (input_shape[self.reads[0]][0], self.bits)}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class HierarchicalTextNetwork(_Hierarchical, keras.layers.Layer):
    """Text hash value from a bag of words (HSIDHN).

    Means over windows of 1, 2, 4 and 8 words of the vocabulary, each back at the bag's length, are
    fused by a 1x1 convolution; three dense layers follow, each projected to a level of `width`
    values; then `BilinearInteraction` and the hash layer. Neighbours in a vocabulary have little
    in common, so that windows act as a random grouping of words.

    Args:
        bits: length K of the hash value.
        hidden: size of the three dense layers.
        width: values of a level.
        multi_scale: False takes the bag of words as it is (an ablation).
        interaction: see `BilinearInteraction`.
        hash_dropout: rate before the hash layer.
        seed: of the dropout's masks.

    Input shape: [batch, D_T]. Output: a dict with "hash" H_T [batch, bits], float32.
    """

    def __init__(self, bits, hidden=1024, **kwargs):
        super().__init__(bits, **kwargs)
        self.hidden = hidden

    def build(self, input_shape):
        """Creates the layers."""
        policy = self.dtype_policy
        if self.multi_scale:
            # The mean of all windows at first.
            start = keras.initializers.Constant(1 / len(_WINDOWS))
            self.fuse = keras.layers.Dense(
                1, activation="relu", kernel_initializer=start, dtype=policy
            )
            self.fuse.build((None, None, len(_WINDOWS)))
        size = input_shape[-1]
        for number in range(1, STAGES + 1):
            hidden, project = relu_dense(self.hidden, policy), relu_dense(self.width, policy)
            hidden.build((None, size))
            project.build((None, self.hidden))
            setattr(self, f"hidden_{number}", hidden)
            setattr(self, f"project_{number}", project)
            size = self.hidden
        self._build_head()
        super().build(input_shape)

    def call(self, inputs, training=None):
        """Hashes the bags of words."""
        x = tf.cast(inputs, self.compute_dtype)
        if self.multi_scale:
            x = self.fuse(tf.stack([_window_means(x, n) for n in _WINDOWS], axis=-1))[..., 0]
        x = unit_mean_square(x)
        levels = []
        for number in range(1, STAGES + 1):
            x = getattr(self, f"hidden_{number}")(x)
            levels.append(getattr(self, f"project_{number}")(x))
        return self._hash(levels, training)

    def compute_output_shape(self, input_shape):
        """Shape of the output."""
        return {"hash": (input_shape[0], self.bits)}

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "hidden": self.hidden}


def _window_means(x: tf.Tensor, window: int) -> tf.Tensor:
    """Means of windows side by side, each repeated over its window: [batch, n] -> [batch, n]."""
    size = x.shape[-1]
    if window == 1:
        return x
    padded = tf.pad(x, [[0, 0], [0, -size % window]])
    means = tf.reduce_mean(tf.reshape(padded, [-1, padded.shape[-1] // window, window]), axis=-1)
    return tf.repeat(means, window, axis=-1)[:, :size]
