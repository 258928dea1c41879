"""The texts of items one by one, as bags of words: captions that stand for an image alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from dsprh_tf.data.dataset import PairDataset

_BLOCK = 4096  # texts whose bags of words are in memory as dense rows


class SingleTexts:
    """The texts of some items, each with its own bag of words.

    Texts without a known word are left out; where an item has no other, all its texts joined are
    its one text.

    Args:
        dataset: with texts.
        bag_of_words: text -> multi-hot vector.
        items: int64 [n], unique.

    Attributes:
        owner: int64 [m], ascending: the position among `items` of each text's item.
        rows: uint8 sparse [m, D_T], the bag of words of each text.
        left_out: number of texts without a known word.
    """

    def __init__(self, dataset: PairDataset, bag_of_words, items: np.ndarray):
        lists: Any = dataset.texts if dataset.text_lists is None else dataset.text_lists
        texts = [[each] if isinstance(each, str) else list(each) for each in lists[items]]
        count = np.array(list(map(len, texts)))
        owner = np.repeat(np.arange(len(items)), count)
        rows = _encode(bag_of_words, [text for each in texts for text in each])
        known = rows.getnnz(axis=1) > 0
        self.left_out = int(np.sum(~known))
        mute = np.setdiff1d(np.arange(len(items)), owner[known])
        joined = _encode(bag_of_words, list(np.asarray(dataset.texts)[items[mute]]))
        owner = np.concatenate([owner[known], mute])
        order = np.argsort(owner, kind="stable")
        self.owner = owner[order]
        self.rows = sparse.vstack([rows[known], joined], format="csr")[order]
        self._place = np.full(len(dataset), -1, np.int64)
        self._place[items] = np.arange(len(items))
        self._starts = np.searchsorted(self.owner, np.arange(len(items) + 1))

    def drawn(self, items: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """One text of each item: uint8 [n, D_T].

        Args:
            items: int64 [n].
            draws: int64 [n] from 0, random numbers that choose among an item's texts.
        """
        place = self._place[items]
        first = self._starts[place]
        return self.rows[first + draws % (self._starts[place + 1] - first)].toarray()


def _encode(bag_of_words, texts: list[str]) -> sparse.csr_matrix:
    blocks = [sparse.csr_matrix((0, bag_of_words.size), dtype=np.uint8)]
    for start in range(0, len(texts), _BLOCK):
        dense = bag_of_words.encode(texts[start : start + _BLOCK])
        blocks.append(sparse.csr_matrix(dense.astype(np.uint8)))
    return sparse.vstack(blocks, format="csr")
