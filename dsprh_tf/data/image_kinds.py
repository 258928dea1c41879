"""Kinds of image files: by ending, by content, and what reads them."""

from __future__ import annotations

import functools
import importlib.util
import os
import stat

from PIL import features

# Pillow's names. What cameras write as a JPEG of several images (MPO) is opened as JPEG. Pillow
# has readers beyond these that run a program on the file (EPS: Ghostscript), or decode it before
# its size can be checked (ICO).
ALWAYS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")

ENDINGS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG",
    ".gif": "GIF", ".bmp": "BMP", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF",
    ".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF", ".avif": "AVIF",
}  # fmt: skip

READ = "JPEG, PNG, GIF, BMP, WebP, TIFF, HEIC or AVIF"

_HEAD_BYTES = 32  # more than enough for each mark
_BMP_HEADERS = {size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124)}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}
_EITHER_BRANDS = {b"mif1", b"msf1"}  # the compatible brands say which


def kind_of(head: bytes) -> str | None:
    """The kind of an image file by its first 32 bytes, as Pillow names it; None if it is none."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[4:8] == b"ftyp":
        return _kind_of_brands(head)
    # Any text may begin with BM: two fields that are zero, and the size of the next header.
    if head[:2] == b"BM" and head[6:10] == bytes(4) and head[14:18] in _BMP_HEADERS:
        return "BMP"
    return None


def _kind_of_brands(head: bytes) -> str | None:
    size = min(int.from_bytes(head[:4], "big"), len(head))
    major = head[8:12]
    brands = {major, *(head[at : at + 4] for at in range(16, size - 3, 4))}
    if major in _HEIF_BRANDS:
        return "HEIF"
    if major in _AVIF_BRANDS:
        return "AVIF"
    if major in _EITHER_BRANDS:
        return "AVIF" if brands & _AVIF_BRANDS else "HEIF"
    return None  # a film, or a camera's raw image


def kind_of_file(path: str | os.PathLike) -> str | None:
    """`kind_of` a regular file; None for anything else, and for what cannot be opened."""
    try:
        # Opening a pipe without a writer would wait.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb", buffering=0) as file:
            return kind_of(file.read(_HEAD_BYTES))
    except OSError:
        return None


def spoken(kind: str) -> str:
    """A kind as people call it."""
    return "HEIC" if kind == "HEIF" else kind


def missing(kind: str) -> str | None:
    """What lacks to read files of a kind, and the fix, a clause; None if nothing does."""
    if kind == "HEIF" and importlib.util.find_spec("pillow_heif") is None:
        return 'needs pillow-heif: pip install "dsprh_tf[heif]"'
    if kind == "AVIF" and not features.check("avif"):
        return "needs a Pillow that reads AVIF: pip install --upgrade pillow"
    return None


def formats(kind: str | None) -> tuple[str, ...]:
    """Pillow's readers for files of a kind (None: of one that is not known by its mark).

    The reader of HEIC files is registered with Pillow when it is first asked for.
    """
    if kind == "HEIF":
        _register_heif()
    return (kind,) if kind in ("HEIF", "AVIF") else ALWAYS


@functools.cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
