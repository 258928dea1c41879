"""Answers by codes and by words together: two rankings joined by reciprocal rank fusion."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import TypeVar

import numpy as np

from dsprh_tf import codes as binary
from dsprh_tf.index.answers import answer, as_result
from dsprh_tf.index.asymmetric import OVERSAMPLE
from dsprh_tf.index.interface import EVERYTHING, Index, Where
from dsprh_tf.index.known_files import paths_of
from dsprh_tf.index.words import word_search, words_of

RRF = 60  # Cormack, Clarke and Buettcher's constant
DEPTH = 100
"""Results of each ranking that are joined; what is farther comes after them."""
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


def joined(by_code: Sequence[_Name], by_word: Sequence[_Name]) -> list[_Name]:
    """Two rankings as one: the first `DEPTH` of each fused, then the rest of the one, of the other.

    So the place of an item does not depend on how much of the rankings is known, and words that
    many items have do not disturb the order of what neither ranking has put in front.
    """
    first = fused([by_code[:DEPTH], by_word[:DEPTH]])
    return list(dict.fromkeys([*first, *by_code[DEPTH:], *by_word[DEPTH:]]))


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
        self,
        text: str,
        query: np.ndarray | None,
        k: int = 10,
        where: Where = EVERYTHING,
        leave_out: Collection[int] = (),
        offset: int = 0,
        oversample: int = OVERSAMPLE,
    ) -> list[dict]:
        """The best k items for a text.

        Args:
            text: the query.
            query: its values or its code, a row of what `answers.answer` takes; None if it has
                none: words alone count then.
            k: number of results, at most.
            where: which items count, in both rankings.
            leave_out: ids that must not be among the results.
            offset: number of better results to pass over.
            oversample: as for `asymmetric.rank`.

        Returns:
            As `answers.answer`, each result with "found_by": "codes", "words" or "both", as to the
            first `DEPTH` of each ranking. Similarity and distance are None without a query.

        Raises:
            ValueError: as `asymmetric.rank`.
            OSError: a database failed.
        """
        depth = max(DEPTH, offset + k)
        near: list[dict] = []
        if query is not None:
            near = answer(
                self._index, query[np.newaxis], depth, where, [leave_out], oversample=oversample
            )[0]
        by_code = {result["id"]: result for result in near}
        worded = self._words.by_words(words_of(text), depth + len(leave_out), where).tolist()
        worded = [name for name in worded if name not in leave_out][:depth]
        best = joined(list(by_code), worded)[offset : offset + k]
        by_word = self._results([name for name in best if name not in by_code], query)
        codes, words = list(by_code)[:DEPTH], worded[:DEPTH]
        found_by = {
            **dict.fromkeys(worded, "words"),
            **dict.fromkeys(by_code, "codes"),
            **dict.fromkeys(words, "words"),
            **dict.fromkeys(codes, "codes"),
            **dict.fromkeys(set(codes).intersection(words), "both"),
        }
        return [
            {**(by_code.get(name) or by_word[name]), "found_by": found_by[name]} for name in best
        ]

    def _results(self, ids: list[int], query: np.ndarray | None) -> dict[int, dict]:
        """Results that only words have found, by id."""
        if not ids:
            return {}
        several = paths_of(self._index, ids)
        distances: list = [None] * len(ids)
        similarities: list = [None] * len(ids)
        if query is not None:
            values = query[np.newaxis]
            if values.dtype.kind != "f":
                values = binary.unpack(values)
            codes = self._index.codes_of(ids)
            distances = binary.hamming_distance(binary.pack(values), codes)[0].tolist()
            similarities = binary.asymmetric_similarity(values, codes)[0].tolist()
        items = self._index.items_of(ids).to_pylist()
        return {
            item["id"]: as_result(item, distance, several.get(item["id"]), similarity)
            for item, distance, similarity in zip(items, distances, similarities)
        }
