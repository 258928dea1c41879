"""Equal images: by bytes, by pixels in arrays, by vectors, under any name."""

import os
import shutil

import h5py
import numpy as np
import pytest
import scipy.io
from data_helpers import picture, refuses
from hypothesis import given, settings
from hypothesis import strategies as st

from dsprh_tf.data import content_groups, mat_files
from dsprh_tf.data.content_groups import equal_files, equal_rows

LARGE = 40_000  # bytes, of which the middle and the end are read first


def numbered(size=LARGE, **changed):
    content = bytearray(np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8).tobytes())
    for at in changed.values():
        content[at] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        (numbered(), True),
        (numbered(at=0), False),
        (numbered(at=9_000), False),  # in neither of the blocks
        (numbered(at=LARGE // 2), False),
        (numbered(at=LARGE - 1), False),
        (numbered(LARGE + 1), False),
        (b"", False),
    ],
    ids=["copy", "first byte", "between", "middle", "last byte", "longer", "empty"],
)
def test_files_by_their_bytes(tmp_path, other, equal):
    (tmp_path / "one.jpg").write_bytes(numbered())
    (tmp_path / "other.png").write_bytes(other)
    (tmp_path / "third.gif").write_bytes(numbered(at=7))
    paths = [str(tmp_path / name) for name in ("third.gif", "one.jpg", "other.png")]
    assert equal_files(paths).tolist() == [0, 1, 1 if equal else 2]


@pytest.mark.parametrize("link", [shutil.copy, os.link, os.symlink])
def test_other_names_of_a_file(tmp_path, link):
    picture(tmp_path / "a.png", 1)
    picture(tmp_path / "b.png", 2)
    link(tmp_path / "a.png", tmp_path / "deep.png")
    paths = [f"{tmp_path}/{name}" for name in ("b.png", "a.png", "./a.png", "deep.png", "a.png")]
    assert equal_files(paths).tolist() == [0, 1, 1, 1, 1]


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_any_files(tmp_path_factory, contents):
    folder = tmp_path_factory.mktemp("files")
    for row, content in enumerate(contents):
        (folder / str(row)).write_bytes(content)
    found = equal_files([str(folder / str(row)) for row in range(len(contents))])
    assert found.tolist() == [contents.index(content) for content in contents]
    assert found.dtype == np.int64


def test_what_is_read(tmp_path, monkeypatch):
    """No file of a size of its own; whole files only where blocks are equal."""
    contents = {"a": numbered(), "b": numbered(), "c": numbered(at=LARGE // 2), "d": numbered(99)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    read = {"_blocks_of_file": [], "file_sha256": []}
    for name, seen in read.items():
        real = getattr(content_groups, name)
        monkeypatch.setattr(
            content_groups, name, lambda path, real=real, seen=seen: seen.append(path) or real(path)
        )
    found = equal_files([str(tmp_path / name) for name in contents])
    assert found.tolist() == [0, 0, 2, 3]
    names = {how: {os.path.basename(path) for path in seen} for how, seen in read.items()}
    assert names == {"_blocks_of_file": {"a", "b", "c"}, "file_sha256": {"a", "b"}}


def test_a_vanished_file(tmp_path):
    picture(tmp_path / "a.png")
    refuses("gone.png cannot be read .No such file", equal_files,
            [str(tmp_path / "a.png"), str(tmp_path / "gone.png")])  # fmt: skip


@pytest.mark.parametrize("axes", ["NCWH", "NHWC", "HWCN"])
@pytest.mark.parametrize("kind", ["7.3", "5"])
def test_images_in_arrays_by_their_pixels(tmp_path, kind, axes):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)  # NHWC
    pixels[3] = pixels[1]
    pixels[4] = pixels[1]
    pixels[4, 0, 0, 0] ^= 1  # not in the line that is read first
    array = pixels.transpose(["NHWC".index(axis) for axis in axes])
    file = tmp_path / "i.mat"
    if kind == "5":
        scipy.io.savemat(file, {"IAll": array})
    else:
        with h5py.File(file, "w") as content:
            content["IAll"] = array
    paths = [mat_files.picture_path(file, "IAll", axes, i) for i in (5, 1, 3, 4, 0, 1)]
    assert equal_files(paths[1:4] + paths[:1] + paths[4:]).tolist() == [0, 0, 2, 3, 4, 0]
    picture(tmp_path / "p.png")
    assert equal_files([str(tmp_path / "p.png"), *paths[1:3]]).tolist() == [0, 1, 1]


def test_an_array_that_is_gone(tmp_path):
    paths = [mat_files.picture_path(tmp_path / "i.mat", "IAll", "NCWH", i) for i in range(2)]
    refuses("i.mat::IAll::NCWH::0 cannot be read", equal_files, paths)


def test_rows_by_their_values():
    rows = np.array([[1, 0], [0, 1], [1, -0.0], [0, 1 + 1e-7], [1, 0]], np.float32)
    assert equal_rows(rows).tolist() == [0, 1, 0, 3, 0]
    assert equal_rows(np.asfortranarray(rows)).tolist() == [0, 1, 0, 3, 0]
