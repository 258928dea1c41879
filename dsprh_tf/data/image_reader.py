"""Decodes an image file: what is read how, and what is refused.

`images` has the functions that others call; this is their inside.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageChops

from dsprh_tf.data import image_kinds
from dsprh_tf.data import image_structure as structure
from dsprh_tf.data.decoder_lines import DecoderLines

# Above these an image is taken for a decompression bomb. The number of pixels is the one at which
# Pillow itself refuses (2 x its MAX_IMAGE_PIXELS).
MAX_PIXELS = 178_956_970
MAX_SIDE = 50_000

_OF_SEVERAL_FRAMES = ("GIF", "PNG", "WEBP", "TIFF", "AVIF")
_TAIL_BYTES = 64
_HEAD_BYTES = 32

# For each image, Pillow warns of sizes below the limit that are large and of broken EXIF blocks;
# both are dealt with here.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it finds wrong is raised as well


class Refused(ValueError):
    """A file that no decoder is asked about any more; the message follows the file's name."""


_FINAL = (Refused, Image.DecompressionBombError)
_CUT_OFF = "is truncated (the end of its data is missing)"


class Picture(NamedTuple):
    """Pixels of an image file.

    Attributes:
        pixels: uint8 [height, width, 3], upright.
        several: whether the file has several frames or pages, of which this is the first.
    """

    pixels: np.ndarray
    several: bool


class Header(NamedTuple):
    """What Pillow says of an image before it is decoded.

    Attributes:
        format: Pillow's name of the kind.
        several: whether the file has several frames or pages.
    """

    format: str | None
    several: bool


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """The opened file.

    Raises:
        Refused: it is not a regular file, or empty.
        OSError: it is missing or cannot be opened.
    """
    # Reading a pipe without a writer would wait, and a device may never end.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise Refused("is not a regular file")
    # Opened here, because Pillow does not close the file of an image that it refuses.
    with open(path, "rb") as file:
        require_content(file)
        yield file


def require_content(file: BinaryIO) -> None:
    """Refuses an empty file."""
    if not file.seek(0, os.SEEK_END):
        raise Refused("is empty (0 bytes)")


def read(file: BinaryIO, max_pixels: int = MAX_PIXELS, draft: int | None = None) -> Picture:
    """The image in a file.

    Args:
        file: the file.
        max_pixels: largest number of pixels that is decoded.
        draft: a side in pixels; a JPEG may be decoded to a smaller size that is no smaller.

    Raises:
        Exception: of nearly any kind, if it cannot be read.
    """
    try:
        with _image(_whole(file, max_pixels), max_pixels) as image:
            if draft:
                image.draft(None, (draft, draft))
            # libtiff writes to the screen of what it finds, damaged or only unusual.
            with DecoderLines() if image.format == "TIFF" else contextlib.nullcontext():
                image.load()
            return Picture(_to_rgb(image, file), _is_several(image))
    except _FINAL:
        raise
    except Exception:
        # Pillow is strict with text and animation chunks, TensorFlow is not: what the exported
        # graph reads is read here too, and by the same ops.
        pixels = _as_the_graph(file, max_pixels)
        if pixels is None:
            raise
        return Picture(pixels, False)


def header(file: BinaryIO) -> Header | None:
    """What Pillow reads of an image's header; None if it does not understand the file.

    Raises:
        Refused: nothing here reads files of its kind.
        PIL.Image.DecompressionBombError: it is too large.
    """
    try:
        with _image(file) as image:
            return Header(image.format, _is_several(image))
    except _FINAL:
        raise
    except Exception:  # Pillow's plugins raise nearly anything on malformed bytes
        return None


@contextlib.contextmanager
def _image(file: BinaryIO, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The opened image, header parsed, kind and size checked, pixels not yet read."""
    kind = image_kinds.kind_of(_at_start(file).read(_HEAD_BYTES))
    if kind and (needs := image_kinds.missing(kind)):
        raise Refused(f"is of the kind {image_kinds.spoken(kind)}, which {needs}")
    with Image.open(_at_start(file), formats=image_kinds.formats(kind)) as image:
        _check_size(*image.size, max_pixels)
        # Pillow would turn a TIFF by it.
        for name in ("xmp", "XML:com.adobe.xmp"):
            image.info.pop(name, None)
        yield image


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if max(width, height) > MAX_SIDE or width * height > max_pixels:
        raise Image.DecompressionBombError(
            f"{width} x {height} pixels; at most {max_pixels:,} pixels and {MAX_SIDE:,} per side "
            "are read, against decompression bombs"
        )


def _whole(file: BinaryIO, max_pixels: int) -> BinaryIO:
    """The file; a JPEG without an end marker gets one, if nothing else is missing.

    Nothing is missing if the pixels are the same whatever follows: `preprocess.decode_image` has
    the same rule.
    """
    if not _starts_with(file, structure.JPEG_MARK) or structure.has_end(file):
        return file
    content = structure.without_filling(content_of(file))
    first = None
    for tail in structure.TAILS:
        ended = io.BytesIO(content + tail + structure.END_OF_IMAGE)
        with _image(ended, max_pixels) as image:
            image.load()
            pixels = np.array(image)
        first = pixels if first is None else first
        if not np.array_equal(first, pixels):
            raise Refused(_CUT_OFF)
    if not structure.has_all_scans(file):
        raise Refused(_CUT_OFF)
    return io.BytesIO(content + structure.END_OF_IMAGE)


def _as_the_graph(file: BinaryIO, max_pixels: int) -> np.ndarray | None:
    """What the exported graph reads, uint8 [height, width, 3]; None if it refuses the file too."""
    size = structure.image_size(file)
    if size is None:
        return None
    _check_size(*size, max_pixels)
    content = content_of(file)
    if content.startswith(b"GIF8"):
        content = structure.first_frame(content) or b""  # the others may be of any size
    try:
        from dsprh_tf.data.preprocess import decode_now
    except ImportError:  # where there is no TensorFlow there is no graph
        return None
    with DecoderLines():
        return decode_now(content)


def is_taken_as_it_is(file: BinaryIO) -> bool:
    """Whether every exported graph decodes the file itself, if it is not damaged."""
    if _starts_with(file, structure.JPEG_MARK):
        return structure.has_end(file)
    return _starts_with(file, structure.PNG_MARK)


def content_of(file: BinaryIO) -> bytes:
    """All bytes of a file."""
    return _at_start(file).read()


def _starts_with(file: BinaryIO, mark: bytes) -> bool:
    return _at_start(file).read(len(mark)) == mark


def _at_start(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    return file


def _is_several(image: Image.Image) -> bool:
    """Whether an image is an animation or has several pages."""
    if image.format not in _OF_SEVERAL_FRAMES:
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame
        return True


def ends_with_marker(file: BinaryIO, image_format: str | None) -> bool:
    """Whether a JPEG or PNG ends as it should, give or take a few zeros or blanks.

    Markers further up prove nothing: the thumbnail inside a JPEG has an end marker too.
    """
    markers = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
    if image_format not in markers:
        return False
    file.seek(-min(_TAIL_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
    return file.read().rstrip(b"\0\r\n ").endswith(markers[image_format])


def _to_rgb(image: Image.Image, file: BinaryIO) -> np.ndarray:
    """Pixels uint8 [height, width, 3] of a decoded image and its file, upright."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = _to_8_bit(np.asarray(image))
        pixels = np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    else:
        if image.mode == "CMYK" and image.format == "JPEG" and not structure.has_adobe_mark(file):
            # Pillow takes every CMYK JPEG for one of Adobe's, whose values are inverted.
            image = ImageChops.invert(image)
        # Otherwise Pillow would look for the transparent colour of a palette, and warn.
        image.info.pop("transparency", None)
        pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return structure.turned(pixels, _orientation(image, file))


def _orientation(image: Image.Image, file: BinaryIO) -> int:
    """How the decoded pixels are still to be turned."""
    if image.format == "AVIF":
        # Pillow writes the orientation of the container there, in place of the EXIF block's.
        return structure.exif_orientation(image.info.get("exif", b""))
    # TIFF and HEIC are upright once they are decoded.
    return structure.orientation(file)


def _to_8_bit(grey: np.ndarray) -> np.ndarray:
    """Deep grey values as 8 bits, which Pillow's own conversion would clip at 255.

    16-bit values lose their low byte. Integers beyond that (32-bit TIFF) are scaled from the full
    positive range, floats from [0, 1] if they lie there and clipped to [0, 255] if not.
    """
    if grey.dtype.kind == "f":
        grey = np.nan_to_num(grey)
        return np.clip(grey * 255 if grey.max() <= 1 else grey, 0, 255).astype(np.uint8)
    grey = np.clip(grey.astype(np.int64), 0, None)
    return (grey >> (8 if grey.max() <= 0xFFFF else 23)).astype(np.uint8)
