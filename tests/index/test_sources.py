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
    assert source.notes == ["passed over: 1 .txt, 1 hidden"]


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
    assert source.notes == [
        "tags: 3 labels (a, b, c)",
        "2 rows that repeat another were merged with it",
    ]


def read(tmp_path, content, modality="text", name="m.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = Source(path, modality)
    return [(item.id, item.content, item.tags) for item in source.items], source.notes


class TestManifestsOfPeople:
    """Other names, separators and encodings are those of the pairs' tests; here is what differs."""

    def test_ids_that_pandas_made_floats(self, tmp_path):
        items, _ = read(tmp_path, "id,text\n1.0,a\n2.0,b\n,c\n0017,d\n")
        ids = [1, 2, stable_id("text", "c"), stable_id("text", "0017")]
        assert [item[0] for item in items] == ids
        pd.DataFrame({"id": [1.0, None], "text": ["a", "b"]}).to_parquet(tmp_path / "m.parquet")
        items = Source(tmp_path / "m.parquet", "text").items
        assert [item.id for item in items] == [1, stable_id("text", "b")]

    @pytest.mark.parametrize("name", ["1.2345678901234567e+18", "1e+16", "9007199254740993.0"])
    def test_ids_that_lost_digits(self, tmp_path, name):
        with pytest.raises(ValueError, match="m.csv row 2: the id .* lost its last digits"):
            read(tmp_path, f"id,text\n{name},a\n")

    def test_rows_of_one_image(self, tmp_path):
        captions = "image,caption,label\na.jpg,one,x\na.jpg,two,y\nb.jpg,three,x\n"
        items, notes = read(tmp_path, captions, "image")
        assert [item[1:] for item in items] == [
            (str(tmp_path / "a.jpg"), ("x", "y")),
            (str(tmp_path / "b.jpg"), ("x",)),
        ]
        assert "1 rows that repeat another were merged with it" in notes
        items, notes = read(tmp_path, captions)
        assert [item[1] for item in items] == ["one", "two", "three"]
        assert notes[0] == "text from the column caption, labels from the column label"

    def test_the_id_of_an_image_is_not_that_of_its_texts(self, tmp_path):
        rows = "image_id,image,caption\n7,a.jpg,one\n7,a.jpg,two\n"
        assert [item[0] for item in read(tmp_path, rows, "image")[0]] == [7]
        ids = [stable_id("text", "one"), stable_id("text", "two")]
        assert [item[0] for item in read(tmp_path, rows)[0]] == ids

    def test_a_list_of_captions(self, tmp_path):
        rows = '{"id": 7, "caption": ["one", "two"]}\n{"id": 8, "caption": ["three"]}\n'
        items, notes = read(tmp_path, rows, name="m.jsonl")
        ids = [stable_id("text", "one"), stable_id("text", "two"), 8]
        assert [item[:2] for item in items] == list(zip(ids, ["one", "two", "three"]))
        assert any(note.startswith("1 rows have several texts: each is an item") for note in notes)

    @pytest.mark.parametrize(
        ("rows", "tags"),
        [
            ('text,tags\na,"x, y"\nb,y\n', [("x", "y"), ("y",)]),
            ("text,tags,labels\na,x,q\nb,,z\n", [("x",), ("z",)]),
            ("text,labels\na,\"['x', 'y']\"\nb,None\n", [("x", "y"), ()]),
            ("text,label_x,label_y\na,1,0\nb,1,1\n", [("x",), ("x", "y")]),
            ("text,tags,label_x,label_y\na,t,1,0\nb,,1,1\n", [("t",), ()]),
            ("tags\na\nb\n", [(), ()]),
        ],
    )
    def test_tags(self, tmp_path, rows, tags):
        items, notes = read(tmp_path, rows)
        assert [item[1:] for item in items] == list(zip("ab", tags))

    def test_dialect_and_encoding(self, tmp_path):
        items, notes = read(tmp_path, "id;text\n\n1;Übung\n".encode("cp1252"))
        assert items == [(1, "Übung", ())]
        assert "fields are separated by semicolons" in notes
        assert any("Windows-1252" in note for note in notes)
        with pytest.raises(ValueError, match="m.csv row 5: text is empty"):
            read(tmp_path, "id,text\n\n1,a\n\n2,\n")

    def test_backslashes(self, tmp_path):
        write_image(tmp_path / "p" / "a.jpg")
        (tmp_path / "b\\c.jpg").write_bytes(b"x")  # a name of its own on POSIX
        items, _ = read(tmp_path, "image\np\\a.jpg\nb\\c.jpg\n", "image")
        assert [item[1] for item in items] == [str(tmp_path / "p/a.jpg"), f"{tmp_path}/b\\c.jpg"]

    def test_images_in_the_manifest(self, tmp_path):
        contents = [write_image(tmp_path / f"{i}.png", i).read_bytes() for i in range(2)]
        pd.DataFrame({"image": [*contents, contents[0]]}).to_parquet(tmp_path / "m.parquet")
        source = Source(tmp_path / "m.parquet", "image")
        assert [Path(item.content).read_bytes() for item in source.items] == contents
        assert source.notes[0].startswith("3 images of the file are in")


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
        ("id,words\n5,red\n", r"has no column text \(it has id, words\)"),
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
    with pytest.raises(ValueError, match=r"has no images \(passed over: 1 .txt\)"):
        Source(tmp_path, "image")
    with pytest.raises(ValueError, match="is not a .csv, .tsv, .jsonl or .parquet file"):
        Source(tmp_path / "notes.txt", "text")
