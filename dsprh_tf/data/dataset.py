"""The one in-memory form of a data set that every loader returns."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from dsprh_tf.data import content_groups, mat_files
from dsprh_tf.data.images import check_images

SPLIT_NAMES = ("query", "database", "train")
_ARRAYS = ("image_paths", "texts", "text_lists", "labels", "image_features", "text_features")


@dataclasses.dataclass(frozen=True, eq=False)
class PairDataset:
    """Pairs of an image and its text, with labels where there are any.

    Images stay on disk as paths; `features` data holds precomputed vectors instead. Loaders only
    fill in this class, so that splits, pipelines and evaluation need not know the source.

    Attributes:
        name: the source, such as "coco".
        ids: [N] unique strings, the same wherever the folder lies.
        image_paths: [N] strings (object dtype), files or `mat_files.picture_path`; None for
            `features`.
        texts: [N] strings (object dtype): tags or captions joined by spaces; None for `features`.
        text_lists: [N] tuples of strings (object dtype): the texts of each pair one by one, where
            some pair has several; None where `texts` says it all.
        labels: uint8 [N, L] multi-hot, or None.
        label_names: L names, () without labels.
        vocabulary: the fixed word list of the source; None if it is to be fitted on training texts.
        image_features: float32 [N, D_I], only `features`.
        text_features: float32 [N, D_T], only `features`.
        given_split: int64 indices under "query", "database" and (optionally) "train"; None if a
            split is to be drawn with a seed.
        notes: printable lines on what was read, and what was dropped and why.

    Raises:
        ValueError: lengths differ, an id occurs twice, a feature is not finite, a label is not
            0 or 1, or the given split overlaps or leaves the data.
    """

    name: str
    ids: np.ndarray
    image_paths: np.ndarray | None = None
    texts: np.ndarray | None = None
    text_lists: np.ndarray | Sequence[tuple[str, ...]] | None = None
    labels: np.ndarray | None = None
    label_names: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] | None = None
    image_features: np.ndarray | None = None
    text_features: np.ndarray | None = None
    given_split: dict[str, np.ndarray] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        self._set("ids", np.asarray(self.ids, dtype=np.str_))
        # Captions differ so much in length that fixed-width strings would take gigabytes.
        for field in ("image_paths", "texts"):
            self._set(field, _optional(getattr(self, field), object))
        self._set("text_lists", _tuples(self.text_lists))
        with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite below
            for field in ("image_features", "text_features"):
                self._set(field, _optional(getattr(self, field), np.float32))
        self._check_lengths()
        self._check_features()
        self._check_labels()
        self._check_given_split()

    def __len__(self) -> int:
        return len(self.ids)

    def fingerprint(self) -> str:
        """The sha256 (hex) of ids, texts, labels, file sizes and feature bytes.

        It does not depend on where the folder lies, so that a run moves with its data; it is
        computed once per object.

        Raises:
            ValueError: an image file has vanished.
        """
        return self._fingerprint

    def image_groups(self) -> np.ndarray:
        """The first pair with the same image, for each pair: int64 [N].

        The same are files with the same bytes, images in arrays with the same pixels, or equal
        image features; it is computed once per object.

        Raises:
            ValueError: an image file cannot be read.
        """
        return self._image_groups

    def take(self, indices: Sequence[int] | np.ndarray) -> PairDataset:
        """The pairs at `indices`, in that order, with `given_split` re-mapped to them.

        Args:
            indices: int [M], unique; or a bool mask [N].
        """
        indices = np.asarray(indices)
        if indices.dtype == bool:
            indices = np.flatnonzero(indices)
        indices = indices.astype(np.int64)
        taken: dict[str, Any] = {
            field: None if getattr(self, field) is None else getattr(self, field)[indices]
            for field in ("ids", *_ARRAYS)
        }
        given = self.given_split
        if given is not None:
            position = np.full(len(self), -1, np.int64)
            position[indices] = np.arange(len(indices))
            given = {key: position[old][position[old] >= 0] for key, old in given.items()}
        return dataclasses.replace(self, given_split=given, **taken)

    def drop_bad_images(
        self, on_bad_image: str = "error", where: Sequence[str] | None = None
    ) -> PairDataset:
        """The pairs whose image files can be read.

        Args:
            on_bad_image: "error" refuses the first bad file, "skip" leaves bad ones out, counts
                them and lists them in `notes`.
            where: a label for each row, such as "manifest.csv row 17".

        Raises:
            ValueError: a bad file under "error"; no readable file at all; an unknown value.
        """
        paths = () if self.image_paths is None else self.image_paths.tolist()
        keep, problems, notes = check_images(paths, on_bad_image, where)
        if keep.all():
            return dataclasses.replace(self, notes=(*self.notes, *notes)) if notes else self
        if not keep.any():
            raise ValueError(
                f"{self.name}: none of the {len(self):,} images can be read; first: {problems[0]}"
            )
        note = f"dropped {len(problems):,} of {len(self):,} pairs for a bad image:"
        notes = [*self.notes, *notes, note, *problems]
        return dataclasses.replace(self.take(keep), notes=tuple(notes))

    def _set(self, field, value):
        object.__setattr__(self, field, value)

    @cached_property
    def _image_groups(self) -> np.ndarray:
        if self.image_features is not None:
            return content_groups.equal_rows(self.image_features)
        return content_groups.equal_files(() if self.image_paths is None else self.image_paths)

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()

        def add(kind: str, content: bytes):
            # Kind and length stand before the bytes, so that no two data sets run together.
            digest.update(f"{kind}:{len(content)}:".encode())
            digest.update(content)

        add("ids", "\0".join(self.ids.tolist()).encode())
        if self.texts is not None:
            add("texts", "\0".join(self.texts.tolist()).encode("utf-8", "surrogatepass"))
        if self.labels is not None:
            add(f"labels{self.labels.shape}", self.labels.tobytes())
        if self.image_paths is not None:
            add("sizes", np.array([_file_size(path) for path in self.image_paths]).tobytes())
        for field in ("image_features", "text_features"):
            features = getattr(self, field)
            if features is not None:
                add(f"{field}{features.shape}", features.tobytes())
        return digest.hexdigest()

    def _check_lengths(self):
        if not len(self.ids):
            raise ValueError(f"{self.name}: no pair is left; check the data folder")
        if (self.image_paths is None) == (self.image_features is None):
            raise ValueError(f"{self.name}: expected either image_paths or image_features")
        if (self.texts is None) == (self.text_features is None):
            raise ValueError(f"{self.name}: expected either texts or text_features")
        if self.texts is None and self.text_lists is not None:
            raise ValueError(f"{self.name}: got text_lists without texts, expected both")
        for field in _ARRAYS:
            value = getattr(self, field)
            if value is not None and len(value) != len(self):
                raise ValueError(
                    f"{self.name}: {field} has {len(value):,} rows, expected {len(self):,}, one "
                    "for each id"
                )
        unique, counts = np.unique(self.ids, return_counts=True)
        if len(unique) != len(self):
            most = counts.argmax()
            raise ValueError(
                f"{self.name}: id {str(unique[most])!r} occurs {counts[most]} times, "
                "expected unique ids; rename or drop the repeated items"
            )

    def _check_features(self):
        for field in ("image_features", "text_features"):
            features = getattr(self, field)
            if features is None:
                continue
            if features.ndim != 2 or not features.shape[1]:
                raise ValueError(
                    f"{self.name}: {field} has shape {features.shape}, expected [pairs, dimensions]"
                )
            bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
            if len(bad):
                raise ValueError(
                    f"{self.name}: {field} row {bad[0]} (counted from 0) holds NaN or infinity, as "
                    f"do {len(bad) - 1:,} more rows; expected finite float32, so drop or repair "
                    "these rows"
                )

    def _check_labels(self):
        if self.labels is None:
            if self.label_names:
                raise ValueError(f"{self.name}: {len(self.label_names)} label_names but no labels")
            return
        labels = np.asarray(self.labels)
        if labels.ndim != 2 or labels.shape[1] != len(self.label_names):
            raise ValueError(
                f"{self.name}: labels have shape {labels.shape}, expected a multi-hot "
                f"[{len(self):,}, {len(self.label_names)}], one column for each label name"
            )
        bad = np.flatnonzero(~((labels == 0) | (labels == 1)).all(axis=1))
        if len(bad):
            raise ValueError(
                f"{self.name}: labels row {bad[0]} (counted from 0) holds a value other than 0 and "
                "1; store labels as a multi-hot matrix, one column for each label"
            )
        self._set("labels", labels.astype(np.uint8))

    def _check_given_split(self):
        if self.given_split is None:
            return
        given = {key: np.asarray(value, np.int64) for key, value in self.given_split.items()}
        self._set("given_split", given)
        if not {"query", "database"} <= set(given) <= set(SPLIT_NAMES):
            raise ValueError(
                f"{self.name}: the given split has the parts {', '.join(given) or 'none'}, "
                "expected query, database and perhaps train"
            )
        for key, indices in given.items():
            if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
                raise ValueError(f"{self.name}: the given {key} part points outside the data")
            if not len(indices):
                raise ValueError(f"{self.name}: the given {key} part is empty; add pairs to it")
            if len(np.unique(indices)) != len(indices):
                raise ValueError(
                    f"{self.name}: the given {key} part names a pair twice; list each pair once"
                )
        both = np.intersect1d(given["query"], given["database"])
        if len(both):
            raise ValueError(
                f"{self.name}: {len(both):,} pairs are both query and database, first "
                f"{str(self.ids[both[0]])!r}; each pair belongs to one of them"
            )
        outside = np.setdiff1d(given.get("train", given["database"]), given["database"])
        if len(outside):
            raise ValueError(
                f"{self.name}: {len(outside):,} training pairs are not in the database, first "
                f"{str(self.ids[outside[0]])!r}; add them to the database"
            )


def _optional(value, dtype):
    return None if value is None else np.asarray(value, dtype=dtype)


def _tuples(value) -> np.ndarray | None:
    """Tuples as an array of objects: NumPy would make a matrix of those of one length."""
    if value is None:
        return None
    array = np.empty(len(value), object)
    for row, texts in enumerate(value):
        array[row] = tuple(texts)
    return array


def _file_size(path: str) -> int:
    try:
        if mat_files.is_picture(path):
            return mat_files.picture_mark(path)
        return os.stat(path).st_size
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise ValueError(
            f"image {path} cannot be read ({cause}); restore it or load the data again"
        ) from error
