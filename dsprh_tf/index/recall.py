"""How much of what is nearest a search finds, measured on a sample of the items themselves."""

from __future__ import annotations

import numpy as np

from dsprh_tf import codes as binary

SAMPLE, BEST = 100, 10  # queries, and results of each


def measure(codes: np.ndarray, rows: np.ndarray, search, exact) -> float | None:
    """Recall@10: the share of the 10 nearest others of each sampled item that a search finds.

    Results as near as the tenth count, since ties are many among short codes.

    Args:
        codes: uint8 [n, bits / 8].
        rows: int64 [m], those of the codes that are searched among.
        search: (query codes, k) -> distances and rows, [queries, k], -1 where there are fewer.
        exact: (codes, query codes, k) -> k least distances [queries, k], and anything.

    Returns:
        A number in [0, 1], or None where there are no two items.

    Raises:
        ValueError: the search reports a distance that is not that of the codes.
    """
    best = min(BEST, len(rows) - 1)
    if best < 1:
        return None
    chosen = rows[np.sort(np.random.default_rng(0).permutation(len(rows))[:SAMPLE])]
    query = np.array(codes[chosen])
    among = codes if len(rows) == len(codes) else codes[rows]
    # The item itself is the nearest, at distance 0.
    limit = exact(among, query, best + 1)[0][:, -1]
    distances, found = search(query, best + 1)
    _check_distances(codes, query, distances, found)
    hits = (found >= 0) & (found != chosen[:, None]) & (distances <= limit[:, None])
    return float(np.minimum(hits.sum(axis=1), best).mean() / best)


def brute_force(codes: np.ndarray, query: np.ndarray, k: int) -> tuple[np.ndarray, None]:
    """The k least distances by NumPy alone, which shares no code with any search."""
    rows = [np.sort(binary.hamming_distance(one[None], codes)[0])[:k] for one in query]
    return np.stack(rows), None


def _check_distances(codes, query, distances, rows) -> None:
    there = rows >= 0
    true = np.bitwise_xor(query[:, None], codes[np.where(there, rows, 0)])
    true = np.unpackbits(true, axis=-1).sum(axis=-1)
    if (true != distances)[there].any():
        raise ValueError(
            "the search reports distances that are not those of the codes: build the index again"
        )
