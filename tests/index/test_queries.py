"""Queries to an index: files of them, and their codes."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from helpers import png_header
from index_helpers import HashEncoder, image_items, learned_values, random_codes, write_image

from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.items import id_of
from dsprh_tf.index.queries import (
    Encoded,
    Query,
    encode_image,
    encode_queries,
    query_values,
    read_queries,
)


class Encoder(HashEncoder):
    """An exported encoder as far as queries need it; the words "known" and "good" are known."""

    info = {"fingerprint": "abc"}
    width = None

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def encode(self, items, batch_size=32, unknown="error"):
        return super().encode(items, max(batch_size, len(items)))

    def check_words(self, texts):
        for text in texts:
            if not {"known", "good"} & set(text.split()):
                raise ValueError(f"{text!r} has no word of the vocabulary")

    def unknown_words(self, text):
        return {word: ["known"] for word in text.split() if word not in ("known", "good")}


@pytest.fixture
def index():
    index = HammingIndex(64, fingerprint="abc")
    index.add(random_codes(5), image_items(5))
    return index


def no_note(text, unknown):
    raise AssertionError((text, unknown))


class TestEncode:
    def test_texts(self, index):
        notes = []
        texts = ["known", "known dgo", "good"]
        found = encode_queries(Encoder("text"), index, texts, lambda *note: notes.append(note))
        np.testing.assert_array_equal(found.values, Encoder("text").encode_values(texts))
        np.testing.assert_array_equal(found.codes, Encoder("text").encode(texts))
        assert not found.problems
        assert notes == [("known dgo", {"dgo": ["known"]})]
        found = encode_queries(Encoder("text"), index, ["dgo", "known"], no_note)
        assert found.problems == {0: "'dgo' has no word of the vocabulary"} and found.good == [1]
        np.testing.assert_array_equal(found.values[1:], Encoder("text").encode_values(["known"]))
        none = encode_queries(Encoder("text"), index, ["dgo"], no_note)
        assert none.values.shape == (1, 64) and not none.good

    def test_images(self, index, tmp_path):
        paths = [write_image(tmp_path / name, i) for i, name in enumerate(("a.png", "b.jpg"))]
        found = encode_queries(Encoder("image"), index, list(map(str, paths)), no_note)
        expected = [Encoder("image").encode_values([path.read_bytes()])[0] for path in paths]
        np.testing.assert_array_equal(found.values, expected)
        for content, problem in ((None, "No such file"), (b"", "is empty"), (b"x", "is no JPEG")):
            path = tmp_path / "bad.jpg"
            if content is not None:
                path.write_bytes(content)
            found = encode_queries(Encoder("image"), index, [str(path), str(paths[0])], no_note)
            assert found.good == [1] and (found.values[1] == expected[0]).all()
            assert re.search(f"image .*bad.jpg .*{problem}.*; choose another", found.problems[0])

    def test_an_image_that_only_pillow_reads(self, tmp_path):
        path = write_image(tmp_path / "a.jpg", 4, comment=b"only Pillow")
        encoder = Encoder("image")
        assert encode_image(encoder, path.read_bytes(), "it").shape == (1, 64)
        assert encoder.encoded[0].startswith(b"\x89PNG")

    def test_an_image_that_is_too_large(self):
        with pytest.raises(ValueError, match="it is too large .*60 x 40 pixels; at most 2,399"):
            encode_image(Encoder("image"), png_header(60, 40), "it", 2399)

    @pytest.mark.parametrize(
        ("name", "subject"), [(None, "the text encoder"), ("my own", "my own")]
    )
    def test_other_encoders(self, name, subject):
        other = HammingIndex(64, fingerprint="xyz")
        with pytest.raises(ValueError, match=f"{subject} is of other encoders than the index"):
            encode_queries(Encoder("text"), other, ["known"], no_note, name)
        with pytest.raises(ValueError, match=f"{subject} makes codes of 64 bits, .* with 32"):
            encode_queries(Encoder("text"), HammingIndex(32), ["known"], no_note, name)


def test_values_of_all_kinds(index):
    calls = []

    def encode(kind, values):
        calls.append((kind, values))
        problems = {1: "c is not known"} if kind == "text" else {}
        return Encoded(learned_values(len(values), seed=len(kind)), problems)

    queries = [Query("text", "a"), Query("like", "20"), Query("image", "b"), Query("text", "c")]
    found = query_values(index, queries, encode)
    assert found.problems == {3: "c is not known"}
    assert calls == [("text", ["a", "c"]), ("image", ["b"])]
    np.testing.assert_array_equal(found.values[[0, 3]], learned_values(2, seed=4))
    np.testing.assert_array_equal(found.codes[1:2], index.codes_of([20]))
    assert (np.abs(found.values[1]) == 1).all()
    likes = [Query("like", "21"), Query("like", "20"), Query("like", "22")]
    found = query_values(index, likes, encode)
    assert found.problems == {
        at: f"no item of the index has the id {n}" for at, n in ((0, 21), (2, 22))
    }
    np.testing.assert_array_equal(found.codes[1:2], index.codes_of([20]))


TEXTS = "a dog\r\n\r\n  \r\nein Hündchen\r\n"


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (TEXTS.encode(), None),
        (b"\xef\xbb\xbf" + TEXTS.encode(), None),
        (TEXTS.encode("utf-16"), "text is in UTF-16"),
        (TEXTS.encode("utf-16-le"), "text is in UTF-16"),
        (TEXTS.encode("cp1252"), "read as Windows-1252"),
        (TEXTS.replace("\r\n", "\n").encode(), None),
        (TEXTS.replace("\r\n", "\r").encode(), None),
    ],
)
def test_text_files_of_people(tmp_path, content, note):
    (tmp_path / "q.txt").write_bytes(content)
    notes = []
    queries = read_queries(tmp_path / "q.txt", notes.append)
    assert queries == [("text", "a dog"), ("text", "ein Hündchen")]
    assert [note in line for line in notes] == ([True] if note else [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("собака".encode("cp1251"), "row 1 is not text in UTF-8"),
        (b"a\nb\0\n", "row 2 is not text"),
        ("x\n" + "y" * 100_001, "row 2 has 100,001 characters, expected at most 100,000"),
    ],
)
def test_text_files_that_are_none(tmp_path, content, message):
    (tmp_path / "q.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_queries(tmp_path / "q.txt")


def test_manifests_of_people(tmp_path):
    (tmp_path / "q.csv").write_text("caption;like\n\na dog;\n;12.0\n\n;1e+19\n")
    with pytest.raises(ValueError, match="q.csv row 6: the id 1e.19 .*lost its last digits"):
        read_queries(tmp_path / "q.csv")
    (tmp_path / "q.csv").write_text("caption;like\n\na dog;\n;12.0\n")
    notes = []
    assert read_queries(tmp_path / "q.csv", notes.append) == [("text", "a dog"), ("like", "12")]
    assert "text from the column caption" in " ".join(notes)
    (tmp_path / "q.csv").write_text("words\na\n")
    with pytest.raises(ValueError, match=r"q.csv has no column text \(it has words\); or image"):
        read_queries(tmp_path / "q.csv")


def test_files(tmp_path):
    (tmp_path / "q.txt").write_text("a dog\n\n  \na cat\n")
    assert read_queries(tmp_path / "q.txt") == [("text", "a dog"), ("text", "a cat")]
    rows = [{"image": "sub/a.jpg"}, {"like": 12}, {"text": " red "}, {"image": "/b.jpg"}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_queries(tmp_path / "q.jsonl") == [
        ("image", str(tmp_path / "sub/a.jpg")), ("like", "12"), ("text", "red"),
        ("image", "/b.jpg"),
    ]  # fmt: skip


def test_ids():
    assert id_of("12", "--like=12") == 12
    with pytest.raises(ValueError, match="--like=x, expected the id of an item"):
        id_of("x", "--like=x")
