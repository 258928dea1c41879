"""Rows of a Parquet file: the needed columns alone, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from dsprh_tf.data.cells import MAX_TEXT
from dsprh_tf.data.files import require_regular

_BATCH_BYTES = 2**25
_BATCH_ROWS = 1024
_MOST_VALUES = 100_000  # per row, on average: a list column can claim any number


class ParquetRows:
    """Rows of a Parquet file, as `manifest.Rows`.

    Args:
        path: the file.

    Raises:
        ValueError: it is missing or no Parquet file.
    """

    def __init__(self, path: Path):
        self._path = path
        self.notes: list[str] = []
        require_regular(path)
        try:
            with parquet.ParquetFile(path) as file:
                self._schema = file.schema_arrow
                self.names = list(self._schema.names)
        except Exception as error:  # pyarrow raises nearly anything on malformed bytes
            raise self._broken(error) from error

    def rows(self, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """As `manifest.Rows`: cells are numbers, texts, lists and dictionaries.

        Raises:
            ValueError: a needed column is of another type, holds a text of more than `MAX_TEXT`
                characters, or cannot be read.
        """
        for name in wanted:
            self._check_type(name, self._schema.field(name).type)
        row = 1
        for batch in self._batches(wanted):
            table = {}
            for name in wanted:
                column = batch.column(batch.schema.get_field_index(name))
                self._check_length(name, column, row)
                table[name] = self._python(column, row)
            for i in range(len(batch)):
                yield row + i, {name: column[i] for name, column in table.items()}
            row += len(batch)

    def _batches(self, wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        # As a dictionary, a text that a million rows share is in memory once.
        strings = [n for n in wanted if _is_text(self._schema.field(n).type)]
        try:
            with parquet.ParquetFile(self._path, read_dictionary=strings) as file:
                size = self._batch_rows(file, wanted)
                yield from file.iter_batches(size, columns=list(wanted))
        except Exception as error:
            raise self._broken(error) from error

    def _batch_rows(self, file: parquet.ParquetFile, wanted: Sequence[str]) -> int:
        """Rows of a batch: so many that their bytes, on average, stay small."""
        heaviest = 1
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            chunks = [group.column(i) for i in range(group.num_columns)]
            chunks = [c for c in chunks if c.path_in_schema.partition(".")[0] in wanted]
            rows = max(1, group.num_rows)
            values = max((chunk.num_values for chunk in chunks), default=0)
            if values > max(10**6, rows * _MOST_VALUES):
                raise ValueError(f"{values:,} values in {rows:,} rows")
            heaviest = max(heaviest, sum(chunk.total_uncompressed_size for chunk in chunks) // rows)
        return max(1, min(_BATCH_ROWS, _BATCH_BYTES // heaviest))

    def _check_type(self, name: str, kind: pa.DataType) -> None:
        """Refuses what stands for neither text nor numbers; dates may not even be convertible."""
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if (
            pa.types.is_list(kind)
            or pa.types.is_large_list(kind)
            or pa.types.is_fixed_size_list(kind)
        ):
            self._check_type(name, kind.value_type)
        elif pa.types.is_struct(kind):
            for i in range(kind.num_fields):
                self._check_type(name, kind.field(i).type)
        elif pa.types.is_map(kind):
            self._check_type(name, kind.key_type)
            self._check_type(name, kind.item_type)
        elif pa.types.is_temporal(kind) or pa.types.is_nested(kind):
            raise ValueError(
                f"{self._path}: the column {name} is of the type {kind}, expected text, numbers or "
                "lists of them; write it as such"
            )

    def _check_length(self, name: str, column: pa.Array, row: int) -> None:
        """Refuses a text that is too long before it becomes a Python object for each row."""
        if isinstance(column, pa.DictionaryArray):
            column = column.dictionary
        if not _is_text(column.type) or not len(column):
            return
        longest = pc.max(pc.binary_length(column)).as_py() or 0
        if longest > 4 * MAX_TEXT:  # bytes; characters are counted when the text is read
            raise ValueError(
                f"{self._path} row {row} or one of the next {_BATCH_ROWS:,}: {name} has a text of "
                f"{longest:,} bytes, expected at most {MAX_TEXT:,} characters; shorten it"
            )

    def _python(self, column: pa.Array, row: int) -> list[Any]:
        try:
            return column.to_pylist()
        except Exception as error:
            where = f"{self._path} rows {row} to {row + len(column) - 1}"
            cause = " ".join(str(error).split())[:200]
            raise ValueError(f"{where} cannot be read ({cause}); write the file again") from error

    def _broken(self, error: Exception) -> ValueError:
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        return ValueError(f"{self._path} is not a Parquet file ({cause}); write it again")


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
