"""Equal images, found by what files, arrays and vectors hold, whatever their names are."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from dsprh_tf.data import mat_files
from dsprh_tf.data.files import file_sha256
from dsprh_tf.data.images import load_image
from dsprh_tf.data.threads import by_threads

_BLOCK = 4096  # bytes; headers at the beginning are equal in many files, so none is read there
_DIGEST = 16  # bytes


def equal_files(paths: Iterable[str]) -> np.ndarray:
    """The first row with the same image, for each row.

    Images are the same if their files have the same bytes; of those in MATLAB arrays, if they have
    the same pixels. A file whose size no other has is not read, others by two blocks; whole files
    are read only where these are equal too.

    Args:
        paths: [N] files, or paths of `mat_files.picture_path`.

    Returns:
        int64 [N].

    Raises:
        ValueError: an image cannot be read.
    """
    paths = list(paths)
    names = list(dict.fromkeys(paths))
    marks: dict[str, tuple[Hashable, ...]] = dict.fromkeys(names, ())
    left = names
    for marks_of in (_sizes, _blocks, _contents):
        for name, value in zip(left, by_threads(marks_of, left, "comparing images", "file")):
            marks[name] += (value,)
        counts = Counter(marks[name] for name in left)
        left = [name for name in left if counts[marks[name]] > 1]
        if not left:
            break
    return first_rows([marks[path] for path in paths])


def equal_rows(vectors: np.ndarray) -> np.ndarray:
    """The first row with the same values, for each row: int64 [N] of [N, D]."""
    # Plus zero: -0.0 and 0.0 are equal and have other bytes.
    return first_rows([_digest(np.add(row, 0).data) for row in vectors])


def first_rows(marks: Sequence[Hashable]) -> np.ndarray:
    """The first row with the same mark, for each row: int64 [N]."""
    first: dict[Hashable, int] = {}
    return np.array([first.setdefault(mark, row) for row, mark in enumerate(marks)], np.int64)


def _sizes(paths: Sequence[str]) -> list[Hashable]:
    return [-1 if mat_files.is_picture(path) else _read(os.path.getsize, path) for path in paths]


def _blocks(paths: Sequence[str]) -> list[Hashable]:
    """Digests of the middle and the end of files, or of a line of images in arrays."""
    pictures = [path for path in paths if mat_files.is_picture(path)]
    lines = _read(lambda _: mat_files.picture_lines(pictures), pictures[0]) if pictures else []
    of_picture = dict(zip(pictures, map(_digest, lines)))
    return [of_picture.get(path) or _read(_blocks_of_file, path) for path in paths]


def _blocks_of_file(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        blocks = []
        for start in (size // 2, size - _BLOCK):
            file.seek(max(0, start))
            blocks.append(file.read(_BLOCK))
    return _digest(*blocks)


def _contents(paths: Sequence[str]) -> list[Hashable]:
    return [
        _digest(load_image(path).data) if mat_files.is_picture(path) else _read(file_sha256, path)
        for path in paths
    ]


def _digest(*contents) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for content in contents:
        digest.update(content)
    return digest.digest()


def _read(read: Callable[[str], Any], path: str) -> Any:
    try:
        return read(path)
    except Exception as error:  # h5py raises nearly anything on malformed files
        cause = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ValueError(
            f"image {path} cannot be read ({cause}); restore it or load the data again"
        ) from error
