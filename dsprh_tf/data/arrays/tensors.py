"""Tensors in files of PyTorch (`.pt`, `.pth`) and in `.safetensors` files, without PyTorch.

A file of `torch.save` is a pickle, and unpickling runs whatever code the file names. The reader
here replaces every name that tensors need by an inert stub, refuses all others, and takes the
numbers from the raw bytes beside the pickle.
"""

from __future__ import annotations

import collections
import contextlib
import json
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from dsprh_tf.data.arrays.stored import Blocks, StoredArray, explained, stream_blocks

# First two objects of the format before PyTorch 1.6, which is a plain sequence of pickles.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_BFLOAT16 = "bfloat16"  # the first half of a float32; NumPy has none
_STORAGE_DTYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_SAFETENSORS_DTYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": _BFLOAT16, "I64": "i8",
                       "I32": "i4", "I16": "i2", "I8": "i1", "U64": "u8", "U32": "u4", "U16": "u2",
                       "U8": "u1", "BOOL": "?"}  # fmt: skip
_HEADER = 10**8  # most bytes of the header of safetensors, as in the format
_DEPTH = 3  # mappings within mappings


def _stored_dtype(dtype: str, order: str) -> np.dtype:
    """The type of the bytes in a file."""
    return np.dtype(order + ("u2" if dtype == _BFLOAT16 else dtype))


def _native_dtype(dtype: str) -> np.dtype:
    return np.dtype("f4" if dtype == _BFLOAT16 else dtype)


def _native(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values in a type of NumPy: bfloat16 becomes float32."""
    if dtype == _BFLOAT16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


class _StorageType:
    """Stand-in for `torch.FloatStorage` and its kin: only the element type."""

    def __init__(self, dtype: str):
        self.dtype = dtype
        self.itemsize = _stored_dtype(dtype, "<").itemsize


class _Storage:
    """A run of raw bytes that a pickle refers to by its key."""

    def __init__(self, kind: _StorageType, key: str, elements: int, start: int = 0):
        self.kind, self.key, self.elements, self.start = kind, key, elements, start


class Tensor:
    """A strided view of a storage; also stands for `torch.nn.Parameter`.

    Attributes:
        size: lengths of its axes.
        stride: elements from one to the next along each axis.
    """

    def __init__(self, storage: _Storage, offset: int, size, stride):
        self.storage, self.offset = storage, offset
        self.size, self.stride = tuple(size), tuple(stride)
        numbers = (*self.size, *self.stride, offset)
        if any(type(n) is not int or n < 0 for n in numbers) or len(self.size) != len(self.stride):
            raise ValueError("a tensor whose size, stride or offset is none")

    def __setstate__(self, state):
        """Ignore what old parameters carry beside their data (requires_grad, hooks)."""

    @property
    def nbytes(self) -> int:
        """Bytes of its values in the file, each as often as the tensor has it."""
        return math.prod(self.size) * self.storage.kind.itemsize


def _rebuild_tensor(storage, offset, size, stride, *_ignored) -> Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    return Tensor(storage, offset, size, stride)


def _rebuild_parameter(data, *_ignored) -> Tensor:
    if not isinstance(data, Tensor):
        raise ValueError("a parameter without a tensor")
    return _rebuild_tensor(data.storage, data.offset, data.size, data.stride)


def _ordered(pairs=()) -> collections.OrderedDict:
    return collections.OrderedDict(_plain_keys(list(pairs)))


def _plain_keys(pairs: list) -> list:
    """Pairs whose keys are strings or numbers; the hash of tuples within tuples can take hours."""
    if any(len(pair) != 2 or type(pair[0]) not in (str, int) for pair in pairs):
        raise ValueError("a mapping whose keys are no names")
    return pairs


_ALLOWED = {
    ("collections", "OrderedDict"): _ordered,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch.nn.parameter", "Parameter"): _rebuild_parameter,
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGE_DTYPES.items()},
}


class _Unpickler(pickle._Unpickler):  # the one in C reserves memory for positions that a file names
    """Unpickler that knows the names that tensors need and refuses every other one."""

    def __init__(self, stream):
        super().__init__(stream)
        self.storages: dict[str, _StorageType] = {}

    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise ValueError(
                f"its pickle asks for `{module}.{name}`, which no tensor needs and which could run "
                "code: refused; save tensors alone, with torch.save({'image': image, ...}, FILE), "
                "`model.state_dict()`, or save_file of safetensors.torch"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid):
        tag, kind, key, _location, elements = pid[:5]
        if tag != "storage" or not isinstance(kind, _StorageType) or not isinstance(key, str):
            raise ValueError("a reference to something else than stored values")
        start = 0
        if len(pid) > 5 and pid[5] is not None:  # legacy: a view of a storage
            start, elements = pid[5][1], pid[5][2]
        if any(type(n) is not int or n < 0 for n in (start, elements)):
            raise ValueError("stored values of an unknown number")
        self.storages[key] = kind
        return _Storage(kind, key, elements, start)

    def _setitem(self):
        _plain_keys([(self.stack[-2], None)])
        super().load_setitem()

    def _setitems(self):
        _plain_keys([(key, None) for key in self.stack[::2]])
        super().load_setitems()

    def _none(self):
        raise ValueError("its pickle holds what no tensor needs")

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.SETITEM[0]: _setitem,
        pickle.SETITEMS[0]: _setitems,
        pickle.DICT[0]: _none,
        pickle.ADDITEMS[0]: _none,
        pickle.FROZENSET[0]: _none,
        pickle.BYTEARRAY8[0]: _none,
    }


class _Patient:
    """A file of which no more memory is reserved than it has bytes, whatever sizes it names."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self.readline = stream.readline

    def read(self, count: int) -> bytes:
        parts = []
        while count > 0 and (part := self._stream.read(min(count, 2**20))):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def _unpickled(stream: IO[bytes]) -> tuple[Any, dict[str, _StorageType]]:
    """The object of a pickle, and the types of the storages that it refers to."""
    unpickler = _Unpickler(_Patient(stream))
    return unpickler.load(), unpickler.storages


class TorchFile:
    """A file of `torch.save`.

    Args:
        path: the file.

    Attributes:
        content: what was saved: mappings, sequences, numbers, and `Tensor` where a tensor was.

    Raises:
        Exception: of many kinds, from pickle and zipfile, where the file is damaged.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = os.fspath(path)
        self._order = "<"
        self._opened: Callable[[str], contextlib.AbstractContextManager]
        with open(self._path, "rb") as stream:
            is_zip = stream.read(4) == b"PK\x03\x04"
        self.content = self._read_zip() if is_zip else self._read_legacy()

    def _read_zip(self) -> Any:
        """The format since PyTorch 1.6."""
        with zipfile.ZipFile(self._path) as archive:
            # PyTorch stores without compression; anything else could be a decompression bomb.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("compressed entries, which PyTorch never writes")
            names = set(archive.namelist())
            pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
            if len(pickles) != 1:
                raise ValueError("a zip file without PyTorch's data.pkl")
            self._folder = pickles[0].split("/")[0]
            if f"{self._folder}/byteorder" in names:
                order = archive.read(f"{self._folder}/byteorder").strip()
                self._order = {b"little": "<", b"big": ">"}[order]
            with archive.open(pickles[0]) as stream:
                content, _ = _unpickled(stream)
        self._opened = self._opened_entry
        return content

    def _read_legacy(self) -> Any:
        """The format before PyTorch 1.6: pickles, then the storages one by one."""
        with open(self._path, "rb") as stream:
            if _unpickled(stream)[0] != _LEGACY_MAGIC:
                raise ValueError("not a PyTorch file")
            if _unpickled(stream)[0] != _LEGACY_PROTOCOL:
                raise ValueError("unknown PyTorch protocol version")
            self._order = "<" if _unpickled(stream)[0]["little_endian"] else ">"
            content, kinds = _unpickled(stream)
            keys = list(_unpickled(stream)[0])
            size = os.path.getsize(self._path)
            self._places: dict[str, tuple[int, int]] = {}
            for key in keys:
                if not isinstance(key, str) or key not in kinds:
                    raise ValueError("stored data that no tensor refers to")
                head = stream.read(8)
                elements = struct.unpack(f"{self._order}q", head)[0]
                count = elements * kinds[key].itemsize
                if elements < 0 or stream.tell() + count > size:
                    raise ValueError("the file is truncated")
                self._places[key] = stream.tell(), count
                stream.seek(count, os.SEEK_CUR)
        self._opened = self._opened_place
        return content

    @contextlib.contextmanager
    def _opened_entry(self, key: str) -> Iterator[tuple[IO[bytes], int]]:
        with zipfile.ZipFile(self._path) as archive:
            entry = archive.getinfo(f"{self._folder}/data/{key}")
            with archive.open(entry) as stream:
                yield stream, entry.file_size

    @contextlib.contextmanager
    def _opened_place(self, key: str) -> Iterator[tuple[IO[bytes], int]]:
        with open(self._path, "rb") as stream:
            start, size = self._places[key]
            stream.seek(start)
            yield stream, size

    def array(self, name: str, tensor: Tensor) -> StoredArray:
        """A tensor of the file as an array."""
        kind = tensor.storage.kind
        stored = min(tensor.storage.elements * kind.itemsize, os.path.getsize(self._path))

        def blocks() -> Blocks:
            with self._opened(tensor.storage.key) as (stream, available):
                yield from self._blocks(tensor, stream, available)

        return StoredArray(
            name,
            f"{self._path}: {name}",
            tensor.size,
            _native_dtype(kind.dtype),
            stored,
            blocks,
        )

    def _blocks(self, tensor: Tensor, stream: IO[bytes], available: int) -> Blocks:
        kind, storage = tensor.storage.kind, tensor.storage
        size, stride = tensor.size, tensor.stride
        available //= kind.itemsize
        used = tensor.offset + sum((n - 1) * s for n, s in zip(size, stride)) + 1
        if storage.start + storage.elements > available or (
            math.prod(size) and used > storage.elements
        ):
            raise ValueError(
                f"a tensor of size {size}, stride {stride} reaches beyond its {available} stored "
                "values"
            )
        dtype = _stored_dtype(kind.dtype, self._order)
        first = (storage.start + tensor.offset) * dtype.itemsize
        if _contiguous(size, stride):
            _read(stream, first)
            for index, block in stream_blocks(lambda n: _read(stream, n), size, dtype, False):
                yield index, _native(block, kind.dtype)
            _read(stream, (available - storage.start - used) * dtype.itemsize)  # to the checksum
            return
        raw = _read(stream, available * dtype.itemsize)
        flat = np.frombuffer(raw, dtype)[first // dtype.itemsize :]
        strides = tuple(s * dtype.itemsize for s in stride)
        view = np.lib.stride_tricks.as_strided(flat, size, strides, writeable=False)
        yield ..., _native(view, kind.dtype)


def _contiguous(size: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    return all(
        length == 1 or step == math.prod(size[axis + 1 :])
        for axis, (length, step) in enumerate(zip(size, stride))
    )


def _read(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count) if count > 0 else b""
    if len(content) != max(count, 0):
        raise ValueError("it is truncated")
    return content


def named_tensors(content: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The tensors of mappings, also within each other, by their names joined by "."."""
    if isinstance(content, Tensor):
        yield prefix, content
    elif isinstance(content, Mapping) and depth < _DEPTH:
        for name, value in content.items():  # strings or numbers, see `_plain_keys`
            yield from named_tensors(value, f"{prefix}.{name}" if prefix else str(name), depth + 1)


def list_torch(path: str | os.PathLike) -> list[StoredArray]:
    """The tensors of a PyTorch file; one alone has the name of the file.

    Raises:
        ValueError: the file is damaged, asks for code, or holds no tensors by name.
    """
    with explained(os.fspath(path)):
        file = TorchFile(path)
        found = [
            file.array(name or Path(path).stem, tensor)
            for name, tensor in named_tensors(file.content)
        ]
        if not found:
            raise ValueError(
                f"it holds a {type(file.content).__name__}, expected a tensor or tensors by name; "
                "save them with torch.save({'image': image, 'text': text, 'labels': labels}, FILE)"
            )
        return found


def list_safetensors(path: str | os.PathLike) -> list[StoredArray]:
    """The tensors of a `.safetensors` file.

    Raises:
        ValueError: the file is damaged.
    """
    where = os.fspath(path)
    with explained(where), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        (length,) = struct.unpack("<Q", _read(file, 8))
        if length > min(_HEADER, size - 8):
            raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
        header = json.loads(_read(file, length), object_pairs_hook=_once)
        if not isinstance(header, dict):
            raise ValueError("a header that is no mapping of names")
        start = 8 + length
        return [
            _safetensor(where, name, about, start, size - start)
            for name, about in header.items()
            if name != "__metadata__"
        ]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in its header")
    return found


def _safetensor(path: str, name: str, about: Any, start: int, size: int) -> StoredArray:
    where = f"{path}: {name}"
    kind, shape, (begin, end) = about["dtype"], tuple(about["shape"]), about["data_offsets"]
    if any(type(n) is not int or n < 0 for n in (*shape, begin, end)):
        raise ValueError(f"{name} has the shape {shape} and the place {begin} to {end}")
    if kind not in _SAFETENSORS_DTYPES:
        return StoredArray(name, where, problem=f"of the type {kind}; save it as float32")
    kind = _SAFETENSORS_DTYPES[kind]
    dtype = _stored_dtype(kind, "<")
    if begin > end or end > size or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"{name} is {shape} of {kind}, at {begin:,} to {end:,} of {size:,} bytes: truncated or "
            "altered"
        )

    def blocks() -> Blocks:
        with open(path, "rb") as file:
            file.seek(start + begin)
            for index, block in stream_blocks(lambda n: _read(file, n), shape, dtype, False):
                yield index, _native(block, kind)

    return StoredArray(name, where, shape, _native_dtype(kind), end - begin, blocks)
