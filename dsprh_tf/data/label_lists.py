"""What a column of labels means: lists, separated names, class indices, multi-hot columns, flags.

One spelling can mean several things, so that a column is read as a whole: `1` is a class index,
but `[0, 1]` and `[1, 0]` are two columns of a multi-hot matrix. What was understood is said.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from dsprh_tf.data import cells

_FIX = 'write names, separated by ";"'
_NOTHING = ("None", "null", "NULL", "nan", "NaN", "NAN", "<NA>", "NA", "N/A")
_STRONG = re.compile(r"[;|\n]")
_SPELLED = re.compile(r"\s*([\[{]|\(.*,|(array|set|frozenset)\()")  # perhaps a list or an object
_OBJECT = (
    "name", "label", "category", "class", "category_id", "label_id", "class_id", "id",
)  # fmt: skip
_BESIDE = ("supercategory", "score", "confidence", "bbox", "area", "iscrowd", "image_id")
_MOST = 8  # labels that a note shows


class Flags(dict):
    """Columns of 0 and 1, one per label: name -> cell."""


class LabelLists(NamedTuple):
    """Labels of a column.

    Attributes:
        lists: the labels of each cell, without repetitions.
        names: all labels, in the order of the columns of a multi-hot matrix.
        notes: printable lines on how the column was read.
    """

    lists: list[tuple[str, ...]]
    names: tuple[str, ...]
    notes: list[str]

    def of(self, cells_of_item: Iterable[int]) -> tuple[str, ...]:
        """The labels of several cells together."""
        return tuple(dict.fromkeys(name for cell in cells_of_item for name in self.lists[cell]))


class _Cell(NamedTuple):
    """A distinct cell: what it holds, and whether it stands for a list."""

    values: list[Any]
    listed: bool
    where: int  # its first occurrence


def read_labels(column: Sequence[Any], where: Callable[[int], str]) -> LabelLists:
    """The labels of each cell of a column.

    - Lists, and lists spelled as text (Python's repr, JSON, NumPy, PostgreSQL), are lists.
    - Text is separated by ";", "|" or line breaks; if no cell has these, by commas. So where names
      have commas, ";" between labels, or lists, keep them whole.
    - Lists of 0 and 1 (or true and false, or -1 and 1), all of one length, are multi-hot columns
      with the names "0", "1", ...
    - Other whole numbers are class indices, whether spelled `1` or `1.0`.
    - Objects are flags by name (`{"dog": 1, "cat": 0}`), or have the label under name or label.
    - None, NaN, an empty cell and how programs write them ("None", "null", "nan", "NA") are none.

    Args:
        column: the cells, as a manifest has them.
        where: the beginning of an error line about the cell of that position, with file and row.

    Raises:
        ValueError: lists of 0 and 1 differ in length, a list holds scores or counts, separators
            differ between rows, or a cell is of another kind.
    """
    if any(isinstance(cell, Flags) for cell in column):
        return _one_hot(column)
    distinct: dict[Any, int] = {}
    found: list[_Cell] = []
    codes = []
    for position, cell in enumerate(column):
        code = distinct.setdefault(cells.key(cell), len(found))
        if code == len(found):
            try:
                found.append(_Cell(*_values(cell), position))
            except ValueError as error:
                raise ValueError(f"{where(position)}: labels: {error}; {_FIX}") from error
        codes.append(code)
    notes = _missing_notes(column, codes, found)
    found, separated = _separated(found, where)
    found = [_without_missing(cell) for cell in found]
    values = [value for cell in found for value in cell.values]
    if not values:
        return LabelLists([()] * len(column), (), notes)
    if all(isinstance(value, (int, float)) for value in values):
        lists, names, note = _numbers(found, where)
    else:
        lists, names, note = _names(found, separated)
    return LabelLists([lists[code] for code in codes], names, [note, *notes, *_alike(names)])


def _one_hot(column: Sequence[Flags]) -> LabelLists:
    """Labels of columns of 0 and 1; none where a column holds something else."""
    names = tuple(column[0])
    lists: dict[Any, tuple[str, ...] | None] = {}
    for cell in column:
        code = tuple(map(cells.key, cell.values()))
        if code not in lists:
            flags = {name: _flag(value) for name, value in cell.items()}
            bad = any(flag is None for flag in flags.values())
            lists[code] = None if bad else tuple(name for name, flag in flags.items() if flag)
        if lists[code] is None:
            note = f"columns of labels hold other values than 0 and 1, not read{_sample(names)}"
            return LabelLists([()] * len(column), (), [note])
    rows = [lists[tuple(map(cells.key, cell.values()))] or () for cell in column]
    return LabelLists(
        rows, names, [f"{len(names)} labels, each a column of 0 and 1{_sample(names)}"]
    )


def _values(cell: Any) -> tuple[list[Any], bool]:
    """What a cell holds, and whether it is a list; text that may be several labels stays one."""
    if cells.is_null(cell) or cell == "":
        return [], False
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8")
    if isinstance(cell, str) and _SPELLED.match(cell):
        parsed = cells.parse(cell)
        if parsed is None and cell.strip()[0] in "[{" and cell.strip()[-1] in "]}":
            raise ValueError(f"{cells.shown(cell)} is neither a list nor an object")
        cell = cell if parsed is None else parsed
    if isinstance(cell, dict):
        return _of_object(cell), True
    if isinstance(cell, (list, tuple)):
        if cell and all(isinstance(part, tuple) and len(part) == 2 for part in cell):
            return _of_object(dict(cell)), True  # a map of Parquet
        values = []
        for part in cell:
            if isinstance(part, (list, tuple)):
                raise ValueError(f"{cells.shown(cell)} is a list of lists")
            values += _of_object(part) if isinstance(part, dict) else [_value(part)]
        return values, True
    return [_value(cell)], False


def _value(cell: Any) -> Any:
    """A text, a number, True, False or None, numbers spelled as text as numbers."""
    if cells.is_null(cell):
        return None
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8")
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return int(cell)
    if isinstance(cell, (bool, int, float)):
        return cell
    if isinstance(cell, str):
        text = cell.strip()
        return _number(text) if re.match(r"-?\d", text) else text
    raise ValueError(f"{cells.shown(cell)} is of the type {type(cell).__name__}")


def _number(text: str) -> Any:
    """ "1" and "1.0" as a number; "007", "3.5" and "2nd" stay names."""
    whole = re.fullmatch(r"(-?(?:0|[1-9]\d{0,15}))(?:\.0*)?", text)
    return int(whole[1]) if whole else text


def _of_object(cell: dict) -> list[Any]:
    """The labels of an object: its name, as in COCO's categories, or names whose flag is set."""
    if cell and set(cell) <= {*_OBJECT, *_BESIDE}:
        named = [cell[name] for name in _OBJECT if isinstance(cell.get(name), (str, int))]
        if named:
            return [_value(named[0])]
    flags = {name: _flag(value) for name, value in cell.items()}
    if any(value is None for value in flags.values()):
        raise ValueError(
            f"{cells.shown(cell)} is an object of other kinds than flags (0 or 1 by name) and a "
            "name or label"
        )
    return [str(name) for name, value in flags.items() if value]


def _flag(value: Any) -> bool | None:
    if cells.is_null(value) or value == "":
        return False
    value = _value(value) if isinstance(value, (str, float)) else value
    if isinstance(value, str):
        value = {"true": 1, "false": 0}.get(value.lower())
    return bool(value) if isinstance(value, int) and value in (0, 1) else None


def _separated(found: list[_Cell], where) -> tuple[list[_Cell], str | None]:
    """The cells with text split at the separator of the column, and the separator."""
    texts = [cell for cell in found if not cell.listed]
    strings = [v for cell in texts for v in cell.values if isinstance(v, str)]
    if any(_STRONG.search(text) for text in strings):
        _check_separators(texts, where)
        pattern, name = _STRONG, "; or |"
    elif any("," in text for text in strings):
        pattern, name = re.compile(","), "a comma"
    elif any(" " in text for text in strings) and all(map(_numbers_only, strings)):
        pattern, name = re.compile(r"\s+"), "a blank"
    else:
        return found, None

    def split(cell: _Cell) -> _Cell:
        if cell.listed or not cell.values or not isinstance(cell.values[0], str):
            return cell
        parts = [part.strip() for part in pattern.split(cell.values[0])]
        values = [_value(_unquoted(part)) for part in parts if part]
        return cell._replace(values=values, listed=len(parts) > 1)

    return [split(cell) for cell in found], name


def _numbers_only(text: str) -> bool:
    return all(isinstance(_value(part), int) for part in text.split())


def _unquoted(part: str) -> str:
    quoted = len(part) > 1 and part[0] == part[-1] and part[0] in "'\""
    return part[1:-1] if quoted else part


def _check_separators(texts: list[_Cell], where) -> None:
    """Refuses a column that separates labels by ";" in some rows and by "," in others."""
    separated = [c for c in texts if c.values and _STRONG.search(str(c.values[0]))]
    known = {part.strip() for c in separated for part in _STRONG.split(str(c.values[0]))}
    for cell in texts:
        text = str(cell.values[0]) if cell.values else ""
        parts = {part.strip() for part in text.split(",")}
        if len(parts) > 1 and not _STRONG.search(text) and parts <= known:
            raise ValueError(
                f"{where(cell.where)}: labels are {cells.shown(text)}, separated by a comma, but "
                f"{cells.shown(separated[0].values[0])} in {where(separated[0].where)}; use one "
                'separator, best ";"'
            )


def _without_missing(cell: _Cell) -> _Cell:
    return cell._replace(values=[v for v in cell.values if v not in (None, "", *_NOTHING)])


def _missing_notes(column: Sequence[Any], codes: list[int], found: list[_Cell]) -> list[str]:
    """A line on cells that say in a word that there is no label."""
    said = [any(value in _NOTHING for value in cell.values) for cell in found]
    count = sum(said[code] for code in codes)
    word = next((v for c in found for v in c.values if v in _NOTHING), None)
    return [f"{word} in {count:,} cells of labels was read as no label"] if count else []


def _numbers(found: list[_Cell], where):
    """Labels of a column of numbers: multi-hot columns or class indices."""
    lists = [cell for cell in found if cell.values]
    values = {value for cell in lists for value in cell.values}
    many = any(len(cell.values) > 1 for cell in lists)
    if all(isinstance(v, bool) for cell in lists for v in cell.values) and not many:
        return [tuple(map(str, c.values)) for c in found], *_flags_note(values)
    if many and (values <= {0, 1} or values <= {-1, 1}):
        return _multi_hot(found, lists, where)
    lengths = {len(cell.values) for cell in lists}
    for cell in lists:
        floats = [value for value in cell.values if isinstance(value, float)]
        # Class indices may repeat, one for each object; a list for each class has one length.
        counts = 0 in values and many and len(lengths) == 1 and len(set(cell.values)) < max(lengths)
        if floats or counts:
            what = f"{floats[0]}: scores" if floats else f"{cells.shown(cell.values)}: counts"
            raise ValueError(
                f"{where(cell.where)}: labels hold {what} are no labels; {_FIX}, or 0 and 1"
            )
    none = {-1} if -1 in values and len(values - {-1}) > 1 else set()
    classes = [
        tuple(dict.fromkeys(str(int(v)) for v in cell.values if v not in none)) for cell in found
    ]
    names = tuple(sorted({name for names in classes for name in names}))
    note = f"{len(names)} labels, whole numbers: class indices{_sample(names)}"
    if none:
        note += "; -1 was read as no label"
    return classes, names, note


def _flags_note(values: set) -> tuple[tuple[str, ...], str]:
    names = tuple(sorted(map(str, values)))
    return names, f"{len(names)} labels: {' and '.join(names)} are classes"


def _multi_hot(found: list[_Cell], lists: list[_Cell], where):
    first = lists[0]
    length = len(first.values)
    for cell in lists:
        if len(cell.values) != length:
            raise ValueError(
                f"{where(cell.where)}: labels are {len(cell.values)} values of 0 and 1, but "
                f"{length} in {where(first.where)}: a multi-hot row has one value per label; {_FIX}"
            )
    names = tuple(map(str, range(length)))
    rows = [tuple(names[i] for i, v in enumerate(cell.values) if v == 1) for cell in found]
    note = f"{length} labels: multi-hot lists of {length} values, named 0 to {length - 1}"
    return rows, names, note


def _names(found: list[_Cell], separator: str | None):
    flags = [v for cell in found for v in cell.values]
    if all(str(value).lower() in ("true", "false") for value in flags):
        rows = [tuple(str(v).capitalize() for v in cell.values) for cell in found]
        return rows, *_flags_note({name for row in rows for name in row})
    rows = [tuple(dict.fromkeys(str(v) for v in cell.values if v != "")) for cell in found]
    names = tuple(sorted({name for row in rows for name in row}))
    note = f"{len(names)} labels"
    if separator:
        note += f", separated by {separator}"
    elif any(cell.listed for cell in found):
        note += ", in lists"
    return rows, names, note + _sample(names)


def _sample(names: Sequence[str]) -> str:
    lines = [" ".join(name.split()) for name in names[:_MOST]]  # a name may hold a line break
    shown = ", ".join(name if len(name) <= 30 else f"{name[:27]}..." for name in lines)
    return f" ({shown}{', ...' if len(names) > _MOST else ''})"


def _alike(names: tuple[str, ...]) -> list[str]:
    """Lines on names that are most likely one label, or several."""
    groups: dict[str, list[str]] = {}
    for name in names:
        plain = unicodedata.normalize("NFKC", name).casefold()
        groups.setdefault(" ".join(plain.split()), []).append(name)
    alike = [group for group in groups.values() if len(group) > 1]
    notes = []
    if alike:
        notes.append(
            f"{len(alike):,} labels are spelled in several ways, each a label of its own, such as "
            f"{' and '.join(map(repr, alike[0][:3]))}"
        )
    words = Counter(word for name in names for word in set(name.split()))
    several = [name for name in names if " " in name]
    shared = [name for name in several if all(words[word] > 1 for word in name.split())]
    if len(shared) * 2 > len(several) > 0:
        notes.append(
            f'{shared[0]!r} was read as one label; if these are several, separate them with ";"'
        )
    return notes
