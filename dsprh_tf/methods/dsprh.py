"""DSPRH: pooled and fused image features, twin bottlenecks, and a loss of three families."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from dsprh_tf.losses import (
    REDUCTIONS,
    TERM_NOTES,
    alignment_terms,
    cosine_triplet_loss,
    feature_similarity,
    joint_similarity,
    pairwise_loss,
    shared_labels,
)
from dsprh_tf.methods.base import ADAMW_ON_FEATURES, SGD, FusionSettings, Method, setting
from dsprh_tf.networks import TextNetwork, fused_image_network
from dsprh_tf.similarity import neighbour_thresholds

# The paper's constants; on its data sets they replace those of the frozen recipe.
_SAID = {
    "alpha": 1.0,
    "beta": 0.03,
    "gamma": 1.0,
    "image_weight": 0.9,
    "margin": 0.001,
    "diagonal_target": 1.0,
    "symmetry_weight": 0.5,
}
_MIRFLICKR = {**_SAID, "fusion_weights": (0.25, 0.25, 0.5)}

CHOSEN = {
    "fusion_weights": (0.125, 0.125, 0.75),
    "diagonal_target": 1.5,
    "symmetry_weight": 2.0,
    "beta": 0.3,
    "margin": 0.3,
    "related": "neighbours",
    "gamma": 0.01,
}
"""Settings in place of the paper's, chosen on validation pairs without labels (RESULTS.md)."""


class DSPRH(Method):
    """Deep Semantic-Preserving Reconstruction Hashing (Cheng, Wang and Du, Entropy 2020).

        L_all = alpha L_1 + beta L_2 + gamma L_3,   L_1 = L_F + L_R + L_W   (Eq. 14 and 19)

    Networks: `ImageNetwork` (strip pooling, iSQRT-COV, weighted fusion) and `TextNetwork`.

    The paper prints sums; here all three parts are means unless `alignment_reduction`,
    `triplet_reduction` and `pairwise_reduction` are "sum". For L_1 the two differ in more than
    a factor: see `losses.alignment_terms`. The sums are about M^2 times the means (1,024 times
    for batches of 32), so alpha, beta and gamma, or the learning rates, are to be that much lower.
    """

    name, title = "dsprh", "DSPRH"
    terms = TERM_NOTES

    @dataclasses.dataclass(frozen=True)
    class Settings(FusionSettings):
        """Settings of DSPRH; the defaults are those on MIRFlickr-25K.

        The paper gives alpha, beta, gamma, lambda, nu and the fusion weights (section 4), and
        prints t = 1 and the factor 1/2 of L_R (Eq. 9 and 10). The rest is DSAH's, or a choice
        where the paper leaves one.
        """

        alpha: float = setting(1.0, "Weight of L_1 = L_F + L_R + L_W.")
        beta: float = setting(0.03, "Weight of the cosine triplet loss L_2.")
        gamma: float = setting(1.0, "Weight of the pairwise loss L_3.")
        image_weight: float = setting(
            0.9, "lambda: share of images in the joint similarity.", low=0, high=1
        )
        scale: float = setting(1.5, "k: factor of the similarities.")
        within_weight: float = setting(0.1, "eta: weight of the terms within one modality in L_W.")
        diagonal_target: float = setting(1.0, "t of L_R.")
        symmetry_weight: float = setting(0.5, "Weight of L_R's second term.")
        similarity_source: str = setting(
            "frozen", "Image feature of the similarity: the untouched backbone's, or fused.",
            ("frozen", "fused"),
        )  # fmt: skip
        related: str = setting(
            "pair", "Pairs that are related in L_2; labels is a diagnostic.",
            ("pair", "neighbours", "labels"),
        )  # fmt: skip
        pairwise_target: str = setting(
            "soft", "s_ij of L_3; labels is a diagnostic.", ("soft", "neighbours", "pair", "labels")
        )
        neighbour_share: float = setting(
            0.02, "Share of the training set that counts as neighbours.", low=0, high=1
        )
        margin: float = setting(0.001, "nu: margin of the triplet loss L_2.")
        alignment_reduction: str = setting("mean", "How errors of L_1 are added up.", REDUCTIONS)
        triplet_reduction: str = setting("mean", "How triplets of L_2 are added up.", REDUCTIONS)
        pairwise_reduction: str = setting("mean", "How pairs of L_3 are added up.", REDUCTIONS)

    recipes = {
        # The paper does not name its optimizer: this is that of DSAH, its parent, with 40 epochs.
        "paper": {**SGD, "momentum": 0.7, "nesterov": True, "lr_image": 0.005, "lr_text": 0.005},
        "frozen": {**ADAMW_ON_FEATURES, **CHOSEN},
        "mirflickr25k": _MIRFLICKR,
        "mirflickr25k_mat": _MIRFLICKR,
        "nuswide": {**_SAID, "fusion_weights": (0.125, 0.125, 0.75)},
        # With MobileNetV2's 1,280 channels, keeping more than 64 took longer without a gain.
        "coco": {"cov_channels": 64},
    }

    def __init__(self, bits: int = 64, seed: int = 0, **settings):
        super().__init__(bits, seed, **settings)
        s = self.settings
        if not 0 < s.neighbour_share < 1:
            raise ValueError(
                f"--neighbour_share is {s.neighbour_share:g}, expected more than 0 and less than 1"
            )
        if self._reads("neighbours") and s.similarity_source == "fused":
            raise ValueError(
                "neighbours are found once, before training, and --similarity_source=fused changes "
                "during it: use --similarity_source=frozen"
            )

    @property
    def decoder_input(self):
        """Input of the decoders: "tanh" or "sign"."""
        return self.settings.decoder_input

    def networks(self, sizes):
        """DSPRH's image network, and a network of one hidden layer on the bag of words."""
        s = self.settings
        return (
            fused_image_network(self.bits, sizes, s.fusion_weights, s.cov_channels, s.covariance),
            TextNetwork(self.bits, hidden=s.text_hidden),
        )

    def prepare(self, features, texts, labels):
        """The "neighbour_threshold" and the "labels" of each pair, if the loss reads them."""
        found = {}
        if self._reads("neighbours"):
            if features is None:
                raise ValueError(
                    "neighbours need the features of all training pairs: drop --nocache"
                )
            found["neighbour_threshold"] = neighbour_thresholds(
                features, texts, self.settings.image_weight, self.settings.neighbour_share
            )
        if self._reads("labels"):
            if labels is None:
                raise ValueError(
                    "--related or --pairwise_target is labels, but the data has no labels"
                )
            print(f"note: labels enter the loss of {self.name}: a diagnostic, no result of its own")
            found["labels"] = np.asarray(labels)
        return found

    @property
    def weights(self):
        """Factors of the terms."""
        s = self.settings
        return {**dict.fromkeys(("L_F", "L_R", "L_W"), s.alpha), "L_2": s.beta, "L_3": s.gamma}

    def loss(self, batch, outputs):
        """Scalars "L_F", "L_R", "L_W", "L_2", "L_3" and "total"."""
        s = self.settings
        image_code, text_code = outputs["image_code"], outputs["text_code"]
        frozen = s.similarity_source == "frozen"
        source = batch["target_feature"] if frozen else outputs["image_fused"]
        image = tf.stop_gradient(feature_similarity(source))
        text = feature_similarity(batch["bow"])
        joint = joint_similarity(image, text, s.image_weight)
        terms = alignment_terms(batch, outputs, image, text, joint, s, s.alignment_reduction)
        terms["L_2"] = cosine_triplet_loss(
            image_code,
            text_code,
            self._related(s.related, batch, joint),
            s.margin,
            s.triplet_reduction,
        )
        terms["L_3"] = pairwise_loss(
            image_code, text_code, self._target(batch, joint), s.pairwise_reduction
        )
        first = terms["L_F"] + terms["L_R"] + terms["L_W"]
        terms["total"] = s.alpha * first + s.beta * terms["L_2"] + s.gamma * terms["L_3"]
        return terms

    def _reads(self, kind: str) -> bool:
        return kind in (self.settings.related, self.settings.pairwise_target)

    def _related(self, kind: str, batch, joint: tf.Tensor) -> tf.Tensor:
        """Bool [M, M]: which image and text count as related."""
        pair = tf.eye(tf.shape(joint)[0], dtype=tf.float32) > 0
        if kind == "pair":
            return pair
        if kind == "labels":
            return shared_labels(batch["labels"]) | pair
        # j is a neighbour of i if S~_ij reaches the q-quantile of row i over the training set.
        near = joint >= batch["neighbour_threshold"][:, None]
        return near | tf.transpose(near) | pair

    def _target(self, batch, joint: tf.Tensor) -> tf.Tensor:
        """s of L_3 [M, M]."""
        if self.settings.pairwise_target == "soft":
            # Embeddings have cosines below 0, and targets must not be negative.
            return tf.clip_by_value(0.5 * (joint + 1.0), 0.0, 1.0)
        return tf.cast(self._related(self.settings.pairwise_target, batch, joint), tf.float32)
