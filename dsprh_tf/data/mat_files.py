"""Arrays in MATLAB files, and the images in such an array, each under a path of its own.

MATLAB 7.3 files are HDF5: an image is read alone, from an array that never enters memory.
MATLAB 5 files can only be read whole: their array is kept once for the process.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
import zlib
from collections.abc import Sequence

import numpy as np

from dsprh_tf.data.arrays import hdf5
from dsprh_tf.data.arrays.containers import list_matlab
from dsprh_tf.data.arrays.hdf5 import is_hdf5
from dsprh_tf.data.arrays.stored import StoredArray

# One image in so many enters the fingerprint of an array by its pixels, the others by the size of
# the file: arrays of several gigabytes are told apart without reading them.
CHECKSUM_EVERY = 256

_OPENING = threading.Lock()
_KEPT = 4  # files


def array_names(file: str | os.PathLike) -> list[str]:
    """The names in a MATLAB file, in alphabetical order; only the listing is read."""
    return sorted(array.name for array in list_matlab(file))


def array_type(file: str | os.PathLike, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array; no values of an HDF5 file are read.

    The axes of an array in HDF5 are in the file's order: MATLAB's are reversed there.

    Raises:
        OSError, ValueError and others of h5py's: no such array, or a broken file.
    """
    array = _kept(file, key)
    return array if isinstance(array, tuple) else (array.shape, array.dtype)


def read_array(file: str | os.PathLike, key: str) -> np.ndarray:
    """A whole array, a sparse one as a full one; axes and errors as in `array_type`."""
    found = _named(file, key)
    array = found.read()
    in_order = found.marked and not found.is_sparse
    return array.T if in_order and is_hdf5(file) else array


def _named(file: str | os.PathLike, key: str) -> StoredArray:
    found = [array for array in list_matlab(file) if array.name == key]
    if not found:
        raise ValueError(f"{key} is missing")
    return found[0]


def _kept(file: str | os.PathLike, key: str):
    """The part of a file that is kept until it changes: shape and type, or a MATLAB 5 array."""
    file = os.path.abspath(file)
    found = os.stat(file)
    with _OPENING:  # one thread reads the array, the others wait for it
        return _kept_of(file, key, found.st_mtime_ns, found.st_size)


@functools.lru_cache(_KEPT)
def _kept_of(file: str, key: str, changed: int, size: int):
    if not is_hdf5(file):
        return read_array(file, key)
    array = _named(file, key)
    if array.is_sparse or array.is_text or array.problem:
        raise ValueError(f"{array.where} is {array.problem or 'not a full array'}")
    return array.shape[::-1] if array.marked else array.shape, array.dtype


def made_by_matlab(file: str | os.PathLike, key: str) -> bool:
    """Whether MATLAB wrote this HDF5 array: it marks its files and each array in them."""
    with open(file, "rb") as stream:
        if stream.read(10) == b"MATLAB 7.3":
            return True
    return _named(file, key).marked


def picture_path(file: str | os.PathLike, key: str, axes: str, index: int) -> str:
    """The path of one image within an array: FILE::KEY::AXES::INDEX.

    It holds all that is needed to read the image, so that it is handed on like any path.

    Args:
        file: the MATLAB file.
        key: the name of its 4-dimensional array.
        axes: what the axes of the array are, in their order: N images, C colours, W and H.
        index: of the image along N, from 0.
    """
    return f"{os.fspath(file)}::{key}::{axes}::{index}"


def is_picture(path: str | os.PathLike) -> bool:
    """Whether this is a path of `picture_path`, not one of a file."""
    return _parts(path) is not None


def check_picture(path: str | os.PathLike) -> None:
    """Finds the image, without reading pixels of an HDF5 file.

    Raises:
        ValueError: the array has no such image; and as `array_type`.
    """
    file, key, axes, index = _picture_parts(path)
    shape, _ = array_type(file, key)
    if len(shape) != len(axes) or index >= shape[axes.index("N")]:
        raise ValueError(f"{key} is {' x '.join(map(str, shape))}, without image {index}")


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """An image of an array: uint8 [height, width, 3]; raises as `check_picture` does."""
    check_picture(path)
    file, key, axes, index = _picture_parts(path)
    at = tuple(index if axis == "N" else slice(None) for axis in axes)
    array = _kept(file, key)
    picture = hdf5.read_part(file, key, at) if isinstance(array, tuple) else array[at]
    axes = axes.replace("N", "")
    return np.array(picture.transpose([axes.index(axis) for axis in "HWC"]), order="C")


def picture_lines(paths: Sequence[str]) -> list[bytes]:
    """The values of a line in the middle of each image, of which many are read at once.

    Equal images have equal lines, and few others have. Raises as `read_picture` does.

    Args:
        paths: [N] of `picture_path`; those of one array stand together, for speed also by index.
    """
    lines: list[bytes] = []
    parts = map(_picture_parts, paths)
    for (file, key, axes), run in itertools.groupby(parts, lambda part: part[:3]):
        indices = [index for _, _, _, index in run]
        low, high = min(indices), max(indices)
        (shape, _), array = array_type(file, key), _kept(file, key)
        at: list[int | slice] = [slice(None)] * 4
        at[axes.index("N")] = slice(low, high + 1)
        at[axes.index("H")] = shape[axes.index("H")] // 2
        found = hdf5.read_part(file, key, at) if isinstance(array, tuple) else array[tuple(at)]
        found = np.moveaxis(found, axes.replace("H", "").index("N"), 0)
        lines += [found[index - low].tobytes() for index in indices]
    return lines


def picture_mark(path: str | os.PathLike) -> int:
    """A number that most likely differs once the file holds other images.

    For every `CHECKSUM_EVERY`-th image the CRC-32 of its pixels, else the size of the file.
    """
    file, _, _, index = _picture_parts(path)
    if index % CHECKSUM_EVERY:
        return os.stat(file).st_size
    return zlib.crc32(read_picture(path).data)


def _parts(path: str | os.PathLike) -> tuple[str, str, str, int] | None:
    parts = os.fspath(path).rsplit("::", 3)
    if len(parts) != 4 or sorted(parts[2]) != list("CHNW") or not parts[3].isdecimal():
        return None
    return parts[0], parts[1], parts[2], int(parts[3])


def _picture_parts(path: str | os.PathLike) -> tuple[str, str, str, int]:
    parts = _parts(path)
    if parts is None:
        raise ValueError(f"{os.fspath(path)} names no image of an array")
    return parts
