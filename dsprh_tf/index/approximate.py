"""The approximate search of rows of codes: a FAISS engine over their distinct codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dsprh_tf.index import faiss_kinds, folder
from dsprh_tf.index.distinct import DistinctCodes

_GATHERED = 2**22  # rows that are ranked at a time, at most, beyond those of one query
_EXACT_SHARE = 4  # an answer of more than a quarter of all codes is faster to find by comparing all


class ApproximateSearch:
    """An engine that knows distinct codes, and the rows that have each.

    The engine's answer is complemented by the code of the query itself, which is looked up in a
    table: whatever the graph, an item is found by its own code.

    Attributes:
        kind: one of `faiss_kinds.KINDS`.
        engine: the FAISS index; its numbers are those of `distinct`.
        distinct: the distinct codes; None of an index by an older version, whose engine has each
            row, and nothing is looked up.
        built: number of codes that the engine was built for; more have been added since.

    Args:
        kind: as above.
        engine: as above.
        distinct: as above.
        built: as above.
    """

    def __init__(self, kind: str, engine, distinct: DistinctCodes | None, built: int):
        self.kind, self.engine, self.distinct, self.built = kind, engine, distinct, built
        self._gone: np.ndarray | None = None

    @classmethod
    def of(
        cls, kind: str, codes: np.ndarray, ids: np.ndarray, former: ApproximateSearch | None = None
    ) -> ApproximateSearch | None:
        """The search of some rows; None if they have too few distinct codes to need one.

        Args:
            kind: one of `faiss_kinds.KINDS`.
            codes: uint8 [rows, bits / 8].
            ids: int64 [rows].
            former: the search of the first of these rows, which is built on where that suits.
        """
        if kind == "flat" or len(codes) < faiss_kinds.SMALLEST:
            return None
        distinct = DistinctCodes.of(codes, ids)
        engine, built = (None, 0) if former is None else (former.engine, former.built)
        if faiss_kinds.grown(kind, engine, built, distinct.count):
            engine = faiss_kinds.build(kind, _codes_from(0, distinct, codes))
            built = distinct.count
        elif engine is not None and engine.ntotal < distinct.count:
            faiss_kinds.add(engine, _codes_from(engine.ntotal, distinct, codes))
        return None if engine is None else cls(kind, engine, distinct, built)

    @classmethod
    def read(
        cls, kind: str, engine, table: Path | None, rows: int, built: int
    ) -> ApproximateSearch:
        """The search of some rows, from files.

        Args:
            kind: as for the class.
            engine: as for the class.
            table: file of the distinct codes; None of an index by an older version.
            rows: number of rows.
            built: as for the class.

        Raises:
            ValueError: the file is broken, or does not fit to the engine and the rows.
        """
        if table is None:
            if engine.ntotal != rows:
                raise ValueError(
                    f"the engine has {engine.ntotal:,} rows, expected {rows:,}: build the index "
                    "again"
                )
            return cls(kind, engine, None, built)
        array = folder.load_array(table, np.int64)
        try:
            return cls(kind, engine, DistinctCodes(array, rows, engine.ntotal), built)
        except ValueError as error:
            raise ValueError(f"{table} is broken ({error}): build the index again") from error

    def writers(self) -> dict[str, Callable]:
        """Functions that write the files of `read`, by kind of file."""
        distinct = self.distinct
        writers = {"engine": lambda path: faiss_kinds.write(self.engine, path)}
        if distinct is not None:
            writers["distinct"] = lambda path: folder.save_array(path, distinct.table)
        return writers

    def removed_share(self, codes: np.ndarray, removed: np.ndarray) -> float:
        """Share of rows, or of codes with all their rows, that were removed: the larger one.

        To be called whenever `removed` has changed.

        Args:
            codes: uint8 [rows, bits / 8].
            removed: bool [rows].
        """
        self._gone = None
        live = self._live(np.arange(self.engine.ntotal), self._removed_of(codes, removed))
        return max(float(removed.mean()), float((live == 0).mean()))

    def check(self, codes: np.ndarray, ids: np.ndarray) -> str:
        """Compares the distinct codes with the codes; returns what has to be said of them.

        Args:
            codes: uint8 [rows, bits / 8].
            ids: int64 [rows].

        Raises:
            ValueError: they are others.
        """
        if self.distinct is None:
            return (
                "; its engine is of an older version, which finds fewer: `dsprh index add` with "
                "the same codes builds it anew"
            )
        if not np.array_equal(self.distinct.table, DistinctCodes.of(codes, ids).table):
            raise ValueError("the search is over other codes than the index has: build it again")
        return ""

    def suits(self, k: int) -> bool:
        """Whether k results are few enough to be found faster than by comparing all codes."""
        return k * _EXACT_SHARE <= self.engine.ntotal

    def search(
        self,
        codes: np.ndarray,
        ids: np.ndarray,
        removed: np.ndarray | None,
        query: np.ndarray,
        k: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest rows of each query: all rows of the codes that were found, up to k.

        Args:
            codes: uint8 [rows, bits / 8].
            ids: int64 [rows].
            removed: bool [rows], rows that are not among the results; None if there are none.
            query: uint8 [queries, bits / 8].
            k: results per query.

        Returns:
            Distances int32 [queries, k] and rows int64 [queries, k], in ascending order of
            distances and then ids; -1 where there are fewer.
        """
        gone = None if removed is None else self._removed_of(codes, removed)
        distances, numbers = self._nearest(query, k, gone)
        missed, own = self._missed(codes, query, distances, numbers, gone)
        if gone is None and (self.distinct is None or not self.distinct.repeat):
            # A code is a row. The query's own is the nearest, and displaces the farthest.
            for values, first in ((distances, 0), (numbers, own)) if len(missed) else ():
                values[missed, 1:] = values[missed, :-1]
                values[missed, 0] = first
            distances[numbers < 0] = -1
            return distances, numbers
        if len(missed):
            column = np.full((len(query), 1), -1, np.int64)
            column[missed, 0] = own
            numbers = np.concatenate([column, numbers], axis=1)
            distances = np.concatenate([np.zeros_like(column, np.int32), distances], axis=1)
        live = self._live(numbers, gone)
        found = np.full((len(query), k), -1, np.int64)
        near = np.full((len(query), k), -1, np.int32)
        for part in self._parts(live, k):
            self._rank(distances[part], numbers[part], live[part], gone, removed, ids,
                       near[part], found[part])  # fmt: skip
        return near, found

    def _missed(self, codes, query, distances, numbers, gone) -> tuple[np.ndarray, np.ndarray]:
        """Queries whose own code is there but was not found, and the numbers of these codes."""
        missed = np.flatnonzero((distances[:, 0] != 0) | (numbers[:, 0] < 0))
        if self.distinct is None or not len(missed):
            return missed[:0], missed[:0]
        own = self.distinct.find(codes, query[missed])
        there = own >= 0 if gone is None else self._live(own, gone) > 0
        return missed[there], own[there]

    def _nearest(self, query, k, gone) -> tuple[np.ndarray, np.ndarray]:
        """Distances and numbers of the nearest codes, [queries, k or more]."""
        count = self.engine.ntotal
        asked = min(k, count)
        while True:
            distances, numbers = faiss_kinds.search(self.engine, query, asked)
            if gone is None or asked == count:
                return distances, numbers
            # A query that lacks results because rows were removed asks for more codes.
            live = self._live(numbers, gone)
            short = (live.sum(axis=1) < k) & ((numbers >= 0) & (live == 0)).any(axis=1)
            if not short.any():
                return distances, numbers
            asked = min(2 * asked, count)

    def _live(self, numbers: np.ndarray, gone: np.ndarray | None) -> np.ndarray:
        """Numbers of rows of codes that were not removed, 0 for the code -1."""
        there = numbers >= 0
        if self.distinct is None:
            live = np.ones(numbers.shape, np.int64)
        else:
            live = self.distinct.sizes(np.where(there, numbers, 0))
        if gone is not None:
            live = live - gone[np.where(there, numbers, 0)]
        return np.where(there, live, 0)

    def _removed_of(self, codes: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """How many rows of each code were removed: int64 [codes of the engine]."""
        if self._gone is None:
            known = self.engine.ntotal if self.distinct is None else self.distinct.rows
            rows = np.flatnonzero(removed[:known])
            if self.distinct is not None and self.distinct.repeat:
                rows = self.distinct.find(codes, codes[rows])
            self._gone = np.bincount(rows, minlength=self.engine.ntotal)
        return self._gone

    @staticmethod
    def _parts(live: np.ndarray, k: int) -> list[slice]:
        """Queries that are ranked together, by the number of rows that each may gather."""
        gathered = np.cumsum(np.minimum(live, k).sum(axis=1)) // _GATHERED
        starts = np.flatnonzero(np.diff(gathered, prepend=-1))
        return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(live)])]

    def _rank(self, distances, numbers, live, gone, removed, ids, near, found) -> None:
        """Writes the first k rows of each query, by distance and id, into `near` and `found`."""
        queries, k = found.shape
        # Codes that are farther than the one that completes k rows are not needed.
        enough = np.where(np.cumsum(live, axis=1) >= k, distances, np.iinfo(np.int32).max)
        needed = (live > 0) & (distances <= enough.min(axis=1, keepdims=True))
        query, at = np.nonzero(needed)
        numbers, distances = numbers[query, at], distances[query, at]
        take = np.minimum(live[query, at], k)
        if gone is not None:  # removed rows may come first
            sizes = live[query, at] + gone[numbers]
            take = np.minimum(take + gone[numbers], sizes)
        if self.distinct is None:
            rows = numbers
        else:
            rows = self.distinct.rows_of(numbers, take)
            query, distances = np.repeat(query, take), np.repeat(distances, take)
        if gone is not None:
            left = ~removed[rows]
            query, distances, rows = query[left], distances[left], rows[left]
        order = np.lexsort((ids[rows], distances, query))
        query = query[order]
        place = np.arange(len(order)) - np.searchsorted(query, np.arange(queries))[query]
        order, query, place = (values[place < k] for values in (order, query, place))
        near[query, place], found[query, place] = distances[order], rows[order]


def _codes_from(start: int, distinct: DistinctCodes, codes: np.ndarray) -> np.ndarray:
    """The distinct codes from a number on; a view of the codes where none repeats."""
    if not distinct.repeat:
        return codes[start:]
    return codes[distinct.first_rows(np.arange(start, distinct.count))]
