"""Image files as RGB, upright, and the check that they are readable.

JPEG, PNG, GIF, BMP, WebP and TIFF; HEIC with pillow-heif, and AVIF. An image within an array of a
MATLAB file counts as a file: `mat_files.picture_path` names it.

The exported graph decodes JPEG and PNG files itself, with the same pixels
(`preprocess.decode_image`); it is handed any other file as a PNG.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from dsprh_tf.data import image_kinds, image_reader, mat_files
from dsprh_tf.data.image_reader import MAX_PIXELS
from dsprh_tf.data.threads import by_threads

_QUALITY = 82  # of JPEG files made here
PROBLEM_FIX = "restore the file, or leave it out with --on_bad_image=skip"


class ServedImage(NamedTuple):
    """An image as the exported encoder takes it.

    Attributes:
        content: a JPEG or PNG file.
        several: whether the file has several frames or pages, of which this is the first.
    """

    content: bytes
    several: bool = False


class Checked(NamedTuple):
    """What `check_images` found.

    Attributes:
        keep: bool [N], True where the file is good.
        problems: one line for each bad file.
        notes: lines on how files were read.
    """

    keep: np.ndarray
    problems: list[str]
    notes: list[str]


def load_image(path: str | os.PathLike, row: int | str | None = None) -> np.ndarray:
    """An image as RGB, upright.

    Grey, palette, CMYK and 16-bit images are converted, transparency is dropped (the colour
    below it stays), and the orientation is applied (`image_structure`; of a TIFF the tag in its
    first directory, of HEIC and AVIF the one of the container), since networks know none of
    these. A JPEG without an end marker is read if nothing else is missing.

    Args:
        path: an image file; of several frames or pages, the first. Or a `mat_files.picture_path`.
        row: the row of the manifest, or a label for it, to be named in errors.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: the file is missing, empty, truncated, no such image or unreasonably large, or
            of a kind that needs a package which is not installed.
    """
    try:
        if mat_files.is_picture(path):
            return mat_files.read_picture(path)
        with image_reader.opened(path) as file:
            return image_reader.read(file).pixels
    except Exception as error:  # Pillow's plugins raise nearly anything on malformed bytes
        where = f"row {row}" if isinstance(row, (int, np.integer)) else row
        raise ValueError(problem_line(path, error, where)) from error


def image_bytes(path: str | os.PathLike) -> bytes:
    """The `content` of `served_image`; raises as it does."""
    return served_image(path).content


def served_image(path: str | os.PathLike, content: bytes | None = None) -> ServedImage:
    """An image as the exported encoder takes it: a JPEG or PNG file as it is, others as PNG.

    Of a file that is taken as it is only the header is read, to check its size.

    Args:
        path: as in `load_image`.
        content: the bytes of the file, if they were read already.

    Raises:
        ValueError: as `load_image`; damage behind the header of a file that is taken as it is is
            not noticed.
    """
    if mat_files.is_picture(path):
        return ServedImage(_png(load_image(path)))
    try:
        if content is None:
            with image_reader.opened(path) as file:
                content = image_reader.content_of(file)
        file = io.BytesIO(content)
        image_reader.require_content(file)
        # By the first bytes: names lie, and browsers save WebP as .jpg.
        if image_reader.is_taken_as_it_is(file) and (header := image_reader.header(file)):
            return ServedImage(content, header.several)
        picture = image_reader.read(file)
    except Exception as error:  # as in load_image
        raise ValueError(problem_line(path, error, None)) from error
    return ServedImage(_png(picture.pixels), picture.several)


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
        ValueError: it is empty, truncated, not an image, too large, or of a kind that needs a
            package which is not installed.
    """
    try:
        file = io.BytesIO(content)
        image_reader.require_content(file)
        picture = image_reader.read(file, max_pixels)
    except Exception as error:  # as in load_image
        raise ValueError(f"{name} {_problem(error)}; choose another image") from error
    as_it_is = image_reader.is_taken_as_it_is(file) and not as_png
    return content if as_it_is else _png(picture.pixels)


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
            pixels = mat_files.read_picture(path)
        else:
            with image_reader.opened(path) as file:
                pixels = image_reader.read(file, draft=2 * side).pixels
        image = Image.fromarray(pixels)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    except Exception as error:  # as in load_image
        raise ValueError(problem_line(path, error, None)) from error
    return np.asarray(image)


def shrunk_bytes(path: str | os.PathLike, side: int) -> bytes:
    """An image as `load_small` reads it, as a JPEG file; raises as `load_small`."""
    buffer = io.BytesIO()
    Image.fromarray(load_small(path, side)).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def check_images(
    paths: Sequence[str], on_bad: str = "error", where: Sequence[str] | None = None
) -> Checked:
    """Finds the image files that cannot be read, before training and not in the middle of it.

    Every header is parsed; a JPEG or PNG that ends with its end marker is taken for whole, any
    other file is decoded entirely. Pixels in MATLAB files are not read.

    Args:
        paths: [N] image files.
        on_bad: "error" refuses bad files, "skip" reports them.
        where: [N] labels such as "manifest.csv row 17", to be named in the lines.

    Raises:
        ValueError: under "error" the line of the first bad file, with the number of further ones.
    """
    if on_bad not in ("error", "skip"):
        raise ValueError(f"on_bad_image is {on_bad!r}, expected 'error' or 'skip'")

    def check(block: Sequence[int]) -> list[tuple[str | None, bool]]:
        return [_check(paths[row], None if where is None else where[row]) for row in block]

    found = by_threads(check, range(len(paths)), "checking images", "file")
    problems = [problem for problem, _ in found if problem is not None]
    if problems and on_bad == "error":
        more = f" ({len(problems) - 1:,} more files are bad)" if len(problems) > 1 else ""
        raise ValueError(problems[0] + more)
    keep = np.array([problem is None for problem, _ in found], dtype=bool)
    several = sum(of_several for _, of_several in found)
    return Checked(keep, problems, [several_note(several)] if several else [])


def several_note(count: int) -> str:
    """The line that says how images of several frames or pages were read."""
    return f"{count:,} animated images (or files of several pages): the first frame is read"


def _check(path: str, where: str | None) -> tuple[str | None, bool]:
    """What is wrong with an image, if anything; and whether it has several frames."""
    try:
        if mat_files.is_picture(path):
            mat_files.check_picture(path)
            return None, False
        with image_reader.opened(path) as file:
            header = image_reader.header(file)
            if header and image_reader.ends_with_marker(file, header.format):
                return None, header.several
            return None, image_reader.read(file).several
    except Exception as error:  # as in load_image
        return problem_line(path, error, where), False


def problem_line(path: str | os.PathLike, error: Exception, where: str | None = None) -> str:
    """The line on an image that cannot be read.

    Args:
        path: the image.
        error: what was raised.
        where: a label such as "manifest.csv row 17", to stand before the line.
    """
    if isinstance(error, FileNotFoundError):
        linked = os.path.islink(path)
        problem = "is a link to a file that does not exist" if linked else "does not exist"
    else:
        problem = _problem(error)
    line = f"image {os.fspath(path)} {problem}; {PROBLEM_FIX}"
    return f"{where}: {line}" if where else line


def _problem(error: Exception) -> str:
    cause = " ".join(str(error).split())
    if isinstance(error, image_reader.Refused):
        return cause
    if isinstance(error, Image.UnidentifiedImageError):
        return f"is no {image_kinds.READ} file"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"is too large ({cause})"
    if "truncated" in cause.lower():
        return f"is truncated ({cause})"
    return f"cannot be read ({cause or type(error).__name__})"
