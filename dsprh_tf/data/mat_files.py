"""Arrays in MATLAB files, and the images in such an array, each under a path of its own.

MATLAB 7.3 files are HDF5: an image is read alone, from an array that never enters memory.
MATLAB 5 files can only be read whole: their array is kept once for the process.
"""

from __future__ import annotations

import functools
import os
import threading
import zlib

import h5py
import numpy as np
import scipy.io
import scipy.sparse

# One image in so many enters the fingerprint of an array by its pixels, the others by the size of
# the file: arrays of several gigabytes are told apart without reading them.
CHECKSUM_EVERY = 256

_OPENING = threading.Lock()
_KEPT = 4  # files


def is_hdf5(file: str | os.PathLike) -> bool:
    """Whether a file is of MATLAB 7.3 (HDF5); otherwise it may be of MATLAB 5."""
    return h5py.is_hdf5(file)


def array_names(file: str | os.PathLike) -> list[str]:
    """The names in a MATLAB file, in alphabetical order; only the listing is read."""
    if is_hdf5(file):
        with h5py.File(file, "r") as content:
            return sorted(name for name in content if not name.startswith("#"))
    with open(file, "rb") as stream:
        return sorted(name for name, _, _ in scipy.io.whosmat(stream))


def array_type(file: str | os.PathLike, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array; no values of an HDF5 file are read.

    Raises:
        OSError, ValueError and others of h5py's and SciPy's: no such array, or a broken file.
    """
    array = _kept(file, key)
    return array if isinstance(array, tuple) else (array.shape, array.dtype)


def read_array(file: str | os.PathLike, key: str, at=()) -> np.ndarray:
    """An array or a slice of it, by any number of threads at once; raises as `array_type`.

    HDF5 files are opened for each call, which takes half a millisecond: no open file is left that
    other threads would have to share, and files can be replaced. A MATLAB 5 array is read whole,
    and is not kept.
    """
    if is_hdf5(file):
        with h5py.File(file, "r") as content:
            return np.asarray(_dataset(content, key)[at])
    with open(file, "rb") as stream:  # SciPy leaves a broken file open that it opened itself
        content = scipy.io.loadmat(stream, variable_names=[key])
    if key not in content:
        raise ValueError(f"{key} is missing")
    array = content[key]
    return (array.toarray() if scipy.sparse.issparse(array) else np.asarray(array))[at]


def _dataset(content: h5py.File, key: str) -> h5py.Dataset:
    array = content.get(key)
    if not isinstance(array, h5py.Dataset):  # a sparse matrix, struct or cell is a group
        raise ValueError(f"{key} is missing or not a full array")
    return array


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
    with h5py.File(file, "r") as content:
        array = _dataset(content, key)
        return array.shape, array.dtype


def made_by_matlab(file: str | os.PathLike, key: str) -> bool:
    """Whether MATLAB wrote this HDF5 array: it marks its files and each array in them."""
    with open(file, "rb") as stream:
        if stream.read(10) == b"MATLAB 7.3":
            return True
    with h5py.File(file, "r") as content:
        return "MATLAB_class" in _dataset(content, key).attrs


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
    picture = read_array(file, key, at) if isinstance(array, tuple) else array[at]
    axes = axes.replace("N", "")
    return np.array(picture.transpose([axes.index(axis) for axis in "HWC"]), order="C")


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
