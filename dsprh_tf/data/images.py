"""JPEG, PNG, GIF, BMP, WebP and TIFF files as RGB, and the check that they are readable.

An image within an array of a MATLAB file counts as a file: `mat_files.picture_path` names it.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from dsprh_tf.data import mat_files

# Above these an image is taken for a decompression bomb. The number of pixels is the one at which
# Pillow itself refuses (2 x its MAX_IMAGE_PIXELS).
MAX_PIXELS = 178_956_970
MAX_SIDE = 50_000

# What is read; the JPEGs of several images that cameras write (MPO) are opened as JPEG. Pillow
# has readers beyond these that run a program on the file (EPS: Ghostscript), or decode it before
# its size can be checked (ICO).
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
_TAKEN_AS_THEY_ARE = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # JPEG, PNG
_THREADS = 8
_TAIL_BYTES = 64
_EMPTY = "is empty (0 bytes)"
_QUALITY = 82  # of JPEG files made here
PROBLEM_FIX = "restore the file, or leave it out with --on_bad_image=skip"

# For each image, Pillow warns of sizes below the limit that are large and of broken EXIF blocks;
# both are dealt with here.
warnings.filterwarnings("ignore", module=r"PIL\.")


def load_image(path: str | os.PathLike, row: int | str | None = None) -> np.ndarray:
    """An image as RGB, upright.

    Grey, palette, CMYK and 16-bit images are converted, transparency is dropped (the colour
    below it stays), and the EXIF orientation is applied, since networks know none of these.

    Args:
        path: a JPEG, PNG, GIF, BMP, WebP or TIFF file; of an animation, the first frame. Or a
            `mat_files.picture_path`.
        row: the row of the manifest, or a label for it, to be named in errors.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: the file is missing, empty, truncated, no such image or unreasonably large.
    """
    try:
        if mat_files.is_picture(path):
            return mat_files.read_picture(path)
        with _open(path) as image:
            image.load()
            return _to_rgb(image)
    except Exception as error:  # Pillow's plugins raise nearly anything on malformed bytes
        where = f"row {row}" if isinstance(row, (int, np.integer)) else row
        raise ValueError(_problem_line(path, error, where)) from error


def image_bytes(path: str | os.PathLike, content: bytes | None = None) -> bytes:
    """An image as the exported encoder takes it: a JPEG or PNG file as it is, others as PNG.

    Of a file that is taken as it is only the header is read, to check its size.

    Args:
        path: as in `load_image`.
        content: the bytes of the file, if they were read already.

    Raises:
        ValueError: as `load_image`; a JPEG or PNG whose end is missing is not noticed.
        OSError: the file cannot be read.
    """
    if not mat_files.is_picture(path):
        if content is None:
            with open(path, "rb") as file:
                content = file.read()
        # By the first bytes: names lie, and browsers save WebP as .jpg.
        if content.startswith(_TAKEN_AS_THEY_ARE):
            try:
                with _opened(io.BytesIO(content)):
                    return content
            except Exception as error:  # as in load_image
                raise ValueError(_problem_line(path, error, None)) from error
    return png_bytes(path)


def png_bytes(path: str | os.PathLike) -> bytes:
    """An image as `load_image` reads it, as a PNG file; raises as `load_image`."""
    return _png(load_image(path))


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def checked_bytes(
    content: bytes, name: str, max_pixels: int = MAX_PIXELS, as_png: bool = False
) -> bytes:
    """An uploaded image as the exported encoder takes it, decoded once to check it.

    Args:
        content: bytes of a file such as `load_image` reads.
        name: name of the image in errors.
        max_pixels: largest number of pixels that is decoded.
        as_png: whether to convert it to PNG even if it is a JPEG.

    Raises:
        ValueError: it is empty, truncated, not an image or too large.
    """
    try:
        if not content:
            raise ValueError(_EMPTY)
        with _opened(io.BytesIO(content), max_pixels) as image:
            image.load()
            if content.startswith(_TAKEN_AS_THEY_ARE) and not as_png:
                return content
            return _png(_to_rgb(image))
    except Exception as error:  # as in load_image
        raise ValueError(f"{name} {_problem(error)}; choose another image") from error


def load_small(path: str | os.PathLike, side: int) -> np.ndarray:
    """A small version of an image, as RGB, upright: at most `side` pixels wide and high.

    Args:
        path: as in `load_image`.
        side: in pixels; smaller images keep their size.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: as `load_image`.
    """
    try:
        if mat_files.is_picture(path):
            image = Image.fromarray(mat_files.read_picture(path))
        else:
            with _open(path) as opened:
                opened.draft(None, (2 * side, 2 * side))  # JPEG: decodes no more than it takes
                opened.load()
                image = Image.fromarray(_to_rgb(opened))
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    except Exception as error:  # as in load_image
        raise ValueError(_problem_line(path, error, None)) from error
    return np.asarray(image)


def shrunk_bytes(path: str | os.PathLike, side: int) -> bytes:
    """An image as `load_small` reads it, as a JPEG file; raises as `load_small`."""
    buffer = io.BytesIO()
    Image.fromarray(load_small(path, side)).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def check_images(
    paths: Sequence[str], on_bad: str = "error", where: Sequence[str] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Finds the image files that cannot be read, before training and not in the middle of it.

    Every header is parsed; a JPEG or PNG that ends with its end marker is taken for whole, any
    other file is decoded entirely. Pixels in MATLAB files are not read.

    Args:
        paths: [N] image files.
        on_bad: "error" refuses bad files, "skip" reports them.
        where: [N] labels such as "manifest.csv row 17", to be named in the lines.

    Returns:
        bool [N], True where the file is good; and one line for each bad file.

    Raises:
        ValueError: under "error" the line of the first bad file, with the number of further ones.
    """
    if on_bad not in ("error", "skip"):
        raise ValueError(f"on_bad_image is {on_bad!r}, expected 'error' or 'skip'")
    labels = [None] * len(paths) if where is None else where
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(
            tqdm(
                pool.map(_find_problem, paths, labels),
                total=len(paths),
                desc="checking images",
                unit="file",
                delay=2,  # seconds: short checks pass without a bar
                leave=False,
            )
        )
    problems = [line for line in found if line is not None]
    if problems and on_bad == "error":
        more = f" ({len(problems) - 1:,} more files are bad)" if len(problems) > 1 else ""
        raise ValueError(problems[0] + more)
    return np.array([line is None for line in found], dtype=bool), problems


def _find_problem(path: str, where: str | None) -> str | None:
    try:
        if mat_files.is_picture(path):
            mat_files.check_picture(path)
            return None
        with _open(path) as image:
            if not _ends_with_marker(path, image.format):
                image.load()
    except Exception as error:  # as in load_image
        return _problem_line(path, error, where)
    return None


@contextlib.contextmanager
def _open(path: str | os.PathLike) -> Iterator[Image.Image]:
    """`_opened` for a file by its name."""
    if os.path.getsize(path) == 0:
        raise ValueError(_EMPTY)
    # Opened here, because Pillow does not close the file of an image that it refuses.
    with open(path, "rb") as file, _opened(file) as image:
        yield image


@contextlib.contextmanager
def _opened(file: BinaryIO, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The opened image, header parsed, kind and size checked, pixels not yet read."""
    with Image.open(file, formats=_FORMATS) as image:
        width, height = image.size
        if max(width, height) > MAX_SIDE or width * height > max_pixels:
            raise Image.DecompressionBombError(
                f"{width} x {height} pixels; at most {max_pixels:,} pixels and {MAX_SIDE:,} per "
                "side are read, against decompression bombs"
            )
        yield image


def _ends_with_marker(path: str, image_format: str | None) -> bool:
    """Whether a JPEG or PNG ends as it should, give or take a few zeros or blanks.

    Markers further up prove nothing: the thumbnail inside a JPEG has an end marker too.
    """
    markers = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
    if image_format not in markers:
        return False
    with open(path, "rb") as file:
        file.seek(-min(_TAIL_BYTES, os.path.getsize(path)), os.SEEK_END)
        return file.read().rstrip(b"\0\r\n ").endswith(markers[image_format])


def _problem_line(path: str | os.PathLike, error: Exception, where: str | None) -> str:
    line = f"image {os.fspath(path)} {_problem(error)}; {PROBLEM_FIX}"
    return f"{where}: {line}" if where else line


def _problem(error: Exception) -> str:
    cause = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, Image.UnidentifiedImageError):
        return "is no JPEG, PNG, GIF, BMP, WebP or TIFF file"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"is too large ({cause})"
    if cause == _EMPTY:
        return cause
    if "truncated" in cause.lower():
        return f"is truncated ({cause})"
    return f"cannot be read ({cause or type(error).__name__})"


def _to_rgb(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        grey = _to_8_bit(np.asarray(image))
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    # Otherwise Pillow would look for the transparent colour of a palette, and warn.
    image.info.pop("transparency", None)
    return np.array(image.convert("RGB"))


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
