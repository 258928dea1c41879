"""The files that the items of an index are from, as `sync` has found them.

One row per file, so that several files of the same bytes are one item with all their paths; and one
per caption. A file that could not be encoded has a row too: it is tried again once it has changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from dsprh_tf.index.interface import Index
from dsprh_tf.index.items import reading

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("source", pa.large_string()),
        ("path", pa.large_string()),
        ("size", pa.int64()),
        ("modified", pa.int64()),
        ("sha256", pa.binary(32)),
        ("problem", pa.string()),
    ]
)
"""Columns: `source` is the absolute path of the folder or manifest; `path` is null for a caption;
`modified` in ns; `problem` says why there is no item, null where there is one."""


def read(path: str | os.PathLike) -> pa.Table:
    """The table in a Parquet file.

    Raises:
        ValueError: the file is damaged, or holds another table.
    """
    with reading(path):
        table = parquet.read_table(path)
        table.validate(full=True)
    if not table.schema.equals(SCHEMA):
        raise ValueError(f"{path} is no table of files: its columns are others")
    return table


def paths_of(index: Index, ids: Iterable[int]) -> dict[int, list[str]]:
    """The paths of those of some images that have several, by id."""
    table = getattr(index, "known_files", None)
    if table is None:
        return {}
    wanted = pc.and_(
        pc.is_in(table["id"], pa.array(list(ids), pa.int64())),
        pc.and_(pc.is_valid(table["path"]), pc.is_null(table["problem"])),
    )
    table = table.filter(wanted)
    found: dict[int, list[str]] = {}
    for number, path in zip(table["id"].to_pylist(), table["path"].to_pylist()):
        found.setdefault(number, []).append(path)
    return {number: paths for number, paths in found.items() if len(paths) > 1}
