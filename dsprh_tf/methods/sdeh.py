"""SDEH: attention over the parts of an item, decomposition by labels, and four losses.

Only the abstract of the paper (Fei et al., "Semantic decomposition and enhancement hashing for deep
cross-modal retrieval", Pattern Recognition 160, 2025) was available. It names the ideas; the rest
of this file is a reconstruction:

| the abstract says | here |
|---|---|
| "two independent attention-based feature learning subnetworks ... both global and local details" | local: one block of multi-head self-attention over the positions of the convolution map, or over embeddings of the words that are present, with a class token. Global: a projection of the backbone's pooled feature, or of the bag of words |
| "semantic features from multi-label vectors by decomposing the shared semantic information" | a learned prototype of each label attends over the tokens: one feature per label, and from it the label's logit |
| "common hash code representations" | class token, global feature and the sum of the label features, each weighted by its predicted probability, concatenated before the hash layer |
"""  # noqa: E501

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from dsprh_tf import compat
from dsprh_tf.layers import SeededDropout, l2_normalize, unit_mean_square
from dsprh_tf.losses import mean_squared_error, signs, soft_similarity_loss, with_total
from dsprh_tf.methods.base import ADAMW, FINE_TUNING, Method, setting
from dsprh_tf.networks import relu_dense, torch_uniform

_PACKAGE = "dsprh_tf"
_WORDS = 64  # words of a text that attention sees
_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the mean squared distance


class SDEH(Method):
    """Semantic Decomposition and Enhancement Hashing (Fei et al., Pattern Recognition 2025).

        w_s L_S + w_c L_C + w_d L_D + w_q L_Q

    Supervised. L_S: soft similarity of the codes. L_C: classification by the decomposed features of
    both modalities. L_D: discrepancy between the semantic parts of the modalities, and alignment of
    the features of each present label. L_Q: distance to the common code C = sign(H_I + H_T). The
    abstract names quadruple losses; how each is computed and weighted is a reconstruction. There
    are no decoders, and codes harden by L_Q instead of alpha_e.
    """

    name, title = "sdeh", "SDEH"
    supervised, takes_features, hardening = True, False, False
    terms = {
        "L_S": "Squared error between the cosines of codes and those of the pairs' labels.",
        "L_C": "Cross entropy of the labels predicted from image and text, summed over labels.",
        "L_D": "Distance between the distributions of both modalities' label features, and 1 - "
        "cosine of the two features of each present label.",
        "L_Q": "Squared distance of the codes to the binary code that image and text share: at 0 "
        "nothing is lost when signs are taken.",
    }

    @dataclasses.dataclass(frozen=True)
    class Settings:
        """Settings of SDEH, chosen on labels of held-out training pairs (RESULTS.md)."""

        width: int = setting(128, "Values of a token, a multiple of --heads.", low=1)
        heads: int = setting(4, "Heads of the self-attention; --width must be a multiple.", low=1)
        hash_dropout: float = setting(0.0, "Rate before the hash layer.", low=0, high=0.99)
        text_hidden: int = setting(1024, "Hidden size of the text network.", low=1)
        similarity_weight: float = setting(1.0, "Weight of L_S: the cosine of the labels.")
        classification_weight: float = setting(0.1, "Weight of L_C: cross entropy of the labels.")
        distribution_weight: float = setting(0.1, "Weight of L_D: MMD and alignment of modalities.")
        quantization_weight: float = setting(0.02, "Weight of L_Q, the distance to binary codes.")
        soft_scale: float = setting(2.0, "Factor of the label cosines in L_S.")

    recipes = {"paper": FINE_TUNING, "frozen": ADAMW}
    ablation = {
        "without similarity loss": {"similarity_weight": 0.0},
        "without classification": {"classification_weight": 0.0},
        "without distribution loss": {"distribution_weight": 0.0},
        "without quantisation": {"quantization_weight": 0.0},
    }

    def networks(self, sizes):
        """The two attentive networks."""
        if not sizes.get("labels"):
            raise ValueError(
                f"sizes has no 'labels', which {self.name} needs: give the number of labels"
            )
        s = self.settings
        shared = {
            "width": s.width,
            "heads": s.heads,
            "hash_dropout": s.hash_dropout,
            "seed": self.seed,
        }
        return (
            AttentiveImageNetwork(self.bits, sizes["labels"], **shared),
            AttentiveTextNetwork(self.bits, sizes["labels"], hidden=s.text_hidden, **shared),
        )

    def prepare(self, features, texts, labels):
        """The "labels" of the training pairs."""
        return {"labels": labels}

    @property
    def weights(self):
        """Factors of the terms."""
        s = self.settings
        return {
            "L_S": s.similarity_weight,
            "L_C": s.classification_weight,
            "L_D": s.distribution_weight,
            "L_Q": s.quantization_weight,
        }

    def loss(self, batch, outputs):
        """Scalars "L_S", "L_C", "L_D", "L_Q" and "total".

        Args:
            batch: "labels" [M, L].
            outputs: codes, hash values, "logits", "decomposed" and "semantic" of both modalities.
        """
        s = self.settings
        labels = batch["labels"]
        both = {
            name: (outputs[f"image_{name}"], outputs[f"text_{name}"])
            for name in ("code", "hash", "logits", "decomposed", "semantic")
        }
        terms = {
            "L_S": soft_similarity_loss(*both["code"], labels, s.soft_scale),
            "L_C": sum(classification_loss(logits, labels) for logits in both["logits"]) / 2,
            "L_D": maximum_mean_discrepancy(*both["semantic"])
            + alignment_loss(*both["decomposed"], labels),
            "L_Q": quantization_loss(*both["code"], signs(sum(both["hash"]))),
        }
        return with_total(terms, self.weights)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class AttentionBlock(keras.layers.Layer):
    """A class token before the tokens, and one block of self-attention over all of them.

        y = norm(x + MultiHead(norm(x))),   x = [class, tokens]

    Args:
        heads: attention heads, among which the width is divided.

    Inputs: tokens [batch, n, width], and which of them are present, bool [batch, n], or None.
    Output shape: [batch, 1 + n, width], the class token first.
    """

    def __init__(self, heads: int = 4, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, input_shape):
        """Creates token, norms and attention for tokens of this width."""
        width = input_shape[-1]
        if width % self.heads:
            raise ValueError(f"width is {width}, expected a multiple of the {self.heads} heads")
        self.class_token = self.add_weight(
            name="class_token", shape=(1, 1, width), initializer="random_normal"
        )
        policy, shape = self.dtype_policy, (input_shape[0], None, width)
        self.norm_before = keras.layers.LayerNormalization(epsilon=1e-5, dtype=policy)
        self.norm_after = keras.layers.LayerNormalization(epsilon=1e-5, dtype=policy)
        self.norm_before.build(shape)
        self.norm_after.build(shape)
        self.attention = keras.layers.MultiHeadAttention(
            self.heads, width // self.heads, dtype=policy
        )
        compat.build_attention(self.attention, shape)
        super().build(input_shape)

    def call(self, inputs, present=None):
        """Attends from every token to all tokens."""
        batch = tf.shape(inputs)[0]
        token = tf.tile(tf.cast(self.class_token, self.compute_dtype), [batch, 1, 1])
        x = tf.concat([token, tf.cast(inputs, self.compute_dtype)], axis=1)
        # The same mask for every token.
        mask = None if present is None else with_class_token(present)[:, None, :]
        normed = self.norm_before(x)
        return self.norm_after(x + self.attention(normed, normed, attention_mask=mask))

    def compute_output_shape(self, input_shape):
        """The input's shape with one token more."""
        batch, tokens, width = input_shape
        return (batch, None if tokens is None else tokens + 1, width)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "heads": self.heads}


def with_class_token(present: tf.Tensor) -> tf.Tensor:
    """A mask [batch, n], with the class token, which is always present, before it."""
    return tf.pad(present, [[0, 0], [1, 0]], constant_values=True)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class SemanticDecomposition(keras.layers.Layer):
    """One feature and one logit per label, from the tokens of an item.

        f_l = sum_t softmax_t(p_l . K x_t / sqrt(d)) V x_t,   logit_l = c_l . f_l + b_l

    with a learned prototype p_l and a classifier c_l of each label. Each modality has prototypes of
    its own, as it has an optimizer of its own; the loss aligns the features that they find.

    Args:
        labels: number L of labels.

    Inputs: tokens [batch, n, width], and which of them are present, bool [batch, n], or None.
    Outputs: a dict with "decomposed" [batch, L, width], "logits" [batch, L] and "semantic"
    [batch, width], the sum of the label features weighted by the labels' probabilities.
    """

    def __init__(self, labels: int, **kwargs):
        super().__init__(**kwargs)
        self.labels = labels

    def build(self, input_shape):
        """Creates prototypes, classifiers and the two projections."""
        width = input_shape[-1]

        def rows(name):
            start = keras.initializers.RandomNormal(stddev=width**-0.5)
            return self.add_weight(name=name, shape=(self.labels, width), initializer=start)

        self.prototypes, self.classifiers = rows("prototypes"), rows("classifiers")
        # Most labels are absent: this bias is the logit of one present label in fifty.
        self.bias = self.add_weight(
            name="bias", shape=(self.labels,), initializer=keras.initializers.Constant(-4.0)
        )
        self.key = keras.layers.Dense(width, use_bias=False, dtype=self.dtype_policy)
        self.value = keras.layers.Dense(width, dtype=self.dtype_policy)
        self.key.build(tuple(input_shape))
        self.value.build(tuple(input_shape))
        super().build(input_shape)

    def call(self, inputs, present=None):
        """Attends from the prototype of each label."""
        width = inputs.shape[-1]
        prototypes = tf.cast(self.prototypes, self.compute_dtype)
        scores = tf.einsum("ld,btd->blt", prototypes, self.key(inputs))
        # In float32, like the logits and probabilities that follow.
        scores = tf.cast(scores, tf.float32) * width**-0.5
        if present is not None:
            scores = tf.where(present[:, None, :], scores, -1e9)
        weights = tf.cast(tf.nn.softmax(scores), self.compute_dtype)
        found = tf.cast(tf.einsum("blt,btd->bld", weights, self.value(inputs)), tf.float32)
        logits = tf.einsum("bld,ld->bl", found, tf.cast(self.classifiers, tf.float32))
        logits += tf.cast(self.bias, tf.float32)
        semantic = tf.einsum("bl,bld->bd", tf.sigmoid(logits), found)
        return {"decomposed": found, "logits": logits, "semantic": unit_mean_square(semantic)}

    def compute_output_shape(self, input_shape):
        """Shapes of the outputs."""
        batch, _, width = input_shape
        return {
            "decomposed": (batch, self.labels, width),
            "logits": (batch, self.labels),
            "semantic": (batch, width),
        }

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "labels": self.labels}


class _Attentive:
    """Shared part of both networks: tokens -> attention -> decomposition -> hash layer."""

    def __init__(self, bits, labels, width=128, heads=4, hash_dropout=0.0, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.bits = bits
        self.labels = labels
        self.width = width
        self.heads = heads
        self.hash_dropout = hash_dropout
        self.seed = seed

    def _build_head(self):
        policy, tokens = self.dtype_policy, (None, None, self.width)
        self.block = AttentionBlock(self.heads, dtype=policy)
        self.block.build(tokens)
        self.decomposition = SemanticDecomposition(self.labels, dtype=policy)
        self.decomposition.build(tokens)
        self.dropout = SeededDropout(self.hash_dropout, self.seed, dtype=policy)
        self.hash_layer = keras.layers.Dense(
            self.bits, kernel_initializer=torch_uniform(), dtype=policy
        )
        self.hash_layer.build((None, 3 * self.width))

    def _hash(self, tokens, whole, training, present=None):
        tokens = self.block(tokens, present=present)
        present = None if present is None else with_class_token(present)
        found = self.decomposition(tokens, present=present)
        parts = (tokens[:, 0], whole, tf.cast(found["semantic"], self.compute_dtype))
        joined = tf.concat([unit_mean_square(part) for part in parts], axis=-1)
        hashed = self.hash_layer(self.dropout(joined, training=training))
        return {"hash": tf.cast(hashed, tf.float32), **found}

    def _output_shape(self, batch):
        decomposition = SemanticDecomposition(self.labels)
        shapes = decomposition.compute_output_shape((batch, None, self.width))
        return {"hash": (batch, self.bits), **shapes}

    def get_config(self):
        """The constructor's arguments."""
        names = ("bits", "labels", "width", "heads", "hash_dropout", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class AttentiveImageNetwork(_Attentive, keras.layers.Layer):
    """Image hash value from the positions of a convolution map and the pooled feature (SDEH).

    Args:
        bits: length K of the hash value.
        labels: number L of labels.
        width: values of a token, a multiple of `heads`.
        heads: of the self-attention.
        hash_dropout: rate before the hash layer.
        seed: of the dropout's masks.

    Inputs: a dict with "feature" [batch, D_I] and "conv_map" [batch, height, width, channels].
    Outputs: a dict with "hash" H_I [batch, bits] and those of `SemanticDecomposition`, float32.
    """

    reads = ("feature", "conv_map")

    def build(self, input_shape):
        """Creates the layers; `input_shape` is a dict of the inputs' shapes."""
        _, height, width, channels = input_shape["conv_map"]
        self._positions = height * width
        self.embed = keras.layers.Dense(self.width, dtype=self.dtype_policy)
        self.embed.build((None, None, channels))
        self.position = self.add_weight(
            name="position",
            shape=(self._positions, self.width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )
        self.whole = relu_dense(self.width, self.dtype_policy)
        self.whole.build((None, input_shape["feature"][-1]))
        self._build_head()
        super().build(input_shape)

    def call(self, inputs, training=None):
        """Hashes maps and features."""
        x = tf.cast(inputs["conv_map"], self.compute_dtype)
        x = tf.reshape(x, [-1, self._positions, x.shape[-1]])
        tokens = self.embed(unit_mean_square(x)) + tf.cast(self.position, self.compute_dtype)
        feature = tf.cast(inputs["feature"], self.compute_dtype)
        return self._hash(tokens, self.whole(unit_mean_square(feature)), training)

    def compute_output_shape(self, input_shape):
        """Shapes of the outputs."""
        return self._output_shape(input_shape["feature"][0])


@keras.saving.register_keras_serializable(package=_PACKAGE)
class AttentiveTextNetwork(_Attentive, keras.layers.Layer):
    """Text hash value from the embeddings of a text's words and its bag of words (SDEH).

    Attention sees the first 64 words of a text, in the order of the vocabulary; the global feature
    sees all of them.

    Args:
        bits: length K of the hash value.
        labels: number L of labels.
        hidden: size of the global feature's hidden layer.
        width: values of a token, a multiple of `heads`.
        heads: of the self-attention.
        hash_dropout: rate before the hash layer.
        seed: of the dropout's masks.

    Input shape: [batch, D_T], multi-hot.
    Outputs: a dict with "hash" H_T [batch, bits] and those of `SemanticDecomposition`, float32.
    """

    def __init__(self, bits, labels, hidden=1024, **kwargs):
        super().__init__(bits, labels, **kwargs)
        self.hidden = hidden

    def build(self, input_shape):
        """Creates the layers."""
        size = input_shape[-1]
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(size, self.width),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
        )
        self.whole_hidden = relu_dense(self.hidden, self.dtype_policy)
        self.whole_hidden.build((None, size))
        self.whole = relu_dense(self.width, self.dtype_policy)
        self.whole.build((None, self.hidden))
        self._build_head()
        super().build(input_shape)

    def call(self, inputs, training=None):
        """Hashes the bags of words."""
        # Equal entries come in the order of the vocabulary.
        values, words = tf.math.top_k(inputs, k=min(_WORDS, inputs.shape[-1]))
        tokens = tf.cast(tf.gather(self.embeddings, words), self.compute_dtype)
        whole = unit_mean_square(tf.cast(inputs, self.compute_dtype))
        whole = self.whole(self.whole_hidden(whole))
        return self._hash(tokens, whole, training, present=values > 0)

    def compute_output_shape(self, input_shape):
        """Shapes of the outputs."""
        return self._output_shape(input_shape[0])

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "hidden": self.hidden}


def quantization_loss(image_code: tf.Tensor, text_code: tf.Tensor, code: tf.Tensor) -> tf.Tensor:
    """Mean over both modalities of mse(B_X, C); no gradient flows into the binary code C."""
    code = tf.stop_gradient(code)
    return (mean_squared_error(image_code, code) + mean_squared_error(text_code, code)) / 2


def classification_loss(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Binary cross entropies of logits [M, L], summed over labels, averaged over items."""
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.reduce_mean(tf.reduce_sum(losses, axis=-1))


def alignment_loss(image: tf.Tensor, text: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean of 1 - cos between both modalities' features of a label, over the present labels.

    Args:
        image: features of the labels, [M, L, d].
        text: features of the labels, [M, L, d].
        labels: Y [M, L]; the loss is 0 if no label is present.
    """
    cosines = tf.reduce_sum(l2_normalize(image) * l2_normalize(text), axis=-1)
    return tf.math.divide_no_nan(tf.reduce_sum(labels * (1.0 - cosines)), tf.reduce_sum(labels))


def maximum_mean_discrepancy(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Biased estimate of MMD^2 between the distributions of the rows of a and b [M, d].

    Mean over five Gaussian kernels exp(-|x - y|^2 / w), w from 1/4 to 4 of the mean squared
    distance of all rows (Gretton et al., JMLR 2012; Long et al., ICML 2015).
    """
    both = tf.concat([a, b], axis=0)
    squares = tf.reduce_sum(tf.square(both), axis=-1)
    distances = squares[:, None] + squares[None] - 2.0 * tf.matmul(both, both, transpose_b=True)
    distances = tf.maximum(distances, 0.0)
    width = tf.stop_gradient(tf.reduce_mean(distances)) + 1e-12
    kernel = sum(tf.exp(-distances / (w * width)) for w in _BANDWIDTHS) / len(_BANDWIDTHS)
    size = tf.shape(a)[0]
    within = tf.reduce_mean(kernel[:size, :size]) + tf.reduce_mean(kernel[size:, size:])
    return within - 2.0 * tf.reduce_mean(kernel[:size, size:])
