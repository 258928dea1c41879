"""The arrays of a file or folder, whatever its format."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from dsprh_tf.data.arrays import hdf5, mat5, numpy_files, tensors
from dsprh_tf.data.arrays.names import says_something
from dsprh_tf.data.arrays.stored import StoredArray, explained
from dsprh_tf.data.files import require_regular

_FIXES = {
    ".pkl": "a pickle, which could run code; save its arrays with np.savez",
    ".pickle": "a pickle, which could run code; save its arrays with np.savez",
    ".joblib": "a pickle, which could run code; save its arrays with np.savez",
    ".bin": "of no known format; save its tensors as .safetensors",
    ".csv": "a table; save its numbers with np.savez, or give texts and paths as --dataset=pairs",
    ".parquet": "a table; save its numbers with np.savez, or give texts and paths as "
    "--dataset=pairs",
}


def list_matlab(path: str | os.PathLike) -> list[StoredArray]:
    """The variables of a MATLAB file of any version; raises `ValueError` where it is damaged."""
    require_regular(path)
    with explained(os.fspath(path)):
        return (hdf5 if hdf5.is_hdf5(path) else mat5).list_arrays(path)


READERS: dict[str, Callable[[str | os.PathLike], list[StoredArray]]] = {
    ".npz": numpy_files.list_npz,
    ".npy": numpy_files.list_npy,
    ".mat": list_matlab,
    ".h5": hdf5.list_arrays,
    ".hdf5": hdf5.list_arrays,
    ".pt": tensors.list_torch,
    ".pth": tensors.list_torch,
    ".safetensors": tensors.list_safetensors,
}


def list_arrays(path: str | os.PathLike, expected: str) -> list[StoredArray]:
    """The arrays of a file, or of the files in a folder, as "FILE/array" then.

    Of folders within it those are looked into whose name says what for: train, img_emb, ....

    Args:
        path: a file or a folder.
        expected: ends an error line: what was expected in place of the path.

    Raises:
        ValueError: there is no such file, it is of another format, or it is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist; {expected}")
    if not path.is_dir():
        return _read(path, expected)
    found = []
    for prefix, file in _files(path):
        for array in _read(file, expected):
            name = file.stem if array.name == file.stem else f"{file.stem}/{array.name}"
            found.append(array.called(prefix + name))
    if not found:
        others = sorted(file.name for file in path.iterdir())[:5]
        raise ValueError(
            f"{path} has no array image and no array text (it has {', '.join(others) or 'no files'}"
            f"); {expected}"
        )
    return found


def _files(folder: Path, prefix: str = "") -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in READERS:
            yield prefix, path
        elif not prefix and path.is_dir() and says_something(path.name):
            yield from _files(path, f"{path.name}/")


def _read(path: Path, expected: str) -> list[StoredArray]:
    suffix = path.suffix.lower()
    if suffix not in READERS:
        known = f"{path} is {_FIXES[suffix]}" if suffix in _FIXES else f"{path} has the ending "
        raise ValueError(f"{known if suffix in _FIXES else known + repr(suffix)}; {expected}")
    require_regular(path)
    try:
        return READERS[suffix](path)
    except ValueError as error:
        raise ValueError(f"{error}; {expected}") from error
