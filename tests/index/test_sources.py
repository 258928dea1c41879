"""Sources of items: folders of images and manifests, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd
import pytest
from index_helpers import write_album, write_image

from dsprh_tf.index.items import stable_id
from dsprh_tf.index.sources import Source, path_prefix


@pytest.fixture
def album(tmp_path) -> Path:
    """21 images in two folders, and files that are none."""
    return write_album(tmp_path / "album")


def test_folder(album):
    source = Source(album, "image")
    paths = [item.content for item in source.items]
    wanted = [album / "a" / f"{i:02}.jpg" for i in range(0, 21, 2)]
    wanted += [album / "b" / f"{i:02}.jpg" for i in range(1, 21, 2)]
    assert paths == [str(path) for path in wanted]
    assert [item.id for item in source.items] == [stable_id("image", p) for p in paths]
    assert source.notes == ["2 files that are hidden or not images were passed over"]


def test_linked_folders_are_counted(album):
    (album / "a" / "again").symlink_to(album, target_is_directory=True)
    (album / "c").symlink_to(album / "b", target_is_directory=True)
    (album / ".hidden").symlink_to(album / "b", target_is_directory=True)
    source = Source(album, "image")
    assert len(source.items) == 21
    assert source.notes[1:] == [
        "2 linked folders were not followed: encode each as a source of its own"
    ]


def test_relative_paths_become_absolute(album, monkeypatch):
    monkeypatch.chdir(album.parent)
    assert Source("album", "image").items == Source(album, "image").items
    assert path_prefix("album/a/") == str(album / "a") + "/"
    assert path_prefix("album/a") == str(album / "a")
    assert path_prefix(None) is None


ROWS = (
    {"image": "a.jpg", "text": "a  known dog", "id": "7", "tags": "x;y"},
    {"image": "../b.jpg", "text": "known cat", "id": "0012", "tags": ""},
    {"image": "/c.jpg", "text": "known cow", "id": "", "tags": "z"},
)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_manifest(tmp_path, kind):
    path = tmp_path / f"data.{kind}"
    table = pd.DataFrame(ROWS)
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path)
    texts = Source(path, "text").items
    assert [item.content for item in texts] == ["a known dog", "known cat", "known cow"]
    # Whole numbers are kept; "0012" is a name, and without an id the content is.
    ids = [7, stable_id("text", "0012"), stable_id("text", "known cow")]
    assert [item.id for item in texts] == ids
    assert [item.tags for item in texts] == [("x", "y"), (), ("z",)]
    assert [item.row for item in texts] == ([2, 3, 4] if kind == "csv" else [1, 2, 3])
    images = Source(path, "image").items
    wanted = [str(tmp_path / "a.jpg"), str(tmp_path.parent / "b.jpg"), "/c.jpg"]
    assert [item.content for item in images] == wanted


def test_labels_serve_as_tags(tmp_path):
    (tmp_path / "m.csv").write_text("text,labels\nknown,a;b\n")
    assert Source(tmp_path / "m.csv", "text").items[0].tags == ("a", "b")


def test_rows_that_repeat(tmp_path):
    (tmp_path / "m.csv").write_text("text,tags\nred,a\nblue,b\nred,c\nred,a\n")
    source = Source(tmp_path / "m.csv", "text")
    assert [(item.content, item.tags) for item in source.items] == [
        ("red", ("a", "c")), ("blue", ("b",)),
    ]  # fmt: skip
    assert source.notes == ["2 rows that repeat another were merged with it"]


@pytest.mark.parametrize("parts", [2, 3])
def test_shards_share_everything(album, parts):
    whole = Source(album, "image").items
    shards = [Source(album, "image", (i, parts)).items for i in range(parts)]
    assert sorted(itertools.chain(*shards)) == sorted(whole)
    assert all(shards)
    # A new image moves no other one to another machine.
    write_image(album / "a" / "new.jpg", 99)
    again = [Source(album, "image", (i, parts)).items for i in range(parts)]
    for old, new in zip(shards, again):
        assert set(old) <= set(new)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("id,text\n5,red\n5,blue\n", "row 3: its id 5 is that of row 2 already"),
        ("id,text\n5,\n", "row 2: text is empty"),
        ("id,words\n5,red\n", "row 2 has no column text .it has id, words."),
        ("text\n", "has no texts"),
        ("id,text\n9223372036854775808,red\n", "row 2: id 9223372036854775808 is too large"),
        ("id,text\n1,a,b\n", "row 2 has another number of fields"),
    ],
)
def test_bad_rows(tmp_path, rows, message):
    (tmp_path / "m.csv").write_text(rows)
    with pytest.raises(ValueError, match=message):
        Source(tmp_path / "m.csv", "text")


def test_bad_sources(tmp_path):
    with pytest.raises(ValueError, match="expected a folder or a manifest"):
        Source(tmp_path / "nowhere", "image")
    with pytest.raises(ValueError, match="expected a manifest"):
        Source(tmp_path, "text")
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(ValueError, match=r"has no images \(1 files that are hidden"):
        Source(tmp_path, "image")
    with pytest.raises(ValueError, match="is not a .csv, .parquet or .jsonl file"):
        Source(tmp_path / "notes.txt", "text")
