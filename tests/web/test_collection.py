"""What the page knows of an index: tags, counts, filters; and the order of images and texts."""

from __future__ import annotations

import numpy as np
import pytest
from index_helpers import image_items

from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.interface import Where
from dsprh_tf.index.items import text_items
from dsprh_tf.web import collection as module
from dsprh_tf.web.collection import Collection, interleaved

TEXTS = [["Dog", "beach"], ["dog"], ["DOG", "Straße"], ["cat"], [], ["cat", "beach", "DOG"]]


@pytest.fixture(scope="module")
def index():
    index = HammingIndex(16)
    items = text_items([f"text {i}" for i in range(len(TEXTS))], range(len(TEXTS)), TEXTS)
    index.add(np.arange(2 * len(TEXTS), dtype=np.uint8).reshape(-1, 2), items)
    return index


@pytest.fixture(scope="module")
def texts(index):
    return Collection(index, "texts")


def expected(all_of, any_of, none_of):
    """By the definition, upper and lower case alike."""
    found = []
    for number, tags in enumerate(TEXTS):
        has = {tag.casefold() for tag in tags}
        wanted = [{tag.casefold() for tag in some} for some in (all_of, any_of, none_of)]
        if wanted[0] <= has and (not any_of or wanted[1] & has) and not wanted[2] & has:
            found.append(number)
    return found


@pytest.mark.parametrize(
    ("all_of", "any_of", "none_of"),
    [
        (["dog"], [], []),
        (["DOG", "Beach"], [], []),
        ([], ["cat", "STRASSE"], []),
        ([], [], ["dOg"]),
        (["beach"], ["Dog", "cat"], ["straße"]),
        (["cat"], ["dog"], ["beach"]),
        (["nothing"], [], []),
        ([], ["nothing", "cat"], []),
        ([], [], ["nothing"]),
        ([], [], []),
    ],
)
def test_tags(texts, index, all_of, any_of, none_of):
    where = texts.where(None, all_of, any_of, none_of)
    found = sorted(index.ids_where(where).tolist())
    assert found == expected(all_of, any_of, none_of)
    assert texts.number_of(where) == len(found)
    assert index.search(np.zeros((1, 2), np.uint8), 10, where).ids.max() == max(found, default=-1)


def test_tags_are_found_by_parts_of_them(texts):
    assert texts.tags[0] in [("DOG", 2), ("beach", 2), ("cat", 2)]
    assert texts.tags_with("", 0, 2) == (texts.tags[:2], 6)
    assert {tag for tag, _ in texts.tags_with("OG", 0, 9)[0]} == {"Dog", "dog", "DOG"}
    assert texts.tags_with("ss", 0, 9) == ([("Straße", 1)], 1)
    assert texts.tags_with("b", 0, 9)[0][0] == ("beach", 2)
    assert texts.tags_with("zebra", 0, 9) == ([], 0)


def test_more_tags_than_any_list_shows():
    index = HammingIndex(8)
    tags = [[f"Tag {i:04}"] for i in range(2000)]
    index.add(np.zeros((2000, 1), np.uint8), text_items([f"{i}" for i in range(2000)], tags=tags))
    many = Collection(index, "many")
    assert len(many.tags) == 2000
    assert many.tags_with("tag 1999", 0, 20) == ([("Tag 1999", 1)], 1)
    found, total = many.tags_with("tag 1", 990, 20)
    assert (len(found), total) == (10, 1000)


def test_a_large_collection_is_not_looked_through(index, monkeypatch):
    monkeypatch.setattr(module, "LISTED", 3)
    large = Collection(index, "large")
    assert (large.ids, large.tags, large.both) == (None, [], False)
    # Other spellings are still found, as far as they can be guessed.
    assert sorted(index.ids_where(large.where(None, ["dog"])).tolist()) == [0, 1, 2, 5]


def test_counts(index):
    images = HammingIndex(16)
    images.add(np.zeros((9, 2), np.uint8), image_items(9))
    found = Collection(images, "images")
    assert found.counts == {"items": 9, "images": 9, "texts": 0}
    assert not found.both
    assert found.number_of(Where()) == found.number_of(Where(modality="image")) == 9
    assert found.number_of(Where(modality="text")) == 0
    with pytest.raises(ValueError, match="nothing is empty"):
        Collection(HammingIndex(16), "nothing")


@pytest.mark.parametrize("sizes", [[0, 0], [3, 3], [5, 2], [1, 6], [0, 4], [4]])
def test_in_turn(sizes):
    """Every place once, in the order of each list; pages are parts of the whole."""
    whole = interleaved(sizes, 0, 100)
    assert sorted(whole) == [(at, i) for at, size in enumerate(sizes) for i in range(size)]
    for at in range(len(sizes)):
        ranks = [rank for part, rank in whole if part == at]
        assert ranks == sorted(ranks)
    shared = min(sizes) if len(sizes) == 2 else 0
    assert [part for part, _ in whole[: 2 * shared]] == [0, 1] * shared
    for count in (1, 2, 3):
        pages = [interleaved(sizes, start, count) for start in range(0, len(whole), count)]
        assert sum(pages, []) == whole
    assert interleaved(sizes, 50, 10) == []
