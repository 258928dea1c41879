"""Answers by codes and words: the two rankings joined, and what each of them has found."""

from __future__ import annotations

import numpy as np
import pytest
from index_helpers import image_items, random_codes

from dsprh_tf.index.answers import answer, format_table
from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.hybrid import DEPTH, Hybrid, fused, joined
from dsprh_tf.index.interface import Where
from dsprh_tf.index.items import id_items, text_items
from dsprh_tf.index.words import word_search


def test_fused_by_the_definition():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rankings = [rng.permutation(30)[: rng.integers(0, 20)].tolist() for _ in range(3)]
        wanted = {}
        for name in range(30):
            at = [ranking.index(name) for ranking in rankings if name in ranking]
            if at:
                wanted[name] = sum(1 / (60 + rank + 1) for rank in at)
        found = fused(rankings)
        assert set(found) == set(wanted) and len(found) == len(wanted)
        scores = [wanted[name] for name in found]
        np.testing.assert_allclose(scores, sorted(scores, reverse=True), rtol=1e-12)
    assert fused([]) == fused([[], []]) == []
    assert fused([[1, 2], [3, 4]]) == [1, 3, 2, 4]
    assert fused([[1, 2, 3], [3]]) == [3, 1, 2]


def test_joined_beyond_the_first():
    """The place of an item does not depend on how much of the rankings is known."""
    rng = np.random.default_rng(1)
    codes, words = rng.permutation(500).tolist(), rng.permutation(500)[:180].tolist()
    whole = joined(codes, words)
    assert sorted(whole) == list(range(500))
    for count in (DEPTH, DEPTH + 1, 150, 300):
        assert joined(codes[:count], words[:count])[:count] == whole[:count]
    assert joined([], words) == words and joined(codes, []) == codes


@pytest.fixture
def index():
    """500 images with the ids 0, 10, ... and four texts that have the ids 1 to 4."""
    index = HammingIndex(64)
    index.add(random_codes(500), image_items(500))
    texts = ["a dog on a beach", "the dog", "a cat", "two cats"]
    index.add(random_codes(4, seed=1), text_items(texts, [1, 2, 3, 4], [["x"], [], [], ["dog"]]))
    return index


def test_answer(index):
    query = index.codes_of([2])[0]
    found = Hybrid(index).answer("my dog", query, 8)
    assert found[0]["id"] == 2 and found[0]["found_by"] == "both"
    by_code = [r["id"] for r in answer(index, query[None], DEPTH)[0]]
    by_word = word_search(index).by_words(["my", "dog"]).tolist()
    assert [r["id"] for r in found] == fused([by_code, by_word])[:8]
    for result in found:
        codes, words = result["id"] in by_code, result["id"] in by_word
        assert result["found_by"] == ("both" if codes and words else "codes" if codes else "words")
        own = index.codes_of([result["id"]])[0]
        assert result["distance"] == np.unpackbits(own ^ query).sum()
    assert {1, 2, 4} <= {r["id"] for r in found}
    lines = format_table(found).split("\n")
    assert lines[0].split() == ["similarity", "distance", "found", "by", "id"]
    assert lines[1].split() == ["1.000", "0", "both", "2", "the", "dog"]


def test_values_rank_by_similarity(index):
    """Of all results, found by codes or by words alone, similarity and distance are right."""
    values = np.random.default_rng(2).normal(size=64).astype(np.float32)
    found = Hybrid(index).answer("dog", values, 1000)
    assert len(found) == 504
    by_words = Hybrid(index).answer("dog", values, 3)
    assert {r["id"] for r in by_words} & {1, 2, 4}
    for result in [*found, *by_words]:
        bits = np.unpackbits(index.codes_of([result["id"]])[0]) * 2.0 - 1
        similarity = (1 + bits @ values / np.abs(values).sum()) / 2
        assert result["similarity"] == pytest.approx(similarity, abs=1e-4)
        assert result["distance"] == ((values >= 0) != (bits > 0)).sum()
    pages = [Hybrid(index).answer("dog", values, 7, offset=start) for start in range(0, 70, 7)]
    assert [r["id"] for page in pages for r in page] == [r["id"] for r in found[:70]]
    without = Hybrid(index).answer("dog", values, 5, leave_out={1, found[0]["id"]})
    assert not {1, found[0]["id"]} & {r["id"] for r in without}
    assert len(without) == 5


def test_without_a_code_words_alone_count(index):
    found = Hybrid(index).answer("dog", None)
    assert {r["id"] for r in found} == {1, 2, 4}
    assert {r["found_by"] for r in found} == {"words"}
    assert {r["distance"] for r in found} == {None}
    assert format_table(found).split("\n")[1].split()[:3] == ["-", "-", "words"]
    assert Hybrid(index).answer("zebra", None) == []
    assert Hybrid(index).answer("", None) == []


@pytest.mark.parametrize(
    "where",
    [Where(modality="text"), Where(tag="x"), Where(without=("x",)), Where(modality="image")],
)
def test_filters_hold_for_both_rankings(index, where):
    admitted = set(index.ids_where(where).tolist())
    for query in (index.codes_of([1])[0], None):
        found = Hybrid(index).answer("dog", query, 1000, where)
        assert {r["id"] for r in found} <= admitted
        words = {r["id"] for r in found if r["found_by"] != "codes"}
        assert words == {1, 2, 4} & admitted
        if query is not None:
            assert {r["id"] for r in found} == admitted


def test_without_words_the_codes_rank_alone():
    index = HammingIndex(64)
    index.add(random_codes(50), id_items(list(range(50))))
    hybrid = Hybrid(index)
    assert not hybrid.has_words
    query = random_codes(1, seed=3)
    found = hybrid.answer("dog", query[0], 10)
    assert [r["id"] for r in found] == [r["id"] for r in answer(index, query, 10)[0]]
    assert {r["found_by"] for r in found} == {"codes"}
