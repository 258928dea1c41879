"""Plurals: which forms share a column, and what only looks like one."""

from __future__ import annotations

import pytest

from dsprh_tf.data.word_forms import folded, plural, singulars, unseen

PAIRS = {
    "dogs": "dog", "buses": "bus", "boxes": "box", "benches": "bench", "dishes": "dish",
    "glasses": "glass", "cities": "city", "ties": "tie", "knives": "knife", "leaves": "leaf",
    "gloves": "glove", "horses": "horse", "potatoes": "potato", "shoes": "shoe", "men": "man",
    "children": "child", "houses": "house", "skis": "ski",
}  # fmt: skip


def test_plurals_count_as_their_singulars_where_both_occur():
    pairs = {form: word for form, word in PAIRS.items() if form not in ("glasses", "skis")}
    assert folded([*pairs, *pairs.values()]) == pairs
    assert folded(list(pairs)) == {}


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("glass", "glas"), ("bus", "bu"), ("tennis", "tenni"), ("news", "new"), ("as", "a"),
        ("glasses", "glass"), ("lens", "len"), ("собаки", "собака"), ("женщиныs", "женщины"),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_plural_is_a_word_of_its_own(word, other):
    assert folded([word, other]) == {}


def test_a_plural_of_a_plural_has_the_column_of_the_singular():
    assert folded(["mens", "men", "man"]) == {"mens": "man", "men": "man"}


def test_regular_plurals_are_found_again():
    for word in ("dog", "bus", "box", "bench", "dish", "city", "boy", "horse", "child", "house"):
        assert word in list(singulars(plural(word))), word


def test_forms_that_no_text_has():
    vocabulary, seen = ["giraffe", "trains", "bus", "new", "犬", "c++"], ["news"]
    assert unseen(vocabulary, seen) == {"giraffes": "giraffe", "train": "trains", "buses": "bus"}
