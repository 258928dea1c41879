"""Reading of manifests: CSV in its dialects, JSON Lines and Parquet, row by row.

Nothing here knows what a cell means: `cells` and `label_lists` do.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from dsprh_tf.data import cells, columns
from dsprh_tf.data.embedded_images import EmbeddedImages
from dsprh_tf.data.files import text_encoding
from dsprh_tf.data.label_lists import Flags
from dsprh_tf.data.parquet_rows import ParquetRows

KINDS = ("csv", "tsv", "jsonl", "ndjson", "parquet")
_TEXT_KINDS = ("txt", "token")  # only with a header, or in the layout of Flickr8k

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_FLICKR = re.compile(r"([^\t#]+\.(?:jpe?g|png|gif|bmp|webp))#(\d+)\t(.*)", re.IGNORECASE)
_IMAGE_FILE = re.compile(r".*\.(jpe?g|png|gif|bmp|webp|tiff?)", re.IGNORECASE)
_MAX_LINE = 2**24  # characters of a JSON line


_QUOTES = 'write a quote within a field twice (""), and the whole field in quotes'


class Rows(Protocol):
    """Rows of a file: its column names, lines to print, and the cells of some columns."""

    names: list[str]

    @property
    def notes(self) -> list[str]:
        """Printable lines on how the file was read."""

    def rows(self, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Row numbers, and cells by column name; a cell may be missing."""


class Manifest:
    """A manifest, opened: what its columns stand for, and its rows.

    Rows are counted as an editor shows them: the first line of a CSV or JSON Lines file and the
    first row of a Parquet file are row 1, and blank lines count.

    Attributes:
        path: the file.
        columns: role -> the names of its columns; a role that no column has is missing.
        names: all column names.
        notes: printable lines on how the file was read, complete when all rows were read.

    Args:
        path: a .csv, .tsv, .jsonl, .ndjson or .parquet file, or a .txt or .token file of rows.
        wanted: role -> names that its column may have, by priority (`columns.TEXT`, ...).

    Raises:
        ValueError: the file is of another kind, missing or broken, or has a column twice.
    """

    def __init__(self, path: str | os.PathLike, wanted: Mapping[str, Sequence[str]]):
        self.path = Path(path)
        kind = self.path.suffix[1:].lower()
        self._reader: Rows
        if kind in ("csv", "tsv", *_TEXT_KINDS):
            self._reader = _Separated(self.path, surely=kind in _TEXT_KINDS)
        elif kind in ("jsonl", "ndjson"):
            self._reader = _JsonLines(self.path)
        elif kind == "parquet":
            self._reader = ParquetRows(self.path)
        else:
            raise ValueError(f"{path} is not a .csv, .tsv, .jsonl or .parquet file")
        self.names = self._reader.names
        found = columns.find_columns(self.path, self.names, wanted)
        self.columns = found.of
        self._notes = found.notes
        self._embedded = EmbeddedImages(self.path)
        self._wanting: tuple = ()

    @property
    def notes(self) -> list[str]:
        """Printable lines on how the file was read."""
        return [*self._reader.notes, *self._notes, *self._embedded.notes]

    def require(self, roles: Sequence[str], layout: str) -> None:
        """Refuses a manifest without the columns of some roles; `layout` ends the error line.

        One without any column may have no rows either, for which callers have words of their own:
        it is refused at its first row.
        """
        missing = [role for role in roles if role not in self.columns]
        if not missing:
            return
        if not self.names and not self._wanting:
            self._wanting = (roles, layout)
            return
        names = sorted(name.strip().lower() for name in self.names if name.strip())
        line = (
            f"{self.path} has no column {' and no column '.join(missing)} (it has "
            f"{columns.listed(names) or 'none'})"
        )
        if any(_IMAGE_FILE.fullmatch(name) for name in names):
            line += f"; its first row should name the columns, such as {','.join(roles)}"
        raise ValueError(f"{line}; {layout}")

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Row numbers, and cells by role; "" for a missing cell.

        A role of several columns has a list of its texts, or `Flags` of its labels. An image is
        the path of a file; images in the manifest itself are written to files.

        Raises:
            ValueError: a row is broken; the line names it.
        """
        wanted = [name for names in self.columns.values() for name in names]
        for row, record in self._reader.rows(wanted):
            if self._wanting:
                self.require(*self._wanting)
            for name in wanted:
                self._check_text(row, name, record.get(name))
            yield row, {role: self._cell(row, record, role) for role in self.columns}

    def _cell(self, row: int, record: dict[str, Any], role: str) -> Any:
        names = self.columns[role]
        found = [_clean(record.get(name)) for name in names]
        if role == "image":
            try:
                image = cells.image_of(found[0])
                return self._embedded.file_of(image) if isinstance(image, bytes) else image
            except ValueError as error:
                raise ValueError(f"{self.path} row {row}: {error}") from error
        if role == "labels" and columns.one_hot(names[:1]) and len(names) > 1:
            return Flags(zip(map(columns.label_of, names), found))
        return found if len(names) > 1 else found[0]

    def _check_text(self, row: int, column: str, value: Any) -> None:
        """Refuses text that cannot be written anywhere: JSON can spell half a character."""
        if isinstance(value, (list, tuple)):
            for part in value:
                self._check_text(row, column, part)
        elif isinstance(value, dict):
            self._check_text(row, column, [*value, *value.values()])
        elif isinstance(value, str) and not value.isascii():  # most are: costs nothing
            try:
                value.encode("utf-8")
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"{self.path} row {row}: {column.strip().lower()} has "
                    f"{value[error.start]!a}, half of a surrogate pair and no character; write "
                    "the value again in UTF-8"
                ) from error


def _clean(value: Any) -> Any:
    return "" if cells.is_null(value) else value


class _Separated:
    """Rows of a file with separated fields: CSV and its dialects.

    Args:
        path: the file.
        surely: refuse a file without two column names that are known: it may be any text.
    """

    def __init__(self, path: Path, surely: bool):
        self._path = path
        self._encoding, note = text_encoding(path)
        self._notes = [note] if note else []
        self._passed: Counter[str] = Counter()
        self._breaks = 0
        with self._open() as file:
            lines = [line for line in (file.readline(2**20) for _ in range(100)) if line]
        self.separator, self.names, self._head = _head(lines)
        known = columns.known(self.names)
        self._flickr = not known and bool(lines and _FLICKR.match(lines[0]))
        if self._flickr:
            self.names, self._head, self.separator = ["image", "comment_number", "text"], 0, "\t"
            self._notes.append("rows are IMAGE#NUMBER, a tab and a text, as in Flickr8k.token.txt")
        elif surely and known < 2:
            raise ValueError(f"{path} is not a .csv, .tsv, .jsonl or .parquet file")
        elif self.separator != ",":
            self._notes.append(f"fields are separated by {_SEPARATORS[self.separator]}")

    def _open(self) -> TextIO:
        return open(self._path, encoding=self._encoding, newline="")

    @property
    def notes(self) -> list[str]:
        """As `Rows`; complete when all rows were read."""
        notes = list(self._notes)
        if self._breaks:
            notes.append(f"{self._breaks:,} rows have line breaks in a field")
        return notes + [
            f"{n:,} rows {what} were passed over" for what, n in self._passed.items() if n
        ]

    def rows(self, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """As `Rows`; cells are strings."""
        places = {name: self.names.index(name) for name in wanted}
        header = [name.strip() for name in self.names]
        self._passed.clear()
        self._breaks = 0
        for row, fields in self._flickr_records() if self._flickr else self._records():
            if row <= self._head:
                continue
            if not any(map(str.strip, fields)):
                self._passed["without any value"] += bool(fields)
                continue
            if not header:
                raise ValueError(f"{self._path} row {row}: no row before names the columns")
            if fields[0].strip() == header[0] and [f.strip() for f in fields] == header:
                self._passed["that repeat the header"] += 1
                continue
            if len(fields) != len(self.names):
                raise ValueError(
                    f"{self._path} row {row} has another number of fields than the header "
                    f"({len(fields)}, not {len(self.names)}); quote fields that contain "
                    f"{_SEPARATORS[self.separator]}"
                )
            yield row, {name: fields[place] for name, place in places.items()}

    def _flickr_records(self) -> Iterator[tuple[int, list[str]]]:
        with self._open() as file:
            for row, line in enumerate(file, 1):
                found = _FLICKR.fullmatch(line.rstrip("\r\n"))
                if line.strip() and not found:
                    raise ValueError(
                        f"{self._path} row {row} is not IMAGE#NUMBER, a tab and a text, as the "
                        "first row is; mend or remove it"
                    )
                yield row, list(found.groups()) if found else []

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """The rows that the records begin in, and their fields."""
        with self._open() as file:
            lines = _Kept(file)
            reader = csv.reader(lines, delimiter=self.separator, strict=True)
            while True:
                row, lines.kept = reader.line_num + 1, []
                try:
                    fields = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    raise ValueError(self._problem(error, row, lines.kept)) from error
                if len(lines.kept) > 1:
                    self._check_swallowed(row, fields, lines.kept)
                yield row, fields

    def _problem(self, error: csv.Error, row: int, kept: list[str]) -> str:
        opened = row + _opened_quotes("".join(kept), self.separator)[-1]
        if "field larger" in str(error):
            return (
                f"{self._path} row {opened} has a field of more than {csv.field_size_limit():,} "
                "characters; shorten it, or close its quote"
            )
        noticed = row + len(kept) - 1
        return (
            f"{self._path} row {opened}: the quote that opens here is not closed before its field "
            f"ends (noticed in row {noticed}); {_QUOTES}"
        )

    def _check_swallowed(self, row: int, fields: list[str], kept: list[str]) -> None:
        """Refuses a field with line breaks where every line looks like a row.

        The further ones do if they have as many fields, with a file name wherever this row has
        one, and likewise numbers.
        """
        self._breaks += row > self._head
        first, *lines = (line.split(self.separator) for line in kept if line.strip())
        shapes = [_shape(field) for field in fields]
        if len(first) >= len(fields) == len(self.names) > 1 and all(
            len(parts) == len(fields)
            and all(not shape or shape == _shape(part) for shape, part in zip(shapes, parts))
            for parts in lines
        ):
            opened = row + _opened_quotes("".join(kept), self.separator)[0]
            raise ValueError(
                f"{self._path} row {opened}: the quote that opens here takes in {len(lines)} more "
                f"rows; {_QUOTES}"
            )


class _Kept:
    """Lines of a file, those of the current record kept."""

    def __init__(self, lines: Iterator[str]):
        self._lines = lines
        self.kept: list[str] = []

    def __iter__(self) -> _Kept:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.kept.append(line)
        return line


def _head(lines: list[str]) -> tuple[str, list[str], int]:
    """The separator, the column names and the row of the header, from the first lines."""
    # Excel announces its separator in a line of its own.
    told = re.fullmatch(r'"?sep=(.)"?\s*', lines[0], re.IGNORECASE) if lines else None
    rows = range(1 if told else 0, len(lines))
    first = next((row for row in rows if _has_content(lines[row])), None)
    if first is None:
        return ",", [], 0
    separators = [told[1]] if told and told[1] in _SEPARATORS else _SEPARATORS
    heads = {separator: _first_fields(lines[first:], separator) for separator in separators}
    separator = max(heads, key=lambda mark: (columns.known(heads[mark]), len(heads[mark])))
    return separator, heads[separator], first + 1


def _has_content(line: str) -> bool:
    return bool(line.strip("".join(_SEPARATORS) + ' "\r\n\ufeff'))


def _first_fields(lines: list[str], separator: str) -> list[str]:
    try:
        return next(csv.reader(lines, delimiter=separator, strict=True), [])
    except csv.Error:
        return []


def _shape(field: str) -> str | None:
    """What kind of value a field has that is no prose: "file", "number"; None otherwise."""
    field = field.strip()
    if _IMAGE_FILE.fullmatch(field):
        return "file"
    return "number" if re.fullmatch(r"-?\d+(\.\d+)?", field) else None


def _opened_quotes(text: str, separator: str) -> list[int]:
    """The lines of a record, from 0, in which a quoted field opens that does not end there."""
    opened, position = [], 0
    field = re.compile(r'"(?:[^"]|"")*("|$)')
    while position < len(text):
        at_start = position == 0 or text[position - 1] == separator
        found = field.match(text, position) if at_start else None
        if found and re.search("[\r\n]", found[0]):
            opened.append(len(re.findall(r"\r\n|\r|\n", text[:position])))
        position = found.end() if found else position + 1
    return opened or [0]


class _JsonLines:
    """Rows of a file with one JSON object per line."""

    def __init__(self, path: Path):
        self._path = path
        self._encoding, note = text_encoding(path)
        self.notes = [note] if note else []
        self.names = list(dict.fromkeys(name for _, record in self._records() for name in record))

    def rows(self, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """As `Rows`; column names are in lower case, cells are what JSON has."""
        return self._records()

    def _records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with open(self._path, encoding=self._encoding, newline="") as file:
            row = 0
            while line := file.readline(_MAX_LINE):
                row += 1
                if not line.strip():
                    continue
                if len(line) == _MAX_LINE:
                    raise ValueError(
                        f"{self._path} row {row} is longer than {_MAX_LINE:,} characters"
                    )
                yield row, self._record(row, line)

    def _record(self, row: int, line: str) -> dict[str, Any]:
        where, fix = f"{self._path} row {row}", "write one object per line"
        try:
            record = json.loads(line, object_pairs_hook=_unique_keys, parse_int=_whole_number)
        except RecursionError as error:
            raise ValueError(f"{where} is nested too deeply; {fix}") from error
        except _RepeatedKey as error:
            raise ValueError(f"{where} has the key {error} twice; keep one") from error
        except ValueError as error:
            array = row == 1 and line.lstrip().startswith("[")
            cause = "the beginning of an array" if array else " ".join(str(error).split())
            if not line.endswith(("\n", "\r")):
                cause += ", and the file ends there: it may be cut off"
            raise ValueError(f"{where} is not JSON ({cause}); {fix}") from error
        if not isinstance(record, dict):
            what = "an array" if isinstance(record, list) else "another value"
            raise ValueError(f"{where} is not a JSON object but {what}; {fix}")
        plain = {name.strip().lower(): value for name, value in record.items()}
        if len(plain) < len(record):
            repeated = Counter(name.strip().lower() for name in record).most_common(1)[0][0]
            raise ValueError(f"{where} has the key {cells.shown(repeated)} twice; keep one")
        return plain


class _RepeatedKey(ValueError):
    """A JSON object has a key twice: the first value would be lost."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise _RepeatedKey(cells.shown(Counter(name for name, _ in pairs).most_common(1)[0][0]))
    return record


def _whole_number(digits: str) -> int:
    if len(digits) > 400:  # Python would take minutes for millions of digits
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)
