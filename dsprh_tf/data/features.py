"""A user's own precomputed embeddings of images and texts."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dsprh_tf.data.arrays import label_matrix, names
from dsprh_tf.data.arrays.containers import list_arrays
from dsprh_tf.data.arrays.stored import StoredArray, by, check_sizes
from dsprh_tf.data.arrays.vectors import Matrix, as_matrix
from dsprh_tf.data.dataset import PairDataset

_LAYOUT = (
    "expected a .npz, .mat, .h5, .pt or .safetensors file with the arrays image [N, D], text "
    "[N, D] and perhaps labels [N, L], or a folder with image.npy, text.npy and perhaps labels.npy"
)


def load_features(path: str | os.PathLike) -> PairDataset:
    """Precomputed vectors (CLIP, SigLIP, VGG, ...) instead of images and texts.

    Arrays are named image, text and labels, or as the field's files name them (`names.meaning`):
    IAll / TAll / LAll, I_tr / I_te / I_db, XTrain / YTest, train_txt, .... Files with a part for
    queries and one for training or the database hold a split, which is used. Labels are a multi-hot
    matrix, class indices or names (`label_matrix.understand`). Vectors may be sparse. The ids are
    row numbers, with their part where the file holds a split. What was understood is in `notes`.

    Args:
        path: an .npz, .mat (MATLAB 4 to 7.3), .h5, .pt or .safetensors file; or a folder with
            image.npy, text.npy and perhaps labels.npy, or files of the other formats.

    Returns:
        Pairs with `image_features` float32 [N, D_I] and `text_features` float32 [N, D_T].

    Raises:
        ValueError: the file is missing, broken, or of a format that could run code; shapes do not
            fit; a value is not finite (the first such row is named, counted from 0); labels are
            counts or probabilities.
    """
    path = Path(path)
    assigned = names.assign(path, list_arrays(path, _LAYOUT), _LAYOUT)
    parts = [_Part(path, name, arrays) for name, arrays in assigned.parts.items()]
    check_sizes((matrix.array, dtype) for part in parts for matrix, dtype in part.matrices.values())
    count = sum(part.count for part in parts)
    features = {role: _features(path, parts, role) for role in ("image", "text")}
    labels = _labels(path, parts)
    notes = [*assigned.notes, *(note for part in parts for note in part.notes)]
    kept, given, split_notes = _given_split(parts, features)
    if len(kept) < count:  # as a view where the first ones are kept: no second copy in memory
        first = kept[-1] == len(kept) - 1
        features = {r: v[: len(kept)] if first else v[kept] for r, v in features.items()}
    count = len(kept)
    notes += split_notes
    notes += [
        f"{zeros:,} of {count:,} pairs have {'an' if role == 'image' else 'a'} {role} of zeros"
        for role, values in features.items()
        if (zeros := int(np.sum(~values.any(axis=1))))
    ]
    width = "no" if labels is None else len(labels.names)
    try:
        return PairDataset(
            name="features",
            ids=np.array([name for part in parts for name in part.ids])[kept],
            image_features=features["image"],
            text_features=features["text"],
            labels=None if labels is None else labels.matrix[kept],
            label_names=() if labels is None else labels.names,
            given_split=given,
            notes=(
                f"{count:,} pairs in {path.name}: image {features['image'].shape[1]}-D, text "
                f"{features['text'].shape[1]}-D, {width} labels",
                *notes,
                *(labels.notes if labels is not None else ()),
            ),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class _Part:
    """The arrays of all pairs, or of the part "query", "database" or "train".

    Attributes:
        name: the part, "" for all.
        count: of pairs.
        matrices: role -> matrix, and the type it is read as; None for its own.
        notes: printable lines on its shapes.
    """

    def __init__(self, path: Path, name: str, arrays: dict[str, StoredArray]):
        self.name = name
        self.notes: list[str] = []
        image, text = (as_matrix(arrays[role], self.notes) for role in ("image", "text"))
        if image.rows != text.rows:
            # As many columns may be as many pairs, or vectors of one length, as CLIP's are: the
            # labels tell.
            shape = arrays["labels"].shape if "labels" in arrays else ()
            rows = {image.rows, text.rows}
            if image.columns != text.columns or image.columns not in shape or rows & set(shape):
                raise ValueError(
                    f"{path}: {image.array.name} is {list(image.shape)} and {text.array.name} is "
                    f"{list(text.shape)}, expected as many rows in both, one for each pair"
                )
            image.turned = text.turned = True
            self.notes.append(
                f"{image.array.name} is {by(image.shape)} and {text.array.name} {by(text.shape)}: "
                "both were transposed, a column for each pair"
            )
        self.count = image.rows
        self.matrices: dict[str, tuple[Matrix, type | None]] = {
            "image": (image, np.float32),
            "text": (text, np.float32),
        }
        if "labels" in arrays:
            array = arrays["labels"]
            if array.problem:
                array.read()
            if self.count not in array.shape and math.prod(array.shape) != self.count:
                raise ValueError(
                    f"{path}: {array.name} are {list(array.shape)}, expected [{self.count}, L], "
                    "one row for each pair and one 0/1 column for each label"
                )
            self.matrices["labels"] = (Matrix(array, array.shape), None)

    @property
    def ids(self) -> list[str]:
        return [f"{self.name}-{row}" if self.name else str(row) for row in range(self.count)]


def _features(path: Path, parts: list[_Part], role: str) -> np.ndarray:
    """float32 [N, D] of all parts."""
    matrices = [part.matrices[role][0] for part in parts]
    first = matrices[0]
    for matrix in matrices:
        if matrix.columns != first.columns:
            raise ValueError(
                f"{path}: {first.array.name} is {first.columns:,}-D and {matrix.array.name} "
                f"{matrix.columns:,}-D, expected vectors of one length in all parts"
            )
    features = np.empty((sum(matrix.rows for matrix in matrices), first.columns), np.float32)
    start = 0
    for matrix in matrices:
        values = features[start : start + matrix.rows]
        matrix.read(values)
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            line = "column" if matrix.turned else "row"
            raise ValueError(
                f"{matrix.array.where} {line} {bad[0]} (counted from 0) holds NaN, infinity or a "
                f"number beyond float32, as do {len(bad) - 1:,} more; drop or repair these pairs"
            )
        start += matrix.rows
    return features


def _labels(path: Path, parts: list[_Part]) -> label_matrix.LabelMatrix | None:
    """The labels of all parts, understood together."""
    if "labels" not in parts[0].matrices:
        return None
    arrays, notes, places = [], [], []
    for part in parts:
        array = part.matrices["labels"][0].array
        try:
            values, said = label_matrix.along_pairs(array.read(), part.count, array.name)
        except ValueError as error:
            raise ValueError(
                str(error) if str(path) in str(error) else f"{path}: {error}"
            ) from error
        arrays.append(values)
        notes += said
        places.append((array, part.count))
    if len({(array.ndim, *array.shape[1:], array.dtype == object) for array in arrays}) > 1:
        shapes = ", ".join(f"{a.name} {list(v.shape)}" for (a, _), v in zip(places, arrays))
        raise ValueError(f"{path}: labels are {shapes}, expected the same columns in all parts")
    labels = label_matrix.understand(np.concatenate(arrays), _all_names(places), _where(places))
    return labels._replace(notes=[*notes, *labels.notes])


def _all_names(places: list[tuple[StoredArray, int]]) -> str:
    return ", ".join(array.name for array, _ in places)


def _where(places: list[tuple[StoredArray, int]]) -> Callable[[int], str]:
    """How an error names a row of several arrays one below the other."""

    def where(row: int) -> str:
        for array, count in places:
            if row < count:
                return f"{array.where} row {row} (counted from 0)"
            row -= count
        return places[-1][0].where

    return where


def _given_split(
    parts: list[_Part], features: dict[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray] | None, list[str]]:
    """Rows to keep, the split of the file as indices of these, and lines on it.

    The parts stand one below the other. Training pairs that are in the database are kept once.
    """
    count = sum(part.count for part in parts)
    rows = np.arange(count)
    if len(parts) == 1:
        return rows, None, []
    ends = np.cumsum([part.count for part in parts])
    of = {part.name: rows[end - part.count : end] for part, end in zip(parts, ends)}
    said = [f"{len(of['query']):,} queries ({_named(parts, 'query')})"]
    if len(parts) == 2:
        which = "database" if "database" in of else "train"
        database = of[which]
        given = {"query": of["query"], "database": database}
        said.append(f"{len(database):,} in the database ({_named(parts, which)})")
        said.append("which are the training pairs, too")
        return rows, given, [f"the file's own split: {', '.join(said)}"]
    train, fresh = _found(of["train"], of["database"], features)
    kept = np.concatenate([of["query"], of["database"], fresh])
    position = np.full(count, -1)
    position[kept] = np.arange(len(kept))
    given = {
        "query": position[of["query"]],
        "database": position[np.concatenate([of["database"], fresh])],
        "train": position[train],
    }
    said.append(f"{len(of['database']):,} in the database ({_named(parts, 'database')})")
    said.append(f"{len(train):,} training pairs ({_named(parts, 'train')})")
    where = f"{len(train) - len(fresh):,} of them found in the database by their values"
    if len(fresh):
        where += f", {len(fresh):,} added to it"
    return kept, given, [f"the file's own split: {', '.join(said)}, {where}"]


def _named(parts: list[_Part], name: str) -> str:
    part = next(part for part in parts if part.name == name)
    return ", ".join(matrix.array.name for matrix, _ in part.matrices.values())


def _found(
    train: np.ndarray, database: np.ndarray, features: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the training pairs, in the database where it has their vectors; and the others."""

    def key(row: int) -> bytes:
        return b"".join(values[row].tobytes() for values in features.values())

    places: dict[int, list[int]] = {}
    for row in database[::-1]:
        places.setdefault(hash(key(row)), []).append(row)
    rows, fresh = [], []
    for row in train:
        there = places.get(hash(key(row)), [])
        found = there.pop() if there and key(there[-1]) == key(row) else row
        rows.append(found)
        if found == row:
            fresh.append(row)
    return np.array(rows, np.int64), np.array(fresh, np.int64)
