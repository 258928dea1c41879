"""Recall of a search, measured with a sample of the index's own codes as queries.

Drawn are distinct codes, each counted once: among items, those that share a code with many others
would be drawn the most, and those are the easiest to find.
"""

from __future__ import annotations

import numpy as np

from dsprh_tf import codes as binary
from dsprh_tf.index.distinct import code_keys

SAMPLE, BEST = 100, 10  # queries, and results of each
RECALL, LONELY, OWN = "recall@10", "recall@10 of lonely", "own code found"
NOTHING = {"sample": 0, RECALL: None, LONELY: None, OWN: None}
"""What is measured where there are fewer than two items, see `share`."""

_FEW = 10  # of the sample, for `LONELY`
_CHUNK = 2**20


class Sample:
    """`SAMPLE` of the distinct codes of a stream, each as likely as any other.

    They are those with the least keys (`distinct.code_keys`), so that the sample depends on the
    codes alone, neither on their order nor on how often each occurs.

    Attributes:
        names: row or id of an item with each code, int64 [m]: the first in the stream.
        codes: uint8 [m, bits / 8].
    """

    def __init__(self, bits: int):
        self.names: np.ndarray = np.zeros(0, np.int64)
        self.codes: np.ndarray = np.zeros((0, bits // 8), np.uint8)
        self._keys: np.ndarray = np.zeros(0, np.uint64)

    def add(self, names: np.ndarray, codes: np.ndarray) -> None:
        """Takes note of some more rows: int64 [n] and uint8 [n, bits / 8]."""
        keys = code_keys(codes)
        if len(self._keys) == SAMPLE:
            low = np.flatnonzero(keys < self._keys[-1])
            keys, names, codes = keys[low], names[low], codes[low]
        keys, first = np.unique(np.concatenate([self._keys, keys]), return_index=True)
        first = first[:SAMPLE]
        self._keys = keys[:SAMPLE]
        self.names = np.concatenate([self.names, names])[first]
        self.codes = np.concatenate([self.codes, codes])[first]


def measure(codes: np.ndarray, rows: np.ndarray, search, exact) -> dict | None:
    """Recall of a search in memory.

    Args:
        codes: uint8 [n, bits / 8].
        rows: int64 [m], rows of the codes that are searched.
        search: (query codes, k) -> distances and rows, [queries, k], -1 where there are fewer.
        exact: (codes, query codes, k) -> the k least distances [queries, k], and anything.

    Returns:
        As `share`, or None if there are fewer than two items.

    Raises:
        ValueError: the search reports a distance that is not that of the codes.
    """
    best = nearest_others(len(rows))
    if best < 1:
        return None
    sample = Sample(codes.shape[1] * 8)
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        sample.add(part, codes[part])
    among = codes if len(rows) == len(codes) else codes[rows]
    limit = exact(among, sample.codes, best + 1)[0][:, -1]
    distances, found = search(sample.codes, best + 1)
    there = found >= 0
    check_distances(sample.codes, codes[np.where(there, found, 0)], distances, there)
    return share(sample.names, limit, distances, found)


def nearest_others(count: int) -> int:
    """Number of nearest others that are looked for among `count` items."""
    return min(BEST, count - 1)


def share(own: np.ndarray, limit: np.ndarray, distances: np.ndarray, found: np.ndarray) -> dict:
    """Recall of search results.

    Args:
        own: [queries], rows or ids of the sampled items; each is its own nearest, at distance 0.
        limit: [queries], true distances of the last of the nearest others.
        distances: [queries, nearest others + 1], as reported.
        found: rows or ids like `own`, of the same shape; -1 where there are fewer.

    Returns:
        Under "sample" the number of queries. Numbers in [0, 1] under `RECALL`: the share of the 10
        nearest others of each sampled item that was found, where results as near as the tenth
        count, since ties are many among short codes; under `LONELY`: the same of the ten whose
        nearest others are the farthest away, which a graph loses first; under `OWN`: the share of
        the sampled codes that were found themselves.
    """
    best = found.shape[1] - 1
    there = found >= 0
    hits = there & (found != own[:, None]) & (distances <= limit[:, None])
    each = np.minimum(hits.sum(axis=1), best) / best
    lonely = np.argsort(-limit.astype(np.int64), kind="stable")[:_FEW]
    return {
        "sample": len(own),
        RECALL: float(each.mean()),
        LONELY: float(each[lonely].mean()),
        OWN: float((there & (distances == 0)).any(axis=1).mean()),
    }


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
