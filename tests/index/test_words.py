"""Items by their words: the table of an index in a folder, and what never reaches an engine."""

from __future__ import annotations

import math
import os
import re

import numpy as np
import pytest
from helpers import killed_at
from index_helpers import image_items, random_codes

from dsprh_tf.index import words as words_module
from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.interface import EVERYTHING, Where
from dsprh_tf.index.items import text_items
from dsprh_tf.index.words import FolderWords, tags_with, weights, word_search, words_of

TEXTS = [
    "a dog on the beach", "a dog and a cat", "the Café at the sea", "a DOG, a dog: a dog!",
    "the sea", "ein Hund am Meer", "a \u72ac", "nothing of the kind",
]  # fmt: skip
TAGS = [[], ["cat"], ["Red Wine"], [], ["sea side"], ["dog"], [], []]


def made(place=None):
    """An index of `TEXTS` with the ids 1, 2, ..., and 30 images tagged "all" and "third"."""
    index = HammingIndex(64) if place is None else HammingIndex.create(place, 64, "abc")
    index.add(random_codes(8), text_items(TEXTS, np.arange(1, 9), TAGS))
    images = image_items(30, 2)
    index.add(random_codes(30, seed=1), images)
    if place is not None:
        index.commit()
        index._lock.release()
        index = HammingIndex.load(place)
    return index


def with_words(index, words, where=EVERYTHING):
    """Ids of items that have one of some words, by the definition."""
    items = index.items_of(index.ids_where(where)).to_pylist()
    found = []
    for item in items:
        text = " ".join([item["text"] or "", *item["tags"]]).lower().replace("é", "e")
        if set(re.findall(r"\w+", text)) & set(words):
            found.append(item["id"])
    return sorted(found)


@pytest.mark.parametrize("text", [
    "dog", "cafe", "CAFÉ", "Cafe\u0301", "wine", "sea", "\u72ac", "third", "unknown", "hund meer",
])  # fmt: skip
@pytest.mark.parametrize("where", [Where(), Where(modality="text"), Where(tag="dog")])
def test_what_is_found(text, where):
    index = made()
    words = words_of(text)
    found = FolderWords(index).by_words(words, 100, where)
    plain = [w.replace("é", "e") for w in words]
    assert found.dtype == np.int64
    assert sorted(found.tolist()) == with_words(index, plain, where)
    for k in (1, 2):
        np.testing.assert_array_equal(FolderWords(index).by_words(words, k, where), found[:k])


def test_order():
    """More and rarer words first; a word that most items have does not count beside others."""
    index = made()
    words = FolderWords(index)
    assert words.by_words(["dog", "beach"])[0] == 1
    assert words.by_words(["cat", "dog"])[0] == 2
    # 30 of 38 items have the tag "all".
    assert words.by_words(["all", "beach"]).tolist() == [1]
    assert len(words.by_words(["all"], 100)) == 30
    found = words.by_words(["all", "nothingatall"], 100).tolist()
    assert sorted(found) == [10 * i for i in range(2, 32)]
    assert words.by_words([]).tolist() == words.by_words(["zzz"]).tolist() == []


@pytest.mark.parametrize("typed", [
    'dog" OR "sea', "dog NOT sea", "text:dog", "dog*", "^dog", "NEAR(dog sea)", "(dog", '"', "-dog",
    "dog AND sea", "{text tags}: dog", "'; DROP TABLE words; --", "\0dog", "dog\ud800", "%", "_",
])  # fmt: skip
def test_nothing_typed_is_syntax(typed):
    """What is found is what the words alone find."""
    index = made()
    words = words_of(typed)
    assert all(re.fullmatch(r"\w+", word) for word in words)
    found = FolderWords(index).by_words(words, 100)
    assert sorted(found.tolist()) == with_words(index, words)


def test_words_of():
    assert words_of("The dog's  the-DOG,x_y 3.5") == ["the", "dog", "s", "x", "y", "3", "5"]
    assert words_of("Cafe\u0301") == ["café"]
    assert words_of(" .,!") == []
    assert len(words_of(" ".join(map(str, range(500))))) == 64
    assert len(words_of(" ".join(map(str, range(500))), None)) == 500


def test_weights():
    found = weights({"dog": 3, "the": 60, "a": 51, "sea": 50, "none": 0}, 100)
    assert found == {
        "dog": math.log(1 + 97.5 / 3.5), "sea": math.log(1 + 50.5 / 50.5),
    }  # fmt: skip
    assert list(weights({"the": 60}, 100)) == ["the"]
    assert weights({"the": 100}, 100)["the"] > 0
    assert weights({"none": 0}, 100) == {}


def test_tags_with():
    assert set(tags_with("wine", ["red", "wine"])) == {
        "wine", "WINE", "Wine", "red wine", "RED WINE", "Red wine", "Red Wine",
    }  # fmt: skip
    assert {"a b c", "b c d", "c d e", "c"} < set(tags_with("c", list("abcdef")))
    assert "a b c d" not in tags_with("c", list("abcdef"))


class TestFolder:
    def test_made_once(self, tmp_path, monkeypatch):
        first = FolderWords(made(tmp_path / "index")).by_words(["dog"])
        files = {name: os.stat(tmp_path / "index" / name).st_mtime_ns
                 for name in ("words.sqlite", "words.json")}  # fmt: skip
        monkeypatch.setattr(FolderWords, "_made", None)
        index = HammingIndex.load(tmp_path / "index")
        np.testing.assert_array_equal(word_search(index).by_words(["dog"]), first)
        assert files == {name: os.stat(tmp_path / "index" / name).st_mtime_ns for name in files}
        assert index.check()["items"] == 38

    def test_follows_changes(self, tmp_path):
        FolderWords(made(tmp_path / "index"))
        index = HammingIndex.load(tmp_path / "index", write=True)
        index.remove([1])
        index.add(random_codes(1), text_items(["my new dog"], [99]))
        assert FolderWords(index).by_words(["dog"]).tolist().count(99) == 1  # not yet committed
        index.commit()
        found = FolderWords(HammingIndex.load(tmp_path / "index"))
        assert set(found.by_words(["dog"]).tolist()) == {2, 4, 6, 99}
        assert found.total == 38

    @pytest.mark.parametrize("name", ["words.sqlite", "words.json"])
    @pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "other"])
    def test_a_damaged_table_is_made_again(self, tmp_path, name, damage):
        wanted = FolderWords(made(tmp_path / "index")).by_words(["dog", "sea"])
        path = tmp_path / "index" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.unlink()
        if damage != "missing":
            path.write_bytes({"truncated": content[: len(content) // 2], "altered": content,
                              "other": b"[]"}[damage])  # fmt: skip
        found = FolderWords(HammingIndex.load(tmp_path / "index")).by_words(["dog", "sea"])
        np.testing.assert_array_equal(found, wanted)

    def test_a_folder_that_may_only_be_read(self, tmp_path, monkeypatch):
        def refuse(path):
            raise PermissionError("read-only")

        index = made(tmp_path / "index")
        monkeypatch.setattr(words_module, "replacing", refuse)
        assert FolderWords(index).by_words(["beach"]).tolist() == [1]
        assert not (tmp_path / "index" / "words.sqlite").exists()

    def test_killed(self, tmp_path):
        """At every change of the disk: the next search makes the table."""
        index = made(tmp_path / "index")
        point = 1
        while killed_at(tmp_path / "index", point, lambda: FolderWords(index)):
            found = FolderWords(HammingIndex.load(tmp_path / "index")).by_words(["beach"])
            assert found.tolist() == [1]
            for name in ("words.sqlite", "words.json"):
                (tmp_path / "index" / name).unlink()
            point += 1
        assert point > 3
