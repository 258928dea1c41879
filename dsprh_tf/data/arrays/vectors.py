"""Arrays of one vector per item: what counts as one, and the vectors of a file by rows."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dsprh_tf.data.arrays import names
from dsprh_tf.data.arrays.containers import list_arrays
from dsprh_tf.data.arrays.stored import StoredArray, by
from dsprh_tf.data.npy_files import map_npy

_BLOCK_BYTES = 2**24
_LAYOUT = "expected a .npy, .npz, .mat, .h5, .pt or .safetensors file of vectors, one row per item"


@dataclasses.dataclass
class Matrix:
    """An array as [rows, dimensions], before it is read.

    Attributes:
        array: as it is stored.
        shape: without axes of length 1 beyond the second.
        turned: whether it has its items along the second axis.
    """

    array: StoredArray
    shape: tuple[int, ...]
    turned: bool = False

    @property
    def rows(self) -> int:
        """Number of vectors."""
        return self.shape[1 if self.turned else 0]

    @property
    def columns(self) -> int:
        """Length of a vector."""
        return self.shape[0 if self.turned else 1]

    def read(self, out: np.ndarray) -> None:
        """Reads into float32 [rows, columns]."""
        view = out.T if self.turned else out
        self.array.read(out=view.reshape(self.array.shape))


def as_matrix(
    array: StoredArray, notes: list[str], item: str = "pair", instead: str = "--dataset=pairs"
) -> Matrix:
    """An array of one vector for each item.

    Args:
        array: as it is stored.
        notes: receives a line if the array has axes of length 1 beside the two.
        item: what a row is of, for errors.
        instead: how texts are given, for errors.

    Raises:
        ValueError: it holds no numbers, or has more or fewer than two axes; says what to save.
    """
    if array.problem:
        array.read()  # says what it is
    shape = list(array.shape)
    while len(shape) > 2 and 1 in shape:
        shape.pop(1 + shape[1:].index(1) if 1 in shape[1:] else 0)
    if len(shape) != len(array.shape):
        notes.append(f"{array.name} is {by(array.shape)}, read as {by(shape)}")
    if array.is_text:
        if array.nbytes() < 2**24:
            array.read()  # a cell array may hold something else, and says so
        raise ValueError(
            f"{array.where} holds strings, expected numbers, one vector for each {item}; encode "
            f"texts first, or give them as {instead}"
        )
    if len(shape) == 2:
        return Matrix(array, tuple(shape))
    fix = "save a matrix"
    if len(shape) == 4 and array.dtype == np.uint8 and 3 in shape:
        fix = (
            "these are pictures: give a MATLAB file of them as --dataset=mirflickr25k_mat, or "
            "save what a network computes from them"
        )
    elif len(shape) > 2:
        fix = (
            f"save one vector for each {item}, such as the mean over tokens or places, or the "
            "class token"
        )
    raise ValueError(
        f"{array.where} has shape {list(array.shape)} and type {array.dtype}, expected a "
        f"numeric matrix, one row for each {item}; {fix}"
    )


class Vectors:
    """The vectors of images or of texts in a file; of a .npy file they stay on disk.

    Attributes:
        where: how an error names the array.
        count: number of vectors.
        width: length of a vector.
        notes: printable lines on how the file was read.

    Args:
        path: a file or folder of arrays. Of several the one whose name says image or text
            (`names.meaning`) is taken.
        side: "image" or "text".
        width: length of the vectors that are needed.
        single: whether an array of one axis is one vector.

    Raises:
        ValueError: the file is missing or broken, or has no array of this width for this side.
    """

    def __init__(self, path: str | os.PathLike, side: str, width: int, single: bool = False):
        self.notes: list[str] = []
        array = _of_side(Path(path), side)
        self.where = array.where
        if names.meaning(array.name).role not in (side, ""):
            self.notes.append(f"{array.name} is read as vectors of {side}s, whatever its name says")
        if single and len(array.shape) == 1 and not array.problem and not array.is_text:
            shape: tuple[int, ...] = (1, *array.shape)
        else:
            shape = as_matrix(array, self.notes, side, f"--{side}s").shape
        self.count, self.width = shape
        if self.width != width:
            fix = "encode with the network that the model was trained on"
            if self.count == width:
                fix = "it looks transposed: save values.T"
            raise ValueError(
                f"{self.where} is {by(shape)}, expected {side} vectors of {width:,} numbers, one "
                f"row for each {side}; {fix}"
            )
        if not self.count:
            raise ValueError(f"{self.where} is {by(shape)}: there are no vectors in it")
        if array.where.endswith(".npy"):
            self._values = map_npy(array.where).reshape(shape)
        else:
            self._values = array.read(np.float32).reshape(shape)

    def take(self, rows: slice | Sequence[int]) -> np.ndarray:
        """Some of the vectors, float32 [n, width]; numbers beyond float32 are infinite."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.array(self._values[rows], np.float32)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All vectors, a moderate number at a time: the first row, and float32 [n, width]."""
        step = max(1, _BLOCK_BYTES // (4 * self.width))
        for start in range(0, self.count, step):
            yield start, self.take(slice(start, start + step))

    def problem(self, row: int) -> str:
        """An error line on a vector that is not finite."""
        return (
            f"{self.where} row {row} (counted from 0) holds NaN, infinity or a number beyond "
            "float32"
        )


def _of_side(path: Path, side: str) -> StoredArray:
    """The array of a file that holds the vectors of a side."""
    arrays = list_arrays(path, _LAYOUT)
    if len(arrays) == 1:
        return arrays[0]
    meanings = {array.name: names.meaning(array.name) for array in arrays}
    found = [array for array in arrays if meanings[array.name].role == side]
    rank = min((meanings[array.name].rank for array in found), default=0)
    best = [array for array in found if meanings[array.name].rank == rank]
    if len(best) != 1:
        listed = ", ".join(array.name[:60] for array in (best or arrays)[:8]) or "no arrays"
        raise ValueError(
            f"{path} has {listed}, expected one array of {side} vectors; name it {side}, or save "
            "it alone as .npy"
        )
    return best[0]
