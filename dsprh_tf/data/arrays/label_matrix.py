"""What an array of labels means: a multi-hot matrix, class indices, names.

One number can mean several things, so that an array is read as a whole, and what was understood is
said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dsprh_tf.data.arrays.stored import MOST, by
from dsprh_tf.data.label_lists import read_labels

_FIX = "save 0 and 1, one column for each label"


class LabelMatrix(NamedTuple):
    """Labels of all pairs.

    Attributes:
        matrix: uint8 [N, L] of 0 and 1.
        names: L names.
        notes: printable lines on what was understood.
    """

    matrix: np.ndarray
    names: tuple[str, ...]
    notes: list[str]


def along_pairs(array: np.ndarray, count: int, name: str) -> tuple[np.ndarray, list[str]]:
    """An array of labels with the pairs along its first axis, and a line where it was turned.

    Args:
        array: of any shape.
        count: N, the number of pairs.
        name: how an error line names it.

    Returns:
        [N] or [N, K].

    Raises:
        ValueError: no axis has the length N, or there are more than two axes.
    """
    shape = array.shape
    if array.ndim > 2:  # [N, 1, L], [N, L, 1]
        array = array.reshape([n for axis, n in enumerate(shape) if n != 1 or axis == 0])
    if array.ndim == 2 and 1 in array.shape and array.size == count:
        return array.ravel(), []
    if array.ndim in (1, 2) and len(array) == count:
        return array, []
    if array.ndim == 2 and array.shape[1] == count:
        return array.T, [f"{name} is {by(shape)}, read as {by(array.shape[::-1])}: transposed"]
    raise ValueError(
        f"{name} are {list(shape)}, expected [{count}, L], one row for each pair and one 0/1 "
        "column for each label"
    )


def understand(array: np.ndarray, name: str, where: Callable[[int], str]) -> LabelMatrix:
    """The labels that an array means.

    - [N, L] of 0 and 1 (or True and False) is multi-hot, with the names "0", "1", ...
    - [N, L] of -1 and 1 is, too: -1 is read as 0.
    - [N] whole numbers are class indices, -1 none.
    - [N] strings are names, several to a string where they are separated; [N, K] strings are names
      and empty places.

    Args:
        array: [N] or [N, K] of numbers or (dtype object) strings.
        name: how a note names it.
        where: how an error line names a row, with the file.

    Raises:
        ValueError: it holds NaN, probabilities, counts, or something else.
    """
    count = len(array)
    if array.dtype == object:
        read = _names(array, where)
    elif array.ndim == 1:
        read = _classes(array, name, where)
    else:
        read = multi_hot(array, name, where)
    empty = int(np.sum(~read.matrix.any(axis=1))) if count else 0
    if empty:
        read.notes.append(
            f"{empty:,} of {count:,} pairs have no label, so nothing is relevant to them"
        )
    return read


def _names(array: np.ndarray, where: Callable[[int], str]) -> LabelMatrix:
    column = array.tolist()
    if array.ndim == 2:
        column = [[text for text in row if text.strip()] for row in column]
    labels = read_labels(column, where)
    _check_width(len(array), len(labels.names), where)
    position = {name: at for at, name in enumerate(labels.names)}
    matrix = np.zeros((len(array), len(labels.names)), np.uint8)
    for row, found in enumerate(labels.lists):
        matrix[row, [position[label] for label in found]] = 1
    if not labels.names:
        raise ValueError(f"{where(0)} and all others hold no label; leave the array out")
    return LabelMatrix(matrix, labels.names, list(labels.notes))


def _classes(array: np.ndarray, name: str, where: Callable[[int], str]) -> LabelMatrix:
    """One-hot of whole numbers."""
    if array.dtype == bool:
        array = array.astype(np.uint8)
    _check_finite(array, where)
    bad = np.flatnonzero(array != np.round(array))
    if len(bad):
        raise ValueError(
            f"{where(bad[0])} holds {array[bad[0]]:g}, one number for each pair, expected a class "
            f"index (a whole number); {_FIX}"
        )
    classes, column = np.unique(array, return_inverse=True)
    column = column.reshape(-1)
    none = len(classes) > 1 and classes[0] == -1
    if classes[0] < (-1 if none else 0):
        row = int(np.argmin(array))
        raise ValueError(f"{where(row)} holds {array[row]:g}, expected a class index; {_FIX}")
    _check_width(len(array), len(classes), where)
    matrix: np.ndarray = np.zeros((len(array), len(classes)), np.uint8)
    matrix[np.arange(len(array)), column] = 1
    names = tuple(str(int(value)) for value in classes)
    note = f"{name}: one whole number for each pair, read as class indices "
    if none:
        matrix, names = matrix[:, 1:], names[1:]
    note += f"{names[0]} to {names[-1]}, {len(names):,} classes"
    return LabelMatrix(matrix, names, [note + (", -1 as no label" if none else "")])


def multi_hot(array: np.ndarray, name: str, where: Callable[[int], str]) -> LabelMatrix:
    """Columns of 0 and 1 (or -1 and 1), of labels or of tags.

    Args:
        array: [N, K] of numbers.
        name: as in `understand`.
        where: as in `understand`.

    Raises:
        ValueError: it holds something else.
    """
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{where(0)} is of type {array.dtype}, expected numbers 0 and 1; {_FIX}")
    names = tuple(map(str, range(array.shape[1])))
    wrong = ((array != 0) & (array != 1)).any(axis=1)
    if not wrong.any():
        return LabelMatrix(array.astype(np.uint8), names, [])
    _check_finite(array, where)
    if np.isin(array, (-1, 1)).all():
        note = f"{name}: values -1 and 1, of which -1 was read as 0"
        return LabelMatrix((array == 1).astype(np.uint8), names, [note])
    row = int(np.flatnonzero(wrong)[0])
    values = array[row]
    value = values[(values != 0) & (values != 1)][0]
    more = f"{value:g}, as do {int(wrong.sum()) - 1:,} more"
    if np.isin(array, (-1, 0, 1)).all():
        what = "-1, 0 and 1 together: 0 may be unknown or no label"
        fix = "save (labels == 1)"
    elif (array != np.round(array)).any():
        what, fix = "a probability or score", "choose a threshold, such as (labels > 0.5)"
    elif array.max() == 255 and np.isin(array, (0, 255)).all():
        what, fix = "255 for 1", "save (labels > 0)"
    else:
        what, fix = "a count or a class index", f"save (labels > 0) of counts, or {_FIX[5:]}"
    raise ValueError(f"{where(row)} holds {more}: {what}, expected only 0 and 1; {fix}")


def _check_finite(array: np.ndarray, where: Callable[[int], str]) -> None:
    if array.dtype.kind != "f":
        return
    bad = ~np.isfinite(array)
    rows = np.flatnonzero(bad.any(axis=1) if array.ndim == 2 else bad)
    if len(rows):
        raise ValueError(
            f"{where(rows[0])} holds NaN or infinity, as do {len(rows) - 1:,} more, expected only "
            "0 and 1; write 0 where there is no label, or drop these rows"
        )


def _check_width(count: int, width: int, where: Callable[[int], str]) -> None:
    if count * width > MOST:
        raise ValueError(
            f"{where(0)} and the others hold {width:,} different labels of {count:,} pairs: ids, "
            f"not labels; {_FIX}"
        )
