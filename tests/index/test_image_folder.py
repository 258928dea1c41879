"""Folders: which files are images, and what is said of the others."""

from __future__ import annotations

import os

import pytest
from image_files import encoded, picture

from dsprh_tf.data import image_kinds
from dsprh_tf.index.image_folder import ImageFolder
from dsprh_tf.index.sources import Source

JPEG = encoded(picture(), "JPEG")
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


@pytest.fixture
def write(tmp_path):
    """`write(name, content)` into the folder."""

    def into(*names, content=JPEG):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)

    return into


def listed(folder) -> list[str]:
    return [os.path.relpath(path, folder) for path in ImageFolder(str(folder))]


def notes(folder) -> list[str]:
    found = ImageFolder(str(folder))
    list(found)
    return found.notes


@pytest.mark.parametrize(
    "ending",
    ["jpg", "JPG", "jpeg", "jpe", "JPE", "jfif", "JFIF", "png", "gif", "bmp", "webp", "tif",
     "TIFF", "heic", "HEIC", "heif", "hif", "avif"],
)  # fmt: skip
def test_known_endings(ending, tmp_path, write):
    write(f"b/a.{ending}")
    assert listed(tmp_path) == [f"b/a.{ending}"]
    assert notes(tmp_path) == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF"])
def test_a_file_without_an_ending_is_known_by_its_content(kind, tmp_path, write):
    write("IMG_0001", content=encoded(picture(), kind))
    assert listed(tmp_path) == ["IMG_0001"]


def test_others_are_counted_by_kind(tmp_path, write):
    write(".hidden.jpg", ".DS_Store", "a.txt", "b.TXT", "c.txt", "d.mp4", content=b"words")
    write("README", "e. and so on", content=b"words")
    write("f.jpg_original", "g.dat")
    write("h.cr2", content=b"II*\0" + bytes(40))
    write("i.jpg")
    assert listed(tmp_path) == ["i.jpg"]
    assert notes(tmp_path) == [
        "passed over: 3 .txt, 2 hidden, 1 without an ending, 1 .mp4, 1 of other names, "
        "1 .jpg_original (JPEG by content: rename to encode), "
        "1 .dat (JPEG by content: rename to encode), 1 .cr2 (TIFF by content: rename to encode)"
    ]


def test_many_kinds_are_counted_together(tmp_path, write):
    for i in range(12):
        write(*(f"{j}.k{i:02}" for j in range(12 - i)), content=b"")
    (line,) = notes(tmp_path)
    assert line.startswith("passed over: 12 .k00, 11 .k01, 10 .k02, ")
    assert line.endswith("5 .k07, 10 others")


def test_what_lacks_a_reader_is_counted_with_the_fix(tmp_path, write, monkeypatch):
    monkeypatch.setattr(image_kinds, "missing", lambda k: "needs x: pip install x"
                        if k in ("HEIF", "AVIF") else None)  # fmt: skip
    write("a.heic", "b.HEIC", "c", content=HEIC)
    write("d.avif", content=encoded(picture(), "AVIF"))
    write("e.heic", "f.jpg")  # JPEGs, as programs that convert leave them
    (tmp_path / "g.heic").symlink_to(tmp_path / "nowhere")  # a bad image, not one of a kind
    assert listed(tmp_path) == ["e.heic", "f.jpg", "g.heic"]
    assert notes(tmp_path) == [
        "passed over: 3 HEIC images; reading them needs x: pip install x",
        "passed over: 1 AVIF images; reading them needs x: pip install x",
    ]
    with pytest.raises(ValueError, match=r"has no images \(passed over: 3 HEIC images; read"):
        for name in ("e.heic", "f.jpg", "g.heic"):
            (tmp_path / name).unlink()
        Source(tmp_path, "image")


def test_pipes_devices_and_dangling_links_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "link.jpg").symlink_to("nowhere")
    assert listed(tmp_path) == ["link.jpg", "pipe.jpg"]  # encoding names them
    assert notes(tmp_path) == ["passed over: 3 without an ending"]


def test_only_files_of_unknown_endings_are_opened(tmp_path, write, monkeypatch):
    write("a.jpg", "b.heic", "c.txt", "d")
    opened = []
    read = image_kinds.kind_of_file
    monkeypatch.setattr(image_kinds, "kind_of_file", lambda p: opened.append(p[-5:]) or read(p))
    assert listed(tmp_path) == ["a.jpg", "b.heic", "d"]
    assert sorted(name.rpartition("/")[2] for name in opened) == ["c.txt", "d"]


def test_run_folders_are_passed_over(write, tmp_path):
    """They lie beside the images by default, and hold images of results."""
    (tmp_path / "runs").mkdir()
    write("a.jpg", "runs/one/queries.png", "runs/one/flags.json")
    assert listed(tmp_path) == ["a.jpg"]
    assert notes(tmp_path) == ["passed over: 1 run folders of `dsprh train`"]
