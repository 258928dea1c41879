"""Queries to an index: texts, image files, and items of the index itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsprh_tf.data.files import read_lines
from dsprh_tf.data.images import MAX_PIXELS, checked_bytes
from dsprh_tf.data.pairs import read_rows
from dsprh_tf.index.interface import Index
from dsprh_tf.index.items import is_id
from dsprh_tf.index.location import check_encoders

KINDS = ("text", "image", "like")


class Query(NamedTuple):
    """One query to an index.

    Attributes:
        kind: "text", "image" or "like".
        value: the text, the path of an image, or the id of an item of the index.
    """

    kind: str
    value: str


def read_queries(path: str | os.PathLike) -> list[Query]:
    """The queries that a file lists, in its order.

    Args:
        path: a .txt file with one text per line, empty lines excepted; or a manifest (CSV,
            Parquet, JSONL) each row of which has one of text, image (a path relative to the
            manifest) and like.

    Raises:
        ValueError: the file is missing or broken, a row has none or several of them, or a value
            of like is not an id; names the row.
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
    """Refuses a value that is not the id of an item; `given` is the subject of the error line."""
    if not is_id(value):
        raise ValueError(f"{given}, expected the id of an item, a whole number below 2^63")


def query_codes(
    index: Index, queries: Sequence[Query], encode: Callable[[str, list[str]], np.ndarray]
) -> np.ndarray:
    """Codes of queries, uint8 [queries, bits / 8].

    Args:
        index: the index to search; it has the codes of its own items.
        queries: the queries.
        encode: (kind, values) -> codes of texts or of image files; called once per kind.

    Raises:
        ValueError: an id is not in the index, or as `encode`.
    """
    codes = np.zeros((len(queries), index.bits // 8), np.uint8)
    for kind in dict.fromkeys(query.kind for query in queries):
        rows = [row for row, query in enumerate(queries) if query.kind == kind]
        values = [queries[row].value for row in rows]
        like = kind == "like"
        codes[rows] = index.codes_of(list(map(int, values))) if like else encode(kind, values)
    return codes


def encode_queries(
    encoder,
    index: Index,
    values: Sequence[str],
    note: Callable[[str, dict[str, list[str]]], None],
    name: str | None = None,
) -> np.ndarray:
    """Codes of texts or image files to search an index by, uint8 [n, bits / 8].

    Args:
        encoder: a `serving.encoder.Encoder`, of the model that the index was built with.
        index: the index to search.
        values: texts, or paths of images.
        note: called with each text that has unknown words beside known ones, and with what
            `Encoder.unknown_words` found.
        name: the encoder's name for errors; "the text encoder" or "the image encoder" by default.

    Raises:
        ValueError: the index has other encoders, a text has no known word, or an image is broken.
    """
    name = name or f"the {encoder.kind} encoder"
    check_encoders(name, index, encoder.bits, encoder.info["fingerprint"])
    if encoder.kind == "image":
        return np.concatenate([_file_code(encoder, path) for path in values])
    encoder.check_words(values)
    for text in values:
        if unknown := encoder.unknown_words(text):
            note(text, unknown)
    return encoder.encode(values)


def encode_image(encoder, content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Code of an image to search by, uint8 [1, bits / 8]; the image is decoded and checked first.

    Args:
        encoder: a `serving.encoder.Encoder` of images.
        content: content of a JPEG, PNG, GIF, BMP, WebP or TIFF file.
        name: the subject of the error line.
        max_pixels: most pixels that are decoded.

    Raises:
        ValueError: the content is empty, truncated, not an image or too large.
    """
    try:
        return encoder.encode([checked_bytes(content, name, max_pixels)])
    except ValueError:
        # Refused above or, rarely, by TensorFlow though Pillow can read it.
        return encoder.encode([checked_bytes(content, name, max_pixels, as_png=True)])


def _file_code(encoder, path: str) -> np.ndarray:
    name = f"image {path}"
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(
            f"{name} cannot be read ({error.strerror}); choose another image"
        ) from error
    return encode_image(encoder, content, name)
