"""Losses that read labels, and the objectives of HSIDHN and SDEH.

Notation as in `dsprh_tf.losses`; Y labels, multi-hot [M, L]. Of both papers only the abstracts are
at hand: which losses there are is theirs, how each is computed and weighted is ours.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from dsprh_tf.layers import l2_normalize
from dsprh_tf.losses import cosine_matrix, mean_squared_error, shared_labels

_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the mean squared distance


def label_similarity(labels: tf.Tensor) -> tf.Tensor:
    """Cosines of label vectors, |Y_i and Y_j| / sqrt(|Y_i| |Y_j|): [M, L] -> [M, M], in [0, 1]."""
    return cosine_matrix(labels, labels)


def _pairs(image: tf.Tensor, text: tf.Tensor) -> tuple:
    return (image, image), (text, text), (image, text)


def hard_similarity_loss(
    image_code, text_code, labels, steepness: float = 10.0, threshold: float = 0.25
) -> tf.Tensor:
    """Mean over pairs of softplus(O) - s O, O = steepness (cos(B_X, B_Y) - threshold).

    The negative log-likelihood of s = 1 for a shared label and 0 for none, within images, within
    texts and across. On cosines, so that it is the same for all code lengths; above a threshold,
    since without one it would ask unrelated codes to be opposite, which many cannot be at once.

    Args:
        image_code: B_I [M, K].
        text_code: B_T [M, K].
        labels: Y [M, L].
        steepness: how fast the probability rises with the cosine.
        threshold: the cosine of even odds.
    """
    target = tf.cast(shared_labels(labels), tf.float32)
    total = 0.0
    for a, b in _pairs(image_code, text_code):
        odds = steepness * (cosine_matrix(a, b) - threshold)
        total += tf.reduce_mean(tf.nn.softplus(odds) - target * odds)
    return total / 3


def soft_similarity_loss(image_code, text_code, labels, scale: float = 1.0) -> tf.Tensor:
    """Mean of mse(scale cos(Y, Y), cos(B_X, B_Y)) within images, within texts and across."""
    target = scale * label_similarity(labels)
    pairs = _pairs(image_code, text_code)
    return sum(mean_squared_error(target, cosine_matrix(a, b)) for a, b in pairs) / 3


def quantization_loss(image_code: tf.Tensor, text_code: tf.Tensor, code: tf.Tensor) -> tf.Tensor:
    """Mean of mse(B_X, C) over both modalities; no gradient flows into the binary code C."""
    code = tf.stop_gradient(code)
    return (mean_squared_error(image_code, code) + mean_squared_error(text_code, code)) / 2


def signs(x: tf.Tensor) -> tf.Tensor:
    """sign(x), +1 at 0, as codes are packed; no gradient flows through it."""
    return tf.where(x >= 0, 1.0, -1.0)


def balance_loss(image_code: tf.Tensor, text_code: tf.Tensor) -> tf.Tensor:
    """Mean over bits and modalities of (mean over the batch)^2; 0: each bit is +1 half the time."""
    means = [tf.reduce_mean(code, axis=0) for code in (image_code, text_code)]
    return sum(tf.reduce_mean(tf.square(mean)) for mean in means) / 2


def classification_loss(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean over items of the summed binary cross entropies of their labels; logits [M, L]."""
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.reduce_mean(tf.reduce_sum(losses, axis=-1))


def alignment_loss(image: tf.Tensor, text: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean over the labels that are present of 1 - cos of both modalities' features of them.

    Args:
        image: one feature a label, [M, L, d].
        text: likewise.
        labels: Y [M, L]; without any label the loss is 0.
    """
    cosines = tf.reduce_sum(l2_normalize(image) * l2_normalize(text), axis=-1)
    return tf.math.divide_no_nan(
        tf.reduce_sum(labels * (1.0 - cosines)), tf.reduce_sum(labels)
    )


def maximum_mean_discrepancy(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Biased estimate of MMD^2 between the distributions of rows of a and b [M, d] -> scalar.

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


def _with_total(terms: dict, weights: tuple) -> dict:
    """The terms, and their sum under these weights, in their order."""
    return {**terms, "total": sum(w * term for w, term in zip(weights, terms.values()))}


@dataclasses.dataclass(frozen=True)
class HSIDHNObjective:
    """HSIDHN's dual similarity of multi-labels, quantisation and bit balance.

        w_h L_hard + w_s L_soft + w_q L_Q + w_b L_B

    with C = sign(B_X) of each modality in L_Q.

    Attributes:
        hard_weight: w_h, of the negative log-likelihood of shared labels.
        soft_weight: w_s, of the squared error of code cosines against label cosines.
        quantization_weight: w_q.
        balance_weight: w_b.
        soft_scale: by which label cosines are stretched as targets.
    """

    hard_weight: float = 0.1
    soft_weight: float = 1.0
    quantization_weight: float = 0.02
    balance_weight: float = 0.1
    soft_scale: float = 2.0

    terms = ("L_hard", "L_soft", "L_Q", "L_B")
    needs_labels = True
    needs_neighbours = needs_graph = needs_decoders = False

    def __call__(self, batch: dict, outputs: dict) -> dict:
        """Scalars "L_hard", "L_soft", "L_Q", "L_B", "total" from "labels" [M, L] and the codes."""
        image, text = outputs["image_code"], outputs["text_code"]
        labels = batch["labels"]
        terms = {
            "L_hard": hard_similarity_loss(image, text, labels),
            "L_soft": soft_similarity_loss(image, text, labels, self.soft_scale),
            "L_Q": sum(mean_squared_error(code, signs(code)) for code in (image, text)) / 2,
            "L_B": balance_loss(image, text),
        }
        weights = (
            self.hard_weight, self.soft_weight, self.quantization_weight, self.balance_weight
        )  # fmt: skip
        return _with_total(terms, weights)


@dataclasses.dataclass(frozen=True)
class SDEHObjective:
    """SDEH's quadruple losses.

        w_s L_S + w_c L_C + w_d L_D + w_q L_Q

    L_S: soft similarity of the codes. L_C: classification of the decomposed features, both
    modalities. L_D: discrepancy of the modalities' shared semantic parts, and alignment of the
    features of each present label. L_Q: distance to the common code C = sign(H_I + H_T).

    Attributes:
        similarity_weight: w_s.
        classification_weight: w_c.
        distribution_weight: w_d.
        quantization_weight: w_q.
        soft_scale: by which label cosines are stretched as targets.
    """

    similarity_weight: float = 1.0
    classification_weight: float = 0.1
    distribution_weight: float = 0.1
    quantization_weight: float = 0.02
    soft_scale: float = 2.0

    terms = ("L_S", "L_C", "L_D", "L_Q")
    needs_labels = True
    needs_neighbours = needs_graph = needs_decoders = False

    def __call__(self, batch: dict, outputs: dict) -> dict:
        """Scalars "L_S", "L_C", "L_D", "L_Q", "total".

        Args:
            batch: "labels" [M, L].
            outputs: codes and hash values, and of both sides "logits", "decomposed", "semantic".
        """
        labels = batch["labels"]
        both = {
            name: (outputs[f"image_{name}"], outputs[f"text_{name}"])
            for name in ("code", "hash", "logits", "decomposed", "semantic")
        }
        terms = {
            "L_S": soft_similarity_loss(*both["code"], labels, self.soft_scale),
            "L_C": sum(classification_loss(logits, labels) for logits in both["logits"]) / 2,
            "L_D": maximum_mean_discrepancy(*both["semantic"])
            + alignment_loss(*both["decomposed"], labels),
            "L_Q": quantization_loss(*both["code"], signs(sum(both["hash"]))),
        }
        weights = (
            self.similarity_weight, self.classification_weight, self.distribution_weight,
            self.quantization_weight,
        )  # fmt: skip
        return _with_total(terms, weights)
