"""Files of named weight arrays: PyTorch checkpoints, `.safetensors` and `.npz` (NumPy only).

A `.pth` file is a pickle, and unpickling runs whatever code the file names. The reader here
replaces every name that a state_dict needs by an inert stub, refuses all others, and takes the
numbers from the raw bytes beside the pickle. PyTorch itself is not needed.
"""

from __future__ import annotations

import collections
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from dsprh_tf.data.files import replacing, require_regular
from dsprh_tf.data.npy_files import read_npz

# First two objects of the format before PyTorch 1.6, which is a plain sequence of pickles.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
# Strides of 0, and views of one storage, let a few bytes claim any size: no more than this many
# bytes of arrays for one of the file, beyond some that tests and small files need.
_EXPANSION, _SMALL = 20, 2**26

_STORAGE_DTYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class _StorageType:
    """Stand-in for `torch.FloatStorage` and its kin: only the element type."""

    def __init__(self, dtype: str):
        self.dtype = dtype
        self.itemsize = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


class _Storage:
    """A run of raw bytes that a pickle refers to by its key."""

    def __init__(self, kind: _StorageType, key: str, elements: int, start: int = 0):
        self.kind, self.key, self.elements, self.start = kind, key, elements, start


class _Tensor:
    """A strided view of a storage; also stands for `torch.nn.Parameter`."""

    def __init__(self, storage: _Storage, offset: int, size, stride):
        self.storage, self.offset = storage, offset
        self.size, self.stride = tuple(size), tuple(stride)

    def __setstate__(self, state):
        """Ignore what old parameters carry beside their data (requires_grad, hooks)."""


def _rebuild_tensor(storage, offset, size, stride, *_ignored) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    return _Tensor(storage, offset, size, stride)


def _rebuild_parameter(data, *_ignored) -> _Tensor:
    return _rebuild_tensor(data.storage, data.offset, data.size, data.stride)


_ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch.nn.parameter", "Parameter"): _rebuild_parameter,
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGE_DTYPES.items()},
}


class _StateDictUnpickler(pickle.Unpickler):
    """Unpickler that knows the names a state_dict needs and refuses every other one."""

    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise ValueError(
                f"its pickle asks for `{module}.{name}`, which no state_dict needs "
                "and which could run code: refused; save `model.state_dict()` instead"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, reference):
        tag, kind, key, _location, elements = reference[:5]
        if tag != "storage" or not isinstance(kind, _StorageType):
            raise ValueError(f"unknown kind of reference {tag!r}")
        start = 0
        if len(reference) > 5 and reference[5] is not None:  # legacy: a view of a storage
            start, elements = reference[5][1], reference[5][2]
        return _Storage(kind, str(key), elements, start)


def _state_dict_of(loaded) -> Mapping:
    """The name -> tensor mapping in a checkpoint, also one level below, as trainers save it."""
    candidates = [loaded]
    if isinstance(loaded, Mapping):
        candidates += [loaded.get("state_dict"), loaded.get("model")]
    for found in candidates:
        if (
            isinstance(found, Mapping)
            and found
            and all(
                isinstance(name, str) and isinstance(value, _Tensor)
                for name, value in found.items()
            )
        ):
            return found
    raise ValueError("no state_dict (a mapping of names to tensors) in it")


def _check_sizes(tensors: Mapping[str, _Tensor], path: Path) -> None:
    """Refuses tensors that would take far more memory than the file."""
    size = os.path.getsize(path)
    total = sum(math.prod(t.size) * t.storage.kind.itemsize for t in tensors.values())
    if total > _EXPANSION * size + _SMALL:
        raise ValueError(f"its tensors take {total:,} bytes, the file has {size:,}: too large")


def _array(tensor: _Tensor, raw, byte_order: str) -> np.ndarray:
    """Contiguous array of a strided view; bfloat16, which NumPy lacks, becomes float32."""
    kind, storage = tensor.storage.kind, tensor.storage
    size, stride = tensor.size, tensor.stride
    numbers = (*size, *stride, tensor.offset, storage.start, storage.elements)
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(f"a tensor has size {size} and stride {stride}")
    available = len(raw) // kind.itemsize
    used = tensor.offset + sum((n - 1) * s for n, s in zip(size, stride)) + 1
    if storage.start + storage.elements > available or (
        math.prod(size) and used > storage.elements
    ):
        raise ValueError(
            f"a tensor of size {size}, stride {stride} reaches beyond its {available} stored values"
        )
    dtype = np.dtype("u2" if kind.dtype == "bfloat16" else kind.dtype)
    flat = np.frombuffer(raw, dtype.newbyteorder(byte_order))[storage.start + tensor.offset :]
    strides = tuple(s * dtype.itemsize for s in stride)
    view = np.lib.stride_tricks.as_strided(flat, size, strides, writeable=False)
    native = view.astype(dtype, order="C")  # a copy: contiguous, native byte order, writable
    if kind.dtype == "bfloat16":
        return (native.astype(np.uint32) << 16).view(np.float32)
    return native


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    """State_dict of the zip format (PyTorch >= 1.6)."""
    with zipfile.ZipFile(path) as archive:
        # PyTorch stores without compression; anything else could be a decompression bomb.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("compressed entries, which PyTorch never writes")
        names = set(archive.namelist())
        pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise ValueError("a zip file without PyTorch's data.pkl")
        folder = pickles[0].split("/")[0]
        order = "<"
        if f"{folder}/byteorder" in names:
            order = {b"little": "<", b"big": ">"}[archive.read(f"{folder}/byteorder").strip()]
        with archive.open(pickles[0]) as stream:
            tensors = _state_dict_of(_StateDictUnpickler(stream).load())
        _check_sizes(tensors, path)
        cache: dict[str, bytes] = {}
        arrays = {}
        for name, tensor in tensors.items():
            key = tensor.storage.key
            if key not in cache:
                cache = {key: archive.read(f"{folder}/data/{key}")}
            arrays[name] = _array(tensor, cache[key], order)
        return arrays


def _read_legacy(path: Path) -> dict[str, np.ndarray]:
    """State_dict of the format before PyTorch 1.6: pickles, then the storages one by one."""
    with open(path, "rb") as stream:
        if _StateDictUnpickler(stream).load() != _LEGACY_MAGIC:
            raise ValueError("not a PyTorch file")
        if _StateDictUnpickler(stream).load() != _LEGACY_PROTOCOL:
            raise ValueError("unknown PyTorch protocol version")
        order = "<" if _StateDictUnpickler(stream).load()["little_endian"] else ">"
        tensors = _state_dict_of(_StateDictUnpickler(stream).load())
        _check_sizes(tensors, path)
        keys = [str(key) for key in _StateDictUnpickler(stream).load()]
        kinds = {tensor.storage.key: tensor.storage.kind for tensor in tensors.values()}
        remaining = os.path.getsize(path) - stream.tell()
        storages = {}
        for key in keys:
            if key not in kinds:
                raise ValueError(f"stored data {key!r} that no tensor refers to")
            elements = struct.unpack(order + "q", stream.read(8))[0]
            count = elements * kinds[key].itemsize
            remaining -= 8 + count
            if elements < 0 or remaining < 0:
                raise ValueError("the file is truncated")
            storages[key] = stream.read(count)
    return {n: _array(t, storages[t.storage.key], order) for n, t in tensors.items()}


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    with open(path, "rb") as stream:
        is_zip = stream.read(4) == b"PK\x03\x04"
    return _read_zip(path) if is_zip else _read_legacy(path)


_READERS = {
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".safetensors": safetensors.numpy.load_file,
    ".npz": read_npz,
}


def read_weights(path) -> dict[str, np.ndarray]:
    """Named arrays of a `.pth`, `.pt`, `.safetensors` or `.npz` file, in the file's order.

    PyTorch files may be of the zip format or of the older one; tensors may be views with any
    strides. No code of the file runs.

    Args:
        path: The file.

    Returns:
        Name -> contiguous array. bfloat16 of PyTorch files arrives as float32.

    Raises:
        ValueError: A file that is missing, of another kind, damaged, or that asks for code.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise ValueError(
            f"{path}: got the extension {path.suffix!r}, expected one of {', '.join(_READERS)}"
        )
    require_regular(path)
    try:
        return dict(_READERS[path.suffix](path))
    except Exception as error:  # pickle, zipfile and safetensors raise a dozen kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: cannot read weights: {reason}") from error


def write_weights(path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays to a `.safetensors` or `.npz` file; the file appears whole or not at all.

    Args:
        path: The file to write; its folder is made if missing.
        arrays: Name -> array.

    Raises:
        ValueError: Another extension, or an array type that the format cannot hold.
        OSError: The disk refuses (full, read-only).
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(
            f"{path}: got the extension {path.suffix!r}, expected .safetensors or .npz"
        )
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        if path.suffix == ".npz":
            np.savez(stream, **arrays)
        else:
            contiguous = {name: np.asarray(a, order="C") for name, a in arrays.items()}
            stream.write(safetensors.numpy.save(contiguous))
