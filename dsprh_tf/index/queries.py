"""Queries to an index: texts, image files, vectors, and items of the index itself."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsprh_tf import codes as binary
from dsprh_tf.data import cells, columns
from dsprh_tf.data.arrays.vectors import Vectors
from dsprh_tf.data.decoder_lines import DecoderLines
from dsprh_tf.data.files import text_encoding
from dsprh_tf.data.images import MAX_PIXELS, checked_bytes
from dsprh_tf.data.manifest import Manifest
from dsprh_tf.index.interface import Index
from dsprh_tf.index.items import id_of
from dsprh_tf.index.location import check_encoders

_BATCH = 1024  # vectors
KINDS = ("text", "image", "like", "vector")


class Query(NamedTuple):
    """One query to an index.

    Attributes:
        kind: "text", "image", "like" or "vector".
        value: the text, the path of an image, the id of an item of the index, or the name of a
            vector (`query_vectors`).
    """

    kind: str
    value: str


def read_queries(
    path: str | os.PathLike, note: Callable[[str], None] = lambda line: None
) -> list[Query]:
    """The queries that a file lists, in its order.

    Args:
        path: a .txt file with one text per line, empty lines excepted; or a manifest (CSV,
            Parquet, JSONL) each row of which has one of text, image (a path relative to the
            manifest) and like.
        note: called with each line on how the file was read.

    Raises:
        ValueError: the file is missing or broken, a row has none or several of them, or a value
            of like is not an id; names the row.
    """
    path = Path(path)
    if path.suffix.lower() == ".txt":
        return _text_queries(path, note)
    wanted = {"text": columns.TEXT, "image": columns.IMAGE, "like": columns.LIKE}
    manifest = Manifest(path, wanted)
    if manifest.names and not manifest.columns:
        manifest.require(("text",), "or image or like: one of them per row")
    queries: list[Query] = []
    for row, record in manifest.rows():
        where = f"{path} row {row}"
        try:
            like = cells.plain_id(record.get("like", ""))
            values = {
                "text": cells.texts_of(record.get("text", "")),
                "image": [record["image"]] if record.get("image") else [],
                "like": [like] if like else [],
            }
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        found = [kind for kind, given in values.items() if given]
        if len(found) != 1:
            raise ValueError(
                f"{where}: expected one of text, image and like, found "
                f"{' and '.join(found) or 'none'}"
            )
        for value in values[found[0]]:
            if found[0] == "like":
                value = str(id_of(value, f"{where}: like is {value!r}"))
            elif found[0] == "image":
                value = os.path.join(path.parent, cells.file_name(path.parent, value))
            queries.append(Query(found[0], value))
    for line in manifest.notes:
        note(f"{path}: {line}")
    return queries


def query_vectors(path: str | os.PathLike, side: str, width: int) -> dict[str, np.ndarray]:
    """The vectors of an array by name, "PATH row 0", or "PATH" of a single one: float32 [width].

    Args:
        path: an array in a file, see `Vectors`; [width] is one vector.
        side: "image" or "text": what they are vectors of.
        width: length of the vectors that the encoder takes.

    Raises:
        ValueError: the file is missing or broken, or its vectors are of another width.
    """
    vectors = Vectors(path, side, width, single=True)
    several = vectors.count > 1
    return {
        f"{path} row {start + row}" if several else f"{path}": vector
        for start, block in vectors.blocks()
        for row, vector in enumerate(block)
    }


def _text_queries(path: Path, note: Callable[[str], None]) -> list[Query]:
    encoding, line = text_encoding(path)
    if line:
        note(f"{path}: {line}")
    with open(path, encoding=encoding) as file:  # any line ends
        lines = [text.rstrip("\n") for text in file]
    for row, text in enumerate(lines, 1):
        if len(text) > cells.MAX_TEXT:
            raise ValueError(
                f"{path} row {row} has {len(text):,} characters, expected at most "
                f"{cells.MAX_TEXT:,}; shorten it"
            )
    return [Query("text", text) for text in lines if text.strip()]


class Encoded(NamedTuple):
    """Values of queries, as far as they have some.

    Attributes:
        values: float32 [queries, bits], see `Encoder.encode_values`; of an item of the index -1 and
            +1, its code. Zeros where there is none.
        problems: position of a query without values -> one line that says why.
    """

    values: np.ndarray
    problems: dict[int, str]

    @property
    def codes(self) -> np.ndarray:
        """Their codes, uint8 [queries, bits / 8]."""
        return binary.pack(self.values)

    @property
    def good(self) -> list[int]:
        """Positions of the queries that have values."""
        return [row for row in range(len(self.values)) if row not in self.problems]


def query_values(
    index: Index, queries: Sequence[Query], encode: Callable[[str, list[str]], Encoded]
) -> Encoded:
    """Values of queries. One that has none does not keep the others from an answer.

    Args:
        index: the index to search; it has the codes of its own items.
        queries: the queries.
        encode: (kind, values) -> values of texts, image files or named vectors; called once per
            kind.

    Raises:
        ValueError: as `encode`.
    """
    found = _none_of(len(queries), index.bits)
    for kind in dict.fromkeys(query.kind for query in queries):
        rows = np.array([row for row, query in enumerate(queries) if query.kind == kind])
        values = [queries[row].value for row in rows]
        own = _values_of(index, values) if kind == "like" else encode(kind, values)
        found.values[rows] = own.values
        found.problems.update({int(rows[at]): line for at, line in own.problems.items()})
    return found


def item_values(index: Index, ids: Sequence[int]) -> np.ndarray:
    """Codes of items of an index as -1 and +1: float32 [n, bits].

    Raises:
        ValueError: an id is not in the index.
    """
    return binary.unpack(index.codes_of(ids)).astype(np.float32)


def _none_of(count: int, bits: int) -> Encoded:
    return Encoded(np.zeros((count, bits), np.float32), {})


def _values_of(index: Index, ids: list[str]) -> Encoded:
    try:
        return Encoded(item_values(index, list(map(int, ids))), {})
    except ValueError:  # names one of them
        return _each(ids, index.bits, lambda name: item_values(index, [int(name)]))


def _each(values: Sequence[str], bits: int, encode: Callable[[str], np.ndarray]) -> Encoded:
    """Values of queries one by one; what `encode` says of one that it refuses is its problem."""
    found = _none_of(len(values), bits)
    for at, value in enumerate(values):
        try:
            found.values[at] = encode(value)[0]
        except ValueError as error:
            found.problems[at] = str(error)
    return found


def encode_queries(
    encoder,
    index: Index,
    values: Sequence,
    note: Callable[[str, dict[str, list[str]]], None],
    name: str | None = None,
) -> Encoded:
    """Values of texts, image files or vectors to search an index by.

    Args:
        encoder: a `serving.encoder.Encoder`, of the model that the index was built with.
        index: the index to search.
        values: texts, paths of images, or vectors, as the encoder takes them. A text without a
            known word, a broken image and a vector that is not finite have no values but a problem.
        note: called with each text that has unknown words beside known ones, and with what
            `Encoder.unknown_words` found.
        name: the encoder's name for errors; "the text encoder" or "the image encoder" by default.

    Raises:
        ValueError: the index has other encoders.
    """
    name = name or f"the {encoder.kind} encoder"
    check_encoders(name, index, encoder.bits, encoder.info["fingerprint"])
    if encoder.width is not None:
        return _vector_values(encoder, np.array(values, np.float32))
    if encoder.kind == "image":
        return _each(values, index.bits, lambda path: _file_values(encoder, path))

    def checked(text: str) -> np.ndarray:
        encoder.check_words([text])
        return np.zeros((1, index.bits), np.float32)  # encoded below, all in one batch

    found = _each(values, index.bits, checked)
    known = [values[at] for at in found.good]
    for text in known:
        if unknown := encoder.unknown_words(text):
            note(text, unknown)
    if known:
        found.values[found.good] = encoder.encode_values(known, unknown="allow")  # checked above
    return found


def _vector_values(encoder, vectors: np.ndarray) -> Encoded:
    finite = np.isfinite(vectors).all(axis=1)
    found = _none_of(len(vectors), encoder.bits)
    for at in np.flatnonzero(~finite).tolist():
        found.problems[at] = "the vector holds NaN, infinity or a number beyond float32"
    found.values[finite] = encoder.encode_values(vectors[finite], _BATCH)
    return found


def encode_image(encoder, content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Values of an image to search by, float32 [1, bits]; it is decoded and checked first.

    Args:
        encoder: a `serving.encoder.Encoder` of images.
        content: content of a file such as `data.images.load_image` reads.
        name: the subject of the error line.
        max_pixels: most pixels that are decoded.

    Raises:
        ValueError: the content is empty, truncated, not an image or too large.
    """
    with DecoderLines():
        try:
            return encoder.encode_values([checked_bytes(content, name, max_pixels)])
        except ValueError:
            # Refused above or, rarely, by TensorFlow though Pillow can read it.
            return encoder.encode_values([checked_bytes(content, name, max_pixels, as_png=True)])


def _file_values(encoder, path: str) -> np.ndarray:
    name = f"image {path}"
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe would wait
            raise ValueError(f"{name} is not a regular file; choose another image")
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(
            f"{name} cannot be read ({error.strerror}); choose another image"
        ) from error
    return encode_image(encoder, content, name)
