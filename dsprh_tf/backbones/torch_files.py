"""Files of named weight arrays: PyTorch checkpoints, `.safetensors` and `.npz` (NumPy only).

`dsprh_tf.data.arrays.tensors` reads PyTorch's files without running their code.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

from dsprh_tf.data.arrays.tensors import Tensor, TorchFile
from dsprh_tf.data.files import replacing, require_regular
from dsprh_tf.data.npy_files import read_npz

# Strides of 0, and views of one storage, let a few bytes claim any size: no more than this many
# bytes of arrays for one of the file, beyond some that tests and small files need.
_EXPANSION, _SMALL = 20, 2**26


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
                isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
            )
        ):
            return found
    raise ValueError("no state_dict (a mapping of names to tensors) in it")


def _check_sizes(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuses tensors that would take far more memory than the file."""
    size = os.path.getsize(path)
    total = sum(tensor.nbytes for tensor in tensors.values())
    if total > _EXPANSION * size + _SMALL:
        raise ValueError(f"its tensors take {total:,} bytes, the file has {size:,}: too large")


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    file = TorchFile(path)
    tensors = _state_dict_of(file.content)
    _check_sizes(tensors, path)
    return {name: file.array(name, tensor).read() for name, tensor in tensors.items()}


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
