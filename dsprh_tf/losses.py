"""Losses that two or more methods use, one function per equation.

Notation: M batch size, K bits, B codes while training [M, K] in (-1, 1), S similarity matrices
[M, M], Y labels, multi-hot [M, L]. Equation numbers are those of DSPRH (Entropy 2020, 22(11),
1266). All arithmetic is float32. Matrices are over one batch: under `tf.distribute` over one
replica's part of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from dsprh_tf.layers import l2_normalize

REDUCTIONS = ("mean", "sum")

TERM_NOTES = {
    "L_F": "Reconstruction (Eq. 8): squared error of what is decoded from each code of the other "
    "modality's feature. Features have length 1, so it is small from the start. Measured: .037 "
    "after epoch 1, .002 after 29.",
    "L_R": "Ranking (Eq. 9 to 11): the codes of a pair should have a cosine of 1 or more, and "
    "image i and text j be as near as image j and text i. Measured: .19 after epoch 1, .034 after "
    "29.",
    "L_W": "Similarity (Eq. 13): squared error between the cosines of codes and those that "
    "features and words of the batch ask for. It ends above 0, as K bits cannot hold all of them. "
    "Measured: .48 after epoch 1, .14 after 29.",
    "L_2": "Cosine triplet (Eq. 15): how much nearer an unrelated item is than a related one, plus "
    "the margin. 0: all are in order. Measured: .45 after epoch 1, .037 after 29.",
    "L_3": "Pairwise likelihood (Eq. 18): .693 (ln 2) for codes that say nothing. Its weight is "
    "small by default, so it can rise as codes harden. Measured: .69 after epoch 1, .74 after 29.",
}
"""What TensorBoard says of the terms that DSPRH and its relatives share."""


def cosine_matrix(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Cosines of all rows of a [M, n] with all rows of b [N, n] -> [M, N]."""
    return tf.matmul(l2_normalize(a), l2_normalize(b), transpose_b=True)


def feature_similarity(features: tf.Tensor) -> tf.Tensor:
    """S^F = 2 cos - 1, in [-1, 1] for non-negative features: [M, n] -> [M, M].

    As in DJSRH's code; the paper of DSPRH does not define S^F.
    """
    return 2.0 * cosine_matrix(features, features) - 1.0


def joint_similarity(image: tf.Tensor, text: tf.Tensor, image_weight: float) -> tf.Tensor:
    """S~ = lambda S_II + (1 - lambda) S_TT (Eq. 12, where it is called S^F_IT).

    The sentence below Eq. 12 calls S^F_TT a similarity of image features; texts are meant.
    """
    return image_weight * image + (1.0 - image_weight) * text


def squared_error(a: tf.Tensor, b: tf.Tensor, reduction: str = "mean") -> tf.Tensor:
    """(a - b)^2 over all entries, their "mean" or their "sum" -> scalar."""
    errors = tf.square(a - b)
    return tf.reduce_mean(errors) if reduction == "mean" else tf.reduce_sum(errors)


def mean_squared_error(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Mean over all entries of (a - b)^2 -> scalar."""
    return squared_error(a, b)


def reconstruction_loss(
    text_from_image: tf.Tensor,
    image_from_text: tf.Tensor,
    text_feature: tf.Tensor,
    image_feature: tf.Tensor,
    reduction: str = "mean",
) -> tf.Tensor:
    """L_F = |F'_I - l2 F_T|^2 + |F'_T - l2 F_I|^2 (Eq. 8): a code rebuilds the other modality.

    Eq. 8 does not normalise the targets; DSAH's code does.

    Args:
        text_from_image: F'_I [M, D_T], decoded from the image code.
        image_from_text: F'_T [M, D_I], decoded from the text code.
        text_feature: F_T [M, D_T]; no gradient flows into it.
        image_feature: F_I [M, D_I]; no gradient flows into it.
        reduction: "mean" over the entries of each matrix, or "sum" as printed.
    """
    text_target = tf.stop_gradient(l2_normalize(text_feature))
    image_target = tf.stop_gradient(l2_normalize(image_feature))
    return squared_error(text_from_image, text_target, reduction) + squared_error(
        image_from_text, image_target, reduction
    )


def ranking_loss(
    image_text: tf.Tensor,
    diagonal_target: float = 1.0,
    symmetry_weight: float = 0.5,
    diagonal_weight: float = 1.0,
    reduction: str = "mean",
) -> tf.Tensor:
    """L_R = v mean_i (t - S_IT(i,i))^2 + w mean_ij (S_IT(i,j) - S_IT(j,i))^2 (Eq. 9 to 11).

    Args:
        image_text: S^B_IT [M, M], cosines of image codes with text codes.
        diagonal_target: t; 1 as printed (Eq. 9), 1.5 in DSAH.
        symmetry_weight: w; 1/2 as printed (Eq. 10), 2 in DSAH.
        diagonal_weight: v; 1 in both.
        reduction: "mean" as above, or "sum" over i and over i and j, as printed.
    """
    diagonal = diagonal_weight * squared_error(
        diagonal_target, tf.linalg.diag_part(image_text), reduction
    )
    return diagonal + symmetry_weight * squared_error(
        image_text, tf.transpose(image_text), reduction
    )


def similarity_loss(
    image_image: tf.Tensor,
    text_text: tf.Tensor,
    image_text: tf.Tensor,
    image_similarity: tf.Tensor,
    text_similarity: tf.Tensor,
    joint: tf.Tensor,
    scale: float = 1.5,
    within_weight: float = 0.1,
    reduction: str = "mean",
) -> tf.Tensor:
    """L_W: code cosines follow feature similarities (Eq. 13).

    L_W = eta sum_X mse(k S^F_XX, S^B_XX) + sum_XY mse(k S~, S^B_XY), X in {I, T} and XY in
    {II, TT, IT}. Eq. 13 prints S^B_IT in the first sum, where S^B_XX is meant, and weighs the
    second sum by mu instead of the first by eta = 1 / mu. It gives no values of k and mu:
    k = 1.5 and eta = .1 are DSAH's.

    Args:
        image_image: S^B_II [M, M].
        text_text: S^B_TT [M, M].
        image_text: S^B_IT [M, M].
        image_similarity: S^F_II [M, M].
        text_similarity: S^F_TT [M, M].
        joint: S~ [M, M].
        scale: k.
        within_weight: eta.
        reduction: "mean" over the entries of each matrix, or "sum" as printed.
    """
    within = squared_error(scale * image_similarity, image_image, reduction)
    within += squared_error(scale * text_similarity, text_text, reduction)
    pairs = (image_image, text_text, image_text)
    across = sum(squared_error(scale * joint, s, reduction) for s in pairs)
    return within_weight * within + across


def alignment_terms(
    batch: dict,
    outputs: dict,
    image: tf.Tensor,
    text: tf.Tensor,
    joint: tf.Tensor,
    settings,
    reduction: str = "mean",
) -> dict:
    """Terms of L_1 = L_F + L_R + L_W (Eq. 14): DSAH's loss, and the first family of DSPRH's.

    The paper prints sums over all entries, DSAH's code takes means. The sums are M^2 times L_W,
    M times L_R's first part and M D_T and M D_I times the two parts of L_F: relative to L_W,
    means weigh L_F's parts D_T / M and D_I / M times less, and L_R's first part M times more
    (43, 128 and 32 on MIRFlickr-25K with AlexNet and batches of 32).

    Args:
        batch: "bow" [M, D_T].
        outputs: of `CrossModalHashing.call`.
        image: S^F_II [M, M].
        text: S^F_TT [M, M].
        joint: S~ [M, M].
        settings: object with `diagonal_target`, `symmetry_weight`, `scale` and `within_weight`.
        reduction: "mean" or "sum".

    Returns:
        Scalars "L_F", "L_R" and "L_W".
    """
    image_code, text_code = outputs["image_code"], outputs["text_code"]
    image_text = cosine_matrix(image_code, text_code)
    return {
        "L_F": reconstruction_loss(
            outputs["text_from_image"],
            outputs["image_from_text"],
            batch["bow"],
            outputs["image_fused"],
            reduction,
        ),
        "L_R": ranking_loss(
            image_text,
            settings.diagonal_target,
            settings.symmetry_weight,
            reduction=reduction,
        ),
        "L_W": similarity_loss(
            cosine_matrix(image_code, image_code),
            cosine_matrix(text_code, text_code),
            image_text,
            image,
            text,
            joint,
            settings.scale,
            settings.within_weight,
            reduction,
        ),
    }


def cosine_triplet_loss(
    image_code: tf.Tensor,
    text_code: tf.Tensor,
    related: tf.Tensor,
    margin: float = 0.001,
    reduction: str = "mean",
) -> tf.Tensor:
    """L_2 = sum over (i, j+, k-) of max(cos(x_i, y_k-) - cos(x_i, y_j+) + nu, 0), both ways.

    Eq. 15 to 17. Triplets are compared for a block of anchors i at a time, so memory does not grow
    with M^3 (`benchmarks/triplet_memory.py` measures it).

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
        positives = tf.reduce_sum(tf.cast(positive, tf.float32), axis=1)
        unrelated = tf.cast(tf.shape(positive)[1], tf.float32) - positives
        total = _hinge_sum(similarity, positive, margin)
        if reduction == "sum":
            return total
        return tf.math.divide_no_nan(total, tf.reduce_sum(positives * unrelated))

    return one_way(cosines, related) + one_way(tf.transpose(cosines), tf.transpose(related))


_BLOCK_TRIPLETS = 2**21  # compared at once: some 25 MiB


def _hinge_sum(similarity: tf.Tensor, positive: tf.Tensor, margin: float) -> tf.Tensor:
    """Sum over i and its positives j and negatives k of max(s_ik - s_ij + nu, 0) -> scalar.

    The gradient is found in the same pass. Automatic differentiation would keep the hinges of all
    blocks until then.

    Args:
        similarity: s [M, N].
        positive: bool [M, N].
        margin: nu.
    """

    def anchors(block):
        """(sum, its gradient [n, N]) of n anchors."""
        near, positives = block
        hinge = near[:, None, :] - near[:, :, None] + margin  # [n, j, k]
        active = positives[:, :, None] & ~positives[:, None, :] & (hinge > 0)
        active = tf.cast(active, tf.float32)
        gradient = tf.reduce_sum(active, axis=1) - tf.reduce_sum(active, axis=2)
        return tf.reduce_sum(hinge * active), gradient

    @tf.custom_gradient
    def total(values):
        rows, columns = values.shape
        size = 1  # of a block, where the batch is not known while tracing
        if rows and columns:
            size = min(rows, max(1, _BLOCK_TRIPLETS // columns**2))
        if size == rows:
            value, gradient = anchors((values, positive))
            return value, lambda upstream: upstream * gradient
        padding = [[0, -rows % size if rows else 0], [0, 0]]  # rows without a positive cost nothing
        blocks = tuple(
            tf.reshape(tf.pad(part, padding), [-1, size, tf.shape(part)[1]])
            for part in (values, positive)
        )
        kinds = (tf.float32, tf.float32)
        sums, gradients = tf.map_fn(
            anchors, blocks, fn_output_signature=kinds, parallel_iterations=1
        )
        gradient = tf.reshape(gradients, [-1, tf.shape(values)[1]])[: tf.shape(values)[0]]
        return tf.reduce_sum(sums), lambda upstream: upstream * gradient

    return total(similarity)


def pairwise_loss(
    image_code: tf.Tensor, text_code: tf.Tensor, target: tf.Tensor, reduction: str = "mean"
) -> tf.Tensor:
    """L_3 = sum_ij softplus(Omega_ij) - s_ij Omega_ij, Omega = b_I^T b_T / 2.

    The negative log-likelihood that Eq. 18 names; the paper prints it without the logarithm and
    with the other sign.

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


def label_similarity(labels: tf.Tensor) -> tf.Tensor:
    """Cosines of label vectors, |Y_i ∩ Y_j| / sqrt(|Y_i| |Y_j|): [M, L] -> [M, M], in [0, 1]."""
    return cosine_matrix(labels, labels)


def code_pairs(image: tf.Tensor, text: tf.Tensor) -> tuple:
    """Pairs of codes to compare: within images, within texts, and across."""
    return (image, image), (text, text), (image, text)


def soft_similarity_loss(image_code, text_code, labels, scale: float = 1.0) -> tf.Tensor:
    """Mean of mse(scale cos(Y, Y), cos(B_X, B_Y)) within images, within texts and across."""
    target = scale * label_similarity(labels)
    pairs = code_pairs(image_code, text_code)
    return sum(mean_squared_error(target, cosine_matrix(a, b)) for a, b in pairs) / 3


def signs(x: tf.Tensor) -> tf.Tensor:
    """sign(x), +1 at 0 as in packed codes; no gradient flows through it."""
    return tf.where(x >= 0, 1.0, -1.0)


def with_total(terms: dict, weights: Mapping[str, float]) -> dict:
    """The terms, and their "total": the sum of each times its weight."""
    return {**terms, "total": sum(weights[name] * term for name, term in terms.items())}
