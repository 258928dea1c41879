"""DJSRH: code similarities follow feature similarities of first and second order."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from dsprh_tf.losses import (
    cosine_matrix,
    feature_similarity,
    joint_similarity,
    mean_squared_error,
)
from dsprh_tf.methods.base import SGD, Method, setting
from dsprh_tf.networks import plain_networks


class DJSRH(Method):
    """Deep Joint-Semantics Reconstructing Hashing (Su, Zhong and Zhang, ICCV 2019).

        S~ = lambda S_II + (1 - lambda) S_TT,   S = k ((1 - w) S~ + w S~ S~^T / M)
        loss = eta (mse(S, S^B_II) + mse(S, S^B_TT)) + mse(S, S^B_IT)

    The hash layer reads the backbone's feature as it is; there are no decoders. Codes are
    tanh(sqrt(1 + epoch) H) while training, which DSAH and DSPRH have taken over here.
    """

    name, title = "djsrh", "DJSRH"
    terms = {
        "L_W": "Squared error between the cosines of codes and the joint similarity, of first and "
        "second order, within images, within texts and across."
    }

    @dataclasses.dataclass(frozen=True)
    class Settings:
        """Settings of DJSRH; the defaults are the paper's on MIRFlickr-25K."""

        image_weight: float = setting(
            0.9, "lambda: share of images in the joint similarity.", low=0, high=1
        )
        second_order: float = setting(0.4, "w: share of second-order similarity.", low=0, high=1)
        scale: float = setting(1.5, "k: factor of the similarities.")
        within_weight: float = setting(0.1, "eta: weight of the terms within one modality.")
        text_hidden: int = setting(4096, "Hidden size of the text network.", low=1)

    recipes = {
        "paper": {**SGD, "momentum": 0.9, "nesterov": False, "lr_image": 0.001, "lr_text": 0.01},
        "nuswide": {"image_weight": 0.6},
    }

    def networks(self, sizes):
        """A dense layer on the feature, and a network of one hidden layer on the bag of words."""
        del sizes
        return plain_networks(self.bits, self.settings.text_hidden)

    def loss(self, batch, outputs):
        """Scalars "L_W" and "total", which are equal."""
        s = self.settings
        image_code, text_code = outputs["image_code"], outputs["text_code"]
        joint = joint_similarity(
            tf.stop_gradient(feature_similarity(batch["target_feature"])),
            feature_similarity(batch["bow"]),
            s.image_weight,
        )
        size = tf.cast(tf.shape(joint)[0], tf.float32)
        second = tf.matmul(joint, joint, transpose_b=True) / size
        target = s.scale * ((1 - s.second_order) * joint + s.second_order * second)  # [M, M]
        within = mean_squared_error(target, cosine_matrix(image_code, image_code))
        within += mean_squared_error(target, cosine_matrix(text_code, text_code))
        across = mean_squared_error(target, cosine_matrix(image_code, text_code))
        total = s.within_weight * within + across
        return {"L_W": total, "total": total}
