"""An array in a file: known by name, shape and type before its values are read, block by block.

What a file declares is checked against what it holds before memory is reserved, so that a file of
kilobytes cannot ask for gigabytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

BLOCK = 2**24  # bytes that are read at once
# Bytes of values that packed or sparse arrays may become, unless the file itself is a fourth of it.
MOST = 5 * 2**28
_EXPANSION = 4  # float32 of a byte
TEXT = np.dtype(object)  # strings
_STRING = 100  # bytes that Python takes for a short one

Blocks = Iterator[tuple[Any, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array of a file.

    Attributes:
        name: its name in the file, or the name of the file without its ending.
        where: how an error line names it, with the file.
        shape: lengths of its axes as NumPy has them.
        dtype: the type of what is read; `TEXT` for strings.
        stored: bytes that the file has of it.
        blocks: the values as pairs of an index and what stands there, each index once.
        problem: why it cannot be read, such as "a struct with the fields a, b", and the fix.
        marked: whether MATLAB wrote it, so that the order of its axes is known.
        is_sparse: whether only its nonzero values are stored.
    """

    name: str
    where: str
    shape: tuple[int, ...] = ()
    dtype: np.dtype = TEXT
    stored: int = 0
    blocks: Callable[[], Blocks] = lambda: iter(())
    problem: str = ""
    marked: bool = False
    is_sparse: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it holds strings."""
        return self.dtype == TEXT and not self.problem

    def called(self, name: str) -> StoredArray:
        """The same array under another name."""
        return dataclasses.replace(self, name=name)

    def nbytes(self, dtype: Any = None) -> int:
        """Bytes that its values take in memory."""
        size = _STRING if self.is_text else np.dtype(dtype or self.dtype).itemsize
        return math.prod(self.shape) * size

    def read(self, dtype: Any = None, out: np.ndarray | None = None) -> np.ndarray:
        """The values.

        Args:
            dtype: the type to read them as, one that NumPy converts to.
            out: where to write them, of the same shape.

        Raises:
            ValueError: it cannot be read, or the file is damaged.
        """
        if self.problem:
            raise ValueError(f"{self.where} is {self.problem}")
        check_sizes([(self, dtype)])
        with explained(self.where), np.errstate(over="ignore", invalid="ignore"):
            if out is None:
                out = np.empty(self.shape, dtype or self.dtype)
            for index, block in self.blocks():
                out[index] = block
        return out


def check_sizes(arrays: Iterable[tuple[StoredArray, Any]]) -> None:
    """Refuses arrays that would take far more memory together than their file has on disk.

    Args:
        arrays: each with the type that it will be read as, or None for its own.

    Raises:
        ValueError: they take more than `MOST` bytes and more than four times what is stored.
    """
    arrays = list(arrays)
    total = sum(array.nbytes(dtype) for array, dtype in arrays)
    if total <= max(MOST, _EXPANSION * sum(array.stored for array, _ in arrays)):
        return
    largest, dtype = max(arrays, key=lambda pair: pair[0].nbytes(pair[1]))
    raise ValueError(
        f"{largest.where} is {by(largest.shape)}: {largest.nbytes(dtype) / 1e9:,.1f} GB in memory, "
        f"from {largest.stored:,} bytes in the file; expected at most {MOST / 1e9:.1f} GB of "
        "packed or sparse values: keep fewer columns (the most frequent words, or an SVD), or save "
        "it unpacked and dense"
    )


def most_nonzeros(stored: int) -> int:
    """Most nonzero values that a sparse matrix may have which takes so many bytes in a file."""
    return max(MOST, _EXPANSION * stored) // 40  # value, row and column, and their order


def unreadable(dtype: np.dtype) -> str:
    """Why values of a type are not read, "" where they are: numbers and strings."""
    if dtype.kind in "biufUS":
        return ""
    if dtype.kind == "c":
        return "of complex numbers, expected real ones; save their real parts or magnitudes"
    if dtype.hasobject:
        return (
            "an array of Python objects, which are a pickle and could run code: not read; save "
            "numbers, such as matrix.toarray(), or names as np.array(names, dtype=str)"
        )
    return f"of the type {dtype}, expected numbers; save them as float32"


def by(shape: Sequence[int]) -> str:
    """A shape as text, such as "6 x 4"."""
    return " x ".join(f"{length:,}" for length in shape) or "a single value"


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Turns whatever a library raises on a damaged file into a `ValueError` that names it."""
    try:
        yield
    except Exception as error:
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        if cause.startswith(where):
            raise ValueError(cause) from error
        raise ValueError(f"{where} cannot be read ({cause})") from error


def stream_blocks(
    read: Callable[[int], Any], shape: Sequence[int], dtype: np.dtype, fortran: bool
) -> Blocks:
    """Blocks of an array whose values follow each other.

    Args:
        read: the next so many bytes, no fewer.
        shape: lengths of its axes.
        dtype: type of the stored values, with their byte order.
        fortran: whether the first axis changes fastest.
    """
    if not math.prod(shape):
        return
    if not shape:
        yield (), np.frombuffer(read(dtype.itemsize), dtype)[0]
        return
    along, others = (shape[-1], shape[:-1]) if fortran else (shape[0], shape[1:])
    line = math.prod(others) * dtype.itemsize
    if line > MOST:
        raise ValueError(f"{by(shape)} values of {dtype} cannot be read in blocks")
    step = max(1, BLOCK // line)
    for begin in range(0, along, step):
        count = min(step, along - begin)
        values = np.frombuffer(read(count * line), dtype)
        at = slice(begin, begin + count)
        if fortran:
            yield (..., at), values.reshape((*others, count), order="F")
        else:
            yield (at,), values.reshape((count, *others))


def sparse_blocks(
    shape: Sequence[int], rows: np.ndarray, columns: np.ndarray, values: np.ndarray
) -> Blocks:
    """Dense blocks of a matrix that is known by its nonzero values; those of one place are added.

    Args:
        shape: of the matrix.
        rows: [Z] integers.
        columns: [Z] integers.
        values: [Z] numbers.

    Raises:
        ValueError: lengths differ, or an index is outside.
    """
    height, width = shape
    if not len(rows) == len(columns) == len(values):
        raise ValueError(
            f"{len(rows):,} rows, {len(columns):,} columns and {len(values):,} values of a sparse "
            "matrix"
        )
    for indices, length in ((rows, height), (columns, width)):
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < length:
            raise ValueError(f"an index of a sparse matrix is outside {by(shape)}")
    if not height or not width:
        return
    rows, columns = rows.astype(np.int64), columns.astype(np.int64)
    order = np.argsort(rows, kind="stable")
    rows, columns, values = rows[order], columns[order], values[order]
    step = max(1, BLOCK // (width * values.dtype.itemsize))
    for begin in range(0, height, step):
        end = min(height, begin + step)
        low, high = np.searchsorted(rows, [begin, end])
        block = np.zeros((end - begin, width), values.dtype)
        np.add.at(block, (rows[low:high] - begin, columns[low:high]), values[low:high])
        yield (slice(begin, end),), block


def expand_pointers(pointers: np.ndarray, length: int, count: int) -> np.ndarray:
    """Row of each value of a matrix by rows (or column, by columns), from where each row begins.

    Args:
        pointers: [length + 1] integers that ascend from 0 to `count`.
        length: of the compressed axis.
        count: of values.

    Raises:
        ValueError: they do not.
    """
    pointers = pointers.astype(np.int64)
    if (
        pointers.shape != (length + 1,)
        or pointers[0] != 0
        or pointers[-1] != count
        or (np.diff(pointers) < 0).any()
    ):
        raise ValueError(f"pointers of a sparse matrix do not ascend from 0 to {count:,}")
    return np.repeat(np.arange(length), np.diff(pointers))
