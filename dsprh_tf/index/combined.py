"""Several queries as one, and queries moved towards items and away from others.

A query is a sum of values: "a dog" and a picture of a beach together are near what is near to both.
Items that are, or are not, what somebody looks for move it as Rocchio's feedback does (Manning et
al., Introduction to Information Retrieval, 2008, Eq. 9.3), with the weights that the book names:

    q + .75 mean of the codes of `more` - .15 mean of the codes of `less`

Codes are -1 and +1 there. Nothing of it needs the encoders anew, or another byte in an index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dsprh_tf.index.interface import Index
from dsprh_tf.index.queries import Encoded, Query, item_values, query_values

MORE, LESS = 0.75, 0.15


class Combined(NamedTuple):
    """One search: the sum of some queries, moved by items.

    Attributes:
        queries: the queries; there may be none if there are items of `more`.
        more: ids of items that it moves towards.
        less: ids of items that it moves away from.
    """

    queries: tuple[Query, ...]
    more: tuple[int, ...] = ()
    less: tuple[int, ...] = ()

    def __str__(self):
        moved = [f"{name}: {', '.join(map(str, ids))}" for name, ids in self._items.items()]
        return " + ".join([*(f"{kind}: {value}" for kind, value in self.queries), *moved])

    @property
    def as_json(self) -> dict:
        """{"text": ...} of one query, {"together": [{"text": ...}, ...]} of several; and items."""
        each = [{kind: value} for kind, value in self.queries]
        given: dict = {"together": each} if len(each) > 1 else dict(*each)
        return {**given, **{name: list(map(str, ids)) for name, ids in self._items.items()}}

    @property
    def own(self) -> set[int]:
        """Ids of the items that it is made of, which are no answers to it."""
        like = (int(query.value) for query in self.queries if query.kind == "like")
        return {*like, *self.more, *self.less}

    @property
    def _items(self) -> dict[str, tuple[int, ...]]:
        return {name: ids for name, ids in (("more", self.more), ("less", self.less)) if ids}


def moved(values: np.ndarray, more: np.ndarray, less: np.ndarray) -> np.ndarray:
    """A query's values moved towards items and away from others: float32 [bits].

    Args:
        values: [bits]; the sum of the queries.
        more: [n, bits] of -1 and +1, codes of items to move towards; n may be 0.
        less: likewise, of items to move away from.
    """
    values = np.array(values, np.float32)
    for codes, weight in ((more, MORE), (less, -LESS)):
        if len(codes):
            values += np.float32(weight) * codes.mean(axis=0, dtype=np.float32)
    return values


def combined_values(
    index: Index, searches: Sequence[Combined], encode: Callable[[str, list[str]], Encoded]
) -> Encoded:
    """Values of searches. One that has none does not keep the others from an answer.

    Args:
        index: the index to search.
        searches: the searches.
        encode: as for `queries.query_values`.

    Raises:
        ValueError: as `queries.query_values`, or an id of `more` or `less` is not in the index.
    """
    parts = [query for search in searches for query in search.queries]
    each = query_values(index, parts, encode)
    found = Encoded(np.zeros((len(searches), index.bits), np.float32), {})
    end = 0
    for row, search in enumerate(searches):
        start, end = end, end + len(search.queries)
        problems = [each.problems[at] for at in range(start, end) if at in each.problems]
        if problems:
            found.problems[row] = problems[0]
            continue
        items = (item_values(index, ids) for ids in (search.more, search.less))
        found.values[row] = moved(each.values[start:end].sum(axis=0), *items)
    return found
