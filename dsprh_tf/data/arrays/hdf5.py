"""Arrays in HDF5 files: those of MATLAB 7.3, and those that other programs write.

The HDF5 library ends the interpreter on some damaged files. So it runs in a process of its own
(`hdf5_process`), one for all files, which is started when it is needed.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsprh_tf.data.arrays.stored import (
    TEXT,
    Blocks,
    StoredArray,
    expand_pointers,
    explained,
    most_nonzeros,
    sparse_blocks,
)

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class _Process:
    """The process that reads, and the requests to it, one at a time from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: subprocess.Popen | None = None
        self._owner = 0
        atexit.register(self.close)

    def ask(self, **request) -> Iterator[tuple[dict[str, Any], np.ndarray | None]]:
        """Sends a request and yields the lines of its answer, each with the values behind it.

        Raises:
            ValueError: the file is damaged; the library crashed on it.
        """
        with self._lock:
            done = False
            try:
                process = self._started()
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                while True:
                    line = process.stdout.readline()
                    if not line.endswith(b"\n"):
                        raise ValueError("the HDF5 library crashes on it: damaged")
                    said = json.loads(line)
                    if "end" in said or "error" in said:
                        done = True
                        break
                    yield said, self._values(process, said)
            finally:
                if not done:  # what was not read would stand before the next answer
                    self._end()
        if "error" in said:
            raise ValueError(said["error"])
        yield said, None

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._end()

    def _values(self, process: subprocess.Popen, said: dict[str, Any]) -> np.ndarray:
        values = np.empty(tuple(said["shape"]), np.dtype(said["dtype"]))
        content = memoryview(values.reshape(-1).view(np.uint8).data)
        while content:
            count = process.stdout.readinto(content)  # type: ignore[union-attr]
            if not count:
                raise ValueError("the HDF5 library crashes on it: damaged")
            content = content[count:]
        return values

    def _started(self) -> Any:
        if self._owner != os.getpid():  # after a fork the process is that of another
            self._running = None
        if self._running is None or self._running.poll() is not None:
            self._end()
            environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
            self._running = subprocess.Popen(
                [sys.executable, "-I", str(Path(__file__).with_name("hdf5_process.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # ended together with its copies
            )
            self._owner = os.getpid()
        return self._running

    def _end(self) -> None:
        process, self._running = self._running, None
        if process is None or self._owner != os.getpid():
            return
        with contextlib.suppress(OSError):  # it ended before, or has not taken all
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            process.communicate()


_PROCESS = _Process()


def is_hdf5(path: str | os.PathLike) -> bool:
    """Whether a file is HDF5, with or without a header of another program before it."""
    with open(path, "rb") as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            file.seek(at)
            if file.read(8) == _SIGNATURE:
                return True
            at = 2 * at or 512
    return False


def list_arrays(path: str | os.PathLike) -> list[StoredArray]:
    """The arrays of an HDF5 file, those in groups as "group/array".

    Arrays of MATLAB have their axes as in MATLAB; HDF5 has them reversed.

    Raises:
        ValueError: the file is damaged.
    """
    where = os.path.abspath(path)
    with explained(os.fspath(path)):
        *_, (said, _) = _PROCESS.ask(do="list", path=where)
        return [_stored(os.fspath(path), about) for about in said["arrays"]]


def read_part(path: str | os.PathLike, name: str, at: Sequence[int | slice]) -> np.ndarray:
    """A part of an array, by any number of threads at once.

    Args:
        path: the file.
        name: of the array.
        at: an index or a slice for each axis in the file.

    Raises:
        ValueError: there is no such part, or the file is damaged.
    """
    plain = [[part.start, part.stop] if isinstance(part, slice) else int(part) for part in at]
    answer = list(_PROCESS.ask(do="part", path=os.path.abspath(path), name=name, at=plain))
    values = answer[0][1]
    if values is None:
        raise ValueError(f"{name} holds strings")
    return values


def _stored(path: str, about: dict[str, Any]) -> StoredArray:
    """An array from what the process says of it."""
    name = about["name"]
    where = f"{path}: {name}"
    if "problem" in about:
        return StoredArray(name, where, problem=about["problem"])
    shape, stored = tuple(about["shape"]), about["stored"]
    dtype = np.dtype(about["dtype"]).newbyteorder("=")
    form, marked = about.get("form", ""), about["marked"]
    if form == "sparse":
        if about["count"] > most_nonzeros(stored):
            said = f"a sparse matrix of {about['count']:,} values from {stored:,} bytes: altered"
            return StoredArray(name, where, problem=said)
        return StoredArray(
            name,
            where,
            shape,
            dtype,
            stored,
            lambda: _sparse(path, name, shape, about["parts"]),
            marked=True,
            is_sparse=True,
        )
    if form == "strings":
        return StoredArray(name, where, shape, TEXT, stored, lambda: _strings(path, name))
    if form == "characters":
        return StoredArray(
            name, where, shape[1:], TEXT, stored, lambda: _characters(path, name, shape)
        )

    def values() -> Blocks:
        if math.prod(shape):
            for bounds, block in _blocks(path, name):
                yield (bounds[::-1], block.T) if marked else (bounds, block)

    return StoredArray(
        name, where, shape[::-1] if marked else shape, dtype, stored, values, marked=marked
    )


def _blocks(path: str, name: str) -> Blocks:
    """Values of an array in the order of the file."""
    for said, block in _PROCESS.ask(do="values", path=os.path.abspath(path), name=name):
        if block is not None:
            yield tuple(slice(*bounds) for bounds in said["bounds"]), block


def _whole(path: str, name: str) -> np.ndarray:
    """A vector."""
    parts = [block for _, block in _blocks(path, name)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _sparse(path: str, name: str, shape: tuple[int, ...], parts: list[str]) -> Blocks:
    vectors = {key: _whole(path, f"{name}/{key}") for key in parts}
    rows = vectors.get("ir", np.zeros(0, np.int64))
    values = vectors.get("data", np.zeros(0, np.uint8))
    columns = expand_pointers(vectors["jc"], shape[1], len(rows))
    yield from sparse_blocks(shape, rows, columns, values)


def _strings(path: str, name: str) -> Blocks:
    *_, (said, _) = _PROCESS.ask(do="values", path=os.path.abspath(path), name=name)
    yield ..., _texts(said["strings"])


def _characters(path: str, name: str, shape: tuple[int, ...]) -> Blocks:
    """Rows of MATLAB's matrix of characters, which are columns here."""
    codes = np.zeros(shape, np.uint32)
    for bounds, block in _blocks(path, name):
        codes[bounds] = block
    yield ..., _texts(["".join(map(chr, row)).rstrip() for row in codes.T.tolist()])


def _texts(strings: list[str]) -> np.ndarray:
    array = np.empty(len(strings), TEXT)
    array[:] = strings
    return array
