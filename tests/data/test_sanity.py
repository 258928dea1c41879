"""Data in numbers: what is said of a data set, and what is refused as read wrongly."""

import numpy as np
import pytest
from data_helpers import refuses

from dsprh_tf.data import sanity
from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.sanity import count_words, dataset_lines, relevant_counts, split_lines
from dsprh_tf.data.splits import make_split

SOUND = np.random.default_rng(0).random((60, 8)) < 0.15
ONE_EACH = np.eye(60)


def dataset(labels=None, texts=None, n=60, **fields):
    if labels is not None:
        labels, n = np.asarray(labels, np.uint8), len(labels)
        fields["label_names"] = tuple(f"l{column}" for column in range(labels.shape[1]))
    if "text_features" not in fields:
        fields["texts"] = [f"a text {row}" for row in range(n)] if texts is None else texts
    ids, images = [f"p{row}" for row in range(n)], np.arange(3 * n).reshape(n, 3)
    return PairDataset(name="toy", ids=ids, image_features=images, labels=labels, **fields)


def naive_chance(labels):
    shared = (labels[:, None] & labels[None]).any(axis=2)
    return shared[~np.eye(len(labels), dtype=bool)].mean()


def test_the_line_of_a_data_set():
    line = "60 pairs; 3.0 words per text (3.0 distinct); no labels"
    assert dataset_lines(dataset()) == [line]
    texts = ["a dog, a Dog", "cat", "the sea"] * 20
    texts[::2] = [f"{text} {row}" for row, text in enumerate(texts[::2])]
    (line,) = dataset_lines(dataset(SOUND, texts))
    chance = naive_chance(SOUND)
    assert line == (
        f"60 pairs; 2.8 words per text (2.2 distinct); {SOUND.sum() / 60:.1f} labels per pair; "
        f"two random pairs are relevant to each other with chance {chance:.3g}"
    )


def test_the_line_of_several_texts_and_of_features():
    lists = [("one two", "two three", "four")] * 30 + [("five",)] * 30
    texts = [" ".join(texts) + f" {row}" for row, texts in enumerate(lists)]
    (line,) = dataset_lines(dataset(texts=texts, text_lists=lists))
    assert line == "60 pairs; 2.0 texts per pair, 4.0 words (3.5 distinct); no labels"
    (line,) = dataset_lines(dataset(SOUND, text_features=np.eye(60)))
    assert line.startswith(f"60 pairs; {SOUND.sum() / 60:.1f} labels per pair; two random")


def test_words_of_many_texts_are_those_of_a_sample(monkeypatch):
    monkeypatch.setattr(sanity, "_CHARACTERS", 100)
    texts = [f"word number {row:04}" for row in range(3000)]
    assert dataset_lines(dataset(texts=texts, n=3000)) == [
        "3,000 pairs; 3.0 words per text (3.0 distinct); no labels"
    ]


@pytest.mark.parametrize(
    ("text", "words", "distinct"),
    [
        ("A dog, a Dog", 4, 2),
        ("dog,beach;sea", 3, 3),
        ("<p>the dog&amp;cat</p>", 3, 3),
        ("the dog’s tail isn't", 4, 4),
        ("Straße STRASSE", 2, 1),
        ("café cafe\u0301", 2, 1),
        ("犬と海", 3, 3),
        ("🐕🌊 sea", 3, 3),
        ("", 0, 0),
        ("...", 0, 0),
    ],
)
def test_words_of_a_text(text, words, distinct):
    assert count_words([text]).tolist() == [[words, distinct]]


def test_words_of_tags():
    assert count_words(["c++ new-york C++"], tags=True).tolist() == [[3, 2]]
    assert count_words(["c++ new-york C++"]).tolist() == [[4, 3]]


# The chance of two random pairs


@pytest.mark.parametrize("columns", [1, 3, 8, 9, 40])
def test_the_chance_is_exact(columns):
    labels = np.random.default_rng(columns).random((150, columns)) < 1.2 / columns
    (line,) = dataset_lines(dataset(labels), accept_odd=True)[:1]
    assert line.endswith(f"with chance {naive_chance(labels):.3g}")


def test_relevant_counts_of_a_sample():
    labels = (np.random.default_rng(0).random((600, 12)) < 0.1).astype(np.uint8)
    rows, exact = relevant_counts(labels[:100], labels[100:])
    assert rows.tolist() == list(range(100))
    np.testing.assert_array_equal(exact, ((labels[:100] @ labels[100:].T) > 0).sum(axis=1))
    rows, some = relevant_counts(labels[:100], labels[100:], products=20_000)
    assert 5 < len(rows) < 100 and len(set(rows)) == len(rows)
    np.testing.assert_array_equal(some, exact[rows])
    again, _ = relevant_counts(labels[:100], labels[100:], products=20_000)
    np.testing.assert_array_equal(again, rows)
    rows, one = relevant_counts(labels, labels, products=0)
    assert len(rows) == len(one) == 1


def test_the_chance_of_a_sample(monkeypatch):
    """Labels of a pair count as relevant to itself: that is taken off also of a sample."""
    monkeypatch.setattr(sanity, "_PRODUCTS", 1)
    labels = np.eye(2, dtype=np.uint8)[np.arange(60) % 2]
    monkeypatch.setattr(sanity.relevant_counts, "__defaults__", (1,))
    (line,) = dataset_lines(dataset(labels))
    assert line.endswith(f"with chance {29 / 59:.3g}")


# What looks wrong

NEARLY_ALL = np.ones((60, 2))
NEARLY_ALL[::20] = 0
PAIRS_OF_TWO = np.repeat(np.eye(30), 2, axis=0)
PAIRS_OF_TWO[30:] = 0
ODD = {
    "all relevant": (
        {"labels": NEARLY_ALL},
        "with chance 0.9.*whatever the codes are: leave out labels .*95% have 'l0'",
    ),
    "multi-hot taken for names": (
        {"labels": np.ones((60, 2))},
        "two random pairs are relevant to each other with chance 1, .*100% have 'l0'",
    ),
    "one label each": (
        {"labels": ONE_EACH},
        "each label occurs once .60 labels, such as 'l0'.* not names of single pairs",
    ),
    "one label each, some without": (
        {"labels": np.vstack([np.eye(40), np.zeros((20, 40))])},
        "each label occurs once .40 labels",
    ),
    "labels of single pairs but two": (
        {"labels": np.vstack([ONE_EACH[:58], ONE_EACH[:2]])},
        r"chance 0.00113, less than one of 60: check how labels are written",
    ),
    "no label at all": ({"labels": np.zeros((60, 4))}, "with chance 0, less than one of 60"),
    "one text": (
        {"labels": SOUND, "texts": ["None"] * 60},
        "60 of 60 texts are the same, 'None': check which column",
    ),
    "half of the texts": (
        {"texts": [f"text {row}" for row in range(30)] + ["nan"] * 30},
        "30 of 60 texts are the same, 'nan'",
    ),
    "labels and texts": (
        {"labels": np.ones((60, 2)), "texts": ["x"] * 60},
        "60 of 60 texts are the same, 'x': check which column or file holds the texts; two random",
    ),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_looks_wrong_is_refused_or_accepted(odd):
    data, said = dataset(**ODD[odd][0]), ODD[odd][1]
    refuses(f"toy data look wrong: .*{said}.*; or go on with --accept_odd_data$",
            dataset_lines, data)  # fmt: skip
    line, *warnings = dataset_lines(data, accept_odd=True)
    assert line.startswith("60 pairs; ") and len(warnings) == (
        2 if odd == "labels and texts" else 1
    )
    assert all(warning.startswith("warning: ") for warning in warnings)


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": SOUND},
        {"labels": np.eye(2)[np.arange(60) % 2]},  # two classes: chance 1/2
        {"labels": np.repeat(np.eye(20), 3, axis=0)},  # of each of 20 classes three pairs
        {"labels": np.hstack([SOUND, np.eye(60)])},  # labels of classes and of single pairs
        {"labels": np.zeros((60, 0))},
        {"texts": [f"text {row}" for row in range(31)] + ["nan"] * 29},
        {"texts": ["a dog", "a cat", "a horse"] * 20},  # names of classes
        {"text_features": np.eye(60)},
    ],
    ids=["sound", "two classes", "threes", "also ids", "no labels", "less", "classes", "vectors"],
)
def test_what_may_look_odd_but_is_not(fields):
    assert len(dataset_lines(dataset(**fields))) == 1


@pytest.mark.parametrize("labels", [np.ones((19, 2)), np.eye(19), np.zeros((19, 2))])
def test_among_few_pairs_nothing_is_refused(labels):
    lines = dataset_lines(dataset(labels, ["x"] * 19))
    assert len(lines) == 3 and all(line.startswith("warning: ") for line in lines[1:])


def test_a_single_pair():
    assert len(dataset_lines(dataset(np.ones((1, 2))))) == 1


# After the split


def given(query, database):
    return {"query": np.array(query), "database": np.array(database)}


def test_the_line_of_a_split():
    data = dataset(SOUND)
    split = make_split(data, queries=15, train=30)
    shared = (SOUND[split.query][:, None] & SOUND[split.database][None]).any(axis=2)
    (line,) = split_lines(data, split)
    none = np.mean(~shared.any(axis=1))
    assert line == (
        "15 queries, 45 pairs in the database, relevant to each other with chance "
        f"{shared.mean():.3g}; {none:.1%} of the queries have nothing relevant there"
    )
    assert split_lines(dataset(), make_split(dataset(), queries=15, train=30)) == []


def test_a_split_that_looks_wrong():
    """Sound as a whole, but the queries are of classes that the database does not have."""
    labels = np.eye(2)[np.repeat([0, 1], 30)]
    data = dataset(labels, given_split=given(range(30), range(30, 60)))
    split = make_split(data)
    refuses("toy data look wrong: a query and a pair of the database are relevant with chance 0, "
            "less than one of 30.*--accept_odd_data", split_lines, data, split)  # fmt: skip
    line, warning = split_lines(data, split, accept_odd=True)
    assert line.endswith("chance 0; 100.0% of the queries have nothing relevant there")
    assert warning.startswith("warning: a query and a pair of the database")
    data = dataset(labels, given_split=given(range(5), range(5, 30)))
    refuses("with chance 1, so that results are near 1", split_lines, data, make_split(data))


def test_a_small_database_is_not_refused():
    labels = np.eye(20)[np.arange(60) % 20]
    data = dataset(labels, given_split=given(range(50), range(50, 60)))
    assert [line.split(":")[0] for line in split_lines(data, make_split(data))][1] == "warning"
