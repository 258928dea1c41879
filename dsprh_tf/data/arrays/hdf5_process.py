"""The process that reads HDF5 files: a crash of the HDF5 library costs it alone, and one line.

    python -I hdf5_process.py

It answers lines of JSON on stdin with lines of JSON, and values behind them, on stdout. Requests
"list" and "values" are answered by a copy of the process, with limits of its own; "part" by the
process itself, which is faster. It imports nothing of the package, so that it starts fast and from
any folder. `hdf5` is the other side.

Only what lies in the file itself is read: links to other places and files, values in other files,
virtual arrays and references are named and left alone, and so are filters that need a plugin.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import h5py
import numpy as np

MEMORY = 2**31  # bytes beyond what the process has at its beginning
SECONDS = 300  # of computing time, for a request
BLOCK = 2**24  # bytes of values that are sent at once
_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
_CHUNK = 2**28  # most bytes of a chunk
_TEXTS = 2**27  # characters of the strings of an array
_DEPTH = 3  # groups within groups
_ITEMS = 10_000
_NAMED_FIELDS = 10


def listed(group: h5py.Group, prefix: str, depth: int, left: list[int]) -> Iterator[dict[str, Any]]:
    """What is said of each array: `StoredArray` without its values."""
    for name in group:
        left[0] -= 1
        if left[0] < 0:
            raise ValueError(f"it has more than {_ITEMS:,} arrays and groups")
        if name.startswith("#"):  # MATLAB's own
            continue
        full = f"{prefix}{name}"
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            target = getattr(link, "filename", "another place")
            said = f"a link to {target}, which is not followed; copy the array"
            yield {"name": full, "problem": said}
            continue
        item = group[name]
        if isinstance(item, h5py.Dataset):
            yield {"name": full, **_about(item)}
        elif isinstance(item, h5py.Group) and "MATLAB_sparse" in item.attrs:
            yield {"name": full, **_about_sparse(item)}
        else:
            yield {"name": full, "problem": _fields(item, full)}
            is_group = isinstance(item, h5py.Group)
            if is_group and "MATLAB_class" not in item.attrs and depth < _DEPTH:
                yield from listed(item, f"{full}/", depth + 1, left)


def _fields(item: Any, name: str) -> str:
    if not isinstance(item, h5py.Group):
        return "a type of values, expected an array"
    names = sorted(item)[: _NAMED_FIELDS + 1]
    shown = ", ".join(names[:_NAMED_FIELDS]) + (", ..." if len(names) > _NAMED_FIELDS else "")
    fix = "save its fields as arrays of their own"
    if "MATLAB_class" in item.attrs:
        fix = f"save its fields as variables: save(FILE, '-struct', '{name}', '-v7.3')"
    return f"a struct or group with the fields {shown or '(none)'}, expected a full array; {fix}"


def _about(item: h5py.Dataset) -> dict[str, Any]:
    kind = item.attrs.get("MATLAB_class", b"")
    kind = kind.decode("latin-1") if isinstance(kind, bytes) else str(kind)
    problem = _problem(item, kind)
    if problem:
        return {"problem": problem}
    about = {
        "shape": list(map(int, item.shape)),
        "dtype": item.dtype.str,
        "stored": int(item.id.get_storage_size()),
        "marked": bool(kind),
    }
    if item.attrs.get("MATLAB_empty", 0):  # the values are the shape
        return {**about, "shape": [0, 0], "dtype": "<f8"}
    if h5py.check_string_dtype(item.dtype) is not None:
        if item.ndim != 1:
            return {"problem": "strings in another form than one for each pair"}
        return {**about, "form": "strings"}
    if kind == "char":
        if item.ndim != 2 or item.dtype.kind != "u":
            return {"problem": "characters in another form than rows"}
        return {**about, "form": "characters"}
    return about


def _about_sparse(item: h5py.Group) -> dict[str, Any]:
    """A sparse matrix of MATLAB: values, the row of each, where each column begins."""
    height = int(np.asarray(item.attrs["MATLAB_sparse"]).item())
    parts = {}
    for key in ("data", "ir", "jc"):  # without nonzero values there are no data and no ir
        if key in item and isinstance(item.get(key, getlink=True), h5py.HardLink):
            parts[key] = item[key]
    if "jc" not in parts or ("data" in parts) != ("ir" in parts) or height < 0:
        return {"problem": "a sparse matrix without data, ir and jc: altered"}
    for key, part in parts.items():
        problem = "no array" if not isinstance(part, h5py.Dataset) else _problem(part, "")
        if problem or part.ndim != 1 or part.dtype.kind not in "biuf":
            return {"problem": f"a sparse matrix whose {key} is {problem or 'no vector'}"}
    return {
        "shape": [height, int(parts["jc"].shape[0]) - 1],
        "dtype": parts["data"].dtype.str if "data" in parts else "|u1",
        "stored": sum(int(part.id.get_storage_size()) for part in parts.values()),
        "count": max(int(part.shape[0]) for part in parts.values()),
        "parts": list(parts),
        "marked": True,
        "form": "sparse",
    }


def _problem(item: h5py.Dataset, kind: str) -> str:
    """Why an array is not read, "" where it is."""
    if h5py.check_ref_dtype(item.dtype) is not None or kind == "cell":
        return (
            "a cell array or an array of references, which are not followed; save a matrix, such "
            "as cell2mat(...), or names as a matrix of characters: char(...)"
        )
    if kind in ("function_handle", "struct", "table", "string", "datetime", "categorical"):
        return f"a {kind.replace('_', ' ')} of MATLAB, expected an array; save a matrix instead"
    if item.is_virtual or item.external:
        return "an array whose values are in other files, which are not read; save them in this one"
    if item.shape is None:
        return "an array without values"
    plist = item.id.get_create_plist()
    for index in range(plist.get_nfilters()):
        number = plist.get_filter(index)[0]
        if number not in _FILTERS:
            return (
                f"packed by the filter {number}, expected gzip or none; repack it: "
                "h5repack -f GZIP=4 IN OUT"
            )
    chunk = math.prod(item.chunks or ()) * item.dtype.itemsize
    if chunk > _CHUNK:
        return f"in chunks of {chunk:,} bytes, expected at most {_CHUNK:,}; save it again"
    if item.size and not item.id.get_storage_size():
        return "declared, but its values were never written; save it again"
    if h5py.check_string_dtype(item.dtype) is not None:
        return ""
    if h5py.check_vlen_dtype(item.dtype) is not None:
        return "rows of different lengths, expected a matrix; save one, padded or as multi-hot"
    if item.dtype.names == ("real", "imag") or item.dtype.kind == "c":
        return "of complex numbers, expected real ones; save their real parts or magnitudes"
    if item.dtype.kind not in "biuf":
        return f"of the type {item.dtype}, expected numbers; save them as float32"
    return ""


def found(file: h5py.File, name: str) -> h5py.Dataset:
    """An array that lies in the file itself and can be read."""
    item: Any = file
    for part in name.split("/"):
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{name} is missing")
        item = item[part]
    if not isinstance(item, h5py.Dataset):
        raise ValueError(f"{name} is not a full array")
    problem = _problem(item, "")
    if problem:
        raise ValueError(f"{name} is {problem}")
    return item


def blocks(item: h5py.Dataset) -> Iterator[tuple[list, np.ndarray]]:
    """Bounds along each axis, and the values within; each chunk is unpacked once if it can be."""
    shape, size = item.shape, item.dtype.itemsize
    if not item.size:
        return
    if not shape:
        yield [], np.asarray(item[()])
        return
    _check_chunks(item)
    chunks = item.chunks or (1,) * len(shape)
    # Along the axis with the thinnest chunks.
    axis = min(range(len(shape)), key=lambda a: chunks[a] / shape[a])
    line = item.size // shape[axis] * size
    step = max(1, BLOCK // line)
    if step > chunks[axis]:
        step -= step % chunks[axis]
    elif chunks[axis] * line <= _CHUNK:
        step = chunks[axis]
    for begin in range(0, shape[axis], step):
        bounds = [[0, length] for length in shape]
        bounds[axis] = [begin, min(shape[axis], begin + step)]
        yield bounds, item[tuple(slice(*pair) for pair in bounds)]


def _check_chunks(item: h5py.Dataset) -> None:
    """Refuses chunks that are packed in more bytes than they can have.

    HDF5 unpacks a chunk before it compares its size, however large it becomes; deflate packs by
    1,032 at most, and makes what cannot be packed a thousandth larger.
    """
    if item.compression != "gzip" or not hasattr(item.id, "chunk_iter"):
        return
    most = math.prod(item.chunks) * item.dtype.itemsize
    most += most // 500 + 1024
    packed: list[int] = []
    item.id.chunk_iter(lambda chunk: packed.extend([chunk.size]))
    if max(packed, default=0) > most:
        raise ValueError(f"a chunk of at most {most:,} bytes takes {max(packed):,}: altered")


def strings(item: h5py.Dataset) -> list[str]:
    """Strings of an array; each may be as long as the file, so that few are read at once."""
    size = os.path.getsize(item.file.filename)
    step = max(1, min(4096, _TEXTS // max(1, size)))
    read: list[str] = []
    left = _TEXTS
    for at in range(0, len(item), step):
        for text in item[at : at + step]:
            text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
            left -= len(text)
            if left < 0:
                raise ValueError(f"more than {_TEXTS:,} characters")
            read.append(text)
    return read


_kept: dict[tuple, h5py.Dataset] = {}


def kept(path: str, name: str) -> h5py.Dataset:
    """An array of which parts are read, open until another is asked for or the file changes.

    Without a lock, so that others can write to the file.
    """
    about = os.stat(path)
    key = (path, name, about.st_mtime_ns, about.st_size)
    if key not in _kept:
        _kept.clear()  # closed first, or else the library takes it for the file that is opened
        _kept[key] = found(h5py.File(path, "r", locking=False), name)
    return _kept[key]


def answer(request: dict[str, Any], out: BinaryIO) -> None:
    """Answers a request; the last line of an answer has "end" or "error"."""

    def say(**line) -> None:
        out.write(json.dumps(line).encode() + b"\n")

    def send(bounds: list, block: np.ndarray) -> None:
        content = np.ascontiguousarray(block)
        say(bounds=bounds, shape=block.shape, dtype=content.dtype.str)
        out.write(content.reshape(-1).view(np.uint8).data)
        out.flush()

    path = request["path"]
    try:
        if request["do"] == "part":
            item = kept(path, request["name"])
            at = tuple(slice(*i) if isinstance(i, list) else i for i in request["at"])
            send([], np.asarray(item[at]))
            say(end=True)
            return
        with h5py.File(path, "r") as file:
            if request["do"] == "list":
                say(end=True, arrays=list(listed(file, "", 0, [_ITEMS])))
                return
            item = found(file, request["name"])
            if h5py.check_string_dtype(item.dtype) is not None:
                say(end=True, strings=strings(item))
                return
            for bounds, block in blocks(item):
                send(bounds, block)
            say(end=True)
    except Exception as error:  # h5py raises nearly any kind
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        say(error=cause)


def answer_apart(request: dict[str, Any], out: BinaryIO) -> None:
    """Answers in a copy of the process; where that crashes, the process ends."""
    _kept.clear()
    child = os.fork()
    if not child:
        code = 1
        try:
            hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, hard))
            answer(request, out)
            out.flush()
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        os._exit(1)  # what was said of the answer ends with the pipe


def main() -> None:
    """Answers requests until stdin ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, hard))
    except (OSError, ValueError):  # another system, or a lower limit
        pass
    out = sys.stdout.buffer
    for line in sys.stdin.buffer:
        request = json.loads(line)
        (answer if request["do"] == "part" else answer_apart)(request, out)
        out.flush()


if __name__ == "__main__":
    main()
