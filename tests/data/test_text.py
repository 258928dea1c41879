import re
import string
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from dsprh_tf.data.text import STOP_WORDS, BagOfWords

TEXTS = [
    "A dog runs, on the grass!",
    "Two dogs; one dog.",
    "the GRASS is green",
    "dog on a well-known red sofa",
    "Don't sit on the sofa",
    "",
]


def tokens(text):
    """Naive lower_and_strip_punctuation."""
    return "".join(c for c in text.lower() if c not in string.punctuation).split()


@pytest.mark.parametrize("min_pairs", [1, 2, 3])
@pytest.mark.parametrize("stop_words", [True, False])
def test_fit_matches_naive_count(min_pairs, stop_words):
    counts = Counter(word for text in TEXTS for word in set(tokens(text)))
    kept = [
        (-n, word)
        for word, n in counts.items()
        if n >= min_pairs and not (stop_words and word in STOP_WORDS)
    ]
    bag = BagOfWords.fit(TEXTS, min_pairs=min_pairs, stop_words=stop_words)
    assert bag.vocabulary == tuple(word for _, word in sorted(kept))
    assert bag.size == len(bag.vocabulary)


def test_fit_counts_over_blocks_and_caps_words():
    texts = np.array(["cat cat dog", "cat", "bird"] * 700, dtype=object)
    assert BagOfWords.fit(texts, min_pairs=700).vocabulary == ("cat", "bird", "dog")
    assert BagOfWords.fit(texts, max_words=2).vocabulary == ("cat", "bird")
    with pytest.raises(ValueError, match="no word occurs in 1401 or more of the 2,100"):
        BagOfWords.fit(texts, min_pairs=1401)


@pytest.mark.parametrize("texts", [[], ["", "  "], ["the of", "a the"], ["...", "!"]])
def test_fit_refuses_texts_without_words(texts):
    with pytest.raises(ValueError, match="no word occurs"):
        BagOfWords.fit(texts, min_pairs=1)


def test_vectors_match_naive_loop_in_every_way_of_calling():
    bag = BagOfWords(["sofa", "dog", "grass", "sky"])
    expected = np.array([[w in tokens(t) for w in bag.vocabulary] for t in TEXTS], np.float32)
    graph = tf.function(bag, input_signature=[tf.TensorSpec([None], tf.string)])
    for vectors in (
        bag(TEXTS),
        bag(np.array(TEXTS)),
        bag(tf.constant(TEXTS)),
        graph(tf.constant(TEXTS)),
        bag.encode(np.array(TEXTS, dtype=object)),
    ):
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, expected)
    np.testing.assert_array_equal(bag.known(TEXTS), expected.any(axis=1))


def test_empty_input():
    bag = BagOfWords(["sofa", "dog"])
    assert bag.encode([]).shape == (0, 2)
    assert bag([]).shape == (0, 2)
    assert bag.known([]).shape == (0,)
    assert bag.encode(["", "zz"]).sum() == 0


def test_encode_in_several_blocks():
    bag = BagOfWords([f"w{i}" for i in range(5000)])
    chosen = np.random.default_rng(0).integers(0, 5000, 1700)
    vectors = bag.encode([f"w{i} other" for i in chosen])
    np.testing.assert_array_equal(vectors.argmax(axis=1), chosen)
    assert vectors.sum() == 1700


def test_fixed_tags_keep_punctuation_and_lose_case():
    bag = BagOfWords(["C++", "d80", "été", "new-york"], standardize="lower")
    assert bag.vocabulary == ("c++", "d80", "été", "new-york")
    np.testing.assert_array_equal(
        bag.encode(["c++ D80", "newyork été", "c"]), [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    )


@pytest.mark.parametrize(
    ("words", "standardize", "message"),
    [
        ([], "lower", "empty, expected at least one"),
        (["a", "b", "A"], "lower", "'a' occurs twice"),
        (["new york"], "lower", "'new york' can never be found"),
        (["dog", "c++"], "lower_and_strip_punctuation", r"'c\+\+' can never be found"),
        ([""], "lower", "empty word"),
        (["a"], "strip", "standardize is 'strip'"),
    ],
)
def test_refused_vocabularies(words, standardize, message):
    with pytest.raises(ValueError, match=message) as error:
        BagOfWords(words, standardize)
    assert "\n" not in str(error.value)


def test_one_string_is_refused():
    with pytest.raises(ValueError, match="expected a sequence"):
        BagOfWords(["a"]).encode("a")


def test_save_and_load(tmp_path):
    bag = BagOfWords(["c++", "été"], standardize="lower")
    path = tmp_path / "run" / "vocabulary.json"
    bag.save(path)
    again = BagOfWords.load(path)
    assert (again.vocabulary, again.standardize) == (bag.vocabulary, "lower")
    assert [p.name for p in path.parent.iterdir()] == ["vocabulary.json"]
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is not valid JSON"):
        BagOfWords.load(path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="is not a saved vocabulary"):
        BagOfWords.load(path)
    with pytest.raises(ValueError, match="cannot be read"):
        BagOfWords.load(tmp_path / "none.json")


def test_vocabulary_travels_in_a_saved_model(tmp_path):
    module = tf.Module()
    bag = BagOfWords(["dog", "sofa"])
    module.layer = bag.layer
    module.bow = tf.function(bag, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(tmp_path / "model"))
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.bow(tf.constant(["a Sofa!", "x"])), [[0, 1], [0, 0]])
