"""A user's own pairs, listed in a CSV, Parquet or JSONL manifest."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pyarrow import parquet

from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.files import require_folder

_KINDS = ("csv", "parquet", "jsonl")
_LAYOUT = (
    "a manifest.csv, manifest.parquet or manifest.jsonl needs the columns image (path relative to "
    "the manifest) and text, and may have labels (a;b), split (query, database or train) and id"
)


def load_pairs(manifest: str | os.PathLike, on_bad_image: str = "error") -> PairDataset:
    """A user's own images and texts.

    Columns: `image` (path relative to the manifest), `text`; optional `labels` (separated by ";"
    or "|", or a list in JSONL and Parquet), `split` (query, database or train; train pairs are in
    the database too) and `id`. Other columns are ignored. Rows are counted as a spreadsheet or
    editor shows them: a CSV's header is row 1, the first line of a JSONL and the first row of a
    Parquet file are row 1.

    Args:
        manifest: the manifest, or a folder with a `manifest.{csv,parquet,jsonl}`.
        on_bad_image: "error" or "skip".

    Raises:
        ValueError: the manifest is missing or broken, lacks a column, or has a row without text, a
            bad image, an unknown split or a repeated id; the line names file and row.
    """
    path = _manifest(Path(manifest))
    table = list(read_rows(path))
    if not table:
        raise ValueError(f"{path} has no rows; {_LAYOUT}")
    columns = {key for _, record in table for key in record}
    missing = [column for column in ("image", "text") if column not in columns]
    if missing:
        raise ValueError(
            f"{path} has no column {' and no column '.join(missing)} (it has "
            f"{', '.join(sorted(columns)) or 'none'}); {_LAYOUT}"
        )
    where = [f"{path.name} row {row}" for row, _ in table]
    images = _needed(path, table, "image")
    texts = _needed(path, table, "text")
    labels, names, notes = _labels([label_set(record.get("labels")) for _, record in table])
    dataset = PairDataset(
        name="pairs",
        ids=np.array(_ids(path, table) if "id" in columns else _image_ids(images, where)),
        image_paths=np.array([str(path.parent / image) for image in images], object),
        texts=np.array([" ".join(text.split()) for text in texts], object),
        labels=labels,
        label_names=names,
        given_split=_given_split(path, table) if "split" in columns else None,
        notes=(f"{len(table):,} rows in {path.name}", *notes),
    )
    return dataset.drop_bad_images(on_bad_image, where)


def read_rows(path: str | os.PathLike) -> Iterator[tuple[int, dict]]:
    """The rows of a manifest, one after another, as (row number, column -> value).

    Column names are in lower case, missing values are "". Rows are counted as in `load_pairs`.

    Args:
        path: a .csv, .parquet or .jsonl file.

    Raises:
        ValueError: it is of another kind, missing, or broken; says in which row.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix[1:].lower())
    if reader is None:
        raise ValueError(f"{path} is not a .csv, .parquet or .jsonl file")
    try:
        for row, record in reader(path):
            record = _clean(record)
            _check_text(path, row, record)
            yield row, record
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from error


def _manifest(path: Path) -> Path:
    if path.is_file():
        if path.suffix[1:].lower() not in _KINDS:
            raise ValueError(f"{path} is not a .csv, .parquet or .jsonl file; {_LAYOUT}")
        return path
    folder = require_folder(path, _LAYOUT)
    found = [folder / f"manifest.{kind}" for kind in _KINDS]
    found = [candidate for candidate in found if candidate.is_file()]
    if len(found) != 1:
        names = ", ".join(candidate.name for candidate in found) or "no manifest"
        raise ValueError(f"{folder} has {names}, expected one manifest; {_LAYOUT}")
    return found[0]


def _read_csv(path: Path) -> Iterator[tuple[int, dict]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for row, record in enumerate(reader, 2):
                if None in record or None in record.values():
                    raise ValueError(
                        f"{path} row {row} has another number of fields than the header; quote "
                        "fields that contain commas"
                    )
                yield row, record
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8 ({error}); save it as such") from error


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict]]:
    with open(path, "rb") as file:
        for row, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(
                    f"{path} row {row} is not JSON ({error}); write one object per line"
                ) from error
            if not isinstance(record, dict):
                raise ValueError(
                    f"{path} row {row} is not a JSON object; write one object per line"
                )
            yield row, record


def _read_parquet(path: Path) -> Iterator[tuple[int, dict]]:
    try:
        with parquet.ParquetFile(path) as file:
            start = 1
            for batch in file.iter_batches(4096):  # rows that are in memory at once
                yield from enumerate(batch.to_pylist(), start)
                start += len(batch)
    except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is a ValueError
        cause = " ".join(str(error).split())
        raise ValueError(f"{path} is not a Parquet file ({cause}); write it again") from error


_READERS = {"csv": _read_csv, "parquet": _read_parquet, "jsonl": _read_jsonl}


def _clean(record: dict) -> dict:
    """The record with column names in lower case, without null values turned into "nan"."""
    return {
        str(key).strip().lower(): "" if _is_null(value) else value for key, value in record.items()
    }


def _check_text(path: Path, row: int, record: dict) -> None:
    """Refuses text that cannot be written anywhere: JSON can spell half a character."""
    for column, value in record.items():
        for part in value if isinstance(value, list) else (value,):
            if not isinstance(part, str) or part.isascii():  # most are: costs nothing
                continue
            try:
                part.encode("utf-8")
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"{path} row {row}: {column} has {part[error.start]!a}, half of a surrogate "
                    "pair and no character; write the value again in UTF-8"
                ) from error


def _is_null(value) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _needed(path: Path, table, column: str) -> list[str]:
    values = []
    for row, record in table:
        value = str(record.get(column, "")).strip()
        if not value:
            raise ValueError(f"{path} row {row}: {column} is empty; fill it in or remove the row")
        values.append(value)
    return values


def _ids(path: Path, table) -> list[str]:
    ids = _needed(path, table, "id")
    seen: dict[str, int] = {}
    for (row, _), name in zip(table, ids):
        if name in seen:
            raise ValueError(
                f"{path} row {row}: id {name!r} occurs in row {seen[name]} already; ids are unique"
            )
        seen[name] = row
    return ids


def _image_ids(images: list[str], where: list[str]) -> list[str]:
    """The image paths as ids; one that several rows share is told apart by their rows."""
    names, counts = np.unique(images, return_counts=True)
    shared = set(names[counts > 1].tolist())
    return [
        f"{image} ({label})" if image in shared else image for image, label in zip(images, where)
    ]


def label_set(value) -> list[str]:
    """Labels or tags as a manifest has them: "a;b", "a|b" or a list."""
    if value is None:
        return []
    parts = re.split(r"[;|]", value) if isinstance(value, str) else np.atleast_1d(value).tolist()
    return [str(part).strip() for part in parts if str(part).strip()]


def _labels(
    label_sets: list[list[str]],
) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
    """uint8 [N, L] with its names by the alphabet, or None where no row has a label."""
    names = tuple(sorted({label for labels in label_sets for label in labels}))
    if not names:
        return None, (), ["no labels: training works, evaluation needs them"]
    column = {name: index for index, name in enumerate(names)}
    labels = np.zeros((len(label_sets), len(names)), np.uint8)
    for row, row_labels in enumerate(label_sets):
        labels[row, [column[label] for label in row_labels]] = 1
    bare = int(np.sum(~labels.any(axis=1)))
    notes = [f"{len(names)} labels"]
    if bare:
        notes.append(f"{bare:,} rows have no label: they are kept, and relevant to nothing")
    return labels, names, notes


def _given_split(path: Path, table) -> dict[str, np.ndarray]:
    given: dict[str, list[int]] = {"query": [], "database": [], "train": []}
    for index, (row, record) in enumerate(table):
        value = str(record.get("split", "")).strip().lower()
        if value not in given:
            raise ValueError(
                f"{path} row {row}: split is {value!r}, expected query, database or train"
            )
        given[value].append(index)
    given["database"] = sorted(given["database"] + given["train"])
    if not given["query"] or not given["database"]:
        raise ValueError(
            f"{path}: the column split names {len(given['query'])} query and "
            f"{len(given['database'])} database or train rows, expected both; or leave it out"
        )
    if not given["train"]:
        del given["train"]  # the whole database then
    return {key: np.array(value, np.int64) for key, value in given.items()}
