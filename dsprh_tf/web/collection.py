"""An index as the page shows it: its counts, its list of tags, and which items a filter admits."""

from __future__ import annotations

import collections

import numpy as np
import pyarrow.compute as pc

from dsprh_tf.index.interface import Index, Where

LISTED = 200_000  # most items of a collection that is looked through at the start


class Collection:
    """An index with what the page needs to know of it, read once.

    Of more than 200,000 items no list of tags is made and no random choice is shown; and without
    texts and images apart, "all" comes in the order of the distances alone.

    Attributes:
        index: the index.
        name: its name on the page.
        counts: {"items", "images", "texts"}: numbers of items; None if unknown.
        ids: int64, all ids; None for a large collection.
        tags: (tag, number of items) of every tag, the most frequent ones first.

    Args:
        index: an index with at least one item.
        name: name of the collection.

    Raises:
        ValueError: the index is empty.
        OSError: a database failed.
    """

    def __init__(self, index: Index, name: str):
        if not len(index):
            raise ValueError(f"{name} is empty: add codes with `dsprh index add`")
        self.index, self.name = index, name
        stats = index.stats()
        self.counts = {key: stats.get(key) for key in ("items", "images", "texts")}
        self.ids = index.ids_where() if len(index) <= LISTED else None
        self.tags = self._count_tags()
        self._folded = [tag.casefold() for tag, _ in self.tags]
        self._spelled: dict[str, list[str]] = collections.defaultdict(list)
        for (tag, _), folded in zip(self.tags, self._folded):
            self._spelled[folded].append(tag)

    @property
    def both(self) -> bool:
        """Whether images and texts are listed, and must share the results."""
        return bool(self.ids is not None and self.counts["images"] and self.counts["texts"])

    def tags_with(self, part: str, offset: int, count: int) -> tuple[list[tuple[str, int]], int]:
        """Tags with a part in them, upper or lower case: (some of them, number of all).

        Those that begin with it come first, and then the most frequent ones.
        """
        part = part.casefold()
        hits = [i for i, tag in enumerate(self._folded) if part in tag]
        hits.sort(key=lambda i: not self._folded[i].startswith(part))
        return [self.tags[i] for i in hits[offset : offset + count]], len(hits)

    def where(self, find: str | None, all_of=(), any_of=(), none_of=()) -> Where:
        """The filter for tags as somebody typed them, in upper or lower case.

        Args:
            find: "image", "text", or None for both.
            all_of: tags that an item must have.
            any_of: tags of which an item must have one, if there are any.
            none_of: tags that an item must not have.
        """
        groups = [tuple(self._spellings(tag)) for tag in all_of]
        if any_of:
            groups.append(tuple(s for tag in any_of for s in self._spellings(tag)))
        without = tuple(s for tag in none_of for s in self._spellings(tag))
        return Where(modality=find, tags=tuple(groups), without=without)

    def number_of(self, where: Where) -> int:
        """Number of items that a filter admits."""
        if not where:
            return self.counts["items"] or len(self.index)
        if where.modality and where == Where(modality=where.modality):
            known = self.counts[f"{where.modality}s"]
            if known is not None:
                return known
        return self.index.count(where)

    def _spellings(self, tag: str) -> list[str]:
        """The tags that are this one but for upper and lower case; as typed if none is listed."""
        if self.ids is None:
            return list(dict.fromkeys([tag, tag.lower(), tag.upper(), tag.capitalize()]))
        return self._spelled.get(tag.casefold(), [tag])

    def _count_tags(self) -> list[tuple[str, int]]:
        if self.ids is None:
            return []
        tags = pc.list_flatten(self.index.items_of(self.ids)["tags"])
        counts = pc.value_counts(tags)
        pairs = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist())
        return sorted(((t, n) for t, n in pairs if t), key=lambda pair: (-pair[1], pair[0]))


def interleaved(sizes: list[int], offset: int, count: int) -> list[tuple[int, int]]:
    """Places of a merged list: (list, rank in it), one of each list in turn while it has some.

    Args:
        sizes: lengths of one or two ranked lists.
        offset: the first place.
        count: most places.
    """
    end = min(offset + count, sum(sizes))
    if len(sizes) == 1:
        return [(0, place) for place in range(offset, end)]
    shared = min(sizes)
    longer = int(np.argmax(sizes))
    return [
        (place % 2, place // 2) if place < 2 * shared else (longer, place - shared)
        for place in range(offset, end)
    ]
