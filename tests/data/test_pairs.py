"""A user's own pairs: what a manifest becomes, and which ones are refused."""

from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pytest
from data_helpers import picture, refuses, write

from dsprh_tf.data.pairs import load_pairs

ROWS = [
    {"image": "p/a.png", "text": "a  red\tbus", "labels": "bus;red", "split": "query"},
    {"image": "p/b.png", "text": "tree, green", "labels": "tree", "split": "train"},
    {"image": "p/c.png", "text": "sea", "labels": "", "split": "Database"},
]


def manifest(folder, kind, rows=ROWS):
    for name in "abc":
        picture(folder / "p" / f"{name}.png")
    path = folder / f"manifest.{kind}"
    if kind == "csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif kind == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        write(path, *map(json.dumps, rows))
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("whole_folder", [True, False])
def test_pairs(tmp_path, kind, whole_folder):
    path = manifest(tmp_path, kind)
    data = load_pairs(tmp_path if whole_folder else path)
    assert data.name == "pairs"
    assert data.ids.tolist() == ["p/a.png", "p/b.png", "p/c.png"]
    assert data.texts.tolist() == ["a red bus", "tree, green", "sea"]
    assert data.label_names == ("bus", "red", "tree")
    np.testing.assert_array_equal(data.labels, [[1, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert {key: value.tolist() for key, value in data.given_split.items()} == {
        "query": [0],
        "database": [1, 2],
        "train": [1],
    }
    assert all(os.path.isfile(path) for path in data.image_paths)
    assert "1 pairs have no label: they are kept, and relevant to nothing" in data.notes


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_pairs_label_lists(tmp_path, kind):
    rows = [
        {"image": "p/a.png", "text": "x", "labels": ["bus", "red"]},
        {"image": "p/b.png", "text": "y", "labels": []},
        {"image": "p/c.png", "text": "z", "labels": None},
    ]
    data = load_pairs(manifest(tmp_path, kind, rows))
    assert data.label_names == ("bus", "red")
    np.testing.assert_array_equal(data.labels, [[1, 1], [0, 0], [0, 0]])
    assert data.given_split is None


def test_pairs_bar_separator_ids_and_shared_images(tmp_path):
    rows = [
        {"Image": "p/a.png", "TEXT": "x", "labels": "bus | red"},
        {"Image": "./p/a.png", "TEXT": "y", "labels": "red|sea"},
        {"Image": "p/b.png", "TEXT": "z", "labels": "tree"},
    ]
    data = load_pairs(manifest(tmp_path, "csv", rows))
    assert data.ids.tolist() == ["p/a.png", "p/b.png"]
    assert data.text_lists.tolist() == [("x", "y"), ("z",)]
    assert data.texts.tolist() == ["x y", "z"]
    assert data.label_names == ("bus", "red", "sea", "tree")
    np.testing.assert_array_equal(data.labels, [[1, 1, 1, 0], [0, 0, 0, 1]])
    numbered = [{**row, "id": i} for i, row in enumerate(rows)]
    data = load_pairs(manifest(tmp_path, "csv", numbered))
    assert data.ids.tolist() == ["0", "1", "2"]
    assert data.text_lists is None


def test_pairs_of_several_rows_in_a_given_split(tmp_path):
    names = ["a", "a", "b", "c", "b"]
    parts = ["query", "query", "train", "database", "train"]
    rows = [
        {"image": f"p/{name}.png", "text": f"text {i}", "split": part}
        for i, (name, part) in enumerate(zip(names, parts))
    ]
    data = load_pairs(manifest(tmp_path, "csv", rows))
    assert {part: pairs.tolist() for part, pairs in data.given_split.items()} == {
        "query": [0],
        "database": [1, 2],
        "train": [1],
    }
    assert data.text_lists[1] == ("text 2", "text 4")
    taken = data.take([1, 0])
    assert taken.text_lists[0] == ("text 2", "text 4")


def test_pairs_without_labels(tmp_path):
    rows = [{"image": row["image"], "text": row["text"]} for row in ROWS]
    data = load_pairs(manifest(tmp_path, "csv", rows))
    assert data.labels is None
    assert data.label_names == ()
    assert any(note.startswith("no labels") for note in data.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "manifest.csv has no rows"),
        ("image,text\n", "manifest.csv has no rows"),
        ("image,words\np/a.png,x\n", r"manifest.csv has no column text \(it has image, words\)"),
        ("where,words\np/a.png,x\n", "no column image and no column text"),
        ("image,text\np/a.png,x\np/b.png,  \n", "manifest.csv row 3: text is empty"),
        ("image,text\n,x\n", "manifest.csv row 2: image is empty"),
        ("image,text\np/a.png,x,y\n", "row 2 has another number of fields"),
        ("image,text\np/a.png\n", "row 2 has another number of fields"),
        ("image,text\np/a.png,x\np/z.png,y\n", "manifest.csv row 3: image .*z.png does not exist"),
        ("image,text,split\np/a.png,x,test\n", "row 2: split is 'test', expected query"),
        ("image,text,split\np/a.png,x,query\n", "names 1 query and 0 database"),
        ("image,text,id\np/a.png,x,1\np/b.png,y,1\n", "row 3: id '1' occurs in row 2 already"),
        (b"image,text\np/a.png,\xff\xfe\n", "row 2 is not text in UTF-8"),
    ],
)
def test_pairs_broken_csv(tmp_path, content, message):
    path = manifest(tmp_path, "csv")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refuses(message, load_pairs, path)


def test_pairs_other_broken_manifests(tmp_path):
    path = manifest(tmp_path, "jsonl")
    write(path, '{"image": "p/a.png", "text": "x"}', "", "{image}")
    refuses("manifest.jsonl row 3 is not JSON", load_pairs, path)
    write(path, "[1]")
    refuses("manifest.jsonl row 1 is not a JSON object", load_pairs, path)
    for value in ('"sea \\udc80"', '["bus", "\\ud83d"]'):
        whole = '{"image": "p/a.png", "text": "\\ud83d\\ude00"}'
        write(path, whole, f'{{"image": "p/a.png", "text": {value}}}')
        refuses(r"manifest.jsonl row 2: text has '\\ud.*', half of a surrogate", load_pairs, path)
    write(tmp_path / "m.parquet", "text")
    refuses("m.parquet is not a Parquet file", load_pairs, tmp_path / "m.parquet")
    write(tmp_path / "m.txt", "text")
    refuses("m.txt is not a .csv", load_pairs, tmp_path / "m.txt")
    manifest(tmp_path, "csv")
    refuses("manifest.csv, manifest.jsonl, expected one manifest", load_pairs, tmp_path)


def test_pairs_skip_keeps_the_split(tmp_path):
    path = manifest(tmp_path, "csv")
    (tmp_path / "p" / "c.png").write_bytes(b"no picture at all")
    data = load_pairs(path, "skip")
    assert data.ids.tolist() == ["p/a.png", "p/b.png"]
    assert {key: value.tolist() for key, value in data.given_split.items()} == {
        "query": [0],
        "database": [1],
        "train": [1],
    }
    assert data.notes[-1].startswith("manifest.csv row 4: image ")
    (tmp_path / "p" / "a.png").unlink()
    refuses("the given query part is empty", load_pairs, path, "skip")
