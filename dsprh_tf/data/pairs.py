"""A user's own pairs, listed in a manifest: CSV, JSON Lines or Parquet."""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from dsprh_tf.data import cells, columns
from dsprh_tf.data.dataset import SPLIT_NAMES, PairDataset
from dsprh_tf.data.files import require_folder
from dsprh_tf.data.label_lists import read_labels
from dsprh_tf.data.manifest import KINDS, Manifest

_LAYOUT = (
    "a manifest.csv, manifest.parquet or manifest.jsonl needs the columns image (path relative to "
    "the manifest) and text, and may have labels (a;b), split (query, database or train) and id"
)


def load_pairs(manifest: str | os.PathLike, on_bad_image: str = "error") -> PairDataset:
    """A user's own images and texts.

    Columns: `image` (path relative to the manifest), `text`; optional `labels`
    (`label_lists.read_labels`), `split` (query, database or train; train pairs are in the database
    too) and `id`. Usual other names of these columns are understood (`columns`). Rows with the
    same image, or with the same id where there are ids, are one pair with several texts and the
    labels of all. What was understood, and which columns were not read, stands in the notes.

    Args:
        manifest: the manifest, or a folder with a `manifest.{csv,tsv,jsonl,ndjson,parquet}`.
        on_bad_image: "error" or "skip".

    Raises:
        ValueError: the manifest is missing or broken, lacks a column, or has a row without text, a
            bad image, an unknown split, labels that cannot be understood, or the id of another
            image; the line names file and row.
    """
    path = _manifest(Path(manifest))
    wanted = {
        "image": columns.IMAGE, "text": columns.TEXT, "labels": columns.LABELS,
        "split": columns.SPLIT, "id": columns.IMAGE_ID,
    }  # fmt: skip
    table = Manifest(path, wanted)
    table.require(("image", "text"), _LAYOUT)
    pairs = _Pairs(path)
    for row, record in table.rows():
        pairs.add(row, record)
    if not pairs.rows:
        raise ValueError(f"{path} has no rows; {_LAYOUT}")
    labels, names, label_notes = pairs.labels()
    dataset = PairDataset(
        name="pairs",
        ids=np.array(pairs.ids),
        image_paths=np.array([str(path.parent / image) for image in pairs.images], object),
        texts=np.array([" ".join(texts) for texts in pairs.text_lists()], object),
        text_lists=pairs.text_lists() if pairs.has_several_texts else None,
        labels=labels,
        label_names=names,
        given_split=pairs.given_split() if "split" in table.columns else None,
        notes=(
            f"{len(pairs.label_cells):,} rows in {path.name}", *table.notes, *pairs.notes(),
            *label_notes,
        ),
    )  # fmt: skip
    return dataset.drop_bad_images(on_bad_image, [pairs.where(row) for row in pairs.rows])


def _manifest(path: Path) -> Path:
    if path.is_file():
        return path
    folder = require_folder(path, _LAYOUT)
    found = [folder / f"manifest.{kind}" for kind in KINDS]
    found = [candidate for candidate in found if candidate.is_file()]
    if len(found) != 1:
        names = ", ".join(candidate.name for candidate in found) or "no manifest"
        raise ValueError(f"{folder} has {names}, expected one manifest; {_LAYOUT}")
    return found[0]


class _Pairs:
    """Rows of a manifest, gathered into pairs: small per row, for manifests of millions.

    Attributes:
        rows: the first row of each pair.
        ids, images: of each pair.
        label_cells: of each row.
    """

    def __init__(self, path: Path):
        self._path = path
        self._folder = os.fspath(path.parent)
        self.rows: list[int] = []
        self.ids: list[str] = []
        self.images: list[str] = []
        self.label_cells: list[Any] = []
        self._texts: list[str | dict[str, None]] = []  # a dictionary where there are several
        self._splits: list[str] = []
        self._pair_of_key: dict[str, int] = {}
        self._pair_of_row = array("q")
        self._row_numbers = array("q")
        self._distinct: dict[Any, Any] = {}
        self._repeated = self._respelled = 0

    def where(self, row: int) -> str:
        """The beginning of an error line."""
        return f"{self._path.name} row {row}"

    def add(self, row: int, record: dict[str, Any]) -> None:
        """Takes a row: a pair of its own, or further texts and labels of one."""
        image, name = self._needed(row, "image", record["image"]), None
        try:
            texts = list(dict.fromkeys(cells.texts_of(record["text"])))
            name = cells.plain_id(record["id"]) if "id" in record else None
        except ValueError as error:
            raise ValueError(f"{self._path} row {row}: {error}") from error
        if name is not None:
            self._needed(row, "id", name)
        self._needed(row, "text", texts)
        spelled = cells.file_name(self._folder, image)
        self._respelled += spelled != image
        image = os.path.normpath(spelled)
        pair = self._pair_of_key.setdefault(image if name is None else name, len(self.rows))
        split = self._split(row, record) if "split" in record else ""
        if pair == len(self.rows):
            self.rows.append(row)
            self.images.append(spelled)
            self.ids.append(spelled if name is None else name)
            self._splits.append(split)
            self._texts.append(texts[0])
        elif os.path.normpath(self.images[pair]) != image:
            raise ValueError(
                f"{self._path} row {row}: id {name!r} occurs in row {self.rows[pair]} already, "
                "with another image; ids are unique"
            )
        elif self._splits[pair] != split:
            raise ValueError(
                f"{self._path} row {row}: split is {split!r}, but {self._splits[pair]!r} in row "
                f"{self.rows[pair]} with the same image; a pair belongs to one of them"
            )
        else:
            self._repeated += self._has_texts(pair, texts)
        self._add_texts(pair, texts)
        cell = record.get("labels", "")
        self.label_cells.append(self._distinct.setdefault(cells.key(cell), cell))
        self._pair_of_row.append(pair)
        self._row_numbers.append(row)

    def _has_texts(self, pair: int, texts: list[str]) -> bool:
        held = self._texts[pair]
        return texts == [held] if isinstance(held, str) else all(text in held for text in texts)

    def _add_texts(self, pair: int, texts: list[str]) -> None:
        if self._has_texts(pair, texts):
            return
        held = self._texts[pair]
        if isinstance(held, str):
            held = self._texts[pair] = {held: None}
        held.update(dict.fromkeys(texts))

    def _needed(self, row: int, column: str, value: Any) -> Any:
        if not value:
            raise ValueError(
                f"{self._path} row {row}: {column} is empty; fill it in or remove the row"
            )
        return value

    def _split(self, row: int, record: dict[str, Any]) -> str:
        value = str(record["split"]).strip().lower()
        if value not in SPLIT_NAMES:
            raise ValueError(
                f"{self._path} row {row}: split is {cells.shown(value)}, expected query, database "
                "or train"
            )
        return value

    @property
    def has_several_texts(self) -> bool:
        """Whether some pair has more than one text."""
        return any(isinstance(texts, dict) for texts in self._texts)

    def text_lists(self) -> list[tuple[str, ...]]:
        """The texts of each pair, none twice."""
        return [(texts,) if isinstance(texts, str) else tuple(texts) for texts in self._texts]

    def labels(self) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
        """uint8 [N, L], the labels' names and notes; None where no row has a label."""
        found = read_labels(self.label_cells, lambda i: self.where(self._row_numbers[i]))
        if not found.names:
            note = "no labels: training works, and results tell how queries find their own texts"
            return None, (), [*found.notes, note]
        column = {name: index for index, name in enumerate(found.names)}
        labels = np.zeros((len(self.rows), len(column)), np.uint8)
        for pair, names in zip(self._pair_of_row, found.lists):
            labels[pair, [column[name] for name in names]] = 1
        notes = list(found.notes)
        if bare := int(np.sum(~labels.any(axis=1))):
            notes.append(f"{bare:,} pairs have no label: they are kept, and relevant to nothing")
        return labels, found.names, notes

    def given_split(self) -> dict[str, np.ndarray]:
        """The pairs of each part that the column split names."""
        parts: dict[str, list[int]] = {part: [] for part in SPLIT_NAMES}
        for pair, part in enumerate(self._splits):
            parts[part].append(pair)
        parts["database"] = sorted(parts["database"] + parts["train"])
        if not parts["query"] or not parts["database"]:
            raise ValueError(
                f"{self._path}: the column split names {len(parts['query'])} query and "
                f"{len(parts['database'])} database or train rows, expected both; or leave it out"
            )
        if not parts["train"]:
            del parts["train"]  # the whole database then
        return {part: np.array(pairs, np.int64) for part, pairs in parts.items()}

    def notes(self) -> list[str]:
        """Lines on what was gathered."""
        notes = []
        if self._respelled:
            notes.append(f"{self._respelled:,} images are spelled with \\, found with /")
        merged = len(self._row_numbers) - len(self.rows)
        if merged or self.has_several_texts:
            count = sum(map(len, self.text_lists()))
            notes.append(
                f"{len(self.rows):,} pairs with {count:,} texts: rows of one image are one pair"
                if merged
                else f"{len(self.rows):,} pairs with {count:,} texts"
            )
        if repeated := self._repeated:
            notes.append(f"{repeated:,} rows repeat image and text of another")
        return notes
