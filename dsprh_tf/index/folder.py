"""The folder of an index: files that never change, and index.json, which names the current ones.

| file | content |
|---|---|
| index.json | format, kind, bits, fingerprint, counts; name, size and sha256 of the files below |
| codes-N.npy | uint8 [rows, bits / 8] |
| ids-N.npy | int64 [rows] |
| items-N.parquet | `items.SCHEMA`, one row per code |
| removed-N.npy | int64, removed rows that are still in the engine; only if there are any |
| engine-N.faiss | FAISS's own format, of the distinct codes; only for approximate search |
| distinct-N.npy | int64, the distinct codes and their rows, see `distinct`; beside an engine |
| files-N.parquet | the files that items are from, see `known_files`; once `sync` was there |
| former.json | the index.json before the last change, whose files are kept for `undo` |

Format 1 had engines of all rows and no distinct-N.npy. It is read, and searched as it is; the next
change writes format 2.

A change writes new files with the next N and then replaces index.json in one step: a reader, or the
next start after a crash, finds the whole old content or the whole new content. The content before
the last change is kept: only what the change has written anew takes space twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dsprh_tf.codes import check_bits
from dsprh_tf.data.files import Lock, file_sha256, sync, write_bytes, write_json
from dsprh_tf.data.npy_files import map_npy
from dsprh_tf.index.faiss_kinds import KINDS

FORMAT, FORMATS = 2, (1, 2)  # written, and read
ENDINGS = {
    "codes": "npy",
    "ids": "npy",
    "items": "parquet",
    "removed": "npy",
    "engine": "faiss",
    "distinct": "npy",
    "files": "parquet",
}
_NAMES = re.compile(rf"({'|'.join(ENDINGS)})-(\d+)\.({'|'.join(set(ENDINGS.values()))})")
_LONGEST = 2**20  # bytes of index.json
_REBUILD = "build the index again from its codes"


def read(folder: str | os.PathLike, name: str = "index.json") -> dict:
    """The content of index.json, or of former.json.

    Raises:
        ValueError: the file is missing, broken, altered, or of another format.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no index (no index.json in it): build one with `dsprh index build`, "
            "or check --index"
        )
    try:
        if path.stat().st_size > _LONGEST:
            raise ValueError(f"it has more than {_LONGEST:,} bytes")
        content = json.loads(path.read_bytes())
        found = content["format"]
        if found in FORMATS and content.pop("sha256") != _digest(content):
            raise ValueError("it was altered")
        if found in FORMATS:
            _check(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is broken ({error}): {_REBUILD}") from error
    if found not in FORMATS:
        raise ValueError(
            f"{path} is of another version: its format is {found!r}, expected "
            f"{' or '.join(map(str, FORMATS))}; {_REBUILD}"
        )
    return content


def _check(content: dict) -> None:
    """Refuses content of other types than `write` was given; the engine checks what it means."""
    kinds: dict[str, tuple[type, ...]] = {
        "kind": (str,),
        "bits": (int,),
        "rows": (int,),
        "built_rows": (int,),
        "files": (dict,),
        "fingerprint": (str, type(None)),
        "recall": (dict, type(None)),
    }
    content.setdefault("recall", None)  # format 1 had another one
    for name, allowed in kinds.items():
        value = content[name]
        if type(value) not in allowed or isinstance(value, (int, float)) and not 0 <= value < 2**62:
            raise ValueError(f"{name} is {str(value)[:40]!r}")
    for name, share in (content["recall"] or {}).items():
        if type(share) not in (int, float) or not 0 <= share < 2**62:
            raise ValueError(f"{name[:40]} is {str(share)[:40]!r}")
    if content["kind"] not in KINDS:
        raise ValueError(f"kind is {content['kind'][:40]!r}, expected one of {', '.join(KINDS)}")
    check_bits(content["bits"])
    str(content["fingerprint"]).encode("utf-8")  # half a character cannot be written again
    for kind, entry in content["files"].items():
        match = _NAMES.fullmatch(entry["name"])
        whole = type(entry["size"]) is int and isinstance(entry["sha256"], str)
        if not match or match[1] != kind or not whole:
            raise ValueError(f"{kind[:40]!r} has no file")
    missing = [kind for kind in ("codes", "ids", "items") if kind not in content["files"]]
    if missing:
        raise ValueError(f"it names no file of {', '.join(missing)}")


def load_array(path: Path, dtype) -> np.ndarray:
    """The array of a .npy file of an index, memory-mapped.

    Raises:
        ValueError: the file is broken, or holds another type.
    """
    try:
        array = np.asarray(map_npy(path))
    except ValueError as error:
        raise ValueError(f"{path} is broken ({error}): {_REBUILD}") from error
    if array.dtype != dtype:
        raise ValueError(f"{path} is broken (it holds {array.dtype}): {_REBUILD}")
    return array


def save_array(path: Path, array: np.ndarray) -> None:
    """Writes an array to a .npy file."""
    with open(path, "wb") as file:
        np.save(file, array)


def check_files(folder: str | os.PathLike, content: dict, checksums: bool = True) -> None:
    """Compares the files of an index with the sizes and checksums in index.json.

    Args:
        folder: the folder of the index.
        content: content of index.json.
        checksums: whether to compare checksums, about a second per gigabyte; otherwise only sizes
            are compared.

    Raises:
        ValueError: a file is missing, truncated or altered.
    """
    for entry in content["files"].values():
        path = Path(folder) / entry["name"]
        if not path.is_file():
            raise ValueError(f"{path} is missing: {_REBUILD}")
        size = path.stat().st_size
        if size != entry["size"]:
            raise ValueError(
                f"{path} is truncated or altered: it has {size:,} bytes, expected "
                f"{entry['size']:,}; {_REBUILD}"
            )
        if checksums and file_sha256(path) != entry["sha256"]:
            raise ValueError(f"{path} was altered: its checksum is another one; {_REBUILD}")


def write(
    folder: str | os.PathLike, content: dict, writers: dict[str, Callable], kept: dict
) -> dict:
    """Replaces the content of an index in one step; what was before the former one is removed.

    Args:
        folder: the folder of the index; made if it is missing.
        content: content of index.json, without `files`.
        writers: kind of file (of `ENDINGS`) -> function that writes it to a path.
        kept: kind of file -> its entry in the former `files`, for files that stay.

    Returns:
        The new `files`.

    Raises:
        OSError: the disk is full or cannot be written; the former content stays.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Beyond what an interrupted change may have left behind.
    numbers = [int(match[2]) for match in map(_NAMES.fullmatch, os.listdir(folder)) if match]
    files, written = dict(kept), []
    try:
        for kind, write_file in writers.items():
            path = folder / f"{kind}-{1 + max(numbers, default=0):06}.{ENDINGS[kind]}"
            written.append(path)
            write_file(path)
            sync(path)
            files[kind] = {
                "name": path.name,
                "size": path.stat().st_size,
                "sha256": file_sha256(path),
            }
        sync(folder)
        content = {"format": FORMAT, **content, "files": files}
        current = folder / "index.json"
        if current.exists():
            write_bytes(folder / "former.json", current.read_bytes())
        write_json(current, {**content, "sha256": _digest(content)})
    except OSError:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    sync(folder)
    _sweep(folder, files)
    return files


def _sweep(folder: Path, files: dict) -> None:
    """Removes the files that neither the current nor the former content names."""
    named = [files]
    with contextlib.suppress(ValueError):  # no former content, or a broken one
        named.append(read(folder, "former.json")["files"])
    kept = {entry["name"] for each in named for entry in each.values()}
    for name in os.listdir(folder):
        leftover = _NAMES.fullmatch(name) or name.startswith((".index.json.", ".former.json."))
        if leftover and name not in kept:
            with contextlib.suppress(OSError):  # a leftover only takes space
                os.unlink(folder / name)


def lock(folder: str | os.PathLike) -> Lock:
    """The lock of an index for writing.

    Raises:
        ValueError: there is no folder, or another process writes to it.
    """
    if not Path(folder).is_dir():
        read(folder)  # raises: there is no index
    return Lock(
        Path(folder) / ".lock",
        f"the index in {folder} is being changed by another process: wait for it",
    )


def undo(folder: str | os.PathLike) -> tuple[int, int]:
    """Brings back the content before the last change; once more brings back the change.

    Returns:
        Numbers of rows now and before.

    Raises:
        ValueError: there is no index or no former content, its files are missing or altered, or
            another process writes to the folder.
    """
    folder = Path(folder)
    held = lock(folder)
    try:
        current = read(folder)
        if not (folder / "former.json").exists():
            raise ValueError(f"{folder} has no former content: nothing to undo")
        former = read(folder, "former.json")
        if former == current:
            raise ValueError(f"{folder} is as it was before its last change: nothing to undo")
        check_files(folder, former)
        contents = [(folder / name).read_bytes() for name in ("former.json", "index.json")]
        # A kill between the two leaves the former content, whole.
        for name, content in zip(("index.json", "former.json"), contents):
            write_bytes(folder / name, content)
            sync(folder)
    finally:
        held.release()
    return former["rows"], current["rows"]


def _digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()
