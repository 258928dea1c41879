"""NumPy's files and SciPy's sparse matrices: checked before memory is reserved."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import scipy.sparse

from dsprh_tf.data.arrays import numpy_files

ARRAY = np.random.default_rng(0).random((7, 5))


def refused(path, message, reader=numpy_files.list_npz):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as error:
            for array in reader(path):
                array.read()
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value) and path.name in str(error.value)


def header(text, data=b""):
    text = text.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


FLOATS = "{'descr': '<f8', 'fortran_order': False, 'shape': %s}"
HEADERS = {
    "deep parentheses": "(" * 3000,
    "deep parentheses in the shape": FLOATS % ("(" * 200 + ")" * 200),
    "an absurd shape": FLOATS % "(100000, 100000)",
    "an overflowing shape": FLOATS % "(2147483648, 2147483648)",
    "a negative shape": FLOATS % "(-1, 4)",
    "no tuple": FLOATS % "'a'",
    "an unterminated string": "{'descr': '",
    "nothing": "",
    "another dictionary": "{'x': 1}",
    "a call": "{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': ()}",
}


@pytest.mark.parametrize("text", HEADERS.values(), ids=HEADERS)
def test_headers_that_lie(tmp_path, text):
    (tmp_path / "a.npy").write_bytes(header(text, bytes(64)))
    refused(tmp_path / "a.npy", r"a\.npy cannot be read", numpy_files.list_npy)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("a.npy", header(text, bytes(64)))
    refused(tmp_path / "b.npz", r"b\.npz: a cannot be read")


@pytest.mark.parametrize("kind", ["f8", "f4", "f2", "i8", "u1", "?", ">f8", "U3", "S3"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_types_and_orders(tmp_path, kind, order, monkeypatch):
    monkeypatch.setattr("dsprh_tf.data.arrays.stored.BLOCK", 64)
    for shape in ((7, 5), (0, 5), (), (2, 3, 4)):
        array = np.asarray((np.arange(np.prod(shape)) % 7).reshape(shape).astype(kind), order=order)
        np.save(tmp_path / "a.npy", array)
        np.savez_compressed(tmp_path / "a.npz", a=array)
        for found in (*numpy_files.list_npy(tmp_path / "a.npy"),
                      *numpy_files.list_npz(tmp_path / "a.npz")):  # fmt: skip
            read = found.read()
            assert found.is_text == (kind[0] in "US") and found.shape == shape
            np.testing.assert_array_equal(read, array.astype("U3") if found.is_text else array)


def test_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("dsprh_tf.data.arrays.stored.MOST", 2**22)
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros((1000, 1000)))
    assert (tmp_path / "a.npz").stat().st_size < 2e4
    refused(tmp_path / "a.npz", "a is 1,000 x 1,000: 0.0 GB in memory, from")


def test_a_name_twice_and_a_wrong_checksum(tmp_path):
    content = io.BytesIO()
    np.save(content, ARRAY)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, pytest.warns(UserWarning):
        for _ in range(2):
            archive.writestr("a.npy", content.getvalue())
    refused(tmp_path / "a.npz", "it has 'a' twice")
    np.savez(tmp_path / "b.npz", a=ARRAY)
    whole = (tmp_path / "b.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(whole.replace(ARRAY.tobytes()[:8], bytes(8)))
    refused(tmp_path / "b.npz", "a cannot be read .*CRC")


def test_characters_that_there_are_not(tmp_path):
    raw = header("{'descr': '<U1', 'fortran_order': False, 'shape': (2,)}", b"a\0\0\0\0\0\x12\0")
    (tmp_path / "a.npy").write_bytes(raw)
    refused(tmp_path / "a.npy", "characters that there are not", numpy_files.list_npy)


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.csr_array])
def test_sparse_matrices(tmp_path, form, packed, make):
    dense = np.where(ARRAY < 0.3, ARRAY, 0)
    scipy.sparse.save_npz(tmp_path / "text.npz", make(dense).asformat(form), compressed=packed)
    (found,) = numpy_files.list_npz(tmp_path / "text.npz")
    assert (found.name, found.shape, found.is_sparse) == ("text", (7, 5), True)
    np.testing.assert_array_equal(found.read(), dense)


def test_values_of_one_place_are_added(tmp_path):
    twice = scipy.sparse.coo_matrix(([1.0, 2.0], ([1, 1], [0, 0])), (2, 2))
    scipy.sparse.save_npz(tmp_path / "a.npz", twice)
    np.testing.assert_array_equal(
        numpy_files.list_npz(tmp_path / "a.npz")[0].read(), [[0, 0], [3, 0]]
    )


SPARSE = {
    "bsr": ({"format": b"bsr"}, r"in the form 'bsr', .*matrix.tocsr\(\)"),
    "an index outside": ({"indices": np.array([0, 9])}, "an index of a sparse matrix is outside"),
    "a negative index": ({"indices": np.array([0, -1])}, "an index of a sparse matrix is outside"),
    "indices that are no integers": ({"indices": np.array([0.0, 1.0])}, "no integers"),
    "pointers that descend": ({"indptr": np.array([0, 3, 2])}, "do not ascend from 0 to 2"),
    "too few pointers": ({"indptr": np.array([0, 2])}, "do not ascend"),
    "an absurd shape": ({"shape": np.array([2, 10**12])}, "GB in memory"),
    "a negative shape": ({"shape": np.array([2, -2])}, "of the shape"),
    "no values": ({"data": None}, "without numbers"),
    "complex values": ({"data": np.array([1j, 2j])}, "complex"),
    "fewer values": ({"data": np.ones(1)}, "2 rows, 2 columns and 1 values"),
}


@pytest.mark.parametrize(("changes", "message"), SPARSE.values(), ids=SPARSE)
def test_damaged_sparse_matrices(tmp_path, changes, message):
    arrays = {"format": b"csr", "shape": np.array([2, 2]), "data": np.ones(2),
              "indices": np.array([0, 1]), "indptr": np.array([0, 1, 2])}  # fmt: skip
    arrays = {name: a for name, a in {**arrays, **changes}.items() if a is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    refused(tmp_path / "a.npz", message)
