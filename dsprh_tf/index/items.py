"""What an index knows of its items beside their codes: ids, paths or texts, tags, filters."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from dsprh_tf.index.interface import Where

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("modality", pa.string()),
        ("path", pa.large_string()),
        ("text", pa.large_string()),
        ("size", pa.int64()),
        ("sha256", pa.binary(32)),
        ("tags", pa.list_(pa.string())),
    ]
)
"""Columns of every items table: `path` of a picture or `text` of a text, the other one null;
`size` in bytes and `sha256` of the picture's file or of the text in UTF-8; `tags` may be empty."""

WRITING = {"compression": "zstd"}
GROUP_ROWS = 8192  # of a row group: what is decoded to show one item
_KEPT_GROUPS = 64


def stable_id(modality: str, name: str) -> int:
    """The 63-bit id of an item that was given none: a hash of what it is called.

    The same picture or text has the same id on every machine and in every run, so that adding it
    again replaces it. Two names share an id with chance 5e-8 in 10^6 items, 5e-4 in 10^8 and 5 %
    in 10^9: give whole numbers of your own to collections of that size.

    Args:
        modality: "image" or "text".
        name: the path, the text, or an id that is no number.
    """
    digest = hashlib.sha256(f"{modality}\0{name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def text_items(texts: Sequence[str], ids=None, tags=None) -> pa.Table:
    """The items table of texts.

    Args:
        texts: n strings.
        ids: n whole numbers; None for `stable_id`.
        tags: n lists of strings; None for no tags.
    """
    contents = [text.encode("utf-8") for text in texts]
    rows = len(contents)
    return pa.table(
        {
            "id": [stable_id("text", t) for t in texts] if ids is None else ids,
            "modality": ["text"] * rows,
            "path": [None] * rows,
            "text": texts,
            "size": [len(content) for content in contents],
            "sha256": [hashlib.sha256(content).digest() for content in contents],
            "tags": [[]] * rows if tags is None else tags,
        },
        SCHEMA,
    )


def checked(items: pa.Table, rows: int) -> pa.Table:
    """An items table whose columns, length and ids are in order.

    Args:
        items: what a caller gave.
        rows: how many items there are to be.

    Raises:
        ValueError: columns or types are not `SCHEMA`'s, the length differs from `rows`, or an id
            is missing or occurs twice.
    """
    missing = [name for name in SCHEMA.names if name not in items.column_names]
    if missing:
        raise ValueError(
            f"an items table needs the columns {', '.join(SCHEMA.names)}, received one without "
            f"{', '.join(missing)}"
        )
    if len(items) != rows:
        raise ValueError(f"received {rows:,} codes and {len(items):,} items, expected one a code")
    try:
        items = items.select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"the columns of an items table are of other types: {error}") from error
    if items["id"].null_count:
        raise ValueError("an item has no id: give every item a whole number of its own")
    ids, counts = np.unique(items["id"].to_numpy(), return_counts=True)
    if len(ids) < rows:
        raise ValueError(f"id {ids[counts > 1][0]} occurs twice among the items: ids are unique")
    return items


def unchanged(old: pa.Table, new: pa.Table) -> np.ndarray:
    """Which rows of two items tables of one length say the same: bool [n]."""
    same = np.ones(len(old), bool)
    for name in SCHEMA.names:
        left, right = (
            pc.binary_join(table[name].combine_chunks(), "\0") if name == "tags" else table[name]
            for table in (old, new)
        )
        nulls = pc.and_(pc.is_null(left), pc.is_null(right))
        equal = pc.or_(pc.fill_null(pc.equal(left, right), False), nulls)
        same &= equal.to_numpy(zero_copy_only=False)
    return same


class Items:
    """The items of an index in the order of its rows, in memory or in a Parquet file.

    Of a file only the row groups that are asked for are read, and the last few are kept.

    Args:
        source: an items table, or the path of a Parquet file of one.

    Raises:
        ValueError: the file is no items table.
    """

    def __init__(self, source: pa.Table | str | os.PathLike):
        self._table = source if isinstance(source, pa.Table) else None
        self._file = None
        if self._table is None:
            try:
                self._file = parquet.ParquetFile(source, memory_map=True)
                if not self._file.schema_arrow.equals(SCHEMA):
                    raise ValueError("its columns are others")
            except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is a ValueError
                raise ValueError(f"{source} is not an items table ({error})") from error
            metadata = self._file.metadata
            groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self._starts = np.concatenate([[0], np.cumsum(groups, dtype=np.int64)])
            self._group = functools.lru_cache(_KEPT_GROUPS)(self._file.read_row_group)

    def __len__(self) -> int:
        return len(self._table) if self._file is None else self._file.metadata.num_rows

    def table(self) -> pa.Table:
        """All of them, in memory."""
        return self._table if self._file is None else self._file.read()

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all of them."""
        return self._table[name] if self._file is None else self._file.read([name])[name]

    def take(self, rows: np.ndarray) -> pa.Table:
        """Some of them, in the order of `rows` (int64 [m])."""
        if self._file is None:
            return self._table.take(pa.array(rows, pa.int64()))
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        needed, position = np.unique(groups, return_inverse=True)
        parts = [SCHEMA.empty_table(), *(self._group(int(group)) for group in needed)]
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts[1:]])]).astype(int)
        at = starts[position.reshape(-1)] + (rows - self._starts[groups])
        return pa.concat_tables(parts).take(pa.array(at, pa.int64()))

    def mask(self, where: Where) -> np.ndarray:
        """Which of them a filter admits: bool [n]."""
        mask = np.ones(len(self), bool)
        if where.modality is not None:
            mask &= _flags(pc.equal(self.column("modality"), where.modality))
        if where.prefix is not None:
            mask &= _flags(pc.starts_with(self.column("path"), where.prefix))
        if where.tag is not None:
            tagged, start = np.zeros(len(self), bool), 0
            for chunk in self.column("tags").chunks:
                hits = _flags(pc.equal(pc.list_flatten(chunk), where.tag))
                tagged[start + pc.list_parent_indices(chunk).to_numpy()[hits]] = True
                start += len(chunk)
            mask &= tagged
        return mask


def _flags(values) -> np.ndarray:
    return pc.fill_null(values, False).to_numpy(zero_copy_only=False).astype(bool)
