"""Near-duplicates: groups of items whose codes differ in few bits.

"Within N bits of each other" is no equivalence: a chain of pictures, each near the next, joins
pictures that have nothing in common. So a group is not a connected component. It has a
representative, and all its members are within the radius of that one; the representatives, with all
items that are in no group, are farther than the radius from each other. Who keeps the
representatives alone loses nothing that is not within the radius of an item that stays, and has no
near-duplicates left.

The search is exact. Two codes that differ in at most r bits agree in at least one of any r + 1
parts (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR
2012), which FAISS's `IndexBinaryMultiHash` looks up; where parts are so short, or codes so alike,
that this gives too many candidates, all codes are compared. Only the pairs of some codes are in
memory at a time, and equal codes are compared once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import faiss
import numpy as np
from tqdm import tqdm

from dsprh_tf.index.answers import as_result, format_table
from dsprh_tf.index.distinct import DistinctCodes
from dsprh_tf.index.interface import EVERYTHING, MODALITIES, Index, Where
from dsprh_tf.index.known_files import paths_of

_PAIRS = 2**23  # pairs of codes in memory at a time, at most: 200 MB in FAISS
_CANDIDATES = 1 / 40  # share of all codes from which on looking up parts is no faster
_SAMPLE = 100_000  # codes by which that share is estimated
_READ = 10_000  # items that are read at a time, to be shown


class Group(NamedTuple):
    """Items whose codes are within a radius of that of the first one.

    Attributes:
        ids: int64 [n], n > 1: the representative, then the others, nearest first, ties by id.
        distances: int32 [n], to the representative in bits.
    """

    ids: np.ndarray
    distances: np.ndarray


def default_radius(bits: int) -> int:
    """One bit of 32: pictures that are nearly alike.

    No radius tells copies from them: codes are made to be alike where pictures mean the same
    (`benchmarks/duplicates_radius.py`).
    """
    return bits // 32


def find_duplicates(index: Index, radius: int, where: Where = EVERYTHING) -> list[Group]:
    """Groups of near-duplicates of an index, the largest first; each of one modality.

    Reads the codes of all these items into memory.

    Args:
        index: where to look.
        radius: bits in which the code of an item may differ from that of its representative.
        where: which items count.

    Raises:
        ValueError: the radius is not from 0 to the number of bits.
    """
    kinds = [where.modality] if where.modality else MODALITIES
    parts = [index.ids_where(dataclasses.replace(where, modality=kind)) for kind in kinds]
    if where.modality is None:  # those of which only the id is known
        parts.append(np.setdiff1d(index.ids_where(where), np.concatenate(parts)))
    groups = [g for ids in parts if len(ids) for g in near(index.codes_of(ids), ids, radius)]
    return sorted(groups, key=lambda group: (-len(group.ids), group.ids[0]))


def near(codes: np.ndarray, ids: np.ndarray, radius: int) -> list[Group]:
    """Groups of items by their codes.

    Codes become representatives in the order of how many items have them, then of their lowest id;
    each takes all items within the radius that no other has taken before.

    Args:
        codes: uint8 [n, bits / 8].
        ids: int64 [n], all different.
        radius: as of `find_duplicates`.

    Raises:
        ValueError: as `find_duplicates`.
    """
    bits = codes.shape[1] * 8
    if not 0 <= radius <= bits:
        raise ValueError(f"radius is {radius}, expected 0 to {bits}, the bits of a code")
    distinct = DistinctCodes.of(codes, ids)
    numbers = np.arange(distinct.count)
    firsts, sizes = distinct.first_rows(numbers), distinct.sizes(numbers)
    order = np.lexsort((ids[firsts], -sizes))
    owner: np.ndarray = numbers
    distances: np.ndarray = np.zeros(distinct.count, np.int32)
    if radius and distinct.count > 1:
        owner, distances = _owners(np.ascontiguousarray(codes[firsts]), order, radius)
    rows = distinct.rows_of(numbers, sizes)
    owner, distances = np.repeat(owner, sizes), np.repeat(distances, sizes)
    shared = np.bincount(owner, minlength=distinct.count)[owner] > 1
    rows, owner, distances = rows[shared], owner[shared], distances[shared]
    by_group = np.lexsort((ids[rows], distances, owner))
    rows, owner, distances = rows[by_group], owner[by_group], distances[by_group]
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    ends = [*starts[1:], len(owner)]
    return [Group(ids[rows[a:b]], distances[a:b]) for a, b in zip(starts, ends)]


def _owners(codes: np.ndarray, order: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """The representative of each of some different codes, and the distance to it.

    Args:
        codes: uint8 [n, bits / 8].
        order: int64 [n], the order in which they become representatives.
        radius: in bits, above 0.
    """
    engine = _engine(codes, radius)
    owner, distances = np.full(len(codes), -1, np.int64), np.zeros(len(codes), np.int32)
    block = max(1, _PAIRS // len(codes))
    start = 0
    with tqdm(total=len(codes), desc="comparing", unit="code", delay=2) as bar:
        while start < len(order):
            # Those that have been taken meanwhile need no search.
            part = order[start : start + block]
            start += len(part)
            bar.update(len(part))
            part = part[owner[part] < 0]
            if not len(part):
                continue
            limits, found_distances, found = engine.range_search(codes[part], radius + 1)
            limits = limits.astype(np.int64)
            alone = np.diff(limits) == 1  # has found itself
            owner[part[alone]] = part[alone]
            for i in np.flatnonzero(~alone).tolist():
                if owner[part[i]] < 0:
                    those = slice(limits[i], limits[i + 1])
                    free = owner[found[those]] < 0
                    taken = found[those][free]
                    owner[taken], distances[taken] = part[i], found_distances[those][free]
    return owner, distances


def _engine(codes: np.ndarray, radius: int):
    """A FAISS index of codes whose `range_search` up to the radius is exact and fast."""
    bits = codes.shape[1] * 8
    parts, width = radius + 1, min(bits // (radius + 1), 64)
    engine: Any = faiss.IndexBinaryFlat(bits)
    if width > 0 and _candidates(codes, parts, width) < _CANDIDATES:
        engine = faiss.IndexBinaryMultiHash(bits, parts, width)
        engine.nflip = 0
    engine.add(codes)
    return engine


def _candidates(codes: np.ndarray, parts: int, width: int) -> float:
    """Mean share of codes that agree with a code in one of its parts, as FAISS divides them."""
    sample = codes[:: -(-len(codes) // _SAMPLE)]
    bits = np.unpackbits(sample, axis=1, count=parts * width, bitorder="little")
    share = 0.0
    for part in range(parts):
        words = np.packbits(bits[:, part * width : (part + 1) * width], axis=1)
        _, counts = np.unique(words, axis=0, return_counts=True)
        share += float(np.square(counts / len(sample)).sum())
    return share


def described(
    index: Index, groups: Sequence[Group], most: int | None = None
) -> Iterator[list[dict]]:
    """The items of each group in the form of `answers.answer`, at most `most` of each."""
    shown = [Group(group.ids[:most], group.distances[:most]) for group in groups]
    read = np.cumsum([0, *(len(group.ids) for group in shown)]) // _READ
    for part in np.split(np.arange(len(shown)), np.flatnonzero(np.diff(read[:-1])) + 1):
        ids = np.concatenate([shown[i].ids for i in part] or [np.zeros(0, np.int64)])
        several = paths_of(index, ids.tolist())
        items = iter(index.items_of(ids).to_pylist())
        for i in part:
            yield [
                as_result(item, near, several.get(item["id"]), 1 - near / index.bits)
                for near, item in zip(shown[i].distances.tolist(), items)
            ]


def format_group(number: int, group: Group, results: list[dict]) -> str:
    """A group as text: its first items, and how many more there are."""
    more = len(group.ids) - len(results)
    title = f"group {number}: {len(group.ids):,} {results[0]['modality'] or 'item'}s"
    return f"{title}\n{format_table(results)}" + (f"\n  and {more:,} more" if more else "")
