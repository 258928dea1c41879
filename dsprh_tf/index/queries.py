"""What an index is asked: words, picture files and items of its own, given or listed in a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsprh_tf.data.files import read_lines
from dsprh_tf.data.pairs import read_rows
from dsprh_tf.index.interface import Index

KINDS = ("text", "image", "like")


class Query(NamedTuple):
    """One question to an index.

    Attributes:
        kind: "text", "image" or "like".
        value: the words, the path of a picture, or the id of an item of the index.
    """

    kind: str
    value: str


def read_queries(path: str | os.PathLike) -> list[Query]:
    """The queries that a file lists, in its order.

    Args:
        path: a .txt with a text a line, empty lines excepted; or a manifest (CSV, Parquet, JSONL)
            each row of which has one of text, image (its path, relative to the manifest) and like.

    Raises:
        ValueError: the file is missing or broken, or a row has none or several of them, or an id
            that is none; says which row.
    """
    path = Path(path)
    if path.suffix.lower() == ".txt":
        return [Query("text", line) for line in read_lines(path) if line.strip()]
    queries = []
    for row, record in read_rows(path):
        values = {kind: str(record.get(kind, "")).strip() for kind in KINDS}
        found = [Query(kind, value) for kind, value in values.items() if value]
        if len(found) != 1:
            raise ValueError(
                f"{path} row {row}: expected one of text, image and like, found "
                f"{' and '.join(query.kind for query in found) or 'none'}"
            )
        (query,) = found
        if query.kind == "like":
            check_id(query.value, f"{path} row {row}: like is {query.value!r}")
        elif query.kind == "image":
            query = query._replace(value=os.path.join(path.parent, query.value))
        queries.append(query)
    return queries


def check_id(value: str, given: str) -> None:
    """Refuses what is no id of an item; `given` is the subject of the error line."""
    # The length first: Python reads no number of thousands of digits.
    if not value.isascii() or not value.isdecimal() or len(value) > 19 or int(value) >= 2**63:
        raise ValueError(f"{given}, expected the id of an item, a whole number below 2^63")


def query_codes(
    index: Index, queries: list[Query], encode: Callable[[str, list[str]], np.ndarray]
) -> np.ndarray:
    """Codes of queries, uint8 [queries, bits / 8].

    Args:
        index: that is asked; it has the codes of its own items.
        queries: what it is asked.
        encode: (kind, values) -> codes of texts or of picture files; called once a kind.

    Raises:
        ValueError: an id that is not in the index, or as `encode`.
    """
    codes = np.zeros((len(queries), index.bits // 8), np.uint8)
    for kind in dict.fromkeys(query.kind for query in queries):
        rows = [row for row, query in enumerate(queries) if query.kind == kind]
        values = [queries[row].value for row in rows]
        like = kind == "like"
        codes[rows] = index.codes_of(list(map(int, values))) if like else encode(kind, values)
    return codes
