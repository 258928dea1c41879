"""HSIDHN: features of several levels, their bilinear interaction, and two label similarities.

Only the abstract of the paper (Chen, Wu and Wang, "Hierarchical semantic interaction-based deep
hashing network for cross-modal retrieval", PeerJ Computer Science 2021) was available. It names
ideas; the rest of this file is a reconstruction of them:

| the abstract says | here |
|---|---|
| "multi-scale and fusion operations ... applied to each layer of the network" | images: the last three stages of the backbone, each averaged over 1, 4 and 16 regions, a 1x1 convolution over the regions, a projection to `width` values. Texts: means over windows of 1, 2, 4 and 8 words of the bag, fused by a 1x1 convolution, then three dense layers, each projected to `width` |
| "Bidirectional Bi-linear Interaction (BBI) policy ... among different layers" | Hadamard products of projected neighbouring levels, once from the first level to the last and once back |
"""  # noqa: E501

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from dsprh_tf.backbones.architectures import STAGES
from dsprh_tf.layers import SeededDropout, unit_mean_square
from dsprh_tf.losses import (
    code_pairs,
    cosine_matrix,
    mean_squared_error,
    shared_labels,
    signs,
    soft_similarity_loss,
    with_total,
)
from dsprh_tf.methods.base import ADAMW, FINE_TUNING, Method, setting
from dsprh_tf.networks import relu_dense, torch_uniform

_PACKAGE = "dsprh_tf"
_FUSED = 64  # channels per region
_WINDOWS = (1, 2, 4, 8)  # words per mean


class HSIDHN(Method):
    """Hierarchical Semantic Interaction-based Deep Hashing (Chen, Wu and Wang, PeerJ CS 2021).

        w_h L_hard + w_s L_soft + w_q L_Q + w_b L_B

    Supervised: two similarities of multi-labels, quantisation with C = sign(B_X) of each modality,
    and bit balance. The abstract names the losses; how each is computed and weighted is a
    reconstruction. There are no decoders, and codes harden by L_Q instead of alpha_e.
    """

    name, title = "hsidhn", "HSIDHN"
    supervised, pyramid, takes_features, hardening = True, True, False, False
    terms = {
        "L_hard": "Negative log-likelihood of which items share a label, by the cosines of codes.",
        "L_soft": "Squared error between the cosines of codes and those of the pairs' labels.",
        "L_Q": "Squared distance of the codes to their signs: at 0 nothing is lost when signs are "
        "taken.",
        "L_B": "Mean square of each bit's mean over a batch: at 0 every bit is +1 for half of it.",
    }

    @dataclasses.dataclass(frozen=True)
    class Settings:
        """Settings of HSIDHN, chosen on labels of held-out training pairs (RESULTS.md)."""

        width: int = setting(128, "Values per level (HSIDHN) or token (SDEH).", low=1)
        multi_scale: bool = setting(
            True, "Pool over several scales; --nomulti_scale: one mean per stage, single words."
        )
        interaction: bool = setting(True, "Bilinear interaction of neighbouring levels, both ways.")
        hash_dropout: float = setting(0.0, "Rate before the hash layer.", low=0, high=0.99)
        text_hidden: int = setting(1024, "Hidden size of the text network.", low=1)
        hard_weight: float = setting(0.1, "Weight of L_hard: whether two items share a label.")
        soft_weight: float = setting(1.0, "Weight of L_soft: the cosine of their labels.")
        soft_scale: float = setting(2.0, "Factor of the label cosines in L_soft.")
        quantization_weight: float = setting(0.02, "Weight of L_Q, the distance to binary codes.")
        balance_weight: float = setting(0.1, "Weight of L_B, the balance of +1 and -1 per bit.")

    recipes = {"paper": FINE_TUNING, "frozen": {**ADAMW, "epochs": 40, "width": 256}}
    ablation = {
        "without interaction": {"interaction": False},
        "without soft similarity": {"soft_weight": 0.0},
        "without hard similarity": {"hard_weight": 0.0},
        "without multi-scale": {"multi_scale": False},
    }

    def networks(self, sizes):
        """The two hierarchical networks."""
        del sizes
        s = self.settings
        shared = {
            "width": s.width,
            "multi_scale": s.multi_scale,
            "interaction": s.interaction,
            "hash_dropout": s.hash_dropout,
            "seed": self.seed,
        }
        return (
            HierarchicalImageNetwork(self.bits, **shared),
            HierarchicalTextNetwork(self.bits, hidden=s.text_hidden, **shared),
        )

    def prepare(self, features, texts, labels):
        """The "labels" of the training pairs."""
        return {"labels": labels}

    @property
    def weights(self):
        """Factors of the terms."""
        s = self.settings
        return {
            "L_hard": s.hard_weight,
            "L_soft": s.soft_weight,
            "L_Q": s.quantization_weight,
            "L_B": s.balance_weight,
        }

    def loss(self, batch, outputs):
        """Scalars "L_hard", "L_soft", "L_Q", "L_B", "total" from "labels" [M, L] and the codes."""
        s = self.settings
        image, text = outputs["image_code"], outputs["text_code"]
        labels = batch["labels"]
        terms = {
            "L_hard": hard_similarity_loss(image, text, labels),
            "L_soft": soft_similarity_loss(image, text, labels, s.soft_scale),
            "L_Q": sum(mean_squared_error(code, signs(code)) for code in (image, text)) / 2,
            "L_B": balance_loss(image, text),
        }
        return with_total(terms, self.weights)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class BilinearInteraction(keras.layers.Layer):
    """Levels, and products of neighbouring levels, bottom-up and top-down (BBI).

        up_1 = f_1,  up_s = (P_s up_{s-1}) * (Q_s f_s),   s = 2 ... S
        down_S = f_S,  down_s = (P'_s down_{s+1}) * (Q'_s f_s),   s = S - 1 ... 1

    with * the Hadamard product, which is a bilinear form of rank `size` (Kim et al., "Hadamard
    product for low-rank bilinear pooling", ICLR 2017). up_s depends on all levels up to s, and
    down_s on all from s on. Every block is scaled to a mean square of 1.

    Args:
        enabled: False returns the levels alone (an ablation).

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
        """Concatenates levels and products."""
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
        """The shape of all blocks, concatenated."""
        levels = len(input_shape)
        blocks = 3 * levels - 2 if self.enabled else levels
        return (*input_shape[0][:-1], blocks * input_shape[0][-1])

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "enabled": self.enabled}


class _Hierarchical:
    """Shared part of both networks: levels -> interaction -> dropout -> hash layer."""

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

    Each stage [batch, regions, C] gets a 1x1 convolution to 64 channels per region; its regions are
    concatenated and projected to a level of `width` values. `BilinearInteraction` and the hash
    layer follow.

    Args:
        bits: length K of the hash value.
        width: values of a level.
        multi_scale: False reads the first region of each stage alone, its mean (an ablation).
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

    Means over windows of 1, 2, 4 and 8 words of the vocabulary, repeated to the length of the bag,
    are fused by a 1x1 convolution; three dense layers follow, each projected to a level of `width`
    values. `BilinearInteraction` and the hash layer follow. Neighbouring words of a vocabulary have
    little in common, so windows group words at random.

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
            # Starts as the mean of all windows.
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
    """Means of adjacent windows, each repeated over its window: [batch, n] -> [batch, n]."""
    size = x.shape[-1]
    if window == 1:
        return x
    padded = tf.pad(x, [[0, 0], [0, -size % window]])
    means = tf.reduce_mean(tf.reshape(padded, [-1, padded.shape[-1] // window, window]), axis=-1)
    return tf.repeat(means, window, axis=-1)[:, :size]


def hard_similarity_loss(
    image_code, text_code, labels, steepness: float = 10.0, threshold: float = 0.25
) -> tf.Tensor:
    """Mean over pairs of softplus(O) - s O, O = steepness (cos(B_X, B_Y) - threshold).

    The negative log-likelihood of s = 1 for a shared label and 0 for none, within images, within
    texts and across. It reads cosines, so that it is the same for all code lengths, and has a
    threshold, since without one it would ask unrelated codes to be opposite, which many codes
    cannot be at once.

    Args:
        image_code: B_I [M, K].
        text_code: B_T [M, K].
        labels: Y [M, L].
        steepness: slope of the log-odds over the cosine.
        threshold: cosine with a probability of 1/2.
    """
    target = tf.cast(shared_labels(labels), tf.float32)
    total = 0.0
    for a, b in code_pairs(image_code, text_code):
        odds = steepness * (cosine_matrix(a, b) - threshold)
        total += tf.reduce_mean(tf.nn.softplus(odds) - target * odds)
    return total / 3


def balance_loss(image_code: tf.Tensor, text_code: tf.Tensor) -> tf.Tensor:
    """Mean over bits and modalities of (mean over the batch)^2, 0 for balanced bits."""
    means = [tf.reduce_mean(code, axis=0) for code in (image_code, text_code)]
    return sum(tf.reduce_mean(tf.square(mean)) for mean in means) / 2
