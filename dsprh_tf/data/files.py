"""Reading and writing the small files around a data set, with errors that name the file."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def require_folder(data_dir: str | os.PathLike, download: str) -> Path:
    """A data folder that exists and holds something.

    Args:
        data_dir: the folder the user named.
        download: what to get and where to put it, a clause that ends the error line.

    Raises:
        ValueError: the folder is missing, is a file, or is empty.
    """
    folder = Path(data_dir)
    if not folder.exists():
        raise ValueError(f"data folder {folder} does not exist; {download}")
    if not folder.is_dir():
        raise ValueError(f"data folder {folder} is a file, expected a folder; {download}")
    if next(folder.iterdir(), None) is None:
        raise ValueError(f"data folder {folder} is empty; {download}")
    return folder


def first_existing(candidates: Iterable[Path]) -> Path | None:
    """The first of the paths that exists: archives unpack a little differently everywhere."""
    return next((path for path in candidates if path.exists()), None)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; undecodable bytes become U+FFFD, as old tag files hold some."""
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); unpack it again") from error


def read_json(path: str | os.PathLike, fix: str) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        fix: what to do when it is missing or broken, a clause that ends the error line.

    Raises:
        ValueError: the file is missing, unreadable, or not JSON.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); {fix}") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise ValueError(f"{path} is not valid JSON ({error}); {fix}") from error


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes a JSON file so that a reader sees the old content or the new, never a part of it."""
    write_bytes(path, json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8"))


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part of it."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[str]:
    """A temporary name in the same folder that becomes `path` when the block ends well.

    The only atomic writer: a reader sees the old content or the new, never a part of it, and a
    block that fails leaves the old.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield temporary
        sync(temporary)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def file_sha256(path: str | os.PathLike) -> str:
    """The sha256 of a file's bytes, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


def sync(path: str | os.PathLike) -> None:
    """Waits until a file's content, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Lock:
    """Keeps other processes out while this object lives, at most until the process ends.

    Args:
        path: the lock file, made if it is missing and never removed.
        taken: what to say where another process, or another `Lock`, holds it.

    Raises:
        ValueError: it is held.
    """

    def __init__(self, path: str | os.PathLike, taken: str):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self.release = weakref.finalize(self, os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(taken) from error

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.release()
