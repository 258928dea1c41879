"""Indexed files, and lists and archives of several."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import zipfile

import pytest

from dsprh_tf.web import files


def row(path, content=None, number=1, tags=("a", "b")):
    content = path.read_bytes() if content is None else content
    return {"id": number, "modality": "image", "path": str(path), "text": None, "tags": list(tags),
            "size": len(content), "sha256": hashlib.sha256(content).digest()}  # fmt: skip


def text_row(number=2, text='two "words", one comma'):
    return {"id": number, "modality": "text", "path": None, "text": text, "tags": None,
            "size": len(text), "sha256": b"x" * 32}  # fmt: skip


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8" + os.urandom(3 * 2**20))
    return path


def opened(item):
    return b"".join(files.blocks(files.open_indexed(item["path"], item["size"], item["sha256"])))


def test_an_indexed_file(picture):
    assert opened(row(picture)) == picture.read_bytes()


def test_another_file_at_the_path_is_not_given_out(picture, tmp_path):
    item = row(picture)
    content = picture.read_bytes()
    secret = tmp_path / "secret"
    secret.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    def changed():
        picture.write_bytes(secret.read_bytes())  # of the same length

    def link():
        picture.unlink()
        picture.symlink_to(secret)

    def folder():
        picture.unlink()
        picture.mkdir()

    def pipe():
        picture.rmdir()
        os.mkfifo(picture)

    for change in (changed, link, folder, pipe):
        change()
        with pytest.raises(ValueError, match=r"a\.jpg is no longer"):
            opened(item)
    picture.unlink()
    with pytest.raises(ValueError, match="no longer on disk"):
        opened(item)


@pytest.mark.parametrize("missing", [{"sha256": None}, {"size": None}])
def test_a_file_that_cannot_be_told_from_another(picture, missing):
    with pytest.raises(ValueError, match="no longer the one"):
        opened({**row(picture), **missing})


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.jpg", "image/jpeg"), ("A.PNG", "image/png"), ("a.webp", "image/webp"),
     ("a.svg", "application/octet-stream"), ("a.html", "application/octet-stream"),
     ("a", "application/octet-stream"), ("a.jpg.exe", "application/octet-stream")],
)  # fmt: skip
def test_media_types(name, kind):
    assert files.media_type(name) == kind


def test_lists(picture):
    items = [row(picture, number=2**62 + 1), text_row()]
    found = list(csv.DictReader(io.StringIO(files.as_csv(items))))
    assert found[0] == {"id": str(2**62 + 1), "path": str(picture), "text": "", "tags": "a;b"}
    assert found[1]["text"] == items[1]["text"]
    found = json.loads(files.as_json(items))
    assert found[0] == {"id": str(2**62 + 1), "path": str(picture), "text": None,
                        "tags": ["a", "b"]}  # fmt: skip


def test_an_archive(picture, tmp_path):
    (tmp_path / "sub").mkdir()
    other, gone = tmp_path / "sub" / "A.jpg", tmp_path / "gone.jpg"
    other.write_bytes(b"other")
    listed = tmp_path / "list.csv"
    listed.write_bytes(b"an image of that name")
    altered = tmp_path / "altered.jpg"
    altered.write_bytes(b"old")
    items = [row(picture), row(other, number=3), row(gone, b"?", 4), text_row(),
             row(listed, number=5), row(altered, number=6)]  # fmt: skip
    altered.write_bytes(b"new")
    assert files.weigh(items) == {"items": 6, "files": 4, "gone": 1, "bytes": sum(
        items[i]["size"] for i in (0, 1, 4, 5))}  # fmt: skip
    parts = list(files.as_zip(items))
    assert max(map(len, parts)) <= 2**20 + 100  # streamed, not held
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a.jpg", "A-2.jpg", "list-2.csv", "list.csv"]
        assert archive.read("a.jpg") == picture.read_bytes()
        assert archive.read("A-2.jpg") == b"other"
        found = list(csv.DictReader(io.TextIOWrapper(archive.open("list.csv"), "utf-8")))
    assert [line["file"] for line in found] == ["a.jpg", "A-2.jpg", "", "", "list-2.csv", ""]
    assert "no longer on disk" in found[2]["left out"]
    assert "no longer the one" in found[5]["left out"]
    assert found[3]["text"] == items[3]["text"]


def test_an_archive_that_is_broken_off_leaves_no_file_open(picture):
    parts = files.as_zip([row(picture)])
    next(parts)
    parts.close()  # an open file would be a warning, and so an error
