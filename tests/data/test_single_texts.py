"""Texts of items one by one, and batches that read them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dsprh_tf.data.pipeline import PairSource
from dsprh_tf.data.single_texts import SingleTexts
from dsprh_tf.data.text import BagOfWords

WORDS = ("ant", "bee", "cat", "dog")
LISTS = [("ant", "bee cat"), ("zzz", "dog"), ("cat",), ("yyy", "xxx")]


@pytest.fixture
def bag():
    return BagOfWords(list(WORDS))


@pytest.fixture
def captioned(pairs):
    """The pairs with these texts, again and again."""
    lists = [LISTS[i % 3] for i in range(len(pairs))]
    texts = np.array([" ".join(each) for each in lists], object)
    return dataclasses.replace(pairs, texts=texts, text_lists=lists)


def test_each_text_has_its_words_and_those_without_are_counted(captioned, bag):
    texts = SingleTexts(captioned, bag, np.array([4, 0, 2]))
    assert texts.owner.tolist() == [0, 1, 1, 2]
    np.testing.assert_array_equal(
        texts.rows.toarray(), bag.encode(["dog", "ant", "bee cat", "cat"])
    )
    assert texts.left_out == 1


def test_an_item_whose_texts_have_words_only_together(captioned, bag):
    lists = list(captioned.text_lists)
    lists[5] = LISTS[3]
    texts = captioned.texts.copy()
    texts[5] = "ant"  # what no text has alone
    data = dataclasses.replace(captioned, texts=texts, text_lists=lists)
    found = SingleTexts(data, bag, np.array([0, 5]))
    assert found.owner.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(found.rows[2].toarray(), bag.encode(["ant"]))


def test_draws_choose_among_an_items_texts(captioned, bag):
    texts = SingleTexts(captioned, bag, np.arange(6))
    drawn = texts.drawn(np.array([3, 0, 0, 2]), np.array([0, 1, 2, 9]))
    np.testing.assert_array_equal(drawn, bag.encode(["ant", "bee cat", "ant", "cat"]))


def batches(source, share, epochs=None, **changed):
    epochs = range(2) if epochs is None else epochs
    found = source.training_batches(np.arange(24), 6, 3, epochs, single_texts=share, **changed)
    return [{name: value.numpy() for name, value in batch.items()} for batch in found]


def test_batches_of_single_texts(captioned, bag):
    source = PairSource(captioned, bag, 16, 20)
    source.extra["item"] = np.arange(24, dtype=np.float32)
    plain, single, mixed = (batches(source, share) for share in (0.0, 1.0, 0.5))
    assert "target_bow" not in plain[0]
    kinds = []
    for whole, one, some in zip(plain, single, mixed):
        np.testing.assert_array_equal(whole["item"], one["item"])
        np.testing.assert_array_equal(whole["bow"], one["target_bow"])
        np.testing.assert_array_equal(whole["bow"], some["target_bow"])
        for item, row in zip(one["item"].astype(int), one["bow"]):
            allowed = [bag.encode([t])[0].tolist() for t in captioned.text_lists[item]]
            assert row.tolist() in [row for row in allowed if any(row)]
        kinds.append((some["bow"] == whole["bow"]).all())
    assert len(set(map(bool, kinds))) == 2  # batches of either kind
    bows = [[batch["bow"].tolist() for batch in part] for part in (single[:4], single[4:])]
    assert sorted(map(str, bows[0])) != sorted(map(str, bows[1]))  # drawn anew each epoch


def test_a_resumed_run_and_workers_draw_the_same_texts(captioned, bag):
    source = PairSource(captioned, bag, 16, 20)
    whole = batches(source, 0.5)
    tail = batches(PairSource(captioned, bag, 16, 20), 0.5, range(1, 2))
    parts = [batches(source, 0.5, shard=(worker, 2)) for worker in range(2)]
    for a, b in zip(whole[4:], tail):
        np.testing.assert_array_equal(a["bow"], b["bow"])
    for a, *own in zip(whole, *parts):
        np.testing.assert_array_equal(a["bow"], np.concatenate([part["bow"] for part in own]))


def test_where_no_pair_has_several_texts_nothing_changes(pairs, bag_of_words):
    source = PairSource(pairs, bag_of_words, 16, 20)
    assert "target_bow" not in batches(source, 1.0, range(1))[0]
