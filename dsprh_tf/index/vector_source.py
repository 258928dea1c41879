"""Sources of vectors: arrays that any model computed of images or texts, and a table of ids."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
from tqdm import tqdm

from dsprh_tf.data import cells, columns
from dsprh_tf.data.arrays.vectors import Vectors
from dsprh_tf.data.label_lists import read_labels
from dsprh_tf.data.manifest import Manifest
from dsprh_tf.index.sources import Item, Source, tags_of


class VectorSource(Source):
    """Vectors of images or of texts, one row per item; all of them are checked first.

    Attributes:
        vectors: the `Vectors`.

    Args:
        path: an array in a file, see `Vectors`.
        modality: "image" or "text": what the vectors are of.
        width: length of the vectors that the encoder takes.
        ids: a manifest (CSV, Parquet, JSONL) with a row for each vector, in the same order, and
            the column id; images may have image (a path, which need not exist) and text (a
            caption), texts text, both tags or labels. Ids are as in `Source`; one that is no number
            is the item's text where it has no other. Without the column, paths or texts give the
            ids. None for the row numbers, from 0.
        shard: as of `Source`.

    Raises:
        ValueError: the file or the manifest is missing or broken, a vector has another width or is
            not finite, there are more or fewer ids than vectors, or an id is missing or occurs
            twice; names the row.
    """

    content = "vector"

    def __init__(
        self,
        path: str | os.PathLike,
        modality: str,
        width: int,
        ids: str | os.PathLike | None = None,
        shard: tuple[int, int] = (0, 1),
    ):
        self.modality, self.path = modality, os.path.abspath(path)
        self.vectors = Vectors(path, modality, width)
        self.notes = [f"{self.vectors.count:,} vectors of {modality}s", *self.vectors.notes]
        if ids is None:
            items = [Item(row, "", (), row) for row in range(self.vectors.count)]
            self.notes.append(f"ids are the row numbers, 0 to {self.vectors.count - 1:,}")
        else:
            items = self._named(os.path.abspath(ids))
        digests = self._digests()
        self.share([item._replace(sha256=digests[item.row]) for item in items], shard)

    def _digests(self) -> list[bytes]:
        """The sha256 of each vector, little-endian float32: what tells whether it has changed."""
        digests: list[bytes] = []
        bad: list[int] = []
        zeros = 0
        with tqdm(total=self.vectors.count, desc="checking", unit="vector", delay=2) as bar:
            for start, block in self.vectors.blocks():
                bad += (start + np.flatnonzero(~np.isfinite(block).all(axis=1))).tolist()
                zeros += int(np.sum(~block.any(axis=1)))
                digests += [hashlib.sha256(v.tobytes()).digest() for v in block.astype("<f4")]
                bar.update(len(block))
        if bad:
            more = f", as do {len(bad) - 1:,} more" if len(bad) > 1 else ""
            raise ValueError(f"{self.vectors.problem(bad[0])}{more}; drop or repair such vectors")
        if zeros:
            self.notes.append(f"{zeros:,} vectors are zeros, and all of these get one code")
        return digests

    def _named(self, path: str) -> list[Item]:
        """The items that a manifest names, in its order."""
        is_image = self.modality == "image"
        wanted = {
            "id": columns.IMAGE_ID if is_image else columns.TEXT_ID,
            **({"image": columns.IMAGE} if is_image else {}),
            "tags": columns.TAGS,
            "text": columns.TEXT,
            "labels": columns.LABELS,
        }
        manifest = Manifest(path, wanted)
        if "id" not in manifest.columns and self.modality not in manifest.columns:
            manifest.require(("id",), f"or {self.modality}, with a row for each vector")
        items: list[Item] = []
        rows: list[int] = []
        tags: list[Any] = []
        for row, record in manifest.rows():
            where = f"{path} row {row}"
            try:
                items.append(self._item(record, len(items), os.path.dirname(path), where))
            except ValueError as error:
                line = str(error)
                raise ValueError(line if line.startswith(path) else f"{where}: {line}") from error
            rows.append(row)
            tags.append(tags_of(record))
        if len(items) != self.vectors.count:
            raise ValueError(
                f"{path} has {len(items):,} rows and {self.vectors.where} {self.vectors.count:,} "
                "vectors, expected a row for each vector, in the same order"
            )
        first: dict[int, int] = {}
        for item, row in zip(items, rows):
            if first.setdefault(item.id, row) != row:
                fix = "" if "id" in manifest.columns else ": give a column id"
                raise ValueError(
                    f"{path} row {row}: its id {item.id} is that of row {first[item.id]} already; "
                    f"ids are unique{fix}"
                )
        found = read_labels(tags, lambda i: f"{path} row {rows[i]}")
        self.notes += [f"{os.path.basename(path)}: {note}" for note in manifest.notes]
        self.notes += [f"tags: {note}" for note in found.notes]
        return [item._replace(tags=tags) for item, tags in zip(items, found.lists)]

    def _item(self, record: dict[str, Any], number: int, folder: str, where: str) -> Item:
        name = cells.plain_id(record.get("id", ""))
        text = "; ".join(cells.texts_of(record.get("text", "")))
        content, caption = text, None
        if self.modality == "image":
            image = record.get("image")
            content, caption = "", text or None
            if image:
                image = cells.file_name(folder, image)
                content = os.path.abspath(os.path.join(folder, image))
        if not name and not content:
            raise ValueError("it has no id; fill it in, or leave --ids out for row numbers")
        identity = self.id_of(name, content, where)
        if not content and not caption and str(identity) != name:  # a hash alone tells nothing
            content, caption = ("", name) if self.modality == "image" else (name, None)
        return Item(identity, content, (), number, caption)
