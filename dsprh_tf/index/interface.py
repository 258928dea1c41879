"""The interface of an index, whether it is files on this machine or a database."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol, Union

import numpy as np
import pyarrow as pa

MODALITIES = ("image", "text")
ItemsLike = Union[pa.Table, np.ndarray, Sequence[int], Sequence[str], None]
"""The `items` of `Index.add`: an items table, ids or names, or None."""


@dataclasses.dataclass(frozen=True)
class Where:
    """Filter of a search or a removal; what is None does not restrict.

    Attributes:
        tag: items that have this tag.
        prefix: images whose path begins with this.
        modality: "image" or "text".
        tags: groups of tags: items that have at least one tag of every group. `(("a", "b"),)` is
            "any of a and b", `(("a",), ("b",))` is "all of them"; spellings make a group as well.
        without: items that have none of these tags.

    Raises:
        ValueError: an unknown modality, or an empty group of tags.
    """

    tag: str | None = None
    prefix: str | None = None
    modality: str | None = None
    tags: tuple[tuple[str, ...], ...] = ()
    without: tuple[str, ...] = ()

    def __post_init__(self):
        if self.modality not in (None, *MODALITIES):
            raise ValueError(f"modality is {self.modality!r}, expected 'image' or 'text'")
        if not all(self.tags):
            raise ValueError("a group of tags is empty, expected none of them or some tags in it")

    def __bool__(self):
        return self != EVERYTHING

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The groups of tags, `tag` among them."""
        return self.tags if self.tag is None else ((self.tag,), *self.tags)


EVERYTHING = Where()


@dataclasses.dataclass(frozen=True)
class Changes:
    """Effect of adding items: how many were new, replaced another, and were there already."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0


@dataclasses.dataclass(frozen=True)
class Results:
    """The nearest items of some queries.

    Attributes:
        distances: int32 [queries, k], Hamming distances in bits, ascending; -1 fills rows of
            fewer than k results.
        ids: int64 [queries, k]; ties in ascending order, -1 fills likewise.
    """

    distances: np.ndarray
    ids: np.ndarray


class Index(Protocol):
    """Codes with ids, searched by Hamming distance; `location.open_index` finds the engine.

    Ids are whole numbers from 0 to 2^63 - 1 that the caller chooses (`items.stable_id`). Every
    method takes any number of items and splits them as its engine needs. A `ValueError` is
    something that the caller can correct, an `OSError` something that failed on the way.

    Attributes:
        bits: length of a code.
        kind: how it searches.
        fingerprint: of the encoders that made the codes, as in `Encoder.info`; None if unknown.
    """

    bits: int
    kind: str
    fingerprint: str | None

    def __len__(self) -> int:
        """Number of items."""

    def add(self, codes: np.ndarray, items: ItemsLike = None) -> Changes:
        """Adds items, which replace those with the same ids; repeating it changes nothing.

        `codes` are packed, uint8 [n, bits / 8], or [n, bits] of 0 and 1, or of -1 and 1. `items`
        is an items table, ids or names, or None for the ids after the highest one; a name becomes
        an id by `items.stable_id`, and `items_of(ids)["text"]` has it.
        """

    def remove(self, ids) -> int:
        """Removes the items that are there; returns how many."""

    def commit(self) -> None:
        """Returns when all changes would survive the end of the process, or of the engine."""

    def search(self, query: np.ndarray, k: int = 10, where: Where = EVERYTHING) -> Results:
        """The k nearest items of each query, which are codes as `add` takes them."""

    def any(self, where: Where = EVERYTHING) -> bool:
        """Whether there is an item that a filter admits; cheaper than to count them."""

    def count(self, where: Where = EVERYTHING) -> int:
        """Number of items that a filter admits."""

    def ids_where(self, where: Where = EVERYTHING) -> np.ndarray:
        """Ids of the items that a filter admits."""

    def contains(self, ids) -> np.ndarray:
        """Whether there is an item with each of some ids: bool [n]."""

    def codes_of(self, ids) -> np.ndarray:
        """Codes of items, in the order of the ids."""

    def items_of(self, ids) -> pa.Table:
        """Rows of `items.SCHEMA`, in the order of the ids."""

    def stats(self) -> dict:
        """Numbers and settings, for the screen."""

    def check(self) -> dict:
        """Proves that the index is whole, or raises.

        Returns:
            {"items": number of items, "whole": what was found in order, and the entries of
            `recall.share`; of `recall.NOTHING` if there are fewer than two items}.
        """
