"""Asymmetric ranking: the real values of a query against the bits that an index stores.

The sign of a hash value says which side it is on, its size how surely. Of an item only the sign is
kept; of a query all is at hand. So items are ranked by q.b (`codes.asymmetric_similarity`), ties by
id: finer than by Hamming distance, and no index needs another byte for it.

A folder of up to `EXACT` items that the filter admits is ranked as a whole. Beyond that, and in
databases, the engine gives the nearest by Hamming distance, some times as many as are wanted, and
these are ranked. A rank depends on the query and the index alone, not on how many results were
asked for: the best `_FIRST` are chosen among `oversample` times as many, the next ones among
`_GROWTH` times more, and so on. So a search for more results finds those of a search for fewer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from dsprh_tf import codes as binary
from dsprh_tf.index import checks
from dsprh_tf.index.interface import EVERYTHING, Index, Results, Where

RANKS = ("asymmetric", "hamming")
EXACT = 50_000
"""Items of a folder that are ranked as a whole; beyond, candidates are (BUILD.md, "Ranking")."""
OVERSAMPLE = 24
"""Candidates for each result, see `benchmarks/asymmetric_speed.py`."""
_FIRST, _GROWTH = 32, 4  # results that are chosen among the first candidates; growth of both
_SCANNED_SHARE = 4  # more candidates than a quarter of a folder are not faster to find than all
_SCORED = 2**22  # similarities that are in memory at a time, beyond those of one query


@dataclasses.dataclass(frozen=True)
class Ranking(Results):
    """The best items of some queries, best first; ties in ascending order of ids.

    Attributes:
        distances: int32 [queries, k], Hamming distances in bits; -1 fills rows of fewer results.
        ids: int64 [queries, k], filled likewise.
        similarities: float32 [queries, k] in 0..1, filled likewise; where the query is a code,
            1 - distance / bits.
    """

    similarities: np.ndarray

    def of(self, row: int, without: Collection[int] = ()) -> list[tuple[int, int, float]]:
        """(id, distance, similarity) of the results of a query, but of some ids."""
        columns = self.ids[row], self.distances[row], self.similarities[row]
        found = zip(*(column.tolist() for column in columns))
        return [result for result in found if result[0] >= 0 and result[0] not in without]


def rank(
    index: Index,
    query: np.ndarray,
    k: int = 10,
    where: Where = EVERYTHING,
    oversample: int = OVERSAMPLE,
) -> Ranking:
    """The k best items of each query.

    Args:
        index: where to look.
        query: values, floating point [queries, bits], as of `codes.soften`, for asymmetric ranking;
            or codes as `Index.search` takes them, for ranking by Hamming distance. Values that are
            all -x and x are a code, too: both rankings of it are the same.
        k: results per query.
        where: which items count.
        oversample: candidates for each result, where not all items are compared; a code needs no
            more than results.

    Raises:
        ValueError: as `Index.search`, `oversample` is below 1, or values are not finite or of
            another number than the index has bits.
        OSError: a database failed.
    """
    if oversample < 1:
        raise ValueError(f"oversample is {oversample}, expected at least 1")
    checks.check_search(k, not index.any())
    query = np.asarray(query)
    if query.dtype.kind != "f":
        query = binary.unpack(checks.checked_codes("query codes", query, index.bits))
        query = query.astype(np.float32)
    if query.ndim != 2 or query.shape[1] != index.bits:
        raise ValueError(
            f"query values are {list(query.shape)}, the index has {index.bits} bits, expected "
            f"[queries, {index.bits}]"
        )
    codes, size = binary.pack(query), np.abs(query)
    are_codes = (size == size[:, :1]).all(axis=1) & (size[:, 0] > 0)
    found = _nothing(len(query), k)
    for rows, times in ((are_codes, 1), (~are_codes, oversample)):
        if rows.any():
            part = _ranked(index, query[rows], codes[rows], k, where, times)
            found.distances[rows], found.ids[rows] = part.distances, part.ids
            found.similarities[rows] = part.similarities
    return found


def _ranked(
    index: Index, values: np.ndarray, codes: np.ndarray, k: int, where: Where, oversample: int
) -> Ranking:
    """`rank` of values: from one number of candidates to the next, until there are k results."""
    found = [_Found.nothing() for _ in values]
    scan = getattr(index, "codes_where", None)  # of a folder, whose codes are at hand
    count = index.count(where) if scan else 0
    most = getattr(index, "MOST", None)  # results of one search
    depth, lacking = _FIRST, True
    while lacking:
        asked = oversample * depth
        if scan and (count <= EXACT or asked * _SCANNED_SHARE >= count):
            ids, stored = scan(where)
            _choose_of_all(found, values, codes, ids, stored, k)
            break
        asked = asked if most is None else min(asked, max(most, k))
        near, stored = _nearest(index, codes, asked, where)
        lacking = False
        for row, names in enumerate(near.ids):
            there = names >= 0
            # A database has no more then; a folder's engine may, and all are compared in the end.
            ended = not scan and not (there.all() and asked == oversample * depth)
            similarities = binary.asymmetric_similarity(values[row : row + 1], stored[row, there])
            candidates = _Found(names[there], near.distances[row, there], similarities[0])
            found[row] = found[row].and_best(candidates, k if ended else depth)
            lacking |= len(found[row].ids) < k and not ended
        depth *= _GROWTH
    return _stacked(found, k)


def _nearest(index: Index, codes: np.ndarray, k: int, where: Where) -> tuple[Results, np.ndarray]:
    """The nearest items, and their codes, uint8 [queries, k, bits / 8]; zeros for none."""
    nearest_codes = getattr(index, "nearest_codes", None)
    if nearest_codes:
        return nearest_codes(codes, k, where)
    near = index.search(codes, k, where)
    names, at = np.unique(near.ids, return_inverse=True)
    stored = np.zeros((len(names), codes.shape[1]), np.uint8)
    stored[names >= 0] = index.codes_of(names[names >= 0])
    return near, stored[at.reshape(near.ids.shape)]


def _choose_of_all(
    found: list[_Found],
    values: np.ndarray,
    codes: np.ndarray,
    ids: np.ndarray,
    stored: np.ndarray,
    k: int,
) -> None:
    """Completes the results of each query to k, of all items."""
    step = max(1, _SCORED // max(1, len(ids)))
    for start in range(0, len(values), step):
        block = binary.asymmetric_similarity(values[start : start + step], stored)
        for row, similarities in enumerate(block, start):
            # Those that were chosen before may be among the best.
            at = _best(similarities, ids, k + len(found[row].ids))
            distances = binary.hamming_distance(codes[row : row + 1], stored[at])[0]
            candidates = _Found(ids[at], distances.astype(np.int32), similarities[at])
            found[row] = found[row].and_best(candidates, k)


class _Found(NamedTuple):
    """Results of one query so far: ids int64 [n], distances int32 [n], similarities float32 [n]."""

    ids: np.ndarray
    distances: np.ndarray
    similarities: np.ndarray

    @classmethod
    def nothing(cls) -> _Found:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))

    def and_best(self, candidates: _Found, count: int) -> _Found:
        """With the best of the candidates that are not there yet after them, up to a number."""
        new = candidates
        if len(self.ids):
            fresh = ~np.isin(candidates.ids, self.ids)
            new = _Found(*(each[fresh] for each in candidates))
        at = _best(new.similarities, new.ids, max(0, count - len(self.ids)))
        return _Found(*(np.concatenate([old, each[at]]) for old, each in zip(self, new)))


def _best(similarities: np.ndarray, ids: np.ndarray, count: int) -> np.ndarray:
    """Places of the highest similarities, ties by id: int64 [up to count]."""
    at: np.ndarray = np.arange(len(ids))
    if 0 < count < len(ids):
        at = np.flatnonzero(similarities >= np.partition(similarities, -count)[-count])
    return at[np.lexsort((ids[at], -similarities[at]))][:count]


def _stacked(found: list[_Found], k: int) -> Ranking:
    ranking = _nothing(len(found), k)
    for row, each in enumerate(found):
        count = min(k, len(each.ids))
        ranking.ids[row, :count] = each.ids[:count]
        ranking.distances[row, :count] = each.distances[:count]
        ranking.similarities[row, :count] = each.similarities[:count]
    return ranking


def _nothing(queries: int, k: int) -> Ranking:
    shape = (queries, k)
    integers = np.full(shape, -1, np.int32), np.full(shape, -1, np.int64)
    return Ranking(*integers, np.full(shape, -1, np.float32))
