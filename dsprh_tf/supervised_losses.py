"""Losses that read labels, and the objectives of HSIDHN and SDEH.

Notation as in `dsprh_tf.losses`; Y labels, multi-hot [M, L]. Of both papers only the abstracts are
at hand: which losses there are is theirs, how each is computed and weighted is ours.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from dsprh_tf.losses import cosine_matrix, mean_squared_error, pairwise_loss, shared_labels


def label_similarity(labels: tf.Tensor) -> tf.Tensor:
    """Cosines of label vectors, |Y_i and Y_j| / sqrt(|Y_i| |Y_j|): [M, L] -> [M, M], in [0, 1]."""
    return cosine_matrix(labels, labels)


def _pairs(image: tf.Tensor, text: tf.Tensor) -> tuple:
    return (image, image), (text, text), (image, text)


def hard_similarity_loss(image_code, text_code, labels) -> tf.Tensor:
    """Mean of `pairwise_loss` within images, within texts and across; related: a shared label."""
    target = tf.cast(shared_labels(labels), tf.float32)
    return sum(pairwise_loss(a, b, target) for a, b in _pairs(image_code, text_code)) / 3


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
    """sign(x), +1 at 0, as codes are packed."""
    return tf.where(x >= 0, 1.0, -1.0)


def balance_loss(image_code: tf.Tensor, text_code: tf.Tensor) -> tf.Tensor:
    """Mean over bits and modalities of (mean over the batch)^2; 0: each bit is +1 half the time."""
    means = [tf.reduce_mean(code, axis=0) for code in (image_code, text_code)]
    return sum(tf.reduce_mean(tf.square(mean)) for mean in means) / 2


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
    quantization_weight: float = 0.1
    balance_weight: float = 0.1
    soft_scale: float = 1.0

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
            "L_Q": (quantization_loss(image, image, signs(image))
                    + quantization_loss(text, text, signs(text))) / 2,
            "L_B": balance_loss(image, text),
        }  # fmt: skip
        terms["total"] = (
            self.hard_weight * terms["L_hard"]
            + self.soft_weight * terms["L_soft"]
            + self.quantization_weight * terms["L_Q"]
            + self.balance_weight * terms["L_B"]
        )
        return terms
