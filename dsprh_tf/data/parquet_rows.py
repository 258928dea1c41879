"""Rows of a Parquet file: the needed columns alone, in batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
_MEMORY = 2**30  # bytes that a batch of nested columns may take


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
        self._try([n for n in wanted if pa.types.is_nested(self._schema.field(n).type)])
        row = 1
        for batch in self._batches(wanted):
            table = {}
            for name in wanted:
                column = batch.column(batch.schema.get_field_index(name))
                table[name] = self._python(name, column, row)
            for i in range(len(batch)):
                yield row + i, {name: column[i] for name, column in table.items()}
            row += len(batch)

    def _try(self, nested: list[str]) -> None:
        """Reads lists and structs in a process of its own first (`parquet_probe`)."""
        if not nested or not Path("/proc/self/statm").exists():
            return
        with parquet.ParquetFile(self._path) as file:
            rows = self._batch_rows(file.metadata)
        request = {"path": os.fspath(self._path), "columns": nested, "rows": rows}
        program = Path(__file__).with_name("parquet_probe.py")
        ended = subprocess.run(
            [sys.executable, "-I", program],
            input=json.dumps({**request, "memory": _MEMORY}),
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            reason = ended.stdout.strip() or "the Parquet library crashes on it: damaged"
            raise ValueError(
                f"{self._path}: {' and '.join(nested)} cannot be read ({reason}); write the file "
                "again, with shorter lists"
            )

    def _batches(self, wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        # As a dictionary, a text that a million rows share is in memory once.
        strings = [n for n in wanted if _is_text(self._schema.field(n).type)]
        try:
            with parquet.ParquetFile(self._path, read_dictionary=strings) as file:
                size = self._batch_rows(file.metadata)
                yield from file.iter_batches(size, columns=list(wanted))
        except Exception as error:
            raise self._broken(error) from error

    @staticmethod
    def _batch_rows(metadata: parquet.FileMetaData) -> int:
        """Rows of a batch: so many that their bytes, on average, stay small.

        The groups' sizes alone are read: pyarrow ends the process when it meets some kinds of
        damage in what a group says of its columns.
        """
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        heaviest = max((g.total_byte_size // max(1, g.num_rows) for g in groups), default=0)
        return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, heaviest)))

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

    def _python(self, name: str, column: pa.Array, row: int) -> list[Any]:
        """A column of a batch as Python objects; a text that rows share is one object."""
        try:
            if not isinstance(column, pa.DictionaryArray):
                return column.to_pylist()
            # A batch holds the texts of all batches.
            codes = column.indices.unique().drop_null()
            texts = column.dictionary.take(codes)
            lengths = pc.binary_length(texts) if _is_text(texts.type) else pa.array([0])
            longest = pc.max(lengths).as_py() or 0
            if longest <= 4 * MAX_TEXT:  # bytes; characters are counted when the text is read
                text_of = dict(zip(codes.to_pylist(), texts.to_pylist()))
                return [text_of.get(code) for code in column.indices.to_pylist()]
        except Exception as error:
            cause = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{self._path} rows {row} to {row + len(column) - 1}: {name} cannot be read "
                f"({cause}); write the file again"
            ) from error
        raise ValueError(
            f"{self._path} rows {row} to {row + len(column) - 1}: {name} has a text of {longest:,} "
            f"bytes, expected at most {MAX_TEXT:,} characters; shorten it"
        )

    def _broken(self, error: Exception) -> ValueError:
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        return ValueError(f"{self._path} is not a Parquet file ({cause}); write it again")


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
