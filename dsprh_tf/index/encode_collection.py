"""Encoding of large collections: reads, encodes and writes at the same time."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Protocol

import pyarrow as pa
from tqdm import tqdm

from dsprh_tf.data.arrays.vectors import Vectors
from dsprh_tf.data.decoder_lines import DecoderLines
from dsprh_tf.data.images import PROBLEM_FIX, png_bytes, problem_line, served_image
from dsprh_tf.index.code_folder import CodeWriter, part_schema
from dsprh_tf.index.sources import Item
from dsprh_tf.index.vector_source import VectorSource

BATCH = {"image": 32, "text": 512, "vector": 1024}
MOST_BAD = 0.5
"""A larger share of items that cannot be encoded is an error of programs: search would find little
of the collection, and the source is probably another one than was meant."""

_READERS = 4
_ENCODERS = 2  # one decodes while the other is in the network
_READ_AHEAD = 4  # batches of files in memory
_NAMED = 100  # damaged images, at most: each costs its batch twice more
_PART_SECONDS = 30  # between two writes: a process that is killed loses no more


@dataclasses.dataclass
class _Row:
    """An item in progress: its content, then its code or its problem."""

    item: Item
    size: int = 0
    modified: int | None = None
    sha256: bytes | None = None
    content: bytes | str = b""
    several: bool = False
    remark: str | None = None
    code: bytes | None = None
    problem: str | None = None

    def fail(self, problem: object) -> None:
        """Notes why there is no code, with the row of the manifest."""
        self.problem = f"row {self.item.row}: {problem}" if self.item.row else f"{problem}"


@dataclasses.dataclass(frozen=True)
class Summary:
    """Outcome of an encoding run.

    Attributes:
        encoded: number of items that were encoded.
        known: number of items that had a code before.
        gone: number of items with a code that are no longer in the source.
        count: number of items with a code at the end.
        skipped: items without a code, {"item": path or text, "problem": reason}.
        seconds: duration of encoding.
        several: number of images that were encoded by the first of several frames or pages.
        damaged: a line on each image that was encoded though a decoder complained of it.
    """

    encoded: int
    known: int
    gone: int
    count: int
    skipped: list[dict]
    seconds: float
    several: int = 0
    damaged: tuple[str, ...] = ()


class ToEncode(Protocol):
    """Items of one modality: a `Source`, or a part of one."""

    modality: str
    path: str
    items: list[Item]

    @property
    def content(self) -> str:
        """What is encoded: "image", "text" or "vector"."""


def encode_source(
    source: ToEncode,
    encoder,
    writer: CodeWriter,
    batch_size: int | None = None,
    part_size: int = 2048,
    on_bad: str = "error",
) -> Summary:
    """Encodes all items of a source that have no code yet, and finishes the folder.

    Every part holds whole batches in the source's order, so that a run that is killed and started
    again makes the same batches, and the same codes, as one that was not. A run that ends early
    with an error or by Ctrl+C writes the batches that it has encoded; one that is killed loses
    those of the last 30 seconds.

    Args:
        source: the items.
        encoder: a `serving.encoder.Encoder` of the source's modality; of vectors for those.
        writer: writer of the codes.
        batch_size: items per batch; 32 images, 512 texts or 1,024 vectors by default.
        part_size: most items between two writes.
        on_bad: "error" ends at the first item that cannot be encoded, "skip" leaves it out.

    Raises:
        ValueError: an item is bad under "error", or the sizes are; the items before it stay
            encoded.
    """
    batch_size = batch_size or BATCH[source.content]
    if batch_size < 1 or part_size < batch_size:
        raise ValueError(
            f"batch_size is {batch_size} and part_size is {part_size}, expected at least 1 and a "
            "part no smaller than a batch"
        )
    if on_bad not in ("error", "skip"):
        raise ValueError(f"on_bad is {on_bad!r}, expected 'error' or 'skip'")
    part_size -= part_size % batch_size
    todo = [item for item in source.items if not writer.has(item)]
    start = time.perf_counter()
    with DecoderLines(live=True) as lines:
        encode: Callable[[list[_Row]], list[_Row]] = _ImageEncoding(encoder, lines)
        if isinstance(source, VectorSource):
            encode = functools.partial(_encode_vectors, encoder, source.vectors)
        elif source.modality == "text":
            encode = functools.partial(_encode_texts, encoder)
        bar = tqdm(total=len(todo), desc="encoding", unit=source.content, smoothing=0.1)
        reading, encoding = ThreadPoolExecutor(_READERS), ThreadPoolExecutor(_ENCODERS)
        part: list[_Row] = []
        encoded, several, damaged, written = 0, 0, [], time.monotonic()

        def write():
            nonlocal part, written
            # Handed over first, so that rows whose writing fails or is interrupted are not written
            # once more on the way out.
            rows, part = part, []
            if rows:
                writer.write_part(_table(rows, source.modality, writer.bits))
            written = time.monotonic()

        try:
            rows: Iterator[_Row]
            if isinstance(source, VectorSource):  # which are read by batches
                rows = map(functools.partial(_vector_row, source.vectors), todo)
            else:
                read = _read_image if source.modality == "image" else _read_text
                rows = _ahead(reading, read, todo, _READ_AHEAD * batch_size)
            batches = _ahead(encoding, encode, _batched(rows, batch_size), _ENCODERS + 1)
            for batch in batches:
                bad = next((row for row in batch if row.problem), None)
                if bad is not None and on_bad == "error":
                    problem = f"{source.path} {bad.problem}" if bad.item.row else bad.problem
                    skip = ", or leave it out with --on_bad_text=skip"
                    raise ValueError(f"{problem}{skip if source.modality == 'text' else ''}")
                part += batch
                good = [row for row in batch if row.problem is None]
                encoded += len(good)
                several += sum(row.several for row in good)
                damaged += [row.remark for row in good if row.remark]
                if len(part) >= part_size or time.monotonic() - written >= _PART_SECONDS:
                    write()
                bar.update(len(batch))
        finally:
            try:
                write()
            finally:
                bar.close()
                for pool in (reading, encoding):
                    pool.shutdown(cancel_futures=True)
    seconds = time.perf_counter() - start
    count, skipped, gone = writer.finish([item.id for item in source.items])
    known = len(source.items) - len(todo)
    return Summary(encoded, known, gone, count, skipped, seconds, several, tuple(damaged))


def _ahead(pool: Executor, function: Callable, values: Iterable, ahead: int) -> Iterator:
    """`map`, in order, by a pool that runs at most `ahead` values ahead."""
    waiting: collections.deque[Future] = collections.deque()
    for value in values:
        waiting.append(pool.submit(function, value))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _batched(values: Iterator, size: int) -> Iterator[list]:
    batch = []
    for value in values:
        batch.append(value)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _read_image(item: Item) -> _Row:
    row = _Row(item)
    try:
        item.content.encode("utf-8")
    except UnicodeEncodeError:
        row.problem = f"image {item.content!a} has a name that is not UTF-8; rename it"
        return row
    try:
        # Reading a pipe without a writer would wait, and a device may never end.
        if not stat.S_ISREG(os.stat(item.content).st_mode):
            raise ValueError(f"image {item.content} is not a regular file; {PROBLEM_FIX}")
        with open(item.content, "rb") as file:
            row.modified = os.fstat(file.fileno()).st_mtime_ns
            content = file.read()
        row.size, row.sha256 = len(content), hashlib.sha256(content).digest()
        row.content, row.several = served_image(item.content, content)
    except OSError as error:
        row.fail(problem_line(item.content, error))
    except ValueError as error:
        row.fail(error)
    return row


def _read_text(item: Item) -> _Row:
    content = item.content.encode("utf-8")
    return _Row(item, len(content), None, hashlib.sha256(content).digest(), item.content)


def _vector_row(vectors: Vectors, item: Item) -> _Row:
    return _Row(item, 4 * vectors.width, None, item.sha256)


class _ImageEncoding:
    """Encodes batches of images, in several threads; notes which of them are damaged.

    Args:
        encoder: an `Encoder` of images.
        lines: what decoders write meanwhile; they do not say about which image.
    """

    def __init__(self, encoder, lines: DecoderLines):
        self._encoder, self._lines = encoder, lines
        self._named, self._naming = 0, threading.Lock()

    def __call__(self, batch: list[_Row]) -> list[_Row]:
        """The batch, with codes, problems and remarks."""
        before = len(self._lines.so_far())
        good = [row for row in batch if row.problem is None]
        try:
            _encode(self._encoder, good)
        except ValueError:
            # One image is at fault, perhaps because TensorFlow cannot read it though Pillow can.
            for row in good:
                try:
                    _encode(self._encoder, [row])
                except ValueError:
                    try:
                        row.content = png_bytes(row.item.content)
                        _encode(self._encoder, [row])
                    except ValueError as error:
                        row.fail(error)
            # Once more, so that the codes are those of a batch without the bad images.
            good = [row for row in good if row.problem is None]
            _encode(self._encoder, good)
        if len(self._lines.so_far()) > before:
            with self._naming:
                for row in good:
                    self._remark(row)
        for row in batch:
            row.content = b""
        return batch

    def _remark(self, row: _Row) -> None:
        """Notes what a decoder writes about an image, if it does so each time.

        Another thread may decode a damaged image at the same time, but hardly twice.
        """
        if self._named >= _NAMED:
            return
        first, second = (self._said_of(row) for _ in range(2))
        if said := [line for line in first if line in second]:
            row.remark = f"image {row.item.content}: {said[0]}"
            self._named += 1

    def _said_of(self, row: _Row) -> list[str]:
        before = len(self._lines.so_far())
        self._encoder.encode([row.content], 1)
        return self._lines.so_far()[before:]


def _encode_texts(encoder, batch: list[_Row]) -> list[_Row]:
    for row, known in zip(batch, encoder.known_words([row.content for row in batch])):
        if not known:
            row.fail(
                f"text {row.content[:60]!r} has no word of the vocabulary; give it other words"
            )
    _encode(encoder, [row for row in batch if row.problem is None], unknown="allow")
    return batch


def _encode_vectors(encoder, vectors: Vectors, batch: list[_Row]) -> list[_Row]:
    codes = encoder.encode(vectors.take([row.item.row for row in batch]), len(batch))
    for row, code in zip(batch, codes):
        row.code = code.tobytes()
    return batch


def _encode(encoder, rows: list[_Row], **options) -> None:
    codes = encoder.encode([row.content for row in rows], max(1, len(rows)), **options)
    for row, code in zip(rows, codes):
        row.code = code.tobytes()


def _table(rows: list[_Row], modality: str, bits: int) -> pa.Table:
    names = [row.item.content.encode("utf-8", "replace").decode() or None for row in rows]
    captions = [row.item.caption for row in rows]
    columns = {
        "id": [row.item.id for row in rows],
        "modality": [modality] * len(rows),
        "path": names if modality == "image" else [None] * len(rows),
        "text": names if modality == "text" else captions,
        "size": [row.size for row in rows],
        "sha256": [row.sha256 for row in rows],
        "tags": [list(row.item.tags) for row in rows],
        "modified": [row.modified for row in rows],
        "code": [row.code for row in rows],
        "problem": [row.problem for row in rows],
    }
    return pa.table(columns, part_schema(bits))
