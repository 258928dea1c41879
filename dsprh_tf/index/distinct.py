"""Distinct codes: each once, with the rows that have it.

Encoders give many items the same code: near-identical images, titles that differ in a number. A
graph of such codes has no way out of them, as all links of each lead to its equals, and what stands
beside them is not found. So approximate kinds are built over distinct codes.
"""

from __future__ import annotations

import numpy as np

_MIX = tuple(map(np.uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)))


def code_keys(codes: np.ndarray) -> np.ndarray:
    """Numbers that stand for codes in a sorted table, evenly spread: uint64 [n].

    Equal codes have equal keys. Different codes of up to 64 bits have different ones (the mixing
    of splitmix64 can be undone), longer ones almost always.

    Args:
        codes: uint8 [n, bits / 8].
    """
    words = _words(codes)
    keys = np.zeros(len(codes), np.uint64)
    for word in words.T:
        keys = (keys ^ word) + _MIX[0]
        keys = (keys ^ (keys >> np.uint64(30))) * _MIX[1]
        keys = (keys ^ (keys >> np.uint64(27))) * _MIX[2]
        keys ^= keys >> np.uint64(31)
    return keys


class DistinctCodes:
    """The distinct codes of rows of codes, numbered by their first rows.

    The numbers stay as they are when rows are added behind, and are the rows themselves where no
    code repeats. Rows of one code are in ascending order of their ids.

    Attributes:
        rows: number of rows.
        count: number of distinct codes.
        repeat: whether a code has several rows.

    Args:
        table: int64 [2 count], or [3 count + 1 + rows] where codes repeat: the keys of the codes in
            ascending order, as they are in uint64; the numbers of these codes; for each code by
            number where its rows start, and the end of the last; the rows. `of` makes it; it may
            be a memory map.
        rows: number of rows.
        count: number of distinct codes.

    Raises:
        ValueError: the table has another length.
    """

    def __init__(self, table: np.ndarray, rows: int, count: int):
        self.table, self.rows, self.count = table, rows, count
        self.repeat = count < rows
        expected = 3 * count + 1 + rows if self.repeat else 2 * count
        if table.shape != (expected,):
            raise ValueError(f"it has the shape {list(table.shape)}, expected {[expected]}")
        self._keys = table[:count].view(np.uint64)
        self._numbers = table[count : 2 * count]
        self._starts = table[2 * count : 3 * count + 1]
        self._rows = table[3 * count + 1 :]

    @classmethod
    def of(cls, codes: np.ndarray, ids: np.ndarray) -> DistinctCodes:
        """The distinct codes of rows.

        Args:
            codes: uint8 [n, bits / 8].
            ids: int64 [n].
        """
        rows = len(codes)
        keys, words = code_keys(codes), _words(codes)
        # Equal codes side by side, those of lower rows first; words tell apart what keys do not.
        order = np.lexsort((*words.T, keys) if words.shape[1] > 1 else (keys,))
        new = np.ones(rows, bool)
        new[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
        firsts = order[new]
        count = len(firsts)
        numbers = np.empty(count, np.int64)
        numbers[np.argsort(firsts)] = np.arange(count)
        parts = [keys[firsts].view(np.int64), numbers]
        if count < rows:
            of_row = np.empty(rows, np.int64)
            of_row[order] = numbers[np.cumsum(new) - 1]
            starts = np.zeros(count + 1, np.int64)
            np.cumsum(np.bincount(of_row, minlength=count), out=starts[1:])
            parts += [starts, np.lexsort((ids, of_row))]
        return cls(np.concatenate(parts), rows, count)

    def find(self, codes: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Numbers of the codes that are equal to some others, -1 where there is none: int64 [m].

        Args:
            codes: uint8 [rows, bits / 8], of all rows.
            query: uint8 [m, bits / 8].
        """
        found = np.full(len(query), -1, np.int64)
        keys = code_keys(query)
        at = np.searchsorted(self._keys, keys)
        left = np.flatnonzero(self._keys.take(at, mode="clip") == keys) if self.count else at[:0]
        while len(left):
            numbers = self._numbers[at[left]]
            equal = (codes[self.first_rows(numbers)] == query[left]).all(axis=1)
            found[left[equal]] = numbers[equal]
            left = left[~equal]  # another code with the same key: the next one may be it
            at[left] += 1
            left = left[self._keys.take(at[left], mode="clip") == keys[left]]
            left = left[at[left] < self.count]
        return found

    def first_rows(self, numbers: np.ndarray) -> np.ndarray:
        """One row of each of some codes, that of the lowest id: int64 [m]."""
        return self._rows[self._starts[numbers]] if self.repeat else numbers

    def sizes(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers of rows of some codes, of the shape of `numbers`."""
        if not self.repeat:
            return np.ones(numbers.shape, np.int64)
        return self._starts[numbers + 1] - self._starts[numbers]

    def rows_of(self, numbers: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The first rows of some codes, one code after the other.

        Args:
            numbers: int64 [m], the codes.
            counts: int64 [m], how many rows of each, at most `sizes`.
        """
        if not self.repeat:
            return np.repeat(numbers, counts)
        before = np.cumsum(counts) - counts
        within = np.arange(counts.sum()) - np.repeat(before, counts)
        return self._rows[np.repeat(self._starts[numbers], counts) + within]


def _words(codes: np.ndarray) -> np.ndarray:
    """Codes as numbers of 64 bits, with zeros behind: uint64 [n, bits / 64, rounded up]."""
    rows, size = codes.shape
    if size % 8:
        padded = np.zeros((rows, size + -size % 8), np.uint8)
        padded[:, :size] = codes
        codes = padded
    return np.ascontiguousarray(codes).view("<u8")
