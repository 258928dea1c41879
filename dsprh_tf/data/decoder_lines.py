"""Keeps off the screen what libjpeg, libpng and libtiff write there themselves.

Their lines ("Corrupt JPEG data: premature end of data segment") name no file, come from within
TensorFlow's decoders, and cannot be turned off. So the process's standard error goes to a
temporary file meanwhile; lines of the decoders are kept, everything else is handed on.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
import threading
from typing import TextIO

# How their messages begin.
_OWN = re.compile(
    rb"libpng (warning|error):|Corrupt JPEG data|Premature end of JPEG|Invalid JPEG file|Bogus "
    rb"|Unsupported (JPEG|marker|color)|Improper call to JPEG|Input file read|Invalid (component"
    rb"|SOS|progressive|memory|crop)|Inconsistent progression|(Huffman|Quantization|Arithmetic) "
    rb"table|Warning: unknown JFIF|Unknown Adobe|JPEG datastream|Empty (JPEG|input)|Not a JPEG"
    rb"|Didn't expect more than one scan|Sampling factors|Maximum supported image|Cannot quantize"
    rb"|DCT (coefficient|scaling)|Image too wide|Requested feature|Sorry, |Unexpected marker"
    rb"|Fractional sampling|CCIR601|IDCT output|Component index|Suspension not|Missing Huffman"
    rb"|Huffman code|Buffer passed|Virtual array|Too many color|Smoothing not|Failed to create temp"
    rb"|(Read|Write|Seek) failed on temp|Output file write|Wrong JPEG library"
    rb"|Ran out of|Insufficient memory|Caution: quantization|Application transferred"
    # libtiff: a function, or the name under which Pillow hands it a file.
    rb"|_?TIFF\w+: |tempfile\.tif: |MissingRequired: |setByteArray: |BuildMap\w+: |CheckDirCount: "
    rb"|\w*(Decode|Codec|Strip|Tile|JPEG|Fax|LZW|ZIP|PackBits|Pixar|LogL|LERC|LZMA)\w*: "
)


class DecoderLines:
    """A context in which decoders' lines are kept instead of shown; one for the whole process.

    Contexts may be nested and overlap in threads: the first one begins and the last one ends it.

    Args:
        live: whether what Python writes to `sys.stderr`, such as a progress bar, is shown at
            once, and not when the context ends.
    """

    _lock = threading.RLock()
    _depth = 0
    _screen = -1  # a copy of the process's standard error
    _kept = -1  # the file that takes its place
    _read = 0  # bytes of it that were read
    _lines: list[str] = []

    def __init__(self, live: bool = False):
        self._live = live
        self._stderr: TextIO | None = None
        self._first = 0

    def __enter__(self) -> DecoderLines:
        with self._lock:
            cls = DecoderLines
            if not cls._depth:
                sys.stderr.flush()
                with tempfile.TemporaryFile() as file:
                    cls._kept = os.dup(file.fileno())
                cls._screen, cls._read, cls._lines = os.dup(2), 0, []
                os.dup2(cls._kept, 2)
            cls._depth += 1
            if self._live and _is_screen(sys.stderr):
                self._stderr, sys.stderr = sys.stderr, _Screen(sys.stderr, cls._screen)
            self._first = len(self._poll())
        return self

    def __exit__(self, *_) -> None:
        with self._lock:
            cls = DecoderLines
            if isinstance(sys.stderr, _Screen) and self._stderr is not None:
                sys.stderr.fd = 2  # a progress bar may hold on to it
                sys.stderr = self._stderr
            cls._depth -= 1
            if cls._depth:
                return
            sys.stderr.flush()
            os.dup2(cls._screen, 2)
            self._poll(last=True)
            for file in (cls._screen, cls._kept):
                os.close(file)

    def so_far(self) -> list[str]:
        """The lines of decoders since the context began, in any thread."""
        with self._lock:
            return self._poll()[self._first :]

    @classmethod
    def _poll(cls, last: bool = False) -> list[str]:
        """All lines so far; what is no decoder's is handed on, a line that is not whole at last."""
        found = os.pread(cls._kept, 2**24, cls._read)
        whole = len(found) if last else found.rfind(b"\n") + 1
        cls._read += whole
        for line in found[:whole].splitlines(keepends=True):
            if _OWN.match(line):
                cls._lines.append(line.decode("utf-8", "replace").strip())
            else:
                os.write(cls._screen, line)
        return cls._lines


class _Screen(io.TextIOBase):
    """What stands in for `sys.stderr`: it writes to the screen, wherever that is meanwhile."""

    def __init__(self, stderr: TextIO, fd: int):
        self.fd = fd
        self._encoding = stderr.encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def fileno(self) -> int:
        return self.fd

    def isatty(self) -> bool:
        return os.isatty(self.fd)

    def write(self, text: str) -> int:
        data = text.encode(self._encoding or "utf-8", "backslashreplace")
        while data:
            data = data[os.write(self.fd, data) :]
        return len(text)


def _is_screen(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 2
    except (OSError, AttributeError):
        return False
