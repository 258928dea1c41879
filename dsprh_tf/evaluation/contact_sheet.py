"""Contact sheets: queries beside their results, to see what the numbers mean."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from dsprh_tf.data import images
from dsprh_tf.data.files import write_bytes

RESULTS_PER_ROW = 8
TILE, GAP, MARGIN, FRAME = 168, 12, 24, 5  # pixels
HEADER, CAPTION, QUERY_GAP = 34, 24, 28  # pixels
TITLES = ("query", "nearest by Hamming distance (bits, below)")
INK, MUTED, PAPER, CARD = "#1d1d1f", "#6e6e73", "#ffffff", "#f3f4f6"
RELEVANT, IRRELEVANT = "#1a9850", "#c4c7cc"


@dataclass(frozen=True)
class RetrievalItem:
    """One result: an image or a text.

    Attributes:
        image: Path of an image file, or uint8 `[height, width, 3]`; None to show the text.
        text: Text, shown if there is no image.
        distance: Hamming distance to the query, in bits; None if it has no code.
        relevant: Whether it shares a label with the query; None if not known.
        below: What stands below it; None for the distance.
    """

    image: str | os.PathLike | np.ndarray | None = None
    text: str | None = None
    distance: int | None = 0
    relevant: bool | None = None
    below: str | None = None


@dataclass(frozen=True)
class RetrievalRow:
    """One query, an image or a text, with its results in rank order.

    Attributes:
        query_image: As `RetrievalItem.image`.
        query_text: As `RetrievalItem.text`.
        results: The results; a sheet shows the first 8.
    """

    query_image: str | os.PathLike | np.ndarray | None = None
    query_text: str | None = None
    results: list[RetrievalItem] = field(default_factory=list)


def contact_sheet(
    rows: list[RetrievalRow], path: str | os.PathLike, titles: tuple[str, str] = TITLES
) -> None:
    """Writes a PNG file that shows queries beside their first 8 results.

    Args:
        rows: Queries with their results.
        path: The file; its folder is made if it is missing.
        titles: What stands above the queries, and above the results.

    Raises:
        ValueError: As `draw_contact_sheet`.
    """
    buffer = io.BytesIO()
    draw_contact_sheet(rows, titles).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def draw_contact_sheet(rows: list[RetrievalRow], titles: tuple[str, str] = TITLES) -> Image.Image:
    """The contact sheet of `contact_sheet`, in memory.

    Images are cropped to their central square. The Hamming distance, or what is to be said instead,
    stands below each result; a
    green frame marks a relevant result, a grey frame an irrelevant one, and there is no frame if
    the relevance is not known.

    Args:
        rows: Queries with their results.
        titles: As of `contact_sheet`.

    Returns:
        An RGB image.

    Raises:
        ValueError: If there are no rows, an image cannot be read, or an entry has neither an
            image nor a text.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row, received none")
    columns = min(RESULTS_PER_ROW, max(len(row.results) for row in rows))
    results_left = MARGIN + TILE + QUERY_GAP
    row_height = TILE + CAPTION + GAP
    width = results_left + max(columns * (TILE + GAP) - GAP, 4 * TILE) + MARGIN
    sheet = Image.new("RGB", (width, MARGIN + HEADER + len(rows) * row_height + MARGIN // 2), PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_header(
        draw,
        results_left,
        titles,
        known=any(r.relevant is not None for row in rows for r in row.results[:columns]),
    )
    for number, row in enumerate(rows):
        top = MARGIN + HEADER + number * row_height
        sheet.paste(_tile(row.query_image, row.query_text, bold=True), (MARGIN, top))
        line = MARGIN + TILE + QUERY_GAP // 2
        draw.line([(line, top), (line, top + TILE)], fill=IRRELEVANT, width=2)
        for rank, item in enumerate(row.results[:columns]):
            left = results_left + rank * (TILE + GAP)
            sheet.paste(_tile(item.image, item.text), (left, top))
            if item.relevant is not None:
                color = RELEVANT if item.relevant else IRRELEVANT
                corner = (left + TILE - 1, top + TILE - 1)
                draw.rectangle([(left, top), corner], outline=color, width=FRAME)
            below = (left + TILE / 2, top + TILE + 4)
            distance = "-" if item.distance is None else f"{item.distance}"
            said = distance if item.below is None else item.below
            draw.text(below, said, fill=MUTED, font=_font(14), anchor="ma")
    return sheet


def _draw_header(
    draw: ImageDraw.ImageDraw, results_left: int, titles: tuple[str, str], known: bool
) -> None:
    """Column titles, and the legend of the frames."""
    left_title, title = titles
    draw.text((MARGIN, MARGIN), left_title, fill=INK, font=_font(16, bold=True))
    draw.text((results_left, MARGIN), title, fill=INK, font=_font(16, bold=True))
    if known:
        left = results_left + draw.textlength(title, font=_font(16, bold=True)) + 2 * GAP
        for color, word in ((RELEVANT, "relevant"), (IRRELEVANT, "not relevant")):
            draw.rectangle(
                [(left, MARGIN + 2), (left + 15, MARGIN + 17)], outline=color, width=FRAME - 1
            )
            draw.text((left + 22, MARGIN + 1), word, fill=MUTED, font=_font(14))
            left += 22 + draw.textlength(word, font=_font(14)) + GAP


def _tile(image, text: str | None, bold: bool = False) -> Image.Image:
    """A square of `TILE` pixels that shows an image, or else a text."""
    if image is not None:
        pixels = np.asarray(image) if isinstance(image, np.ndarray) else images.load_image(image)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(
                f"images must be uint8 [height, width, 3], received {pixels.dtype} "
                f"{list(pixels.shape)}"
            )
        return ImageOps.fit(Image.fromarray(pixels), (TILE, TILE), Image.Resampling.LANCZOS)
    if text is None:
        raise ValueError("a query or result of a contact sheet needs an image or a text")
    tile = Image.new("RGB", (TILE, TILE), CARD)
    draw = ImageDraw.Draw(tile)
    inner = TILE - 2 * (FRAME + 7)
    for size in (17, 15, 13, 11):  # the largest font size in which everything fits
        font = _font(size, bold)
        lines = _wrap(draw, text, font, inner)
        line_height = round(size * 1.3)
        if len(lines) * line_height <= inner:
            break
    room = inner // line_height
    if len(lines) > room:
        lines = [*lines[: room - 1], lines[room - 1].rstrip() + "…"]
    top = (TILE - len(lines) * line_height) // 2
    for number, line in enumerate(lines):
        middle = (TILE / 2, top + number * line_height)
        draw.text(middle, line, fill=INK, font=font, anchor="ma")
    return tile


def _wrap(draw: ImageDraw.ImageDraw, text: str, font, width: int) -> list[str]:
    """Lines no wider than `width` pixels; a word too long for one line is cut into pieces."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if draw.textlength(joined, font=font) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and draw.textlength(lines[-1] + letter, font=font) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from Matplotlib, so that no system font is needed."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", name), size)
