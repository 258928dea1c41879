"""MATLAB 4 and 5: the same as SciPy reads, and a line where a file is damaged or holds no array."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from dsprh_tf.data.arrays import mat5

DATA = Path(scipy.io.matlab.__file__).parent / "tests" / "data"  # files that MATLAB wrote
FILES = sorted(path for path in DATA.glob("*.mat") if b"7.3" not in path.read_bytes()[:20])
HEAD = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def element(kind, content):
    return struct.pack("<2I", kind, len(content)) + content + bytes(-len(content) % 8)


def variable(name, kind, *rest, shape=(2, 2), flags=0):
    """An array of a class, from the elements behind its name."""
    dims = element(5, np.array(shape, "<i4").tobytes()) if shape is not None else b""
    about = element(6, struct.pack("<2I", kind | flags, 0)) + dims + element(1, name.encode())
    return element(14, about + b"".join(rest))


def doubles(*values):
    return element(9, np.array(values, "<f8").tobytes())


def write(path, *variables, packed=False):
    if packed:
        variables = [struct.pack("<2I", 15, len(v)) + v for v in map(zlib.compress, variables)]
    path.write_bytes(HEAD + b"".join(variables))
    return path


def refused(path, message):
    with pytest.raises(ValueError, match=message) as error:
        for array in mat5.list_arrays(path):
            array.read()
    assert "\n" not in str(error.value) and path.name in str(error.value)


@pytest.mark.skipif(not FILES, reason="SciPy came without its test files")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_same_as_scipy(path):
    try:
        expected = scipy.io.loadmat(path)
        arrays = {array.name: array for array in mat5.list_arrays(path)}
    except Exception:
        return  # the other tests have files that one of them refuses
    assert set(arrays) == {name for name in expected if not name.startswith("__")}
    for name, array in arrays.items():
        value = expected[name]
        value = value.toarray() if scipy.sparse.issparse(value) else np.asarray(value)
        if array.problem or value.dtype.kind in "OcV":
            continue
        if value.dtype.kind == "U":
            assert array.is_text
            assert [t for t in array.read() if t] == [t.rstrip() for t in value.ravel()]
        else:
            np.testing.assert_array_equal(array.read(), value)
            assert array.shape == value.shape and array.dtype == array.read().dtype


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"])
def test_types_and_shapes(tmp_path, kind, packed):
    rng = np.random.default_rng(0)
    for shape in ((2, 3), (1, 1), (5, 1), (0, 3), (3, 4, 5), (2, 1, 3, 1)):
        array = (rng.random(shape) * 100).astype(kind)
        scipy.io.savemat(tmp_path / "a.mat", {"a": array, "b": array[::-1]}, do_compression=packed)
        for found, expected in zip(mat5.list_arrays(tmp_path / "a.mat"), (array, array[::-1])):
            np.testing.assert_array_equal(found.read(), scipy.io.loadmat(tmp_path / "a.mat")["a"]
                                          if found.name == "a" else expected)  # fmt: skip


def test_blocks_of_a_large_array(tmp_path, monkeypatch):
    monkeypatch.setattr("dsprh_tf.data.arrays.stored.BLOCK", 100)
    array = np.random.default_rng(0).random((7, 11, 3))
    for packed in (False, True):
        scipy.io.savemat(tmp_path / "a.mat", {"a": array}, do_compression=packed)
        np.testing.assert_array_equal(mat5.list_arrays(tmp_path / "a.mat")[0].read(), array)


NO_ARRAYS = {
    "a struct": (
        [variable("s", 2, element(5, struct.pack("<i", 4)), element(1, b"I_trL_tr"))],
        r"s is a struct with the fields I_tr, L_tr, .*save\(FILE, '-struct', 's'\)",
    ),
    "a function handle": ([variable("f", 16, doubles(1))], "f is a function handle, expected"),
    "an object": ([variable("o", 3, doubles(1))], "o is an object, expected an array"),
    "a table": (
        [variable("t", 17, element(1, b"MCOS"), element(1, b"table"), shape=None)],
        "t is an object of the class table, .*table2array",
    ),
    "complex numbers": (
        [variable("c", 6, doubles(1, 2, 3, 4), doubles(1, 2, 3, 4), flags=0x800)],
        "c is of complex numbers",
    ),
    "an unknown class": ([variable("u", 99, doubles(1))], "u is of the unknown kind 99"),
    "cells of matrices": (
        [variable("c", 1, variable("", 6, doubles(1, 2, 3, 4)), shape=(1, 1))],
        "c cannot be read .a cell array with a matrix of 2 x 2, .*cell2mat",
    ),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("variables", "message"), NO_ARRAYS.values(), ids=NO_ARRAYS)
def test_what_is_no_array_is_named(tmp_path, variables, message, packed):
    refused(write(tmp_path / "a.mat", *variables, packed=packed), message)


DAMAGED = {
    "fewer values than declared": [variable("a", 6, doubles(1, 2, 3))],
    "an absurd shape": [variable("a", 6, doubles(1), shape=(2**31 - 1, 2**31 - 1))],
    "a negative shape": [variable("a", 6, doubles(1), shape=(-1, -1))],
    "no shape": [variable("a", 6, doubles(1), shape=())],
    "an unknown type of numbers": [variable("a", 6, element(99, bytes(32)))],
    "no array": [element(9, bytes(8))],
    "a name twice": [variable("a", 6, doubles(1, 2, 3, 4))] * 2,
    "an index outside": [
        variable("a", 5, element(5, struct.pack("<2i", 0, 7)),
                 element(5, struct.pack("<3i", 0, 1, 2)), doubles(1, 2)),
    ],
    "pointers that descend": [
        variable("a", 5, element(5, struct.pack("<2i", 0, 1)),
                 element(5, struct.pack("<3i", 0, 3, 2)), doubles(1, 2)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("variables", DAMAGED.values(), ids=DAMAGED)
def test_damaged_files(tmp_path, variables, packed):
    refused(write(tmp_path / "a.mat", *variables, packed=packed), "cannot be read")


def test_zeros_are_no_file(tmp_path):
    """SciPy takes a file of zeros for one of MATLAB 4."""
    (tmp_path / "a.mat").write_bytes(bytes(15_535_840))
    refused(tmp_path / "a.mat", "not a MATLAB file")


def test_a_wrong_checksum(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"a": np.arange(99.0)}, do_compression=True)
    content = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(tmp_path / "a.mat", "a cannot be read .*incorrect data check")


def test_values_that_unpack_to_too_much(tmp_path):
    """Two gigabytes of zeros in a file of kilobytes, of which nothing is unpacked."""
    shape = (2**14, 2**14)
    start = variable("a", 6, shape=shape)[8:] + struct.pack("<2I", 9, 2**31)
    packed = zlib.compress(struct.pack("<2I", 14, len(start) + 2**31) + start)
    path = tmp_path / "a.mat"
    path.write_bytes(HEAD + struct.pack("<2I", 15, len(packed)) + packed)
    refused(path, "a is 16,384 x 16,384: 2.1 GB in memory, from .* bytes in the file")


def test_values_of_a_sparse_matrix_that_unpack_to_too_much(tmp_path):
    start = variable("a", 5, shape=(2, 2))[8:] + struct.pack("<2I", 5, 2**30)
    packed = zlib.compress(struct.pack("<2I", 14, 2**31) + start)
    path = tmp_path / "a.mat"
    path.write_bytes(HEAD + struct.pack("<2I", 15, len(packed)) + packed)
    refused(path, "a cannot be read .an element of 1,073,741,824 bytes where")


def test_matlab_4(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"a": rng.random((3, 4)), "b": np.arange(6, dtype=np.uint8).reshape(2, 3),
              "c": scipy.sparse.coo_matrix(np.diag([1.0, 0, 2]))}  # fmt: skip
    scipy.io.savemat(tmp_path / "a.mat", arrays, format="4")
    found = {array.name: array.read() for array in mat5.list_arrays(tmp_path / "a.mat")}
    for name, array in arrays.items():
        array = array.toarray() if scipy.sparse.issparse(array) else array
        np.testing.assert_array_equal(found[name], array)
