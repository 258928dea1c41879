"""Answers by codes and by words together: two rankings joined by reciprocal rank fusion."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np

from dsprh_tf import codes as binary
from dsprh_tf.index.answers import answer, as_result
from dsprh_tf.index.interface import EVERYTHING, Index, Where
from dsprh_tf.index.known_files import paths_of
from dsprh_tf.index.words import word_search, words_of

RRF = 60  # Cormack, Clarke and Buettcher's constant
_DEPTH = 100  # results of each ranking that are joined, at least
_Name = TypeVar("_Name", bound=Hashable)


def fused(rankings: Sequence[Sequence[_Name]], k: int = RRF) -> list[_Name]:
    """Rankings joined: by the sum of 1 / (k + rank) over the rankings that have an item.

    "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods" (Cormack,
    Clarke and Buettcher, SIGIR 2009); ranks begin at 1. Of equal sums the item that an earlier
    ranking has comes first, as it stands there.

    Args:
        rankings: items, the best first, none twice.
        k: how little the first ranks count above the following ones.
    """
    scores: dict[_Name, float] = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, 1):
            scores[name] = scores.get(name, 0.0) + 1 / (k + rank)
    return sorted(scores, key=lambda name: -scores[name])


class Hybrid:
    """Answers of an index to texts, by codes and by the words of its items' texts and tags.

    Args:
        index: where to look.

    Raises:
        ValueError: the words of an index in a folder cannot be searched, see `FolderWords`.
    """

    def __init__(self, index: Index):
        self._index, self._words = index, word_search(index)

    @property
    def has_words(self) -> bool:
        """Whether an item has words, as far as it is known without looking."""
        return getattr(self._words, "total", 1) > 0

    def answer(
        self, text: str, query: np.ndarray | None, k: int = 10, where: Where = EVERYTHING
    ) -> list[dict]:
        """The best k items for a text.

        Args:
            text: the query.
            query: its code, uint8 [bits / 8]; None if it has none: words alone count then.
            k: number of results, at most.
            where: which items count, in both rankings.

        Returns:
            As `answers.answer`, each result with "found_by": "codes", "words" or "both". The
            distance is None without a code.

        Raises:
            ValueError: as `Index.search`.
            OSError: a database failed.
        """
        depth = max(_DEPTH, k)
        near = []
        if query is not None:
            near = answer(self._index, query[np.newaxis], depth, where)[0]
        by_code = {result["id"]: result for result in near}
        worded = self._words.by_words(words_of(text), depth, where).tolist()
        best = fused([list(by_code), worded])[:k]
        by_word = self._results([name for name in best if name not in by_code], query)
        by_both = set(worded)
        return [
            {
                **(by_code.get(name) or by_word[name]),
                "found_by": _found_by(name in by_code, name in by_both),
            }
            for name in best
        ]

    def _results(self, ids: list[int], query: np.ndarray | None) -> dict[int, dict]:
        """Results that only words have found, by id."""
        if not ids:
            return {}
        several = paths_of(self._index, ids)
        distances: list[int | None] = [None] * len(ids)
        if query is not None:
            codes = self._index.codes_of(ids)
            distances = binary.hamming_distance(query[np.newaxis], codes)[0].tolist()
        items = self._index.items_of(ids).to_pylist()
        return {
            item["id"]: as_result(item, distance, several.get(item["id"]))
            for item, distance in zip(items, distances)
        }


def _found_by(codes: bool, words: bool) -> str:
    return "both" if codes and words else "codes" if codes else "words"
