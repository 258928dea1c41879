"""Items tables: ids, paths or texts, and tags of the items of an index; and filters on them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from dsprh_tf.data.cells import plain_id
from dsprh_tf.index.interface import ItemsLike, Where

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("modality", pa.string()),
        ("path", pa.large_string()),
        ("text", pa.large_string()),
        ("size", pa.int64()),
        ("sha256", pa.binary(32)),
        ("tags", pa.list_(pa.string())),
    ]
)
"""Columns of every items table: `modality` is "image", "text", or "" if only the id is known;
`path` is of an image and `text` of a text, the other one null; `size` in bytes and `sha256` are of
the image file or of the text in UTF-8; `tags` may be empty. Of an item that was encoded from a
vector, path and text are null unless they were given, an image's caption is its `text`, and `size`
and `sha256` are the vector's (float32, little-endian). An id that was a name is the `text` where
there is no other."""

WRITING = {"compression": "zstd"}
GROUP_ROWS = 8192  # of a row group: so many are decoded to show one item
_KEPT_GROUPS = 64
_END = 2**63  # ids are below
_EXACT = 2**53  # floats from here on leave out whole numbers


def stable_id(modality: str, name: str) -> int:
    """The 63-bit id of an item that was given none: a hash of its name.

    The same image or text has the same id on every machine and in every run, so that adding it
    again replaces it. The chance that two names share an id is 5e-8 among 10^6 items, 5e-4 among
    10^8 and 5 % among 10^9: give whole numbers of your own to collections of that size.

    Args:
        modality: "image", "text", or "" if it is not known.
        name: the path, the text, or an id that is not a number.
    """
    digest = hashlib.sha256(f"{modality}\0{name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def named_id(modality: str, name: str) -> int:
    """The id of an item that was given a name: the whole number that it is, or else a hash of it.

    Args:
        modality: as of `stable_id`.
        name: the name; "0017" is none of the whole numbers.

    Raises:
        ValueError: the number is too large.
    """
    if not name.isdecimal() or len(name) > 19 or str(int(name)) != name:
        return stable_id(modality, name)
    if int(name) >= _END:
        raise ValueError(f"id {name} is too large, expected below 2^63")
    return int(name)


def is_id(value: str) -> bool:
    """Whether a string is the id of an item: a whole number from 0 to 2^63 - 1."""
    # The length first: Python reads no number of thousands of digits.
    digits = value.isascii() and value.isdecimal() and len(value) <= 19
    return digits and int(value) < _END


def id_of(value: str, given: str) -> int:
    """The id that a text gives: "7", or "7.0" as pandas may write it.

    Args:
        value: the text.
        given: where it is from, the subject of the error line.

    Raises:
        ValueError: it is no id.
    """
    try:
        name = plain_id(value)
    except ValueError as error:
        raise ValueError(f"{given}: {error}") from error
    if not is_id(name):
        raise ValueError(f"{given}, expected the id of an item, a whole number below 2^63")
    return int(name)


def as_ids(ids) -> np.ndarray:
    """Ids that were given, int64 [n].

    Args:
        ids: n whole numbers, which may be floats below 2^53 (pandas turns a column of numbers into
            floats where one is missing) or texts.

    Raises:
        ValueError: one of them is no whole number below 2^63, or none for sure.
    """
    given: np.ndarray = np.asarray(ids).reshape(-1)
    if not given.size:
        return np.zeros(0, np.int64)
    if given.dtype.kind in "OU":
        names = [plain_id(value) for value in given.tolist()]
        given = np.array([int(name) if is_id(name) else name for name in names])
    kind_of = given.dtype.kind
    wrong: np.ndarray = np.full(given.shape, kind_of not in "iuf")
    if kind_of == "u":
        wrong = given >= _END
    elif kind_of == "f":
        wrong = ~(np.abs(given) < _EXACT) | (given != np.rint(given))  # of NaN the first
    if wrong.any():
        bad = f"{given[wrong][0]!s:.40}"
        name = f"; the id of a name is stable_id('', {bad!r})" if kind_of not in "iuf" else ""
        raise ValueError(
            f"received the id {bad}, expected whole numbers below 2^63, and as floats below 2^53, "
            f"which are exact{name}"
        )
    return given.astype(np.int64)


def text_items(texts: Sequence[str], ids=None, tags=None) -> pa.Table:
    """The items table of texts.

    Args:
        texts: n strings.
        ids: n whole numbers; `stable_id` of each text by default.
        tags: n lists of strings; no tags by default.
    """
    contents = [text.encode("utf-8") for text in texts]
    rows = len(contents)
    return pa.table(
        {
            "id": [stable_id("text", t) for t in texts] if ids is None else ids,
            "modality": ["text"] * rows,
            "path": [None] * rows,
            "text": texts,
            "size": [len(content) for content in contents],
            "sha256": [hashlib.sha256(content).digest() for content in contents],
            "tags": [[]] * rows if tags is None else tags,
        },
        SCHEMA,
    )


def id_items(ids: Sequence[int] | Sequence[str] | np.ndarray) -> pa.Table:
    """The items table of items of which only the ids are known.

    Args:
        ids: n whole numbers from 0 to 2^63 - 1, see `as_ids`; or names, see `named_id`, which are
            the texts of the items, then. Numbers may be spelled as text.

    Raises:
        ValueError: the ids are something else.
    """
    kind_of = type(ids).__name__
    given = np.asarray(ids)
    if (given.dtype.kind not in "iufOU" and given.size) or given.ndim != 1:
        raise ValueError(
            f"received items of type {kind_of} ({given.dtype} {list(given.shape)}), expected an "
            f"Arrow table with the columns {', '.join(SCHEMA.names)}, an array of ids (one whole "
            "number or name per code), or None to number the items"
        )
    texts: list[str | None] = [None] * len(given)
    if given.dtype.kind in "OU":
        # A list as it is: NumPy would spell the numbers of a mixed one as text.
        values = ids if isinstance(ids, (list, tuple)) else given.tolist()
        names = [plain_id(v) if isinstance(v, str) else str(as_ids([v])[0]) for v in values]
        if "" in names:
            raise ValueError(f"item {names.index('')} has no id: give every item one of its own")
        numbers = [
            named_id("", name) if isinstance(value, str) else int(name)
            for name, value in zip(names, values)
        ]
        texts = [None if str(i) == name else name for i, name in zip(numbers, names)]
        given = np.array(numbers, np.int64)
    ids = as_ids(given)
    nothing = [None] * len(ids)
    return pa.table(
        {
            "id": ids,
            "modality": [""] * len(ids),
            "path": nothing,
            "text": texts,
            "size": nothing,
            "sha256": nothing,
            "tags": [[]] * len(ids),
        },
        SCHEMA,
    )


def as_items(items: ItemsLike, rows: int, highest: Callable[[], int]) -> pa.Table:
    """The items table of what `Index.add` was given.

    Args:
        items: an items table, ids or names, or None for the ids after the highest one.
        rows: number of codes.
        highest: returns the highest id of the index, -1 if it is empty; called where it is needed.

    Raises:
        ValueError: `items` is something else, columns or types are not `SCHEMA`'s, the length is
            not `rows`, an id is missing or occurs twice, or there are no ids after the highest.
    """
    if items is None:
        start = highest() + 1
        if start + rows > _END:
            raise ValueError(
                f"there are no {rows:,} ids after the highest one of the index, {start - 1}: "
                "give the items ids"
            )
        items = start + np.arange(rows)
    return checked(items if isinstance(items, pa.Table) else id_items(items), rows)


def checked(items: pa.Table, rows: int) -> pa.Table:
    """An items table whose columns, length and ids are in order.

    Args:
        items: table given by the caller.
        rows: number of codes.

    Raises:
        ValueError: columns or types are not `SCHEMA`'s, the length is not `rows`, or an id is
            missing or occurs twice.
    """
    missing = [name for name in SCHEMA.names if name not in items.column_names]
    if missing:
        raise ValueError(
            f"an items table needs the columns {', '.join(SCHEMA.names)}, received one without "
            f"{', '.join(missing)}"
        )
    if len(items) != rows:
        raise ValueError(
            f"received {rows:,} codes and {len(items):,} items, expected one item per code"
        )
    try:
        items = items.select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"the columns of an items table are of other types: {error}") from error
    if items["id"].null_count:
        raise ValueError("an item has no id: give every item a whole number of its own")
    ids, counts = np.unique(items["id"].to_numpy(), return_counts=True)
    if rows and ids[0] < 0:
        raise ValueError(f"received the id {ids[0]}, expected numbers from 0 to 2^63 - 1")
    if len(ids) < rows:
        raise ValueError(f"id {ids[counts > 1][0]} occurs twice among the items: ids are unique")
    return items


def unchanged(old: pa.Table, new: pa.Table) -> np.ndarray:
    """Equality of the rows of two items tables of one length: bool [n]."""
    same = np.ones(len(old), bool)
    for name in SCHEMA.names:
        left, right = (
            pc.binary_join(table[name].combine_chunks(), "\0") if name == "tags" else table[name]
            for table in (old, new)
        )
        nulls = pc.and_(pc.is_null(left), pc.is_null(right))
        equal = pc.or_(pc.fill_null(pc.equal(left, right), False), nulls)
        same &= equal.to_numpy(zero_copy_only=False)
    return same


def code_column(codes: np.ndarray) -> pa.Array:
    """Packed codes as a column: n values of bits / 8 bytes.

    Args:
        codes: uint8 [n, bits / 8].
    """
    data = pa.py_buffer(np.ascontiguousarray(codes))
    return pa.Array.from_buffers(pa.binary(codes.shape[1]), len(codes), [None, data])


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Turns what pyarrow raises on a damaged Parquet file into a `ValueError` that names it."""
    try:
        yield
    except Exception as error:  # ArrowException, OSError, MemoryError
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} is damaged ({cause}): write it again") from error


def whole(table: pa.Table, rows: int) -> pa.Table:
    """A table as it was read, if its values are in order: text is UTF-8, lists end in it.

    Raises:
        ValueError: they are not, or there are more or fewer than `rows`.
    """
    table.validate(full=True)
    if len(table) != rows:
        raise ValueError(f"{len(table):,} rows, expected {rows:,}")
    return table


class Items:
    """The items of an index in the order of its rows, in memory or in a Parquet file.

    A file is read by row groups as they are needed; the last few are kept.

    Args:
        source: an items table, or the path of its Parquet file.

    Raises:
        ValueError: the file does not hold an items table.
    """

    def __init__(self, source: pa.Table | str | os.PathLike):
        self._table: pa.Table = None
        self._file: parquet.ParquetFile = None
        if isinstance(source, pa.Table):
            self._table = source
        else:
            with reading(source):
                self._file = parquet.ParquetFile(source, memory_map=True)
            if not self._file.schema_arrow.equals(SCHEMA):
                raise ValueError(f"{source} is not an items table: its columns are others")
            self._path = source
            metadata = self._file.metadata
            groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self._starts = np.concatenate([[0], np.cumsum(groups, dtype=np.int64)])
            self._group = functools.lru_cache(_KEPT_GROUPS)(self._read_group)

    def __len__(self) -> int:
        return len(self._table) if self._file is None else self._file.metadata.num_rows

    def table(self) -> pa.Table:
        """All items, in memory."""
        return self._table if self._file is None else self._read()

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all items."""
        return self._table[name] if self._file is None else self._read([name])[name]

    def _read(self, columns: list[str] | None = None) -> pa.Table:
        with reading(self._path):
            return whole(self._file.read(columns), len(self))

    def _read_group(self, group: int) -> pa.Table:
        with reading(self._path):
            return whole(
                self._file.read_row_group(group), self._file.metadata.row_group(group).num_rows
            )

    def take(self, rows: np.ndarray) -> pa.Table:
        """Some of the items, in the order of `rows` (int64 [m])."""
        if self._file is None:
            return self._table.take(pa.array(rows, pa.int64()))
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        needed, position = np.unique(groups, return_inverse=True)
        parts = [SCHEMA.empty_table(), *(self._group(int(group)) for group in needed)]
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts[1:]])]).astype(int)
        at = starts[position.reshape(-1)] + (rows - self._starts[groups])
        return pa.concat_tables(parts).take(pa.array(at, pa.int64()))

    def mask(self, where: Where) -> np.ndarray:
        """Mask of the items that a filter admits: bool [n]."""
        mask = np.ones(len(self), bool)
        if where.modality is not None:
            mask &= _flags(pc.equal(self.column("modality"), where.modality))
        if where.prefix is not None:
            mask &= _flags(pc.starts_with(self.column("path"), where.prefix))
        for group in where.groups:
            mask &= self._tagged(group)
        if where.without:
            mask &= ~self._tagged(where.without)
        return mask

    def _tagged(self, tags: tuple[str, ...]) -> np.ndarray:
        """Mask of the items that have at least one of some tags: bool [n]."""
        tagged, start = np.zeros(len(self), bool), 0
        wanted = pa.array(tags, pa.string())
        for chunk in self.column("tags").chunks:
            hits = _flags(pc.is_in(pc.list_flatten(chunk), wanted))
            tagged[start + pc.list_parent_indices(chunk).to_numpy()[hits]] = True
            start += len(chunk)
        return tagged


def _flags(values) -> np.ndarray:
    return pc.fill_null(values, False).to_numpy(zero_copy_only=False).astype(bool)
