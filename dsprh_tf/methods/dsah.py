"""DSAH: similarities aligned within and between modalities, and codes that are decoded."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from dsprh_tf.losses import (
    TERM_NOTES,
    alignment_terms,
    cosine_triplet_loss,
    feature_similarity,
    joint_similarity,
    pairwise_loss,
)
from dsprh_tf.methods.base import SGD, Method, setting
from dsprh_tf.networks import plain_networks


class DSAH(Method):
    """Deep Semantic-Alignment Hashing (Yang et al., ICMR 2020).

        loss = L_F + L_R + L_W

    in DSPRH's notation, with t = 1.5 and weight 2 in L_R. In the released code the decoders read
    sign(B), through which no gradient reaches the encoders: `decoder_input="sign"` does the same.
    """

    name, title = "dsah", "DSAH"
    terms = TERM_NOTES

    @dataclasses.dataclass(frozen=True)
    class Settings:
        """Settings of DSAH; the defaults are those of its released code, except `decoder_input`."""

        image_weight: float = setting(
            0.9, "lambda: share of images in the joint similarity.", low=0, high=1
        )
        scale: float = setting(1.5, "k: factor of the similarities.")
        within_weight: float = setting(0.1, "eta: weight of the terms within one modality in L_W.")
        diagonal_target: float = setting(1.5, "t: target of L_R for the cosine of a pair's codes.")
        symmetry_weight: float = setting(2.0, "Weight of the symmetry term of L_R.")
        decoder_input: str = setting(
            "tanh",
            "Input of the decoders; sign: straight-through, in DSAH without any gradient.",
            ("tanh", "sign"),
        )
        text_hidden: int = setting(4096, "Hidden size of the text network.", low=1)

    recipes = {
        "paper": {**SGD, "momentum": 0.7, "nesterov": True, "lr_image": 0.005, "lr_text": 0.005},
    }

    @property
    def decoder_input(self):
        """Input of the decoders: "tanh", or "inert" signs."""
        return "inert" if self.settings.decoder_input == "sign" else "tanh"

    def networks(self, sizes):
        """A dense layer on the feature, and a network of one hidden layer on the bag of words."""
        del sizes
        return plain_networks(self.bits, self.settings.text_hidden)

    @property
    def weights(self):
        """L_2 and L_3 are only shown."""
        return {"L_2": 0.0, "L_3": 0.0}

    def loss(self, batch, outputs):
        """Scalars "L_F", "L_R", "L_W", their sum "total", and DSPRH's "L_2" and "L_3"."""
        s = self.settings
        image = tf.stop_gradient(feature_similarity(batch["target_feature"]))
        text = feature_similarity(batch["bow"])
        joint = joint_similarity(image, text, s.image_weight)
        terms = alignment_terms(batch, outputs, image, text, joint, s)
        # Shown for comparison with DSPRH, at weight 0. They stay in the total: without them
        # gradients round differently, and all numbers change in their last digits.
        codes = outputs["image_code"], outputs["text_code"]
        terms["L_2"] = cosine_triplet_loss(*codes, tf.eye(tf.shape(joint)[0]) > 0)
        terms["L_3"] = pairwise_loss(*codes, tf.clip_by_value(0.5 * (joint + 1.0), 0.0, 1.0))
        watched = 0.0 * terms["L_2"] + 0.0 * terms["L_3"]
        return {**terms, "total": terms["L_F"] + terms["L_R"] + terms["L_W"] + watched}
