"""Arrays in NumPy's files, `.npy` and `.npz`: checked before memory is reserved for them.

`np.load` reads a header as Python and fails in a dozen ways where it is broken; it reserves what a
header declares, whatever the file holds; and arrays of objects are pickles, which run code.
"""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np

from dsprh_tf.data.arrays.stored import explained
from dsprh_tf.data.files import require_regular

_PACKED = 200  # most bytes that one byte of an archive may stand for, beyond `_SMALL`
_SMALL = 2**28


class Header(NamedTuple):
    """What a file says of its array.

    Attributes:
        shape: lengths of its axes.
        fortran: whether the first axis changes fastest.
        dtype: type of the values.
        start: position of the first value in the file.
    """

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes of the values, a Python integer."""
        return math.prod(self.shape) * self.dtype.itemsize


def map_npy(path: str | os.PathLike) -> np.ndarray:
    """The array of a .npy file, memory-mapped for reading.

    Raises:
        ValueError: it is missing, no file, of another kind, truncated, or holds Python objects.
    """
    require_regular(path)
    with explained(os.fspath(path)), open(path, "rb") as stream:
        header = _header(stream, os.fstat(stream.fileno()).st_size)
        if not header.nbytes:
            return _read(header, stream)
        order: Any = "F" if header.fortran else "C"
        return np.memmap(stream, header.dtype, "r", header.start, header.shape, order)


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name, in the file's order; raises as `map_npy`."""
    require_regular(path)
    with explained(os.fspath(path)), open(path, "rb") as raw, zipfile.ZipFile(raw) as archive:
        return dict(_members(archive))


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[str, np.ndarray]]:
    seen = set()
    for entry in archive.infolist():
        name = entry.filename[:-4] if entry.filename.endswith(".npy") else entry.filename
        if name in seen:
            raise ValueError(f"it has {name!r} twice")
        seen.add(name)
        if entry.file_size > max(_SMALL, _PACKED * entry.compress_size):
            raise ValueError(
                f"{name!r} is packed to {entry.compress_size:,} bytes and declares "
                f"{entry.file_size:,}"
            )
        try:
            with archive.open(entry) as stream:
                header = _header(stream, entry.file_size)
                yield name, _read(header, stream)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error


def _header(stream: IO[bytes], size: int) -> Header:
    """As `read_header`, of an array without Python objects."""
    header = read_header(stream, size)
    if header.dtype.hasobject:
        raise ValueError("it holds Python objects, which would run code; save numbers instead")
    return header


def read_header(stream: IO[bytes], size: int) -> Header:
    """Reads a .npy file up to its first value, also where the values are Python objects.

    Args:
        stream: the file, at its beginning.
        size: bytes of the whole file.

    Raises:
        Exception: of many kinds, where the file is no .npy file or is not as its header says.
    """
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the format, expected 1.0 or 2.0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        try:
            shape, fortran, dtype = readers[version](stream)
        except (MemoryError, RecursionError):  # of Python's parser, not of any array
            raise ValueError("its header is nested too deeply") from None
    if any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"its shape is {shape}")
    header = Header(shape, fortran, dtype, stream.tell())
    left = size - header.start
    if dtype.hasobject:  # a pickle of any length
        return header
    if not dtype.itemsize or header.nbytes != left:
        raise ValueError(
            f"its header says {'x'.join(map(str, shape)) or 'one'} values of {dtype}, "
            f"{header.nbytes:,} bytes, and {left:,} follow: truncated or altered"
        )
    return header


def _read(header: Header, stream: IO[bytes]) -> np.ndarray:
    content = np.empty(header.nbytes, np.uint8)
    view, at = memoryview(content.data), 0
    while at < len(view):
        count = stream.readinto(view[at:])  # type: ignore[attr-defined]
        if not count:
            raise ValueError("it is truncated")
        at += count
    order: Any = "F" if header.fortran else "C"
    return content.view(header.dtype).reshape(header.shape, order=order)
