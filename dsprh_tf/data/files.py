"""Reading and writing the small files around a data set, with errors that name the file."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
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


_LONGEST_TEXT = 2**28  # bytes of a file that is read whole


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; undecodable bytes become U+FFFD, as old tag files hold some."""
    require_regular(path)
    if path.stat().st_size > _LONGEST_TEXT:
        raise ValueError(f"{path} has more than {_LONGEST_TEXT:,} bytes; unpack it again")
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); unpack it again") from error


def require_regular(path: str | os.PathLike) -> None:
    """Refuses what is no file on disk: a pipe would wait for ever, and a device may never end.

    Raises:
        ValueError: the path is missing, or it is a folder, a pipe or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        cause = getattr(error, "strerror", None) or error
        raise ValueError(f"{os.fspath(path)!a} cannot be read ({cause})") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise ValueError(f"{path} is {kind}, expected a file")


def text_encoding(path: str | os.PathLike) -> tuple[str, str | None]:
    """The encoding of a text file that a person made, and a line to print where it is not UTF-8.

    UTF-8 and UTF-16 with or without a mark at the beginning, UTF-32 with one; or else
    Windows-1252 (Latin-1), if it looks as Western European text does. The whole file is read.

    Raises:
        ValueError: the file is missing or no text, or its encoding cannot be told; names the row.
    """
    require_regular(path)
    try:
        with open(path, "rb") as file:
            head = file.read(32)
            encoding = next((name for mark, name in _MARKS if head.startswith(mark)), None)
            if encoding is None and head.count(0) * 3 > len(head):  # every other byte, mostly
                encoding = "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
            problem = _undecodable(file, encoding or "utf-8")
            if problem is None:
                note = None
                if encoding and encoding.startswith("utf-16"):
                    note = "text is in UTF-16"
                return encoding or "utf-8", note
            row, cut_off = problem
            western = None if encoding or cut_off else _western(file)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from error
    if western is None:
        what = "UTF-8" if encoding is None else encoding.upper()
        end = (
            "the file ends in the middle of a character"
            if cut_off
            else "nor in another encoding that can be told"
        )
        raise ValueError(f"{path} row {row} is not text in {what}, {end}; save the file as UTF-8")
    return "cp1252", f"text is not in UTF-8, read as Windows-1252 (Latin-1), such as {western!r}"


_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BLOCK = 2**20
_UTF8_PAIR = re.compile(rb"[\xc2-\xdf][\x80-\xbf]")


def _undecodable(file, encoding: str) -> tuple[int, bool] | None:
    """The row that cannot be decoded, and whether the file ends in the middle of a character.

    None if the whole file can be decoded. A NUL counts as undecodable: it is in no text.
    """
    file.seek(0)
    decoder = codecs.getincrementaldecoder(encoding)()
    row, last = 1, False
    while not last:
        block = file.read(_BLOCK)
        last = not block
        try:
            text = decoder.decode(block, last)
        except UnicodeDecodeError as error:
            start = error.object[: error.start].decode(encoding, "ignore")
            return row + start.count("\n"), last
        if "\0" in text:
            return row + text[: text.index("\0")].count("\n"), False
        row += text.count("\n")
    return None


def _western(file) -> str | None:
    """A word with an accent where the bytes look like Windows-1252, else None.

    There, bytes beyond ASCII stand alone, or rarely in twos, between letters of ASCII. In
    encodings of other scripts most stand in longer runs, and in damaged UTF-8 in runs that are
    UTF-8.
    """
    file.seek(0)
    alone = western = other = 0
    word: re.Match[bytes] | None = None
    while block := file.read(_BLOCK):
        if re.search(rb"[\x00\x81\x8d\x8f\x90\x9d]", block):  # stand for nothing
            return None
        runs = re.findall(rb"[\x80-\xff]+", block)
        strange = sum(len(run) > 2 or _UTF8_PAIR.fullmatch(run) is not None for run in runs)
        alone += sum(len(run) == 1 for run in runs)
        western, other = western + len(runs) - strange, other + strange
        if word is None and (accent := re.search(rb"[\x80-\xff]", block)):
            around = block[max(0, accent.start() - 20) : accent.start() + 20]
            word = re.search(rb"[^\s,;|\"]*[\x80-\xff][^\s,;|\"]*", around)
    if word is None or not alone or western <= other:
        return None
    return word[0].decode("cp1252")


LARGE_JSON = 2**30
"""Bytes that lists with an entry per item may have in JSON."""


def read_json(path: str | os.PathLike, fix: str, most: int = 2**26) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        fix: what to do when it is missing or broken, a clause that ends the error line.
        most: bytes that are read; parsed, they can take thirty times as much memory.

    Raises:
        ValueError: the file is missing, unreadable, larger, or not JSON.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path} is not a file; {fix}")
        if found.st_size > most:
            raise ValueError(
                f"{path} has {found.st_size:,} bytes, expected at most {most:,}; {fix}"
            )
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); {fix}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); {fix}") from error
    try:
        return json.loads(text)
    except ValueError as error:  # JSONDecodeError, and numbers of thousands of digits
        raise ValueError(f"{path} is not valid JSON ({error}); {fix}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is not valid JSON (nested too deeply); {fix}") from error


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
