"""Vectors of a file: which array, in which shape, and by rows."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from array_helpers import torch_file, write_hdf5
from safetensors.numpy import save_file

from dsprh_tf.data.arrays import vectors
from dsprh_tf.data.arrays.vectors import Vectors

VALUES = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
OTHER = np.ones((4, 5), np.float32)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("v.npy", lambda path: np.save(path, VALUES)),
        ("v.npy", lambda path: np.save(path, np.asfortranarray(VALUES.astype(">f8")))),
        ("v.npy", lambda path: np.save(path, VALUES[:, None])),
        ("v.npz", lambda path: np.savez(path, whatever=VALUES)),
        ("v.npz", lambda path: np.savez(path, image=VALUES, text=OTHER, labels=OTHER)),
        ("v.npz", lambda path: np.savez(path, img_emb=VALUES, txt_emb=OTHER)),
        ("v.npz", lambda path: scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(VALUES))),
        ("v.mat", lambda path: scipy.io.savemat(path, {"I": VALUES, "T": OTHER})),
        ("v.h5", lambda path: write_hdf5(path, image=VALUES, text=OTHER)),
        ("v.pt", lambda path: path.write_bytes(torch_file({"image": VALUES, "text": OTHER}))),
        ("v.safetensors", lambda path: save_file({"image": VALUES, "text": OTHER}, path)),
    ],
)
def test_kinds_of_files(tmp_path, name, write, monkeypatch):
    write(tmp_path / name)
    found = Vectors(tmp_path / name, "image", 5)
    assert (found.count, found.width) == (9, 5)
    np.testing.assert_array_equal(found.take([2, 3]), VALUES[2:4])
    assert found.take([2, 3]).dtype == np.float32
    monkeypatch.setattr(vectors, "_BLOCK_BYTES", 4 * 5 * 4)
    starts, blocks = zip(*found.blocks())
    assert starts == (0, 4, 8)
    np.testing.assert_array_equal(np.concatenate(blocks), VALUES)


def test_a_npy_file_stays_on_disk(tmp_path):
    np.save(tmp_path / "v.npy", VALUES.astype(np.float16))
    found = Vectors(tmp_path / "v.npy", "image", 5)
    assert isinstance(found._values, np.memmap)
    np.testing.assert_array_equal(found.take(slice(9)), VALUES.astype(np.float16))


def test_a_name_of_the_other_side_is_told(tmp_path):
    np.save(tmp_path / "texts.npy", VALUES)
    assert Vectors(tmp_path / "texts.npy", "text", 5).notes == []
    (note,) = Vectors(tmp_path / "texts.npy", "image", 5).notes
    assert note == "texts is read as vectors of images, whatever its name says"


def test_one_vector(tmp_path):
    np.save(tmp_path / "q.npy", VALUES[0])
    np.testing.assert_array_equal(
        Vectors(tmp_path / "q.npy", "text", 5, single=True).take([0]), VALUES[:1]
    )
    with pytest.raises(ValueError, match=r"q.npy has shape \[5\] .*expected a numeric matrix"):
        Vectors(tmp_path / "q.npy", "text", 5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"v": VALUES[:, :4]}, "is 9 x 4, expected text vectors of 5 numbers, .*; encode with"),
        ({"v": np.ones((5, 9))}, "is 5 x 9, expected .* it looks transposed: save values.T"),
        ({"v": VALUES[:0]}, "is 0 x 5: there are no vectors in it"),
        ({"v": np.ones((9, 4, 5))}, "shape .*; save one vector for each text, such as the mean"),
        ({"v": np.array([["a"] * 5])}, "holds strings, .*give them as --texts"),
        ({"v": VALUES + 1j}, "of complex numbers"),
        ({"a": VALUES, "b": VALUES}, "has a, b, expected one array of text vectors; name it text"),
        ({"text_a": VALUES, "text_b": VALUES}, "has text_a, text_b, expected one array of text"),
        ({"T_tr": VALUES, "T_te": VALUES}, "has T_tr, T_te, expected one array of text vectors"),
    ],
)  # fmt: skip
def test_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(ValueError, match=message) as error:
        Vectors(tmp_path / "v.npz", "text", 5)
    assert "\n" not in str(error.value) and f"{tmp_path}/v.npz" in str(error.value)


@pytest.mark.parametrize("name", ["gone.npy", "v.csv", "v.npy"])
def test_files_that_are_none(tmp_path, name):
    if name != "gone.npy":
        (tmp_path / name).write_text("no array")
    with pytest.raises(ValueError, match=f"{name} .*expected a .npy, .npz, .mat"):
        Vectors(tmp_path / name, "text", 5)
