"""Metrics that need no labels: the rank of each item's own partner, its text or its image.

Ties count by expectation: behind r nearer items, an item among t at the same distance has every
rank from r + 1 to r + t with the same probability. Constant codes so score no better than chance.
"""

from __future__ import annotations

import numpy as np

from dsprh_tf import codes
from dsprh_tf.metrics import BLOCK_BYTES, cosine_keys

RECALL_AT = (1, 5, 10)
_CURVE = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def own_ranks(
    query: np.ndarray, gallery: np.ndarray, owner: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """How many items are nearer to each query than its own partner, and how many as near.

    Args:
        query: uint8 `[n, bits / 8]`, packed codes; or floating `[n, D]`, compared by cosine.
        gallery: The same of m items of the other modality.
        owner: int64 `[n]`, the gallery row of each query's partner; None: row i is that of query i.

    Returns:
        int64 `[n]` items that are nearer, and int64 `[n]` at the same distance, the partner
        included.

    Raises:
        ValueError: If there are no queries, fewer gallery items than queries, or the widths differ.
    """
    partner = np.arange(len(query)) if owner is None else owner
    if not len(query) or partner.max() >= len(gallery):
        raise ValueError(
            f"got {len(query)} queries and {len(gallery)} items to rank, expected at least one "
            "query and the partner of each among the items"
        )
    distances = cosine_keys if query.dtype.kind == "f" else codes.hamming_distance
    step = max(1, BLOCK_BYTES // (8 * len(gallery)))
    nearer, tied = [], []
    for start in range(0, len(query), step):
        matrix = distances(query[start : start + step], gallery)
        own = matrix[np.arange(len(matrix)), partner[start : start + step]][:, None]
        nearer.append((matrix < own).sum(axis=1))
        tied.append((matrix == own).sum(axis=1))
    return np.concatenate(nearer), np.concatenate(tied)


def evaluate_own(query: np.ndarray, gallery: np.ndarray) -> dict:
    """Recall and rank of each query's own partner among all items.

    Args:
        query: As in `own_ranks`.
        gallery: As in `own_ranks`.

    Returns:
        `{"recall@1", "recall@5", "recall@10", "median_rank", "recall_at_k": {"k", "recall"}}`: the
        probability that the partner is among the first k, the median of its expected rank from 1,
        and the recall at more k.

    Raises:
        ValueError: As `own_ranks`.
    """
    nearer, tied = own_ranks(query, gallery)

    def recall(k: int) -> float:
        return float(np.clip((k - nearer) / tied, 0, 1).mean())

    curve = sorted({*(k for k in _CURVE if k < len(gallery)), len(gallery)})
    return {
        **{f"recall@{k}": recall(k) for k in RECALL_AT},
        "median_rank": float(np.median(nearer + (tied + 1) / 2)),
        "recall_at_k": {"k": curve, "recall": [recall(k) for k in curve]},
    }


def mean_reciprocal_rank(
    query: np.ndarray, gallery: np.ndarray, owner: np.ndarray | None = None
) -> float:
    """Mean reciprocal of the expected rank of each query's own partner, in (0, 1].

    Args:
        query: As in `own_ranks`.
        gallery: As in `own_ranks`.
        owner: As in `own_ranks`.

    Raises:
        ValueError: As `own_ranks`.
    """
    nearer, tied = own_ranks(query, gallery, owner)
    return float((1 / (nearer + (tied + 1) / 2)).mean())


def pair_reciprocal_rank(image_codes: np.ndarray, text_codes: np.ndarray) -> float:
    """Mean reciprocal of the expected rank of each item's own partner, over both directions.

    Args:
        image_codes: uint8 `[n, bits / 8]`, packed.
        text_codes: uint8 `[n, bits / 8]`, packed, row i the partner of image i.

    Returns:
        A number in (0, 1].

    Raises:
        ValueError: If there are no rows, or not as many of one as of the other.
    """
    if len(image_codes) != len(text_codes) or not len(image_codes):
        raise ValueError(
            f"got {len(image_codes)} image and {len(text_codes)} text codes, expected as many of "
            "one as of the other, at least one"
        )
    pairs = (image_codes, text_codes), (text_codes, image_codes)
    return float(np.mean([mean_reciprocal_rank(*pair) for pair in pairs]))
