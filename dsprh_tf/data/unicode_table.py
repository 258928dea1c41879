"""The characters of Unicode 14: how each is folded, and what it is to words.

The table stands in `unicode_14.txt` beside this file, so that words do not depend on the Unicode of
the Python in use. It was written by

    python -m dsprh_tf.data.unicode_table > dsprh_tf/data/unicode_14.txt

under Python 3.11, whose Unicode is 14.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Kinds of characters. Those from MARK on need more than their neighbours' kinds to make words of.
SPACE, OTHER, LETTER, APOSTROPHE, MARK, PAIRED, EMOJI, FLAG = range(8)

_FILE = Path(__file__).with_name("unicode_14.txt")
_LETTERS = "SOLAMPEF"  # of the kinds, in the file
_UNASSIGNED = "U"  # read as letters, which most of a later Unicode are
_POINTS = 0x110000
_BLOCK = 128  # code points
_HANGUL = range(0xAC00, 0xD7A4)  # syllables, whose decomposition is arithmetic
_YPOGEGRAMMENI = "\u0345"  # a mark that folds to a letter, but is put in order as the mark


class Table(NamedTuple):
    """Properties of all code points in two stages: equal blocks of 128 are kept once.

    The row of a code point p in `info` and `starts` is `blocks[p // 128] + p % 128`.

    Attributes:
        blocks: int32 [8704], the first row of each block.
        info: int32 [rows]; bits 0-2 are the kind, 3-10 the canonical combining class, and the rest
            is 0 for a character that folds to itself, and else the length of what it folds to
            plus 1.
        starts: int32 [rows], where that begins in `folded`.
        folded: int32, code points that characters fold to.
    """

    blocks: np.ndarray
    info: np.ndarray
    starts: np.ndarray
    folded: np.ndarray


@functools.cache
def load() -> Table:
    """The table, read once."""
    kinds, classes = np.full(_POINTS, LETTER, np.int32), np.zeros(_POINTS, np.int32)
    lengths, starts = np.zeros(_POINTS, np.int32), np.zeros(_POINTS, np.int32)
    folded: list[int] = []

    def add(point: int, to: Iterable[int]) -> None:
        starts[point] = len(folded)
        folded.extend(to)
        lengths[point] = len(folded) - starts[point] + 1

    for line in _FILE.read_text("ascii").splitlines():
        what, _, values = line.partition(" ")
        if what == "#":
            continue
        first, *rest = (int(value, 16) for value in values.split())
        if what == ">":
            add(first, rest)
            continue
        span = slice(first, rest[0] + 1)
        if what == "-":
            lengths[span] = 1
        elif what == "+":
            classes[span] = rest[1]
        elif what != _UNASSIGNED:
            kinds[span] = _LETTERS.index(what)
    for point in _HANGUL:
        leading, rest_of = divmod(point - _HANGUL.start, 588)
        vowel, trailing = divmod(rest_of, 28)
        jamo = (0x1100 + leading, 0x1161 + vowel, 0x11A7 + trailing)
        add(point, jamo if trailing else jamo[:2])
    info = kinds | classes << 3 | lengths << 11
    # Equal blocks are one.
    numbers: dict[bytes, int] = {}
    pairs = np.stack([info, starts], axis=1).reshape(-1, _BLOCK, 2)
    blocks = [numbers.setdefault(pair.tobytes(), len(numbers)) for pair in pairs]
    kept = np.frombuffer(b"".join(numbers), np.int32).reshape(-1, 2)
    return Table(
        np.array(blocks, np.int32) * _BLOCK,
        kept[:, 0].copy(),
        kept[:, 1].copy(),
        np.array(folded, np.int32),
    )


def kind_of(character: str) -> int:
    """The kind of a character that folds to itself."""
    table, point = load(), ord(character)
    return int(table.info[table.blocks[point // _BLOCK] + point % _BLOCK]) & 7


# How the file was made. Everything below needs Unicode 14.

_QUOTES = "\u2018\u2019\u201b\u2032\u02bb\u02bc\u00b4"  # written for an apostrophe
_OWN = {**dict.fromkeys(map(ord, _QUOTES), "'"), 0x2122: " ", 0x2120: " "}  # and TM, SM: no letters
# Default_Ignorable_Code_Point, without the zero width space, which separates words; enclosing
# keycap; skin tones.
_REMOVED = (
    (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5),
    (0x180B, 0x180F), (0x200C, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164),
    (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF), (0x20E3, 0x20E3), (0x1F3FB, 0x1F3FF),
)  # fmt: skip
# Scripts that put no space between words: the line breaking classes "ideographic" (Han, kana,
# Bopomofo, Yi, Tangut, Nushu, Khitan) and "complex context" (Thai, Lao, Myanmar, Khmer, Tai, Ahom).
_PAIRED = (
    (0xE00, 0xEFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF),
    (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3029), (0x3031, 0x3035), (0x3038, 0x303C),
    (0x3040, 0x312F), (0x31A0, 0x31BF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF), (0xA9E0, 0xA9FF), (0xAA60, 0xAADF), (0xF900, 0xFAFF), (0x11700, 0x1174F),
    (0x16FE0, 0x18DFF), (0x1AFF0, 0x1B2FF), (0x20000, 0x3FFFD),
)  # fmt: skip
_IDEOGRAPHS = range(0x20000, 0x3FFFE)  # whatever a later Unicode puts there
_EMOJI = ((0x2300, 0x23FF), (0x2600, 0x27BF), (0x2B00, 0x2BFF), (0x1F000, 0x1FAFF))
_FLAGS = ((0x1F1E6, 0x1F1FF),)


def write_lines() -> Iterator[str]:
    """The lines of the file, from `unicodedata`."""
    yield f"# Unicode {unicodedata.unidata_version}, written by dsprh_tf/data/unicode_table.py"
    yield "# KIND FIRST LAST; + FIRST LAST COMBINING_CLASS; - FIRST LAST (removed)"
    yield "# > CHARACTER FOLDED"
    for first, last, letter in _runs(_letter):
        if letter != _LETTERS[LETTER]:
            yield f"{letter} {first:X} {last:X}"
    for first, last, combining in _runs(lambda point: unicodedata.combining(chr(point))):
        if combining:
            yield f"+ {first:X} {last:X} {combining:X}"
    for first, last in _REMOVED:
        yield f"- {first:X} {last:X}"
    for point in range(_POINTS):
        if unicodedata.category(chr(point)) in ("Cn", "Co", "Cs") or point in _HANGUL:
            continue
        folded = _folded(chr(point))
        if folded and folded != chr(point):
            yield " ".join([">", f"{point:X}", *(f"{ord(c):X}" for c in folded)])


def _letter(point: int) -> str:
    kind = _kind(point)
    unassigned = kind == LETTER and unicodedata.category(chr(point)) == "Cn"
    return _UNASSIGNED if unassigned else _LETTERS[kind]


def _kind(point: int) -> int:
    """The kind of a character that folds to itself; that of others is not read."""
    category = unicodedata.category(chr(point))
    if _within(point, _FLAGS):
        return FLAG
    if _within(point, _EMOJI) and category in ("So", "Cn"):
        return EMOJI
    never = 0xFDD0 <= point <= 0xFDEF or point & 0xFFFE == 0xFFFE  # to be a character
    if 0x9 <= point <= 0xD or point in (0x85, 0x200B) or category[0] == "Z" or never:
        return SPACE
    if point in (0x27, 0x60):
        return APOSTROPHE
    if category[0] == "M":
        return MARK
    if category[0] in "PS" or category in ("Cc", "Cf", "Co", "Cs"):
        return OTHER
    if category == "Cn" and point not in _IDEOGRAPHS or category == "Nd":
        return LETTER
    return PAIRED if _within(point, _PAIRED) else LETTER


def _folded(character: str) -> str:
    """What a character folds to: compatibility decomposition and full case folding."""
    if _within(ord(character), _REMOVED):
        return ""
    folded, before = unicodedata.normalize("NFD", character), ""
    while folded != before:
        before = folded
        folded = "".join(c if c == _YPOGEGRAMMENI else c.translate(_OWN).casefold() for c in before)
        folded = unicodedata.normalize("NFKD", folded)
        folded = "".join(c for c in folded if not _within(ord(c), _REMOVED))
    return folded


def _within(point: int, ranges) -> bool:
    return any(first <= point <= last for first, last in ranges)


def _runs(value_of: Callable[[int], object]) -> Iterator[tuple]:
    """(first, last, value) of consecutive code points with one value."""
    for value, run in itertools.groupby(range(_POINTS), value_of):
        points = list(run)
        yield points[0], points[-1], value


if __name__ == "__main__":
    print("\n".join(write_lines()))
