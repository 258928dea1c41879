"""Arrays in files of NumPy (`.npy`, `.npz`) and of `scipy.sparse.save_npz`."""

from __future__ import annotations

import contextlib
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Callable

import numpy as np

from dsprh_tf.data.arrays.stored import (
    TEXT,
    Blocks,
    StoredArray,
    by,
    expand_pointers,
    explained,
    most_nonzeros,
    sparse_blocks,
    stream_blocks,
    unreadable,
)
from dsprh_tf.data.npy_files import Header, read_header

_SMALL = 1024  # bytes of what describes a sparse matrix

Opened = Callable[[], contextlib.AbstractContextManager]


def list_npy(path: str | os.PathLike) -> list[StoredArray]:
    """The array of a .npy file, under the name of the file.

    Raises:
        ValueError: the file is damaged.
    """
    where = os.fspath(path)
    with explained(where), open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        header = read_header(stream, size)

    @contextlib.contextmanager
    def opened() -> Iterator[IO[bytes]]:
        with open(where, "rb") as stream:
            stream.seek(header.start)
            yield stream

    return [_stored(Path(path).stem, where, header, size, opened)]


def list_npz(path: str | os.PathLike) -> list[StoredArray]:
    """The arrays of an .npz file; a sparse matrix of SciPy is one, under the name of the file.

    Raises:
        ValueError: the file is damaged.
    """
    where = os.fspath(path)
    arrays: dict[str, StoredArray] = {}
    with explained(where), zipfile.ZipFile(where) as archive:
        for entry in archive.infolist():
            name = entry.filename[:-4] if entry.filename.endswith(".npy") else entry.filename
            if name in arrays:
                raise ValueError(f"it has {name!r} twice")
            arrays[name] = _member(archive, entry, name, where)
        if {"format", "shape"} <= set(arrays):
            return [_sparse(Path(path).stem, where, arrays)]
        return list(arrays.values())


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, path: str) -> StoredArray:
    where = f"{path}: {name}"
    if not entry.filename.endswith(".npy"):
        return StoredArray(name, where, problem="no array of NumPy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return StoredArray(name, where, problem="packed in another way than NumPy's")
    with explained(where), archive.open(entry) as stream:
        header = read_header(stream, entry.file_size)

    @contextlib.contextmanager
    def opened() -> Iterator[IO[bytes]]:
        with zipfile.ZipFile(path) as archive, archive.open(entry.filename) as stream:
            _exactly(stream, header.start)
            yield stream
            stream.read(1)  # at the end zipfile compares the checksum

    return _stored(name, where, header, min(entry.compress_size, os.path.getsize(path)), opened)


def _stored(name: str, where: str, header: Header, stored: int, opened: Opened) -> StoredArray:
    dtype = header.dtype
    problem = unreadable(dtype)
    if dtype.kind == "V" and dtype.itemsize == 2 and not dtype.names:
        problem = "of a type that NumPy does not know, perhaps bfloat16; save it as float32"
    if problem:
        return StoredArray(name, where, problem=problem)

    def blocks() -> Blocks:
        with opened() as stream:
            read = stream_blocks(
                lambda count: _exactly(stream, count), header.shape, dtype, header.fortran
            )
            for index, block in read:
                yield index, _strings(block) if dtype.kind in "SU" else block

    native = TEXT if dtype.kind in "US" else dtype.newbyteorder("=")
    return StoredArray(name, where, header.shape, native, stored, blocks)


def _strings(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8", "replace")
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    if (values.reshape(-1).view(np.uint32) > sys.maxunicode).any():
        raise ValueError("a string with characters that there are not: altered")
    return values


def _exactly(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) != count:
        raise ValueError("it is truncated")
    return content


# Sparse matrices


def _sparse(name: str, path: str, arrays: dict[str, StoredArray]) -> StoredArray:
    """A matrix by rows, by columns or by coordinates."""

    def vector(key: str, most: int = 0) -> np.ndarray:
        array = arrays.get(key)
        if array is None or (most and array.nbytes() > most):
            raise ValueError(f"a sparse matrix without {key}: altered")
        return array.read().ravel()

    with explained(path):
        kind = str(vector("format", _SMALL)[0])
        shape = tuple(map(int, vector("shape", _SMALL)))
        if kind not in ("csr", "csc", "coo"):
            return StoredArray(
                name, path, problem=f"a sparse matrix in the form {kind[:20]!a}, expected csr, csc "
                "or coo; save matrix.tocsr()"
            )  # fmt: skip
        data = arrays.get("data")
        if data is None or data.problem or data.is_text or len(data.shape) != 1:
            said = data.problem if data is not None and data.problem else "without numbers: altered"
            return StoredArray(name, path, problem=f"a sparse matrix {said}")
        if len(shape) != 2 or min(shape) < 0:
            raise ValueError(f"a sparse matrix of the shape {shape}")
        stored = sum(array.stored for array in arrays.values())
        for key in ("data", "indices", "indptr", "row", "col", "coords"):
            if key in arrays and max(arrays[key].shape, default=0) > most_nonzeros(stored):
                raise ValueError(f"a sparse matrix with {by(arrays[key].shape)} {key}: altered")

    def nonzeros() -> Blocks:
        values = vector("data")
        if kind == "coo":
            if "coords" in arrays:
                rows, columns = arrays["coords"].read()
            else:
                rows, columns = vector("row"), vector("col")
        else:
            along = shape[0] if kind == "csr" else shape[1]
            indices, pointers = vector("indices"), vector("indptr")
            across = expand_pointers(pointers, along, len(indices))
            rows, columns = (across, indices) if kind == "csr" else (indices, across)
        for indices in (rows, columns):
            if indices.dtype.kind not in "iu":
                raise ValueError("a sparse matrix whose indices are no integers: altered")
        yield from sparse_blocks(shape, rows, columns, values)

    return StoredArray(name, path, shape, data.dtype, stored, nonzeros, is_sparse=True)
