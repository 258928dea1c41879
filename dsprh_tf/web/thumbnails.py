"""Small versions of indexed images, made when they are first needed."""

from __future__ import annotations

import collections
import os
import threading

from dsprh_tf.data.images import shrunk_bytes

SIDES = {"small": 360, "large": 1024}  # pixels
_MEMORY = 64 * 2**20  # bytes that are kept: some 3,000 small images
_AT_ONCE = 2  # images that are decoded at the same time: each may take hundreds of MB


class Thumbnails:
    """Small JPEG files of images on disk, the last ones kept in memory; for many threads.

    The key is the content: the sha256 of the image in the index, and size and time of the file, so
    that a file that was changed since is read again.

    Args:
        memory: most bytes that are kept.
    """

    def __init__(self, memory: int = _MEMORY):
        self._memory, self._used = memory, 0
        self._kept: collections.OrderedDict[tuple, bytes] = collections.OrderedDict()
        self._lock, self._decoders = threading.Lock(), threading.BoundedSemaphore(_AT_ONCE)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, path: str, sha256: bytes, size: str) -> bytes:
        """A small version of an image, as a JPEG file.

        Args:
            path: path of the image.
            sha256: sha256 of the image in the index.
            size: one of `SIDES`.

        Raises:
            ValueError: the image is no longer on disk, or cannot be read.
        """
        try:
            state = os.stat(path)
        except OSError as error:
            raise ValueError(f"image {path} is no longer on disk") from error
        key = (sha256, state.st_size, state.st_mtime_ns, size)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._decoders:
            content = shrunk_bytes(path, SIDES[size])
        with self._lock:
            self._used += len(content) - len(self._kept.pop(key, b""))
            self._kept[key] = content
            while self._used > self._memory:
                self._used -= len(self._kept.popitem(last=False)[1])
        return content
