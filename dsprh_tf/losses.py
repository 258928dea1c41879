"""Losses of cross-modal hashing, one function an equation, and the objectives built from them.

Notation: M batch size, K bits, B codes while training [M, K] in (-1, 1), S similarity matrices
[M, M]. Equation numbers are those of DSPRH (Entropy 2020, 22(11), 1266). All arithmetic is
float32. Matrices are over the batch at hand: under `tf.distribute` over one replica's part.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from dsprh_tf.layers import l2_normalize

RELATED = ("pair", "neighbours", "labels")
PAIRWISE_TARGETS = ("soft", "neighbours", "pair", "labels")
REDUCTIONS = ("mean", "sum")


def cosine_matrix(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Cosines of all rows of a [M, n] with all rows of b [N, n] -> [M, N]."""
    return tf.matmul(l2_normalize(a), l2_normalize(b), transpose_b=True)


def feature_similarity(features: tf.Tensor) -> tf.Tensor:
    """S^F = 2 cos - 1 of non-negative features [M, n] -> [M, M], in [-1, 1]."""
    return 2.0 * cosine_matrix(features, features) - 1.0


def joint_similarity(image: tf.Tensor, text: tf.Tensor, image_weight: float) -> tf.Tensor:
    """S~ = lambda S_II + (1 - lambda) S_TT (Eq. 12, whose second term is printed S_II)."""
    return image_weight * image + (1.0 - image_weight) * text


def mean_squared_error(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Mean over all entries of (a - b)^2 -> scalar."""
    return tf.reduce_mean(tf.square(a - b))


def reconstruction_loss(
    text_from_image: tf.Tensor,
    image_from_text: tf.Tensor,
    text_feature: tf.Tensor,
    image_feature: tf.Tensor,
) -> tf.Tensor:
    """L_F = mse(F'_I, l2 F_T) + mse(F'_T, l2 F_I) (Eq. 8): each bottleneck rebuilds the other side.

    Args:
        text_from_image: F'_I [M, D_T], decoded from the image code.
        image_from_text: F'_T [M, D_I], decoded from the text code.
        text_feature: F_T [M, D_T]; no gradient flows into it.
        image_feature: F_I [M, D_I]; no gradient flows into it.
    """
    text_target = tf.stop_gradient(l2_normalize(text_feature))
    image_target = tf.stop_gradient(l2_normalize(image_feature))
    return mean_squared_error(text_from_image, text_target) + mean_squared_error(
        image_from_text, image_target
    )


def ranking_loss(
    image_text: tf.Tensor,
    diagonal_target: float = 1.0,
    symmetry_weight: float = 0.5,
    diagonal_weight: float = 1.0,
) -> tf.Tensor:
    """L_R = v mean_i (t - S_IT(i,i))^2 + w mean_ij (S_IT(i,j) - S_IT(j,i))^2 (Eq. 9 to 11).

    Args:
        image_text: S^B_IT [M, M], cosines of image codes with text codes.
        diagonal_target: t; 1 as printed, 1.5 in DSAH.
        symmetry_weight: w; 1/2 as printed, 2 in DSAH.
        diagonal_weight: v; 1 in both.
    """
    diagonal = diagonal_weight * tf.reduce_mean(
        tf.square(diagonal_target - tf.linalg.diag_part(image_text))
    )
    return diagonal + symmetry_weight * mean_squared_error(image_text, tf.transpose(image_text))


def similarity_loss(
    image_image: tf.Tensor,
    text_text: tf.Tensor,
    image_text: tf.Tensor,
    image_similarity: tf.Tensor,
    text_similarity: tf.Tensor,
    joint: tf.Tensor,
    scale: float = 1.5,
    within_weight: float = 0.1,
) -> tf.Tensor:
    """L_W: code cosines follow feature similarities (Eq. 13).

    L_W = eta sum_X mse(k S^F_XX, S^B_XX) + sum_XY mse(k S~, S^B_XY), X in {I, T} and XY in
    {II, TT, IT}. The paper prints S^B_IT in the first sum; S^B_XX is meant, and its mu = 10 on
    the second sum is eta = .1 on the first, up to the common factor.

    Args:
        image_image: S^B_II [M, M].
        text_text: S^B_TT [M, M].
        image_text: S^B_IT [M, M].
        image_similarity: S^F_II [M, M].
        text_similarity: S^F_TT [M, M].
        joint: S~ [M, M].
        scale: k.
        within_weight: eta.
    """
    within = mean_squared_error(scale * image_similarity, image_image)
    within += mean_squared_error(scale * text_similarity, text_text)
    across = sum(mean_squared_error(scale * joint, s) for s in (image_image, text_text, image_text))
    return within_weight * within + across


def _reduce(values: tf.Tensor, count: tf.Tensor, reduction: str) -> tf.Tensor:
    total = tf.reduce_sum(values)
    return total if reduction == "sum" else tf.math.divide_no_nan(total, count)


def cosine_triplet_loss(
    image_code: tf.Tensor,
    text_code: tf.Tensor,
    related: tf.Tensor,
    margin: float = 0.001,
    reduction: str = "mean",
) -> tf.Tensor:
    """L_2 = sum over (i, j+, k-) of max(cos(x_i, y_k-) - cos(x_i, y_j+) + nu, 0), both ways.

    Eq. 15 to 17. Memory is 4 M^3 bytes a direction: 128 KiB at M = 32, 64 MiB at M = 256.

    Args:
        image_code: x [M, K].
        text_code: y [M, K].
        related: bool [M, M], entry (i, j) true if image i and text j are related; a batch
            without any (related, unrelated) combination costs 0.
        margin: nu.
        reduction: "mean" over the triplets of each direction, or "sum".
    """
    cosines = cosine_matrix(image_code, text_code)

    def one_way(similarity, positive):
        hinge = similarity[:, None, :] - similarity[:, :, None] + margin  # [M, j, k]
        valid = tf.cast(positive[:, :, None] & ~positive[:, None, :], tf.float32)
        return _reduce(tf.nn.relu(hinge) * valid, tf.reduce_sum(valid), reduction)

    return one_way(cosines, related) + one_way(tf.transpose(cosines), tf.transpose(related))


def pairwise_loss(
    image_code: tf.Tensor, text_code: tf.Tensor, target: tf.Tensor, reduction: str = "mean"
) -> tf.Tensor:
    """L_3 = sum_ij softplus(Omega_ij) - s_ij Omega_ij, Omega = b_I^T b_T / 2.

    The negative log-likelihood that Eq. 18 names; it prints neither the logarithm nor this sign.

    Args:
        image_code: b_I [M, K].
        text_code: b_T [M, K].
        target: s [M, M] in [0, 1].
        reduction: "mean" over the M^2 entries, or "sum".
    """
    omega = 0.5 * tf.matmul(image_code, text_code, transpose_b=True)
    values = tf.nn.softplus(omega) - target * omega
    return tf.reduce_mean(values) if reduction == "mean" else tf.reduce_sum(values)


def shared_labels(labels: tf.Tensor) -> tf.Tensor:
    """Whether two items share a label: multi-hot [M, L] -> bool [M, M]."""
    labels = tf.cast(labels, tf.float32)
    return tf.matmul(labels, labels, transpose_b=True) > 0


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}, expected a number in [0, 1]")


def _check_choice(name: str, value: str, choices: tuple) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")


@dataclasses.dataclass(frozen=True)
class DSPRHObjective:
    """The composite loss L_all = alpha L_1 + beta L_2 + gamma L_3 (Eq. 14 and 19).

    Attributes:
        alpha: weight of L_1 = L_F + L_R + L_W.
        beta: weight of the cosine triplet loss L_2.
        gamma: weight of the pairwise loss L_3.
        image_weight: lambda of the joint similarity.
        scale: k, by which similarities are stretched as targets of code cosines.
        within_weight: eta of L_W.
        diagonal_target: t of L_R.
        symmetry_weight: weight of L_R's second term.
        similarity_source: S^F_II from the "frozen" backbone's feature, or from the "fused" F_I
            (without gradient).
        related: what counts as related in L_2: the "pair" only, the "neighbours" in S~ over the
            training set, or shared "labels" (supervised: a diagnostic).
        pairwise_target: s_ij of L_3: "soft" (S~ + 1) / 2, "neighbours", "pair", or "labels".
        margin: nu of L_2.
        triplet_reduction: "mean" or "sum" of L_2; beta means nothing without it.
        pairwise_reduction: "mean" or "sum" of L_3; gamma means nothing without it.
    """

    alpha: float = 1.0
    beta: float = 0.03
    gamma: float = 1.0
    image_weight: float = 0.9
    scale: float = 1.5
    within_weight: float = 0.1
    diagonal_target: float = 1.0
    symmetry_weight: float = 0.5
    similarity_source: str = "frozen"
    related: str = "pair"
    pairwise_target: str = "soft"
    margin: float = 0.001
    triplet_reduction: str = "mean"
    pairwise_reduction: str = "mean"

    terms = ("L_F", "L_R", "L_W", "L_2", "L_3")
    needs_graph = False
    needs_decoders = True

    def __post_init__(self):
        _check_choice("similarity_source", self.similarity_source, ("frozen", "fused"))
        _check_choice("related", self.related, RELATED)
        _check_choice("pairwise_target", self.pairwise_target, PAIRWISE_TARGETS)
        _check_choice("triplet_reduction", self.triplet_reduction, REDUCTIONS)
        _check_choice("pairwise_reduction", self.pairwise_reduction, REDUCTIONS)
        _check_share("image_weight", self.image_weight)
        if self.needs_neighbours and self.similarity_source == "fused":
            raise ValueError(
                "neighbours are found once, before training, and similarity_source='fused' "
                "changes during it: use similarity_source='frozen'"
            )

    @property
    def needs_neighbours(self) -> bool:
        """Whether batches must carry each item's "neighbour_threshold" [M]."""
        return "neighbours" in (self.related, self.pairwise_target)

    @property
    def needs_labels(self) -> bool:
        """Whether batches must carry "labels" [M, L], which makes the method supervised."""
        return "labels" in (self.related, self.pairwise_target)

    def __call__(self, batch: dict, outputs: dict) -> dict:
        """Computes every term of the loss.

        Args:
            batch: "bow" [M, D_T], "target_feature" [M, D_I], and, where needed,
                "neighbour_threshold" [M] and "labels" [M, L].
            outputs: of `CrossModalHashing.call`.

        Returns:
            A dict of scalars: "L_F", "L_R", "L_W", "L_2", "L_3", "total".
        """
        image_code, text_code = outputs["image_code"], outputs["text_code"]
        frozen = self.similarity_source == "frozen"
        source = batch["target_feature"] if frozen else outputs["image_fused"]
        image_similarity = tf.stop_gradient(feature_similarity(source))
        text_similarity = feature_similarity(batch["bow"])
        joint = joint_similarity(image_similarity, text_similarity, self.image_weight)
        image_text = cosine_matrix(image_code, text_code)
        terms = {
            "L_F": reconstruction_loss(
                outputs["text_from_image"],
                outputs["image_from_text"],
                batch["bow"],
                outputs["image_fused"],
            ),
            "L_R": ranking_loss(image_text, self.diagonal_target, self.symmetry_weight),
            "L_W": similarity_loss(
                cosine_matrix(image_code, image_code),
                cosine_matrix(text_code, text_code),
                image_text,
                image_similarity,
                text_similarity,
                joint,
                self.scale,
                self.within_weight,
            ),
            "L_2": cosine_triplet_loss(
                image_code,
                text_code,
                self._related(self.related, batch, joint),
                self.margin,
                self.triplet_reduction,
            ),
            "L_3": pairwise_loss(
                image_code, text_code, self._target(batch, joint), self.pairwise_reduction
            ),
        }
        first = terms["L_F"] + terms["L_R"] + terms["L_W"]
        terms["total"] = self.alpha * first + self.beta * terms["L_2"] + self.gamma * terms["L_3"]
        return terms

    def _related(self, kind: str, batch: dict, joint: tf.Tensor) -> tf.Tensor:
        pair = tf.eye(tf.shape(joint)[0], dtype=tf.float32) > 0
        if kind == "pair":
            return pair
        if kind == "labels":
            return shared_labels(batch["labels"]) | pair
        # j is a neighbour of i if S~_ij reaches the q-quantile of row i over the training set.
        near = joint >= batch["neighbour_threshold"][:, None]
        return near | tf.transpose(near) | pair

    def _target(self, batch: dict, joint: tf.Tensor) -> tf.Tensor:
        if self.pairwise_target == "soft":
            # Features with negative entries (embeddings) have cosines below 0, targets not.
            return tf.clip_by_value(0.5 * (joint + 1.0), 0.0, 1.0)
        return tf.cast(self._related(self.pairwise_target, batch, joint), tf.float32)


@dataclasses.dataclass(frozen=True)
class DJSRHObjective:
    """Joint-semantics reconstruction (DJSRH, ICCV 2019).

        S~ = lambda S_II + (1 - lambda) S_TT,   S = k ((1 - w) S~ + w S~ S~^T / M)
        loss = eta (mse(S, S^B_II) + mse(S, S^B_TT)) + mse(S, S^B_IT)

    Attributes:
        image_weight: lambda; .9 on MIRFlickr-25K, .6 on NUS-WIDE.
        second_order: w, the share of S~ S~^T / M.
        scale: k.
        within_weight: eta.
    """

    image_weight: float = 0.9
    second_order: float = 0.4
    scale: float = 1.5
    within_weight: float = 0.1

    terms = ("L_W",)
    needs_neighbours = needs_labels = needs_graph = needs_decoders = False

    def __post_init__(self):
        _check_share("image_weight", self.image_weight)
        _check_share("second_order", self.second_order)

    def __call__(self, batch: dict, outputs: dict) -> dict:
        """Scalars "L_W" and "total", which are the same, from the keys of `DSPRHObjective`."""
        image_code, text_code = outputs["image_code"], outputs["text_code"]
        joint = joint_similarity(
            tf.stop_gradient(feature_similarity(batch["target_feature"])),
            feature_similarity(batch["bow"]),
            self.image_weight,
        )
        size = tf.cast(tf.shape(joint)[0], tf.float32)
        second = tf.matmul(joint, joint, transpose_b=True) / size
        target = self.scale * ((1 - self.second_order) * joint + self.second_order * second)
        within = mean_squared_error(target, cosine_matrix(image_code, image_code))
        within += mean_squared_error(target, cosine_matrix(text_code, text_code))
        across = mean_squared_error(target, cosine_matrix(image_code, text_code))
        total = self.within_weight * within + across
        return {"L_W": total, "total": total}


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


@dataclasses.dataclass(frozen=True)
class GraphObjective:
    """DSPRH's three families of losses on a similarity from the training set's neighbour graph.

    Where DSPRH compares the features of two items, this compares features and neighbourhoods
    (R of `dsprh_tf.graph`), standardised, so that "unrelated" is 0 and not a constant of the
    features:

        T = min(d R, t)
        L_W = mse(T, S^B_II) + mse(T, S^B_TT) + mse(T, S^B_IT),   L_F and L_R as in DSPRH
        L_2 with "related" meaning T > 2 d,   L_3 with s = sigmoid(4 T)

    Attributes:
        alpha: weight of L_1 = L_F + L_R + L_W.
        beta: weight of L_2.
        gamma: weight of L_3.
        target_deviation: d, the standard deviation of T but for its bound.
        diagonal_target: t of L_R, and the largest target.
        diagonal_weight: weight of L_R's first term.
        symmetry_weight: weight of L_R's second term.
        margin: nu of L_2.
        graph: the `NeighbourGraph` of the training set, set by `fitted`.
    """

    alpha: float = 1.0
    beta: float = 0.1
    gamma: float = 0.01
    target_deviation: float = 0.35
    diagonal_target: float = 1.5
    diagonal_weight: float = 0.1
    symmetry_weight: float = 0.0
    margin: float = 0.3
    graph: object = dataclasses.field(default=None, repr=False, compare=False)

    terms = DSPRHObjective.terms
    needs_neighbours = needs_labels = False
    needs_graph = needs_decoders = True

    def __post_init__(self):
        if not self.target_deviation > 0:
            raise ValueError(
                f"target_deviation is {self.target_deviation}, expected a number above 0"
            )

    def fitted(self, graph) -> GraphObjective:
        """The objective with the `NeighbourGraph` of its training set."""
        return dataclasses.replace(self, graph=graph)

    def target(self, batch: dict) -> tf.Tensor:
        """T [M, M] from "target_feature", "bow", "graph_neighbours" and "graph_weights"."""
        if self.graph is None:
            raise ValueError("the objective knows no graph yet: use objective.fitted(graph)")
        image, words = batch["target_feature"], batch["bow"] * self.graph.word_weights
        first = joint_similarity(
            cosine_matrix(image, image), cosine_matrix(words, words), self.graph.image_weight
        )
        second = graph_similarity(batch["graph_neighbours"], batch["graph_weights"])
        standard = self.graph.first * first + self.graph.second * second - self.graph.offset
        return tf.stop_gradient(tf.minimum(self.target_deviation * standard, self.diagonal_target))

    def __call__(self, batch: dict, outputs: dict) -> dict:
        """The same terms as `DSPRHObjective`."""
        image_code, text_code = outputs["image_code"], outputs["text_code"]
        target = self.target(batch)
        image_text = cosine_matrix(image_code, text_code)
        pairs = (
            cosine_matrix(image_code, image_code), cosine_matrix(text_code, text_code), image_text
        )  # fmt: skip
        terms = {
            "L_F": reconstruction_loss(
                outputs["text_from_image"],
                outputs["image_from_text"],
                batch["bow"],
                outputs["image_fused"],
            ),
            "L_R": ranking_loss(
                image_text, self.diagonal_target, self.symmetry_weight, self.diagonal_weight
            ),
            "L_W": sum(mean_squared_error(target, cosines) for cosines in pairs),
        }
        near = (target > 2 * self.target_deviation) | (tf.eye(tf.shape(target)[0]) > 0)
        terms["L_2"] = cosine_triplet_loss(image_code, text_code, near, self.margin)
        terms["L_3"] = pairwise_loss(image_code, text_code, tf.sigmoid(4 * target))
        first = terms["L_F"] + terms["L_R"] + terms["L_W"]
        terms["total"] = self.alpha * first + self.beta * terms["L_2"] + self.gamma * terms["L_3"]
        return terms
