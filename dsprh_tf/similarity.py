"""Similarities over a whole training set, in blocks (numpy only)."""

from __future__ import annotations

import numpy as np

_BLOCK_VALUES = 16_000_000  # similarities held at once: 64 MB


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows divided by their l2 norm, float32; a zero row stays zero."""
    x = np.asarray(x, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


def neighbour_thresholds(
    image_features: np.ndarray, text_features: np.ndarray, image_weight: float, share: float
) -> np.ndarray:
    """Thresholds of S~ from which an item is among another's nearest `share` of the training set.

    Args:
        image_features: [n, D_I] of the training pairs.
        text_features: [n, D_T] of the training pairs.
        image_weight: lambda of S~ (Eq. 12).
        share: fraction of the other pairs that count as neighbours, in (0, 1).

    Returns:
        float32 [n]: the (1 - share) quantile of each row of S~ without its diagonal, half-way
        between the last neighbour and the next item. S~ of a batch differs from it by rounding, so
        a neighbour that was the threshold itself could be missed.

    Raises:
        ValueError: a share outside (0, 1), or fewer than 2 pairs.
    """
    if not 0 < share < 1:
        raise ValueError(f"neighbour share is {share}, expected a number between 0 and 1")
    image, text = unit_rows(image_features), unit_rows(text_features)
    n = len(image)
    if n < 2:
        raise ValueError(f"there are {n} training pairs, expected at least 2 to find neighbours")
    nearest = max(1, int(round(share * (n - 1))))
    thresholds = np.empty(n, np.float32)
    step = max(1, _BLOCK_VALUES // n)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        joint = image_weight * (image[rows] @ image.T) + (1 - image_weight) * (text[rows] @ text.T)
        joint = 2 * joint - 1
        joint[np.arange(joint.shape[0]), np.arange(rows.start, rows.stop)] = -4  # below any S~
        edge = [n - nearest - 1, n - nearest]
        thresholds[rows] = np.partition(joint, edge, axis=1)[:, edge].mean(axis=1)
    return thresholds


def inverse_document_frequency(text_features: np.ndarray) -> np.ndarray:
    """log(n / number of texts with the word), float32 [D_T]; ones if features are not words.

    A word that every text has, or none, says nothing: its weight is 0.
    """
    n, size = text_features.shape
    count = np.zeros(size, np.int64)
    step = max(1, _BLOCK_VALUES // size)
    for start in range(0, n, step):
        block = np.asarray(text_features[start : start + step])
        if block.dtype.kind == "f" and not ((block == 0) | (block == 1)).all():
            return np.ones(size, np.float32)
        count += np.count_nonzero(block, axis=0)
    return np.where(count > 0, np.log(n / np.maximum(count, 1)), 0).astype(np.float32)


def _different(matrix: np.ndarray) -> np.ndarray:
    """Entries of pairs of different items."""
    return matrix[~np.eye(len(matrix), dtype=bool)]


def mean_between(matrix: np.ndarray) -> float:
    """Mean of similarities [n, n] over the pairs of different items."""
    return float(_different(matrix).mean(dtype=np.float64))


def deviation_between(matrix: np.ndarray) -> float:
    """Standard deviation of similarities [n, n] over the same pairs, at least 1e-6."""
    return float(max(_different(matrix).std(dtype=np.float64), 1e-6))


def nearest_by_features(
    query: tuple[np.ndarray, np.ndarray],
    database: tuple[np.ndarray, np.ndarray],
    share: float = 0.05,
) -> np.ndarray:
    """Items near a query by image and text features: a stand-in for labels.

    The cosines of image features and those of text features, words weighted by their inverse
    document frequency, are standardised over the database and added; the items with the largest
    `share` of each row's sums are near.

    Args:
        query: image features [q, D_I] and text features [q, D_T].
        database: the same of n items, [n, D_I] and [n, D_T].
        share: fraction of the database that is near.

    Returns:
        bool [q, n].
    """
    words = inverse_document_frequency(database[1])
    total: np.ndarray | float = 0.0
    for own, others in ((query[0], database[0]), (query[1] * words, database[1] * words)):
        own, others = unit_rows(own), unit_rows(others)
        among = others @ others.T
        total = total + (own @ others.T - mean_between(among)) / deviation_between(among)
    total = np.asarray(total)
    nearest = max(1, round(share * total.shape[1]))
    return total >= np.partition(total, -nearest, axis=1)[:, [-nearest]]
