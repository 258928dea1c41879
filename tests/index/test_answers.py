"""Answers of an index for people: results, what is left out, tables, and items on a sheet."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from index_helpers import dots, image_items, learned_values, random_codes, write_image
from PIL import Image

from dsprh_tf.index.answers import answer, as_result, as_shown, format_table
from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.interface import Where
from dsprh_tf.index.items import id_items, text_items


@pytest.fixture
def codes():
    return random_codes(60)


@pytest.fixture
def index(codes):
    """40 images with the ids 0, 10, ..., and 20 texts with the ids 1, 11, ..."""
    index = HammingIndex(64)
    texts = text_items([f"text {i}" for i in range(20)], [10 * i + 1 for i in range(20)])
    index.add(codes, pa.concat_tables([image_items(40), texts]))
    return index


def test_only_the_item_itself_is_left_out(index, codes):
    found = answer(index, codes[:2], 5, Where(modality="image"), [{0}, ()])
    assert [len(results) for results in found] == [5, 5]
    assert 0 not in [result["id"] for result in found[0]]
    assert 10 in [result["id"] for result in answer(index, codes[1:2], 60)[0]]
    assert len(answer(index, codes[:1], 60, leave_out=[[0]])[0]) == 59


@pytest.mark.parametrize("values", [False, True])
def test_pages_of_results(index, codes, values):
    """Those after an offset are those that follow; items that are left out take no place."""
    query = learned_values(2) if values else codes[:2]
    whole = answer(index, query, 60, leave_out=[{0, 30}, ()])
    assert [len(results) for results in whole] == [58, 60]
    for offset in (0, 5, 57, 70):
        found = answer(index, query, 7, leave_out=[[0, 30], []], offset=offset)
        assert found == [results[offset : offset + 7] for results in whole]


def test_values_rank_by_similarity(index, codes):
    query = learned_values(1)
    (found,) = answer(index, query, 8)
    row_of = {**{10 * i: i for i in range(40)}, **{10 * i + 1: 40 + i for i in range(20)}}
    true = dots(codes, query[0])
    assert [result["similarity"] for result in found] == pytest.approx(
        np.sort(true)[:-9:-1], abs=1e-4
    )
    for result in found:
        code = codes[row_of[result["id"]]]
        assert result["distance"] == np.sum(np.unpackbits(code) != (query[0] >= 0))


def test_results(index, codes):
    (image,), (text,) = answer(index, codes[[3, 45]], 1)
    assert image == {
        "id": 30, "similarity": 1.0, "distance": 0, "modality": "image",
        "path": "/pictures/odd/3.jpg", "tags": ["all", "third"], "gone": True,
    }  # fmt: skip
    assert text == {
        "id": 51, "similarity": 1.0, "distance": 0, "modality": "text", "text": "text 5",
        "tags": [], "gone": False,
    }  # fmt: skip


def test_table(index, codes):
    assert format_table([]) == "  no results"
    lines = format_table(answer(index, codes[3:4], 2)[0]).split("\n")
    assert lines[0].split() == ["similarity", "distance", "id"]
    assert lines[1].split() == [
        "1.000", "0", "30", "/pictures/odd/3.jpg", "[all,", "third]", "(gone", "from", "disk)",
    ]  # fmt: skip


def test_an_item_of_which_only_the_id_is_known():
    item = id_items([7]).to_pylist()[0]
    result = as_result(item, 3, similarity=0.95312)
    assert result == {
        "id": 7, "similarity": 0.9531, "distance": 3, "modality": "", "text": None, "tags": [],
        "gone": False,
    }  # fmt: skip
    assert as_shown(item) == as_shown(result) == {"text": "item 7"}
    assert format_table([result]).split("\n")[1].split() == ["0.953", "3", "7"]


def test_shown(tmp_path):
    path = write_image(tmp_path / "a.png")
    assert as_shown({"path": str(path), "text": None})["image"].shape == (6, 8, 3)
    assert as_shown({"path": None, "text": "a dog"}) == {"text": "a dog"}
    path.write_bytes(b"no image")
    for name in ("a.png", "gone.png"):
        shown = as_shown({"path": str(tmp_path / name), "text": None})
        assert shown == {"text": f"cannot be read: {name}"}


def test_a_large_image_is_shown_small(tmp_path):
    Image.fromarray(np.zeros((1200, 900, 3), np.uint8)).save(tmp_path / "a.png")
    assert max(as_shown({"path": str(tmp_path / "a.png")})["image"].shape) == 512
