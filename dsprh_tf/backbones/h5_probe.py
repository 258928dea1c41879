"""The process that reads a Keras weight file first: where the HDF5 library crashes on a damaged
file, or reads it for ever, that costs one line.

    python -I h5_probe.py FILE

It prints {"shapes": name -> shape, "older": whether it is of the older `.h5` layout}, or
{"problem": line}. It imports nothing of the package, so that it starts fast.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import h5py

_PACKED = 20  # most bytes of values that one byte of a file may stand for
_SECONDS = 4  # of computing time, and one more for each 32 MiB
_OBJECTS = 100_000


def main(path: str) -> dict:
    """What a weight file holds, once all of it could be read."""
    size = os.path.getsize(path)
    seconds = _SECONDS + size // 2**25
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with _opened(path) as file:
            return _read(file, size)
    except Exception as error:  # h5py and zipfile raise many kinds
        return {"problem": " ".join(str(error).split()) or type(error).__name__}


@contextlib.contextmanager
def _opened(path: str) -> Iterator[h5py.File]:
    """The HDF5 file, also within a `.keras` archive."""
    source: Any = path
    if path.endswith(".keras"):
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo("model.weights.h5")
            if entry.file_size > _PACKED * max(entry.compress_size, 2**20):
                raise ValueError(f"weights of {entry.file_size:,} bytes are declared")
            source = io.BytesIO(archive.read(entry))
    with h5py.File(source, "r") as file:
        yield file


def _read(file: h5py.File, size: int) -> dict:
    """Reads all names, attributes and values; what leads elsewhere is refused."""
    found: dict[str, h5py.Dataset] = {}
    declared, seen, todo = 0, set(), [("", file)]
    while todo:
        prefix, group = todo.pop()
        dict(group.attrs)
        for name in group:
            full = f"{prefix}{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{full} is a link, which no weight file needs")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen or len(seen) > _OBJECTS:
                raise ValueError(f"{full} is there twice, or there are too many arrays")
            seen.add(address)
            if isinstance(item, h5py.Group):
                todo.append((f"{full}/", item))
                continue
            if not isinstance(item, h5py.Dataset):
                raise ValueError(f"{full} is no array")
            dict(item.attrs)
            if item.external or item.is_virtual:
                raise ValueError(f"the values of {full} are in another file")
            declared += item.nbytes
            found[full] = item
    if declared > _PACKED * size + 2**20:
        raise ValueError(f"{declared:,} bytes of values are declared in a file of {size:,} bytes")
    for item in found.values():
        item[()]
    return _shapes(file, found)


def _shapes(file: h5py.File, found: dict[str, h5py.Dataset]) -> dict:
    root = file.get("model_weights", file)
    if "layer_names" not in root.attrs:
        start = "model_weights/" if root.name != "/" else ""
        shapes = {n[len(start) :]: i.shape for n, i in found.items() if n.startswith(start)}
        return {"shapes": shapes, "older": False}
    shapes = {}
    for layer in root.values():
        for name in layer.attrs.get("weight_names", ()):
            name = name.decode() if isinstance(name, bytes) else str(name)
            last = name.split("/")[-1].split(":")[0]
            shapes[f"{layer.name.split('/')[-1]}/{last}"] = layer[name].shape
    return {"shapes": shapes, "older": True}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
