"""Recall of a search, measured with a sample of the index's own items as queries."""

from __future__ import annotations

import numpy as np

from dsprh_tf import codes as binary

SAMPLE, BEST = 100, 10  # queries, and results of each


def measure(codes: np.ndarray, rows: np.ndarray, search, exact) -> float | None:
    """Recall@10: the share of the 10 nearest others of each sampled item that a search finds.

    Results as near as the tenth count, since ties are many among short codes.

    Args:
        codes: uint8 [n, bits / 8].
        rows: int64 [m], rows of the codes that are searched.
        search: (query codes, k) -> distances and rows, [queries, k], -1 where there are fewer.
        exact: (codes, query codes, k) -> the k least distances [queries, k], and anything.

    Returns:
        A number in [0, 1], or None if there are fewer than two items.

    Raises:
        ValueError: the search reports a distance that is not that of the codes.
    """
    own = sampled(rows)
    best = nearest_others(len(rows))
    if best < 1:
        return None
    query = np.array(codes[own])
    among = codes if len(rows) == len(codes) else codes[rows]
    limit = exact(among, query, best + 1)[0][:, -1]
    distances, found = search(query, best + 1)
    there = found >= 0
    check_distances(query, codes[np.where(there, found, 0)], distances, there)
    return share(own, limit, distances, found)


def sampled(names: np.ndarray) -> np.ndarray:
    """A sample of `SAMPLE` rows or ids to search for, the same every time."""
    return names[np.sort(np.random.default_rng(0).permutation(len(names))[:SAMPLE])]


def nearest_others(count: int) -> int:
    """Number of nearest others that are looked for among `count` items."""
    return min(BEST, count - 1)


def share(own: np.ndarray, limit: np.ndarray, distances: np.ndarray, found: np.ndarray) -> float:
    """Recall@10 of search results.

    Args:
        own: [queries], the sampled items; each is its own nearest, at distance 0.
        limit: [queries], true distances of the last of the nearest others.
        distances: [queries, nearest others + 1], as reported.
        found: rows or ids like `own`, of the same shape; -1 where there are fewer.
    """
    best = found.shape[1] - 1
    hits = (found >= 0) & (found != own[:, None]) & (distances <= limit[:, None])
    return float(np.minimum(hits.sum(axis=1), best).mean() / best)


def brute_force(codes: np.ndarray, query: np.ndarray, k: int) -> tuple[np.ndarray, None]:
    """The k least distances by NumPy alone, without code of any search."""
    rows = [np.sort(binary.hamming_distance(one[None], codes)[0])[:k] for one in query]
    return np.stack(rows), None


def check_distances(query, codes, distances, there) -> None:
    """Compares reported distances with those of the codes.

    Args:
        query: uint8 [queries, bits / 8].
        codes: uint8 [queries, k, bits / 8] of the results.
        distances: [queries, k], as reported.
        there: bool [queries, k], False where there was no result.

    Raises:
        ValueError: they differ.
    """
    true = np.unpackbits(np.bitwise_xor(query[:, None], codes), axis=-1).sum(axis=-1)
    if (true != distances)[there].any():
        raise ValueError(
            "the search reports distances that are not those of the codes: build the index again"
        )
