"""Small versions of indexed pictures, made when they are first asked for."""

from __future__ import annotations

import collections
import os
import threading

from dsprh_tf.data.images import shrunk_bytes

SIDES = {"small": 360, "large": 1024}  # pixels
_MEMORY = 64 * 2**20  # bytes that are kept: some 3,000 small ones
_AT_ONCE = 2  # pictures that are decoded at the same time, each may take hundreds of MB


class Thumbnails:
    """Small JPEG files of pictures on disk, the last ones kept in memory; for many threads.

    They are kept by content: the sha256 that the index has of a picture, and size and time of the
    file, so that a file that was changed since is read again.

    Args:
        memory: bytes that are kept at most.
    """

    def __init__(self, memory: int = _MEMORY):
        self._memory, self._used = memory, 0
        self._kept: collections.OrderedDict[tuple, bytes] = collections.OrderedDict()
        self._lock, self._decoders = threading.Lock(), threading.BoundedSemaphore(_AT_ONCE)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, path: str, sha256: bytes, size: str) -> bytes:
        """A picture as a JPEG file.

        Args:
            path: of the picture.
            sha256: that the index has of it.
            size: of `SIDES`.

        Raises:
            ValueError: it is gone from disk, or cannot be read.
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
