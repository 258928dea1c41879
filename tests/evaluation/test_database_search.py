"""Search of a run's database, with encoders that are lists of codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.splits import Split
from dsprh_tf.evaluation.database_search import (
    DatabaseQuery,
    check_queries,
    draw_queries,
    format_answer,
    search_database,
    sheet_row,
)

PAIRS = 12
DATABASE = np.array([1, 3, 5, 6, 7, 8, 9, 11])
QUERY = np.array([0, 2, 4, 10])


class Encoder:
    """Codes by content: those of item i are in row i of `codes`."""

    def __init__(self, kind, contents, fingerprint="abc", features=False):
        self.kind = kind
        self.codes = np.random.default_rng(len(kind)).integers(0, 256, (PAIRS, 4), np.uint8)
        self.row_of = {content: i for i, content in enumerate(contents)}
        self.info = {
            "fingerprint": fingerprint,
            "image_size": None if features else 8,
            "vocabulary_size": None if features else 3,
        }

    def encode(self, items, unknown="error"):
        return self.codes[[self.row_of[item] for item in items]]

    def check_words(self, texts):
        for text in texts:
            if text not in self.row_of:
                raise ValueError(f"{text!r} has no word of the vocabulary")


@pytest.fixture
def dataset(tmp_path):
    paths = []
    for i in range(PAIRS):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(np.full((6, 8, 3), 20 * i, np.uint8)).save(paths[-1])
    labels = np.eye(3, dtype=np.uint8)[np.arange(PAIRS) % 3]
    return PairDataset(
        name="pairs", ids=[f"p{i}" for i in range(PAIRS)], image_paths=paths,
        texts=[f"text  {i}" for i in range(PAIRS)], labels=labels, label_names=("a", "b", "c"),
    )  # fmt: skip


@pytest.fixture
def split(dataset):
    none = np.zeros(0, int)
    return Split(QUERY, DATABASE, none, none, seed=0, fingerprint=dataset.fingerprint())


@pytest.fixture
def encoders(dataset):
    files = [Path(path).read_bytes() for path in dataset.image_paths]
    return {"image": Encoder("image", files), "text": Encoder("text", dataset.texts)}


def test_answers_are_the_nearest_of_the_other_kind(dataset, encoders):
    queries = [
        DatabaseQuery("image", dataset.image_paths[2]),
        DatabaseQuery("text", dataset.texts[0], dataset.labels[0]),
        DatabaseQuery("text", dataset.texts[4]),
    ]
    answers = search_database(dataset, DATABASE, encoders, queries, top=5)
    assert [answer.query for answer in answers] == queries
    for answer, own, other, item in zip(
        answers, ("image", "text", "text"), ("text", "image", "image"), (2, 0, 4)
    ):
        code = encoders[own].codes[item]
        distances = np.unpackbits(encoders[other].codes[DATABASE] ^ code, axis=1).sum(axis=1)
        order = np.argsort(distances, kind="stable")[:5]
        np.testing.assert_array_equal(answer.items, DATABASE[order])
        np.testing.assert_array_equal(answer.distances, distances[order])
    assert answers[0].relevant is answers[2].relevant is None
    np.testing.assert_array_equal(answers[1].relevant, answers[1].items % 3 == 0)
    (answer,) = search_database(dataset, DATABASE, encoders, queries[:1])
    assert len(answer.items) == 8


def test_as_text_and_on_a_sheet(dataset, encoders):
    query = DatabaseQuery("text", dataset.texts[0], dataset.labels[0])
    (answer,) = search_database(dataset, DATABASE, encoders, [query], 4)
    assert format_answer(dataset, answer).startswith("text -> images: text  0\n")
    row = sheet_row(dataset, answer)
    assert (row.query_text, row.query_image) == (query.value, None)
    assert [result.image for result in row.results] == list(dataset.image_paths[answer.items])
    assert [result.relevant for result in row.results] == (answer.items % 3 == 0).tolist()
    assert [result.distance for result in row.results] == answer.distances.tolist()
    query = DatabaseQuery("image", dataset.image_paths[2])
    (answer,) = search_database(dataset, DATABASE, encoders, [query], 4)
    title, header, *lines = format_answer(dataset, answer).split("\n")
    assert title == f"image -> texts: {query.value}"
    assert header.split() == ["distance", "id", "text"]
    assert [line.split() for line in lines] == [
        [str(distance), f"p{i}", "text", str(i)]
        for i, distance in zip(answer.items, answer.distances)
    ]
    row = sheet_row(dataset, answer)
    assert (row.query_text, row.query_image) == (None, query.value)
    assert [result.text for result in row.results] == [f"text {i}" for i in answer.items]
    assert {result.relevant for result in row.results} == {None}


def test_relevant_items_are_marked(dataset, encoders):
    query = DatabaseQuery("image", dataset.image_paths[4], dataset.labels[4])
    (answer,) = search_database(dataset, DATABASE, encoders, [query])
    lines = format_answer(dataset, answer).split("\n")[2:]
    assert ["*" in line for line in lines] == (answer.items % 3 == 1).tolist()


def test_drawn_queries(dataset, split):
    queries = draw_queries(dataset, split, seed=3, count=2)
    assert [query.kind for query in queries] == ["text", "text", "image", "image"]
    rows = [list(dataset.texts).index(query.value) for query in queries[:2]]
    rows += [list(dataset.image_paths).index(query.value) for query in queries[2:]]
    assert sorted(rows) == QUERY.tolist()
    for query, row in zip(queries, rows):
        np.testing.assert_array_equal(query.labels, dataset.labels[row])
    again = draw_queries(dataset, split, seed=3, count=2)
    assert [query.value for query in again] == [query.value for query in queries]
    assert [q.value for q in draw_queries(dataset, split, 4, 2)] != [q.value for q in queries]


def test_refused(dataset, encoders, tmp_path):
    good = DatabaseQuery("text", dataset.texts[0]), DatabaseQuery("image", dataset.image_paths[0])
    check_queries(encoders, good, "here")
    with pytest.raises(ValueError, match="'xyzzy' has no word"):
        check_queries(encoders, [DatabaseQuery("text", "xyzzy")], "here")
    with pytest.raises(ValueError, match="gone.png does not exist"):
        check_queries(encoders, [DatabaseQuery("image", str(tmp_path / "gone.png"))], "here")
    other = {**encoders, "text": Encoder("text", [], fingerprint="xyz")}
    with pytest.raises(ValueError, match="encoders in here are of different models"):
        check_queries(other, good, "here")
    features = {kind: Encoder(kind, [], features=True) for kind in ("image", "text")}
    with pytest.raises(ValueError, match="here take precomputed features: there is nothing to"):
        check_queries(features, [], "here")
