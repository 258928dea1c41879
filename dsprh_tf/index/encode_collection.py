"""Encoding of large collections: reads, encodes and writes at the same time."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pyarrow as pa
from tqdm import tqdm

from dsprh_tf.data.images import PROBLEM_FIX, image_bytes, png_bytes
from dsprh_tf.index.code_folder import CodeWriter, part_schema
from dsprh_tf.index.sources import Item, Source

BATCH = {"image": 32, "text": 512}
_READERS = 4
_ENCODERS = 2  # one decodes while the other is in the network
_READ_AHEAD = 4  # batches of files in memory
_PART_SECONDS = 30  # between two writes: a process that is killed loses no more


@dataclasses.dataclass
class _Row:
    """An item in progress: its content, then its code or its problem."""

    item: Item
    size: int = 0
    modified: int | None = None
    sha256: bytes | None = None
    content: bytes | str = b""
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
    """

    encoded: int
    known: int
    gone: int
    count: int
    skipped: list[dict]
    seconds: float


def encode_source(
    source: Source,
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
        encoder: a `serving.encoder.Encoder` of the source's modality.
        writer: writer of the codes.
        batch_size: items per batch; 32 images or 512 texts by default.
        part_size: most items between two writes.
        on_bad: "error" ends at the first item that cannot be encoded, "skip" leaves it out.

    Raises:
        ValueError: an item is bad under "error", or the sizes are; the items before it stay
            encoded.
    """
    batch_size = batch_size or BATCH[source.modality]
    if batch_size < 1 or part_size < batch_size:
        raise ValueError(
            f"batch_size is {batch_size} and part_size is {part_size}, expected at least 1 and a "
            "part no smaller than a batch"
        )
    if on_bad not in ("error", "skip"):
        raise ValueError(f"on_bad is {on_bad!r}, expected 'error' or 'skip'")
    part_size -= part_size % batch_size
    todo = [item for item in source.items if not writer.has(item)]
    read = _read_image if source.modality == "image" else _read_text
    encode = _encode_images if source.modality == "image" else _encode_texts
    start = time.perf_counter()
    bar = tqdm(total=len(todo), desc="encoding", unit=source.modality, smoothing=0.1)
    reading, encoding = ThreadPoolExecutor(_READERS), ThreadPoolExecutor(_ENCODERS)
    part: list[_Row] = []
    encoded, written = 0, time.monotonic()

    def write():
        nonlocal part, written
        # Handed over first, so that rows whose writing fails or is interrupted are not written
        # once more on the way out.
        rows, part = part, []
        if rows:
            writer.write_part(_table(rows, source.modality, writer.bits))
        written = time.monotonic()

    try:
        rows = _ahead(reading, read, todo, _READ_AHEAD * batch_size)
        batches = _ahead(
            encoding, lambda b: encode(encoder, b), _batched(rows, batch_size), _ENCODERS + 1
        )
        for batch in batches:
            bad = next((row for row in batch if row.problem), None)
            if bad is not None and on_bad == "error":
                raise ValueError(f"{source.path} {bad.problem}" if bad.item.row else bad.problem)
            part += batch
            encoded += sum(row.problem is None for row in batch)
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
    return Summary(encoded, known, gone, count, skipped, seconds)


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
        row.content = image_bytes(item.content, content)
    except FileNotFoundError:
        row.fail(f"image {item.content} does not exist; {PROBLEM_FIX}")
    except (OSError, ValueError) as error:
        row.fail(error)
    return row


def _read_text(item: Item) -> _Row:
    content = item.content.encode("utf-8")
    return _Row(item, len(content), None, hashlib.sha256(content).digest(), item.content)


def _encode_images(encoder, batch: list[_Row]) -> list[_Row]:
    good = [row for row in batch if row.problem is None]
    try:
        _encode(encoder, good)
    except ValueError:
        # One image is at fault, perhaps because TensorFlow cannot read it though Pillow can.
        for row in good:
            try:
                _encode(encoder, [row])
            except ValueError:
                try:
                    row.content = png_bytes(row.item.content)
                    _encode(encoder, [row])
                except ValueError as error:
                    row.fail(error)
        # Once more, so that the codes are those of a batch without the bad images.
        _encode(encoder, [row for row in good if row.problem is None])
    for row in batch:
        row.content = b""
    return batch


def _encode_texts(encoder, batch: list[_Row]) -> list[_Row]:
    for row, known in zip(batch, encoder.known_words([row.content for row in batch])):
        if not known:
            row.fail(
                f"text {row.content[:60]!r} has no word of the vocabulary; give it other words, or "
                "leave it out with --on_bad_text=skip"
            )
    _encode(encoder, [row for row in batch if row.problem is None])
    return batch


def _encode(encoder, rows: list[_Row]) -> None:
    codes = encoder.encode([row.content for row in rows], max(1, len(rows)))
    for row, code in zip(rows, codes):
        row.code = code.tobytes()


def _table(rows: list[_Row], modality: str, bits: int) -> pa.Table:
    names = [row.item.content.encode("utf-8", "replace").decode() for row in rows]
    nothing = [None] * len(rows)
    columns = {
        "id": [row.item.id for row in rows],
        "modality": [modality] * len(rows),
        "path": names if modality == "image" else nothing,
        "text": names if modality == "text" else nothing,
        "size": [row.size for row in rows],
        "sha256": [row.sha256 for row in rows],
        "tags": [list(row.item.tags) for row in rows],
        "modified": [row.modified for row in rows],
        "code": [row.code for row in rows],
        "problem": [row.problem for row in rows],
    }
    return pa.table(columns, part_schema(bits))
