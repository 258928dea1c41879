"""The structure of image files: EXIF orientation, size, and where a JPEG's data end.

Pixels are decoded elsewhere. `image_structure_ops` has the same rules as TensorFlow ops, for the
exported graph; tests hold the two together on damaged files too.

The orientation of an image is the EXIF tag 0x0112 in IFD0 of the file's EXIF block, wherever that
block stands: in a JPEG the first APP1 segment "Exif" before the first scan, in a PNG the first
chunk eXIf, in a WebP the first chunk EXIF. EXIF in PNG text chunks and XMP are not read. A block
that is damaged, or says anything but 1 to 8, means upright.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Literal

import numpy as np

_HEAD_BYTES = 32
MAX_STEPS = 10_000  # segments or chunks that are walked over before the search is given up

JPEG_MARK = b"\xff\xd8\xff"
PNG_MARK = b"\x89PNG\r\n\x1a\n"
EXIF_MARK = b"Exif\0\0"
PNG_EXIF, WEBP_EXIF = b"eXIf", b"EXIF"
END_OF_IMAGE = b"\xff\xd9"

ORIENTATION_TAG = 0x0112
SHORT, LONG = 3, 4  # TIFF field types in which writers store the orientation

# Markers without a length: FF 00 (no marker), TEM, RST0 to RST7.
STANDALONE = (0x00, 0x01, *range(0xD0, 0xD8))
SCAN, END = 0xDA, 0xD9
# Start of frame; C4, C8 and CC are other things.
FRAMES = tuple(code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))
SEQUENTIAL = (0xC0, 0xC1, 0xC3)  # frames in which a scan holds its components entirely

# What could follow where a JPEG breaks off: nothing, zeros, and bytes that begin with codes of most
# lengths, first as they are and then behind each of the restart markers, one of which is due where
# the data of an interval are whole. If anything is missing, the pixels depend on it.
_CODES = bytes(range(0xA5, 0xE5))
TAILS = (b"", bytes(64), _CODES + b"".join(bytes([0xFF, 0xD0 + i]) + _CODES for i in range(8)))

# A download that broke off can keep its full length, filled with zeros or FF. A longer run of these
# at the end of a JPEG is no data: a scan's last bits are ones, and FF in it is followed by 00.
LONGEST_RUN = 4


def orientation(file: BinaryIO) -> int:
    """The EXIF orientation of a JPEG, PNG or WebP file, 1 to 8; 1 for any other.

    Args:
        file: the file; its position changes.
    """
    head = _read(file, 0, _HEAD_BYTES)
    if head.startswith(JPEG_MARK):
        at = _jpeg_segment(file, "exif")
        block = _read(file, at + 10, _size(file, at) - 8) if at else b""
    elif head.startswith(PNG_MARK):
        block = _chunk(file, 8, PNG_EXIF)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        block = _chunk(file, 12, WEBP_EXIF)
    else:
        return 1
    return exif_orientation(block)


def exif_orientation(block: bytes) -> int:
    """The orientation in an EXIF block, with or without "Exif" before it; 1 where it has none."""
    if block.startswith(EXIF_MARK):
        block = block[len(EXIF_MARK) :]
    if block[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    order: Literal["little", "big"] = "little" if block[:1] == b"I" else "big"
    block += bytes(16)  # so that short blocks can be read

    def number(at: int, size: int) -> int:
        return int.from_bytes(block[at : at + size], order)

    # A damaged offset points anywhere: the directory is then read as empty.
    start = min(number(4, 4), len(block) - 2)
    for entry in range(min(number(start, 2), (len(block) - start - 2) // 12)):
        at = start + 2 + 12 * entry
        kind = number(at + 2, 2)
        if number(at, 2) != ORIENTATION_TAG or number(at + 4, 4) != 1:
            continue
        if kind in (SHORT, LONG):
            value = number(at + 8, 2 if kind == SHORT else 4)
            return value if 1 <= value <= 8 else 1
    return 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [h, w, 3] that are stored with an orientation, turned upright."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def has_adobe_mark(file: BinaryIO) -> bool:
    """Whether a JPEG has Adobe's segment, without which CMYK values are not stored inverted."""
    return bool(_jpeg_segment(file, "adobe"))


def has_end(file: BinaryIO) -> bool:
    """Whether a JPEG's data end with an end marker; what follows it, if anything, is no matter."""
    size = file.seek(0, os.SEEK_END)
    if _read(file, max(0, size - 2), 2) == END_OF_IMAGE:
        return True
    scan = _jpeg_segment(file, "scan")
    # In the data of a scan FF is followed by 00; further up there may be a thumbnail's marker.
    return scan > 0 and END_OF_IMAGE in _read(file, scan, size)


def without_filling(content: bytes) -> bytes:
    """A JPEG without an end marker, less what fills the place of its end.

    Zeros and FF would be read as the data that are missing. One FF is the half of the marker.
    """
    data = content.rstrip(b"\0\xff")
    if len(content) - len(data) > LONGEST_RUN:
        return data
    return content.removesuffix(END_OF_IMAGE[:1]) if len(content) > len(JPEG_MARK) else content


def has_all_scans(file: BinaryIO) -> bool:
    """Whether the scans of a JPEG, if each is whole, have all bits of all coefficients."""
    frame, scan = _jpeg_segment(file, "frame"), _jpeg_segment(file, "scan")
    if not (frame and scan):
        return False
    code, components = _read(file, frame + 1, 1)[0], _read(file, frame + 9, 1)[0]
    held = 0
    for header in _read(file, scan, file.seek(0, os.SEEK_END)).split(bytes([0xFF, SCAN]))[1:]:
        header = header[:16].ljust(16, b"\0")
        parts = min(header[2], 4)
        first, last, bits = header[3 + 2 * parts : 6 + 2 * parts]
        if code in SEQUENTIAL:
            held += 64 * parts
        elif not bits & 15:  # down to the last bit
            held += max(0, last - first + 1) * parts
    return held >= 64 * components > 0


def image_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height that the header of a JPEG, PNG, GIF, BMP or WebP announces, or None."""
    head = _read(file, 0, _HEAD_BYTES)

    def number(at: int, size: int, order) -> int:
        return int.from_bytes(head[at : at + size], order)

    if head.startswith(JPEG_MARK):
        frame = _jpeg_segment(file, "frame")
        size = _read(file, frame + 5, 4) if frame else b""
        return (int.from_bytes(size[2:], "big"), int.from_bytes(size[:2], "big")) if size else None
    if head.startswith(PNG_MARK):
        return number(16, 4, "big"), number(20, 4, "big")
    if head.startswith(b"GIF8"):
        return number(6, 2, "little"), number(8, 2, "little")
    if head.startswith(b"BM"):
        width, height = (
            int.from_bytes(head[at : at + 4], "little", signed=True) for at in (18, 22)
        )
        return abs(width), abs(height)
    if head[:4] == b"RIFF" and head[8:15] == b"WEBPVP8":
        if head[15:16] == b"X":
            return 1 + number(24, 3, "little"), 1 + number(27, 3, "little")
        if head[15:16] == b"L":
            packed = number(21, 4, "little")
            return 1 + packed % 2**14, 1 + (packed >> 14) % 2**14
        return number(26, 2, "little") % 2**14, number(28, 2, "little") % 2**14
    return None


def first_frame(content: bytes) -> bytes | None:
    """A GIF file with its first frame alone; None if the frame does not fill the image."""
    at = 13 + _table_size(content[10:11])
    while content[at : at + 1] == b"!":  # an extension
        at = _blocks_end(content, at + 2)
    frame = content[at : at + 10]
    if len(frame) < 10 or frame[:5] != b",\0\0\0\0" or frame[5:9] != content[6:10]:
        return None
    return content[: _blocks_end(content, at + 11 + _table_size(frame[9:10]))] + b";"


def _table_size(flags: bytes) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 * 2 ** (flags[0] % 8 + 1) if flags and flags[0] & 0x80 else 0


def _blocks_end(content: bytes, at: int) -> int:
    """The end of a GIF's blocks, each with its length before it, the last one empty."""
    while at < len(content) and content[at]:
        at += 1 + content[at]
    return at + 1


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(max(0, size))


def _size(file: BinaryIO, at: int) -> int:
    """Length of the JPEG segment at a position, as it says."""
    return int.from_bytes(_read(file, at + 2, 2), "big")


def _jpeg_segment(file: BinaryIO, wanted: str) -> int:
    """Position of the first segment of a kind before the data of the first scan, or 0.

    Args:
        file: a JPEG.
        wanted: "exif", "adobe", "frame" or "scan".
    """
    at = 2
    for _ in range(MAX_STEPS):
        mark = _read(file, at, 10)
        if len(mark) < 10:
            return 0
        code, size = mark[1], int.from_bytes(mark[2:4], "big")
        if mark[0] != 0xFF or code == 0xFF:  # garbage, which libjpeg skips; a fill byte
            at += 1
            continue
        if code in STANDALONE:
            at += 2
            continue
        found = {
            "exif": code == 0xE1 and size >= 8 and mark[4:10] == EXIF_MARK,
            "adobe": code == 0xEE and size >= 14 and mark[4:9] == b"Adobe",
            "frame": code in FRAMES,
            "scan": code == SCAN,
        }
        if found[wanted]:
            return at
        if code in (SCAN, END) or size < 2:
            return 0
        at += 2 + size
    return 0


def _chunk(file: BinaryIO, at: int, name: bytes) -> bytes:
    """Data of the first chunk of a name in a PNG (lengths first) or WebP (names first), or b""."""
    png = name == PNG_EXIF
    for _ in range(MAX_STEPS):
        head = _read(file, at, 8)
        if len(head) < 8:
            break
        found, size = (head[4:], head[:4]) if png else (head[:4], head[4:])
        length = int.from_bytes(size, "big" if png else "little")
        if length >= 2**31 or found == b"IEND":
            break
        if found == name:
            return _read(file, at + 8, length)
        at += 12 + length if png else 8 + length + length % 2
    return b""
