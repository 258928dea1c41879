import csv
import re
import string
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import SHARED

from dsprh_tf.data import text as text_module
from dsprh_tf.data.text import STOP_WORDS, BagOfWords, split_words

TEXTS = [
    "A dog runs, on the grass!",
    "Two dogs; one dog.",
    "the GRASS is green",
    "dog on a well-known red sofa",
    "Don't sit on the sofa",
    "",
]


def tokens(text):
    """Naive words, of ASCII texts."""
    return re.findall(r"[a-z0-9]+(?:'[a-z0-9]+)*", text.lower())


def old_tokens(text):
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


def test_the_most_frequent_of_a_list_of_tags():
    tags, texts = ("sky", "Dog", "c++", "sea"), ["dog sea dog", "c++ sea", "sea dog", "sky c++"]
    assert BagOfWords.of_tags(tags, texts).vocabulary == ("sky", "dog", "c++", "sea")
    for most, kept in ((1, ("sea",)), (2, ("dog", "sea")), (3, ("dog", "c++", "sea"))):
        bag = BagOfWords.of_tags(tags, texts, most)
        assert bag.vocabulary == kept and bag.standardize == "tags"
        assert bag.notes == (f"{most} of 4 tags are kept, the most frequent in 4 training texts",)
    assert BagOfWords.of_tags(tags, texts, 4).notes == ()
    assert BagOfWords.of_tags(tags, [], 2).vocabulary == ("sky", "dog"), "of equals the earlier"


@pytest.mark.parametrize("texts", [[], ["", "  "], ["the of", "a the"], ["...", "!"]])
def test_fit_refuses_texts_without_words(texts):
    with pytest.raises(ValueError, match="no word occurs"):
        BagOfWords.fit(texts, min_pairs=1)


@pytest.mark.parametrize(
    ("standardize", "words_of"),
    [("words", tokens), ("tags", lambda text: text.lower().split()),
     ("lower_and_strip_punctuation", old_tokens), ("lower", lambda text: text.lower().split())],
)  # fmt: skip
def test_vectors_match_naive_loop_in_every_way_of_calling(standardize, words_of):
    bag = BagOfWords(["sofa", "dog", "grass", "sky"], standardize)
    expected = np.array([[w in words_of(t) for w in bag.vocabulary] for t in TEXTS], np.float32)
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


@pytest.mark.parametrize("standardize", ["lower_and_strip_punctuation", "lower"])
def test_vocabularies_of_earlier_versions_read_texts_as_they_did(standardize):
    """Bit by bit what Keras' layer gives, for texts of any kind."""
    texts = [
        *TEXTS,
        "dog,grass",
        "Été été",
        "dog\u00a0sofa",
        "<b>dog</b>",
        "“dog”",
        "c++ C++",
        "犬",
    ]
    words = ["sofa", "dog", "grass", "été", "“dog”", "犬"]
    words += ["doggrass", "bdogb"] if "strip" in standardize else ["dog,grass", "c++"]
    layer = keras.layers.TextVectorization(
        output_mode="multi_hot", standardize=standardize, split="whitespace", vocabulary=words
    )
    bag = BagOfWords(words, standardize)
    vectors = bag.encode(texts)
    assert vectors.any(axis=0).all()
    np.testing.assert_array_equal(vectors, np.asarray(layer(tf.constant(texts)))[:, 1:])


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


@pytest.mark.parametrize("standardize", ["tags", "lower"])
def test_fixed_tags_keep_punctuation_and_lose_case(standardize):
    bag = BagOfWords(["C++", "d80", "été", "new-york"], standardize)
    assert bag.vocabulary == ("c++", "d80", "été", "new-york")
    np.testing.assert_array_equal(
        bag.encode(["c++ D80", "newyork été", "c"]), [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    )


@pytest.mark.parametrize(
    ("words", "standardize", "message"),
    [
        ([], "words", "empty, expected at least one"),
        (["a", "b", "A"], "words", "'a' occurs twice"),
        (["a", "b", "A"], "lower", "'a' occurs twice"),
        (["straße", "STRASSE"], "tags", "'strasse' occurs twice"),
        (["café", "cafe\u0301"], "words", "'café' occurs twice"),
        (["new york"], "words", "'new york' can never be found"),
        (["new york"], "tags", "'new york' can never be found"),
        (["new york"], "lower", "'new york' can never be found"),
        (["dog", "c++"], "words", r"'c\+\+' can never be found"),
        (["dog", "dog's"], "words", '"dog\'s" can never be found'),
        (["dog", "東京都"], "words", "'東京都' can never be found"),
        (["dog", "c++"], "lower_and_strip_punctuation", r"'c\+\+' can never be found"),
        ([""], "words", "empty word"),
        (["\u00ad"], "words", "'' can never be found"),
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


@pytest.mark.parametrize("standardize", ["tags", "lower"])
def test_save_and_load(tmp_path, standardize):
    bag = BagOfWords(["c++", "été"], standardize)
    path = tmp_path / "run" / "vocabulary.json"
    bag.save(path)
    again = BagOfWords.load(path)
    assert (again.vocabulary, again.standardize) == (bag.vocabulary, standardize)
    assert [p.name for p in path.parent.iterdir()] == ["vocabulary.json"]
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is not valid JSON"):
        BagOfWords.load(path)
    path.write_text('{"standardize": "words_2", "vocabulary": ["a"]}', encoding="utf-8")
    with pytest.raises(ValueError, match="standardize is 'words_2', expected one of"):
        BagOfWords.load(path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="is not a saved vocabulary"):
        BagOfWords.load(path)
    with pytest.raises(ValueError, match="cannot be read"):
        BagOfWords.load(tmp_path / "none.json")


def save_model(bag, folder):
    module = tf.Module()
    module.layer = bag.layer
    module.bow = tf.function(bag, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(folder))
    return str(folder)


@pytest.mark.parametrize("standardize", text_module.STANDARDIZE)
def test_vocabulary_travels_in_a_saved_model(tmp_path, standardize):
    bag = BagOfWords(["dog", "sofa", "été"], standardize)
    loaded = tf.saved_model.load(save_model(bag, tmp_path))
    texts = ["a Sofa! été", "x", "dog", "ÉTÉ e\u0301te\u0301", ""]
    np.testing.assert_array_equal(loaded.bow(tf.constant(texts)), bag(texts))
    assert loaded.bow(tf.constant([], tf.string)).shape == (0, 3)


# What people bring: pairs of texts with the same words


def bags(first, second):
    """Multi-hot vectors of two texts over the words of both."""
    words = dict.fromkeys(word for found in split_words([first, second]) for word in found)
    return BagOfWords(list(words)).encode([first, second])


SAME_WORDS = [
    ("dog,beach,sea", "dog beach sea"),
    ("dog;beach|sea/sand", "dog beach sea sand"),
    ("#dog #goldenRetriever", "dog goldenretriever"),
    ("new_york", "new york"),
    ("black-white", "black white"),
    ("black–white—grey", "black white grey"),
    ("dog.Beach", "dog beach"),
    ("dog\nbeach\r\nsea\tsand", "dog beach sea sand"),
    ("“dog” «beach» „sea‟", "dog beach sea"),
    ("the dog’s bone", "the dog's bone"),
    ("dogʼs dog＇s dog`s dog´s DOG'S", "dog"),
    ("don’t", "don't"),
    ("dogs' 'dog'", "dogs dog"),
    ("o’brien", "O'Brien"),
    ("dog<br>beach<br/>sea", "dog beach sea"),
    ("<p class='x'>dog</p><!-- cat -->", "dog"),
    ("<dog><beach>", "dog beach"),
    ("I <3 dogs", "i 3 dogs"),
    ("dog &amp; beach", "dog beach"),
    ("dog&nbsp;beach", "dog beach"),
    ("&quot;dog&quot; &#39;beach&#39;", "dog beach"),
    ("&amp;quot;dog&amp;quot; caf&eacute;", "dog café"),
    ("it&#8217;s&#x20;dog&#146;s", "it's dog's"),
    ("&lt;b&gt;dog&lt;/b&gt;", "dog"),
    ("Собака", "собака"),
    ("Ä Ö É", "ä ö é"),
    ("STRASSE Straße ẞ", "strasse ss"),
    ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    ("cafe\u0301", "café"),
    ("a\u0323\u0307", "a\u0307\u0323"),
    ("ＤＯＧ　ｂｅａｃｈ", "dog beach"),
    ("ﬁsh", "fish"),
    ("dog\u00a0beach\u202fsea\u2009sand", "dog beach sea sand"),
    ("dog\u200bbeach", "dog beach"),
    ("\ufeffdog", "dog"),
    ("beau\u00adtiful", "beautiful"),
    ("dog\x00beach\x1b", "dog beach"),
    ("Lego™ set®", "lego set"),
    ("m² 5℃", "m2 5 c"),
    ("dog🐶beach", "dog 🐶 beach"),
    ("👍🏽👍", "👍"),
    ("❤️", "❤"),
    ("👩‍👧", "👩 👧"),
    ("🇩🇪🇫🇷", "🇩🇪 🇫🇷"),
    ("ｶﾞﾗｽ", "ガラス"),
    ("か\u3099", "が"),
    ("が犬", "か\u3099犬"),
    ("東京タワー", "東京 京タ タワ ワー"),
    ("Tシャツ", "t シャツ"),
    ("犬、海。", "犬 海"),
    ("หมาวิ่ง", "หม มา าวิ่ วิ่ง"),
    ("한글", "\u1112\u1161\u11ab\u1100\u1173\u11af"),
    ("می\u200cخواهم", "میخواهم"),
]


@pytest.mark.parametrize(("text", "same"), SAME_WORDS, ids=lambda text: ascii(text)[1:-1])
def test_texts_with_the_same_words(text, same):
    first, second = bags(text, same)
    assert first.all() and second.all()


@pytest.mark.parametrize(
    ("text", "other"),
    [("Ä", "a"), ("犬", "狗"), ("dogs", "dog's"), ("🇩🇪", "🇪🇩"), ("東京", "京東"), ("❤", "👍")],
)
def test_texts_with_other_words(text, other):
    first, second = split_words([text, other])
    assert not set(first) & set(second)


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_the_columns_of_words_csv(tmp_path):
    """The two columns have the same bag of words, here and in the exported graph."""
    with open(SHARED / "cases" / "words.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    texts, same = ([row[name] for row in rows] for name in ("text", "same_words_as"))
    bag = BagOfWords.fit([*texts, *same], 1, stop_words=False)
    loaded = tf.saved_model.load(save_model(bag, tmp_path))
    for vectors in (bag.encode, lambda some: loaded.bow(tf.constant(some)).numpy()):
        assert vectors(texts).any(axis=1).all()
        np.testing.assert_array_equal(vectors(texts), vectors(same))


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
def test_tags_without_a_space():
    with open(SHARED / "cases" / "tags_without_space.csv", newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    bag = BagOfWords.fit(texts, 1)
    assert bag.vocabulary == ("dog", "sea", "beach", "grass", "sand")
    np.testing.assert_array_equal(bag.encode(texts).sum(axis=1), [3, 2, 3, 2])


def test_words_are_shown_composed():
    assert BagOfWords.fit(["CAFE\u0301 한글"], 1).vocabulary == ("café", "한글")
    assert BagOfWords(["cafe\u0301"], "tags").vocabulary == ("café",)


# Stop words and scripts


ENGLISH = ["a dog on the beach", "the dogs aren't here", "dogs dont swim", "That’s it"]
GERMAN = ["Ein Hund läuft über die Wiese", "Zwei Kinder spielen in der See", "Der Strand am Meer"]


@pytest.mark.parametrize(
    ("texts", "kept", "note"),
    [
        (ENGLISH, {"beach", "dog", "dogs", "swim"}, "64% of the words of the training texts are"),
        (GERMAN, {word for text in GERMAN for word in text.lower().split()}, "12% of the words"),
        (["beach,the sea", "sea,dog,grass"], {"the", "beach", "dog", "sea", "grass"}, "17%"),
    ],
)
def test_stop_words_are_those_of_english_texts(texts, kept, note):
    bag = BagOfWords.fit(texts, 1)
    assert set(bag.vocabulary) == kept
    _, said = bag.notes
    assert said.startswith(note)
    assert said.endswith("left out" if texts is ENGLISH else "kept: the texts are not English")


def test_the_share_of_known_words_is_said():
    bag = BagOfWords.fit(["the dogs swim", "a dog and the cat", "the cats"], 2, plurals=True)
    assert bag.notes[0] == (
        "2 words are known, each in at least 2 of 3 training texts; 80% of the words there are "
        "known ones"
    )


def test_stop_words_may_be_asked_for():
    assert BagOfWords.fit(["in Berlin"], 1, stop_words=True).vocabulary == ("berlin",)
    assert BagOfWords.fit(["the dog is"], 1, stop_words=False).size == 3
    assert len(BagOfWords.fit(["the dog is"], 1, stop_words=False).notes) == 1


def test_scripts_without_spaces_are_said():
    texts = ["犬が走る", "東京 tower", "dog", "สุนัข", "강아지"]
    assert BagOfWords.fit(texts, 1).notes[2:] == (
        "3 of 5 training texts are in scripts without spaces and are read as pairs of characters",
    )


def test_texts_of_any_length():
    """Blocks are bounded by characters too; what UTF-8 cannot hold splits words."""
    text = "dog " * 700_000
    bag = BagOfWords(["dog", "sea"])
    np.testing.assert_array_equal(
        bag.encode([text, "sea", text, text, "dog\ud800sea"]),
        [[1, 0], [0, 1], [1, 0], [1, 0], [1, 1]],
    )


class TestForms:
    TEXTS = ["a dog and the buses", "the dogs in a bus", "the giraffe and a cat of the city"]

    def test_plurals_share_a_column(self, tmp_path):
        bag = BagOfWords.fit(self.TEXTS, 1, plurals=True)
        assert "dogs" not in bag.vocabulary and bag.vocabulary[:2] == ("bus", "dog")
        queries = ["dog", "Dogs", "buses giraffes", "cities", "zebras"]
        expected = [["dog"], ["dog"], ["bus", "giraffe"], ["city"], []]
        found = bag.encode(queries)
        for row, words in zip(found, expected):
            assert sorted(bag.vocabulary[i] for i in np.flatnonzero(row)) == words
        bag.save(tmp_path / "words.json")
        again = BagOfWords.load(tmp_path / "words.json")
        assert again.forms == bag.forms
        np.testing.assert_array_equal(again.encode(queries), found)

    def test_they_count_in_as_many_texts_as_either_is_in(self):
        assert BagOfWords.fit(self.TEXTS, 2, plurals=True).vocabulary == ("bus", "dog")
        with pytest.raises(ValueError, match="no word occurs in 2 or more"):
            BagOfWords.fit(self.TEXTS, 2)

    def test_other_languages_have_none(self):
        assert BagOfWords.fit(["perro perros", "bus buses"], 1, plurals=True).forms == {}

    @pytest.mark.parametrize(
        "forms", [{"dogs": "cat"}, {"dog": "sea"}, {"Dogs": "dog"}, {"two dogs": "dog"}]
    )
    def test_forms_that_no_table_can_hold(self, forms):
        with pytest.raises(ValueError, match="expected a word in lower case that is not in the"):
            BagOfWords(["dog", "sea"], forms=forms)
