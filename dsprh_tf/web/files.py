"""Indexed files themselves, and lists and archives of several items.

A file is given out only while its content is what was indexed, by size and SHA-256: whatever stands
at its path since, a link to another file among it, is not part of the index.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import mimetypes
import os
import stat
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

MAX_ITEMS = 500  # of a list or an archive
MAX_BYTES = 2 * 2**30  # of an archive
_BLOCK = 2**20
_COLUMNS = ("id", "path", "text", "tags")


def open_indexed(path: str, size: int | None, sha256: bytes | None) -> BinaryIO:
    """An indexed file, open for reading from its beginning.

    Args:
        path: its path in the index.
        size: its size in the index.
        sha256: its SHA-256 in the index.

    Raises:
        ValueError: it is gone, or its content is another one than was indexed.
    """
    try:
        # A pipe would wait for a writer without it.
        file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
    except OSError as error:
        raise ValueError(f"image {path} is no longer on disk") from error
    changed = ValueError(f"image {path} is no longer the one that was indexed: index it again")
    try:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode) or state.st_size != size or not sha256:
            raise changed
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
        if digest.digest() != sha256:
            raise changed
        file.seek(0)
    except (OSError, ValueError) as error:
        file.close()
        raise error if isinstance(error, ValueError) else changed from error
    return file


def blocks(file: BinaryIO) -> Iterator[bytes]:
    """The rest of a file, which is closed then."""
    with file:
        yield from iter(lambda: file.read(_BLOCK), b"")


def media_type(path: str) -> str:
    """What a browser may show as an image, by the file's name; otherwise unknown bytes."""
    found = mimetypes.guess_type(path)[0] or ""
    shown = found.startswith("image/") and "svg" not in found  # which can hold scripts
    return found if shown else "application/octet-stream"


def as_csv(items: list[dict]) -> str:
    """Items as CSV, with tags joined by semicolons.

    Args:
        items: rows of `items.SCHEMA`.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(
        (item["id"], item["path"], item["text"], ";".join(item["tags"] or [])) for item in items
    )
    return out.getvalue()


def as_json(items: list[dict]) -> str:
    """Items as a JSON list; ids as strings, since JavaScript cannot hold them as numbers."""
    rows = [{**{name: item[name] for name in _COLUMNS}, "id": str(item["id"])} for item in items]
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"


def weigh(items: list[dict]) -> dict:
    """How large an archive of items will be.

    Returns:
        {"items": number of items, "files": number of images that are on disk, "gone": of those
        that are not, "bytes": of all files}.
    """
    images = [item for item in items if item["modality"] == "image" and item["path"]]
    there = [item for item in images if os.path.exists(item["path"])]
    return {
        "items": len(items),
        "files": len(there),
        "gone": len(images) - len(there),
        "bytes": sum(item["size"] or 0 for item in there),
    }


def as_zip(items: list[dict]) -> Iterator[bytes]:
    """An archive of images and of `list.csv`, which says what is in it; made as it is read.

    Images are stored as they are, since they are compressed. One that is gone, or is no longer the
    one that was indexed, is left out, and the list says so.
    """
    pipe = _Pipe()
    rows, names = [], {"list.csv"}
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for item in items:
            name, note = "", ""
            if item["modality"] == "image" and item["path"]:
                try:
                    with open_indexed(item["path"], item["size"], item["sha256"]) as file:
                        name = _new_name(os.path.basename(item["path"]), names)
                        # No date: the file's own may lie before 1980, where ZIP's begin.
                        with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as entry:
                            for block in iter(lambda: file.read(_BLOCK), b""):
                                entry.write(block)
                                yield from pipe.taken()
                except ValueError as error:
                    note = str(error)
            rows.append((name, *(item[c] for c in ("id", "path", "text")),
                         ";".join(item["tags"] or []), note))  # fmt: skip
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([("file", *_COLUMNS, "left out"), *rows])
        archive.writestr(zipfile.ZipInfo("list.csv"), out.getvalue())
    yield from pipe.taken()


class _Pipe(io.RawIOBase):
    """Where an archive is written, and taken from before the next block."""

    def __init__(self):
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        """That it is written only: the archive is then made without going back."""
        return True

    def write(self, data) -> int:
        """Keeps bytes until they are taken."""
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> list[bytes]:
        """What was written since the last call."""
        parts, self._parts = self._parts, []
        return parts


def _new_name(name: str, names: set[str]) -> str:
    """A name of an archive's file that none before it has, upper and lower case alike."""
    stem, ending = os.path.splitext(name)
    number = 1
    new = name
    while new.casefold() in names:
        number += 1
        new = f"{stem}-{number}{ending}"
    names.add(new.casefold())
    return new
