"""What data look like in numbers, and the numbers that data read wrongly have."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.splits import Split
from dsprh_tf.data.unicode_table import EMOJI, FLAG, LETTER, MARK, PAIRED, kind_of

HIGH_CHANCE = 0.9
"""Two pairs that are relevant to each other more often than this say nothing about a method."""

FEW = 20
"""Among fewer pairs, numbers are odd by accident: they are said, and nothing is refused."""

_PRODUCTS = 5 * 10**9  # multiplications for the share of relevant pairs: a second or two
_CHARACTERS = 2_000_000  # of texts whose words are counted
_APOSTROPHES = "'\u2018\u2019\u02bc"
_BLOCK = 1024  # rows whose products are in memory at once


def dataset_lines(dataset: PairDataset, accept_odd: bool = False) -> list[str]:
    """Lines on a data set as a whole.

    Args:
        dataset: the pairs.
        accept_odd: whether what looks wrong is only said.

    Returns:
        A line with the pairs, texts and distinct words per pair, labels per pair, and the chance
        that two random pairs are relevant to each other; and a line for what looks wrong.

    Raises:
        ValueError: the data look as if they were read wrongly: nearly all pairs are relevant to
            each other, hardly any are, each label occurs once, or half of the texts are the same.
    """
    parts = [f"{len(dataset):,} pairs", *_text_parts(dataset)]
    odd = _odd_texts(dataset)
    if dataset.labels is None:
        parts.append("no labels")
    else:
        parts.append(f"{dataset.labels.sum(dtype=np.int64) / len(dataset):.1f} labels per pair")
        chance = _chance_of_two(dataset.labels)
        if chance is not None:
            parts.append(f"two random pairs are relevant to each other with chance {chance:.3g}")
            odd += _odd_labels(dataset) or _odd_chance(
                dataset, chance, len(dataset), "two random pairs are relevant to each other"
            )
    return ["; ".join(parts), *_judged(dataset, odd, accept_odd)]


def split_lines(dataset: PairDataset, split: Split, accept_odd: bool = False) -> list[str]:
    """Lines on a split: its parts, and the chance that a query and an item are relevant.

    Args:
        dataset: the pairs.
        split: the split.
        accept_odd: whether what looks wrong is only said.

    Raises:
        ValueError: nearly the whole database is relevant to the queries, or less than one item is.
    """
    if dataset.labels is None or not dataset.labels.size or not len(split.query):
        return []
    line = f"{len(split.query):,} queries, {len(split.database):,} pairs in the database"
    _, relevant = relevant_counts(dataset.labels[split.query], dataset.labels[split.database])
    chance = float(relevant.mean()) / len(split.database)
    line += f", relevant to each other with chance {chance:.3g}"
    if none := np.mean(relevant == 0):
        line += f"; {none:.1%} of the queries have nothing relevant there"
    odd = _odd_chance(
        dataset, chance, len(split.database), "a query and a pair of the database are relevant"
    )
    return [line, *_judged(dataset, odd, accept_odd or len(split.database) < FEW)]


def relevant_counts(
    labels: np.ndarray, database: np.ndarray, products: int = _PRODUCTS
) -> tuple[np.ndarray, np.ndarray]:
    """How many pairs of a database share a label with each pair, or with each of a sample.

    Args:
        labels: uint8 [N, L], multi-hot.
        database: uint8 [M, L].
        products: multiplications that are done at most. Equal rows cost nothing; where that is not
            enough, a sample is drawn, the same each time.

    Returns:
        The rows of `labels` that were taken, int64 [n], and the pairs for each, int64 [n].
    """
    kinds, counts = _distinct(database)
    rows: np.ndarray = np.arange(len(labels))
    if len(_distinct(labels)[0]) * kinds.size > products:
        rows = np.random.default_rng(0).permutation(rows)[: max(1, products // kinds.size)]
    found, back = np.unique(np.packbits(labels[rows], axis=1), axis=0, return_inverse=True)
    found = np.unpackbits(found, axis=1, count=labels.shape[1])
    relevant = np.zeros(len(found), np.int64)
    for start in range(0, len(kinds), _BLOCK):
        block = kinds[start : start + _BLOCK].astype(np.float32).T
        for at in range(0, len(found), _BLOCK):
            shared = found[at : at + _BLOCK].astype(np.float32) @ block > 0
            relevant[at : at + _BLOCK] += shared @ counts[start : start + _BLOCK]
    return rows, relevant[back.ravel()]


def _distinct(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows, and how often each occurs."""
    found, counts = np.unique(np.packbits(labels, axis=1), axis=0, return_counts=True)
    return np.unpackbits(found, axis=1, count=labels.shape[1]), counts


def _chance_of_two(labels: np.ndarray) -> float | None:
    """The chance that two different pairs share a label; None without two pairs and a label."""
    if len(labels) < 2 or not labels.size:
        return None
    if labels.sum(axis=0, dtype=np.int64).max() <= 1:
        return 0.0  # found early: there are as many labels as pairs
    rows, relevant = relevant_counts(labels, labels)
    # Each pair with a label is among those that share one with it.
    return float(np.mean(relevant - labels[rows].any(axis=1))) / (len(labels) - 1)


def _text_parts(dataset: PairDataset) -> list[str]:
    if dataset.texts is None:
        return []
    rows = np.random.default_rng(0).permutation(len(dataset))
    lengths = np.cumsum([len(dataset.texts[row]) for row in rows])
    rows = rows[: max(1, int(np.searchsorted(lengths, _CHARACTERS)))]
    words = count_words(dataset.texts[rows].tolist(), tags=dataset.vocabulary is not None)
    count, distinct = words.mean(axis=0)
    if dataset.text_lists is not None:
        per_pair = np.mean([len(texts) for texts in dataset.text_lists])
        return [f"{per_pair:.1f} texts per pair, {count:.1f} words ({distinct:.1f} distinct)"]
    return [f"{count:.1f} words per text ({distinct:.1f} distinct)"]


def count_words(texts: Sequence[str], tags: bool = False) -> np.ndarray:
    """Words and distinct words of each text, nearly as `BagOfWords` finds them.

    It does without TensorFlow, which would hold devices from then on: an apostrophe always joins,
    and scripts without spaces count by characters.

    Args:
        texts: [N] texts.
        tags: whether they are tags with spaces between, which may hold punctuation.

    Returns:
        int64 [N, 2].
    """
    folded = [unicodedata.normalize("NFKD", text.casefold()) for text in texts]
    if not tags:
        folded = [re.sub(r"<[a-z/!][^<>]*>|&#?\w+;", " ", text) for text in folded]
        table = {ord(letter): _in_words(letter) for letter in set().union(*folded)}
        folded = [text.translate(table) for text in folded]
    words = [text.split() for text in folded]
    return np.array([(len(found), len(set(found))) for found in words], np.int64)


def _in_words(character: str) -> str:
    if character in _APOSTROPHES:
        return ""
    kind = kind_of(character)
    if kind in (LETTER, MARK):
        return character
    return f" {character} " if kind in (PAIRED, EMOJI, FLAG) else " "


def _odd_texts(dataset: PairDataset) -> list[str]:
    if dataset.texts is None or len(dataset) < 2:
        return []
    ((text, count),) = Counter(dataset.texts.tolist()).most_common(1)
    if 2 * count < len(dataset):
        return []
    return [
        f"{count:,} of {len(dataset):,} texts are the same, {text[:60]!r}: check which column or "
        "file holds the texts"
    ]


def _odd_labels(dataset: PairDataset) -> list[str]:
    labels = dataset.labels
    if labels is None or not labels.any() or labels.sum(axis=0, dtype=np.int64).max() > 1:
        return []
    return [
        f"each label occurs once ({len(dataset.label_names):,} labels, such as "
        f"{dataset.label_names[0]!r}), so that no pair is relevant to another: labels are what "
        "pairs share, not names of single pairs; check which column holds them"
    ]


def _odd_chance(dataset: PairDataset, chance: float, items: int, what: str) -> list[str]:
    if chance > HIGH_CHANCE and dataset.labels is not None:
        share = dataset.labels.mean(axis=0)
        most = int(share.argmax())
        return [
            f"{what} with chance {chance:.3g}, so that results are near 1 whatever the codes are: "
            f"leave out labels that nearly all pairs have ({share[most]:.0%} have "
            f"{dataset.label_names[most]!r}), or check how labels are written"
        ]
    if chance * items < 1:
        return [
            f"{what} with chance {chance:.3g}, less than one of {items:,}: check how labels are "
            "written, or give labels that more pairs share"
        ]
    return []


def _judged(dataset: PairDataset, odd: Sequence[str], accept_odd: bool) -> list[str]:
    if odd and not accept_odd and len(dataset) >= FEW:
        raise ValueError(
            f"{dataset.name} data look wrong: {'; '.join(odd)}; or go on with --accept_odd_data"
        )
    return [f"warning: {line}" for line in odd]
