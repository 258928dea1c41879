"""Image files, and the parts that they are made of."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def picture(height: int = 29, width: int = 38) -> Image.Image:
    """Waves and noise."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).normal(0, 9, (height, width, 3))
    waves = np.stack([128 + 120 * np.sin(x / 7), 128 + 120 * np.cos(y / 5), (x * y) % 256], -1)
    return Image.fromarray(np.clip(waves + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    """An EXIF block with entries before and after the orientation."""
    block = Image.Exif()
    block[0x010F], block[0x0112], block[0x0131] = "maker", orientation, "software"
    return block


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels that are stored with an orientation, as they are to be seen."""
    return {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.swapaxes(0, 1), 6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(pixels),
    }[orientation]  # fmt: skip


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG, with its checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """(name, data) of the chunks of a PNG."""
    found, at = [], 8
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        found.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def join_png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of chunks."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, data) for name, data in chunks)


def jpeg_segments(content: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """(code, data) of the segments of a JPEG up to its first scan's header, and the rest."""
    found, at = [], 2
    while not found or found[-1][0] != 0xDA:
        size = int.from_bytes(content[at + 2 : at + 4], "big")
        found.append((content[at + 1], content[at + 4 : at + 2 + size]))
        at += 2 + size
    return found, content[at:]


def segment(code: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, code]) + struct.pack(">H", len(data) + 2) + data


def join_jpeg(segments: list[tuple[int, bytes]], rest: bytes) -> bytes:
    """A JPEG of segments and what follows them."""
    return b"\xff\xd8" + b"".join(segment(code, data) for code, data in segments) + rest
