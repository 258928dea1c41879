"""DSPRH+, a method of this project: DSPRH's networks and losses on a neighbour graph."""

from __future__ import annotations

import dataclasses
import resource
import time

import tensorflow as tf

from dsprh_tf.losses import (
    TERM_NOTES,
    cosine_matrix,
    cosine_triplet_loss,
    joint_similarity,
    mean_squared_error,
    pairwise_loss,
    ranking_loss,
    reconstruction_loss,
)
from dsprh_tf.methods.base import ADAMW_ON_FEATURES, SGD, FusionSettings, Method, setting
from dsprh_tf.neighbour_graph import NeighbourGraph, build_graph
from dsprh_tf.networks import TextNetwork, fused_image_network


class DSPRHPlus(Method):
    """DSPRH's networks and its three families of losses, with targets from a neighbour graph.

    DSPRH compares the features of two items. DSPRH+ compares their features and their neighbours in
    the training set, as the standardised similarity R of `dsprh_tf.neighbour_graph`, in which
    unrelated items are near 0 whatever the features:

        T = min(d R, t)
        L_W = mse(T, S^B_II) + mse(T, S^B_TT) + mse(T, S^B_IT),   L_F and L_R as in DSPRH
        L_2 with "related" meaning T > 2 d,   L_3 with s = sigmoid(4 T)

    Attributes:
        graph: the `NeighbourGraph` of the training set, once `prepare` has built it.
    """

    name, title = "dsprh_plus", "DSPRH+"
    terms = TERM_NOTES

    @dataclasses.dataclass(frozen=True)
    class Settings(FusionSettings):
        """Settings of DSPRH+, chosen on validation pairs without labels (RESULTS.md)."""

        alpha: float = setting(1.0, "Weight of L_1 = L_F + L_R + L_W.")
        beta: float = setting(0.1, "Weight of the cosine triplet loss L_2.")
        gamma: float = setting(0.01, "Weight of the pairwise loss L_3.")
        image_weight: float = setting(
            0.5, "lambda: share of images in the joint similarity.", low=0, high=1
        )
        second_order: float = setting(0.7, "w: share of second-order similarity.", low=0, high=1)
        neighbours: int = setting(20, "Neighbours of an item in the training graph.", low=2)
        target_deviation: float = setting(0.35, "d: standard deviation of the targets.", low=0)
        diagonal_target: float = setting(1.5, "t of L_R, and the largest target.")
        diagonal_weight: float = setting(0.1, "Weight of the diagonal term of L_R.")
        symmetry_weight: float = setting(0.0, "Weight of L_R's second term.")
        margin: float = setting(0.3, "nu of L_2.")

    recipes = {
        "paper": {**SGD, "momentum": 0.7, "nesterov": True, "lr_image": 0.005, "lr_text": 0.005},
        "frozen": {
            **ADAMW_ON_FEATURES,
            "fusion_weights": (0.125, 0.125, 0.75),
            "epochs": 40,
            "single_texts": 0.5,
            "average_from": 0.5,
        },
        # As in DSPRH.
        "mirflickr25k": {"fusion_weights": (0.25, 0.25, 0.5)},
        "mirflickr25k_mat": {"fusion_weights": (0.25, 0.25, 0.5)},
        "nuswide": {"fusion_weights": (0.125, 0.125, 0.75)},
        "coco": {"cov_channels": 64},
        "pairs": {"cov_channels": 64},
    }

    def __init__(self, bits: int = 64, seed: int = 0, **settings):
        super().__init__(bits, seed, **settings)
        if not self.settings.target_deviation > 0:
            raise ValueError(
                f"--target_deviation is {self.settings.target_deviation}, expected a number above 0"
            )
        self.graph: NeighbourGraph | None = None

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
        """Builds the graph; returns "graph_neighbours" and "graph_weights" of each pair."""
        del labels
        if features is None:
            raise ValueError("neighbours need the features of all training pairs: drop --nocache")
        s, started = self.settings, time.monotonic()
        self.graph = build_graph(
            features, texts, s.image_weight, s.neighbours, s.second_order, self.seed
        )
        seconds = time.monotonic() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"graph: {len(features):,} pairs, {s.neighbours} neighbours, "
            f"{'exact' if self.graph.exact else 'approximate'}, {seconds:.1f} s, "
            f"memory of the process at most {peak:.1f} GiB"
        )
        return {"graph_neighbours": self.graph.neighbours, "graph_weights": self.graph.weights}

    def pairwise(self, batch):
        """The batch with "graph_similarity" [M, M] in place of the rows of the graph."""
        rows = ("graph_neighbours", "graph_weights")
        if not batch.keys() >= set(rows):
            return batch
        rest = {name: value for name, value in batch.items() if name not in rows}
        return {**rest, "graph_similarity": graph_similarity(*(batch[name] for name in rows))}

    def target(self, batch) -> tf.Tensor:
        """T [M, M] from "target_feature", "bow" and "graph_similarity" or the graph's rows."""
        if self.graph is None:
            raise ValueError(
                f"{self.name} knows no graph yet: call prepare with the training pairs, and add "
                "what it returns to the batches"
            )
        image, words = batch["target_feature"], batch["bow"] * self.graph.word_weights
        first = joint_similarity(
            cosine_matrix(image, image), cosine_matrix(words, words), self.graph.image_weight
        )
        second = self.pairwise(batch)["graph_similarity"]
        standard = self.graph.first * first + self.graph.second * second - self.graph.offset
        s = self.settings
        return tf.stop_gradient(tf.minimum(s.target_deviation * standard, s.diagonal_target))

    @property
    def weights(self):
        """Factors of the terms."""
        s = self.settings
        return {**dict.fromkeys(("L_F", "L_R", "L_W"), s.alpha), "L_2": s.beta, "L_3": s.gamma}

    def loss(self, batch, outputs):
        """Scalars "L_F", "L_R", "L_W", "L_2", "L_3" and "total"."""
        s = self.settings
        image_code, text_code = outputs["image_code"], outputs["text_code"]
        target = self.target(batch)
        image_text = cosine_matrix(image_code, text_code)
        pairs = (
            cosine_matrix(image_code, image_code),
            cosine_matrix(text_code, text_code),
            image_text,
        )
        terms = {
            "L_F": reconstruction_loss(
                outputs["text_from_image"],
                outputs["image_from_text"],
                batch["bow"],
                outputs["image_fused"],
            ),
            "L_R": ranking_loss(
                image_text, s.diagonal_target, s.symmetry_weight, s.diagonal_weight
            ),
            "L_W": sum(mean_squared_error(target, cosines) for cosines in pairs),
        }
        near = (target > 2 * s.target_deviation) | (tf.eye(tf.shape(target)[0]) > 0)
        terms["L_2"] = cosine_triplet_loss(image_code, text_code, near, s.margin)
        terms["L_3"] = pairwise_loss(image_code, text_code, tf.sigmoid(4 * target))
        first = terms["L_F"] + terms["L_R"] + terms["L_W"]
        terms["total"] = s.alpha * first + s.beta * terms["L_2"] + s.gamma * terms["L_3"]
        return terms


def graph_similarity(neighbours: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Inner products g_i . g_j of sparse rows -> [M, M].

    Args:
        neighbours: int [M, m], columns of the entries; below 0 for none.
        weights: [M, m], the entries; 0 where there is none.
    """
    shape = tf.shape(neighbours)
    columns, position = tf.unique(tf.reshape(neighbours, [-1]))
    rows = tf.repeat(tf.range(shape[0]), shape[1])
    dense = tf.scatter_nd(
        tf.stack([rows, position], axis=1),
        tf.reshape(weights, [-1]),
        tf.stack([shape[0], tf.shape(columns)[0]]),
    )  # [M, columns that occur in the batch]
    return tf.matmul(dense, dense, transpose_b=True)
