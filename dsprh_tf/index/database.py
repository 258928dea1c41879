"""Base of an index in a database: addresses, batches, comparing, results and the check."""

from __future__ import annotations

import abc
import dataclasses
import re
import urllib.parse
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from dsprh_tf import codes as binary
from dsprh_tf.index import checks, recall
from dsprh_tf.index.interface import (
    EVERYTHING,
    MODALITIES,
    Changes,
    ItemsLike,
    Results,
    Where,
)
from dsprh_tf.index.items import SCHEMA, as_ids, as_items, code_column, unchanged

TIMEOUT = 30.0  # seconds that one call may take, unless the address has ?timeout=
_BATCH_ROWS, _BATCH_BYTES = 1000, 2**23  # of one call, at most: a retry repeats no more


@dataclasses.dataclass(frozen=True)
class Address:
    """Address of an index in a database.

    Attributes:
        shown: the address without the password, for the screen.
        parts: parts of the URL.
        options: options after the "?".
        timeout: seconds that one call may take.
    """

    shown: str
    parts: urllib.parse.SplitResult
    options: dict[str, str]
    timeout: float

    @classmethod
    def parse(cls, location: str) -> Address:
        """Reads an address.

        Raises:
            ValueError: it is not an address, or its timeout is not a number above 0.
        """
        shown = without_password(location)
        try:
            parts = urllib.parse.urlsplit(location)
            parts.port  # noqa: B018 - raises if it is not a number
            options = dict(
                urllib.parse.parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
                if parts.query
                else []
            )
        except ValueError as error:
            raise ValueError(f"--index={shown} is not an address ({error})") from error
        given = options.pop("timeout", str(TIMEOUT))
        try:
            timeout = float(given)
        except ValueError:
            timeout = 0.0
        if not 0 < timeout < 1e6:
            raise ValueError(f"--index={shown}: timeout is {given!r}, expected seconds above 0")
        return cls(shown, parts, options, timeout)


def without_password(location: str) -> str:
    """A location for the screen: an address without its password, a folder as it is."""
    scheme, mark, rest = location.partition("://")
    end = min((i for i in map(rest.find, "/?#") if i >= 0), default=len(rest))
    user, at, host = rest[:end].rpartition("@")
    if not mark:
        return location
    user = f"{user.split(':')[0]}:***" if ":" in user else user
    # libpq takes passwords among the options as well.
    options = re.sub(r"([?&](ssl)?password=)[^&#]*", r"\1***", rest[end:])
    return f"{scheme}://{user}{at}{host}{options}"


class Database(abc.ABC):
    """An index in a database, see `interface.Index`.

    Codes and items are stored in batches: a batch that the database has acknowledged is durable,
    and adding the same items again after an error goes on from there. Several processes may write
    at a time; of two that add the same id, the later one wins. Every search with a filter is
    exact.

    A subclass implements the calls to its database. The tables that it takes and returns have
    columns of `items.SCHEMA` and `code`, fixed-size binary, with null for missing or empty values.

    Attributes:
        ENGINE: name of the database.
        PLACE: the database's own word for what holds an index.
        KINDS: kinds of search.
        FORMATS: formats of what is stored that this version of the program reads.
        MOST: most results of one query; None for any number.

    Args:
        address: address of the index.
        write: whether the index may be changed.
    """

    ENGINE: str
    PLACE: str
    KINDS: tuple[str, ...]
    FORMATS: tuple[int, ...] = (1,)
    MOST: int | None = None

    def __init__(self, address: Address, write: bool):
        self.address, self._write = address, write
        self.bits, self.kind, self.fingerprint = 0, "", None

    @classmethod
    def create(
        cls, location: str, bits: int, fingerprint: str | None, kind: str, overwrite: bool
    ) -> Database:
        """An empty index, which exists at once; `overwrite` drops the one that is there.

        Raises:
            ValueError: the address or kind is bad, or there is an index or something else already.
            OSError: the database cannot be reached, or failed.
        """
        binary.check_bits(bits)
        checks.check_kind(kind, cls.KINDS, cls.ENGINE)
        index = cls(location, write=True)  # type: ignore[arg-type] # subclasses take a location
        about = {"format": cls._format(kind), "bits": int(bits), "kind": kind}
        about["fingerprint"] = fingerprint
        index._adopt(about)
        index._make(about, overwrite)
        return index

    @classmethod
    def load(cls, location: str, write: bool) -> Database:
        """The index at an address.

        Raises:
            ValueError: there is no index, or it has another schema.
            OSError: the database cannot be reached, or failed.
        """
        index = cls(location, write)  # type: ignore[arg-type] # as above
        fields, about = index._find()
        if fields is None or about is None:
            foreign = f"the {cls.PLACE} was not made by this program"
            reason = f"no such {cls.PLACE}" if fields is None else foreign
            raise ValueError(
                f"{index.address.shown} holds no index ({reason}): build one with "
                "`dsprh index build`"
            )
        index._adopt(about)
        expected = index._expected()
        wrong = sorted({name for name, _ in fields.items() ^ expected.items()})
        if wrong:
            raise ValueError(
                f"{index.address.shown}: the {cls.PLACE} has another schema than an index of "
                f"{index.bits} bits ({wrong[0]} is {fields.get(wrong[0], 'missing')}, expected "
                f"{expected.get(wrong[0], 'no such field')}): build the index again under another "
                "name"
            )
        return index

    @classmethod
    def _format(cls, kind: str) -> int:
        """The format of a new index."""
        return 1

    def _check_place(self, is_index: bool, overwrite: bool) -> None:
        """Refuses to replace what is there, unless it is an index that may be overwritten."""
        if not is_index:
            raise ValueError(
                f"{self.address.shown}: the {self.PLACE} exists and is not an index; give another "
                "name"
            )
        checks.check_free(self.address.shown, overwrite)

    @abc.abstractmethod
    def _make(self, about: dict, overwrite: bool) -> None:
        """Connects and makes an empty index, in the place of what `_check_place` lets it drop."""

    @abc.abstractmethod
    def _find(self) -> tuple[dict[str, str] | None, dict | None]:
        """Connects; the types of all fields that exist, and the `about` that `_make` wrote."""

    @abc.abstractmethod
    def _expected(self) -> dict[str, str]:
        """Types of the fields of an index of `bits`, in the form of `_find`."""

    def _adopt(self, about: dict) -> None:
        """Takes over "format", "bits", "kind" and "fingerprint" from the database.

        Raises:
            ValueError: they are not of the form that this version of the program writes.
        """
        bits, kind = about.get("bits"), about.get("kind")
        known = about.get("format") in self.FORMATS
        if not known or not isinstance(bits, int) or not isinstance(kind, str):
            raise ValueError(
                f"{self.address.shown} is an index of another version, its format is "
                f"{about.get('format')!r}, expected {' or '.join(map(str, self.FORMATS))}: build "
                "it again under another name"
            )
        self.bits, self.kind, self.fingerprint = bits, kind, about.get("fingerprint")

    @abc.abstractmethod
    def _fetch(self, ids: np.ndarray, columns: list[str]) -> pa.Table:
        """Columns of the items that exist among at most `_BATCH_ROWS` ids, in any order."""

    @abc.abstractmethod
    def _store(self, rows: pa.Table) -> None:
        """Writes rows durably, which replace those with the same ids."""

    @abc.abstractmethod
    def _delete(self, ids: np.ndarray) -> int:
        """Removes the items that exist among at most `_BATCH_ROWS` ids; returns their number."""

    @abc.abstractmethod
    def _nearest(self, query: np.ndarray, k: int, where: Where) -> list[tuple[list, list]]:
        """Up to k ids and their distances for each query, in any order."""

    @abc.abstractmethod
    def _scan(self, where: Where, column: str | None = None) -> Iterator[pa.Table]:
        """Ids, and one column, of all items that a filter admits, a page at a time."""

    @abc.abstractmethod
    def _by_words(self, words: Sequence[str], k: int, where: Where) -> list[int]:
        """As `by_words`."""

    @abc.abstractmethod
    def _about(self) -> dict:
        """Further entries of `stats` for this kind of database."""

    @abc.abstractmethod
    def count(self, where: Where = EVERYTHING) -> int:
        """Number of items that a filter admits."""

    @abc.abstractmethod
    def any(self, where: Where = EVERYTHING) -> bool:
        """Whether there is an item that a filter admits."""

    @abc.abstractmethod
    def commit(self) -> None:
        """Brings the database's own index up to date; the items are durable without it."""

    def _check_items(self, items: pa.Table) -> None:  # noqa: B027 - most have no such limits
        """Refuses items that the database cannot hold."""

    def __len__(self) -> int:
        return self.count()

    def add(self, codes: np.ndarray, items: ItemsLike = None) -> Changes:
        """Adds items, which replace those with the same ids; repeating it changes nothing.

        Args:
            codes: as for `HammingIndex.add`.
            items: as for `HammingIndex.add`; give ids where several processes write, as None
                numbers the items after those that are there now.

        Raises:
            ValueError: as `HammingIndex.add`; nothing was added.
            OSError: the database failed; says how many items were stored before.
        """
        checks.check_writable(self._write)
        codes = checks.checked_codes("codes", codes, self.bits)
        table = _normal(as_items(items, len(codes), self._highest))
        self._check_items(table)
        rows = table.append_column("code", code_column(codes))
        known, same = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        for start, part in _batches(rows, "comparing"):
            new_ids = part["id"].to_numpy()
            old = self._fetch(new_ids, [*SCHEMA.names, "code"])
            if len(old):
                order = np.argsort(new_ids)
                at = order[np.searchsorted(new_ids, old["id"].to_numpy(), sorter=order)]
                new = part.take(pa.array(at))
                checks.check_modalities(old, new)
                equal = pc.equal(old["code"], new["code"]).to_numpy(zero_copy_only=False)
                known[start + at] = True
                same[start + at] = unchanged(old, new) & equal.astype(bool)
        fresh = rows.filter(pa.array(~same))
        # In the order of ids, so that two processes never lock each other.
        fresh = fresh.sort_by("id")
        for start, part in _batches(fresh, "storing"):
            try:
                self._store(part)
            except OSError as error:
                raise OSError(
                    f"{error}; {start:,} of {len(fresh):,} new items were stored before and stay: "
                    "give the same codes to `dsprh index add` to go on"
                ) from error
        return Changes(int((~known).sum()), int((known & ~same).sum()), int(same.sum()))

    def remove(self, ids) -> int:
        """Removes items and returns their number; ids that are not there are ignored."""
        checks.check_writable(self._write)
        return sum(self._delete(part) for part in _parts(np.unique(as_ids(ids))))

    def search(self, query: np.ndarray, k: int = 10, where: Where = EVERYTHING) -> Results:
        """As `HammingIndex.search`.

        Raises:
            ValueError: as there.
            OSError: the database failed.
        """
        query = checks.checked_codes("query codes", query, self.bits)
        checks.check_search(k, not self.any())
        distances = np.full((len(query), k), -1, np.int32)
        ids = np.full((len(query), k), -1, np.int64)
        for row, found in enumerate(self._nearest(query, k, where)):
            # Of an id that two processes stored at once, a database may have two rows.
            names, first = np.unique(np.array(found[0], np.int64), return_index=True)
            near = np.array(found[1], np.int32)[first]
            order = np.lexsort((names, near))
            ids[row, : len(order)], distances[row, : len(order)] = names[order], near[order]
        return Results(distances, ids)

    def by_words(self, words: Sequence[str], k: int = 10, where: Where = EVERYTHING) -> np.ndarray:
        """Ids of the items that have some of the words in their text or among their tags.

        Those with more and rarer words come first, ties by id; words that more than half of the
        items have do not count, unless there are no others.

        Args:
            words: of a query, as `words.words_of` gives them.
            k: number of ids, at most.
            where: which items count.

        Returns:
            int64 [k or fewer].

        Raises:
            OSError: the database failed.
        """
        return np.array(self._by_words(words, k, where) if words else [], np.int64)

    def _highest(self) -> int:
        return int(self.ids_where().max(initial=-1))

    def ids_where(self, where: Where = EVERYTHING) -> np.ndarray:
        """Ids of the items that a filter admits, int64, ascending."""
        parts = [part["id"].to_numpy() for part in self._scan(where)]
        return np.sort(np.concatenate([np.zeros(0, np.int64), *parts]))

    def contains(self, ids) -> np.ndarray:
        """As `HammingIndex.contains`."""
        ids = as_ids(ids)
        found = [self._fetch(part, ["id"])["id"].to_numpy() for part in _parts(np.unique(ids))]
        return np.isin(ids, np.concatenate([np.zeros(0, np.int64), *found]))

    def codes_of(self, ids) -> np.ndarray:
        """As `HammingIndex.codes_of`."""
        return _codes(self._rows(ids, ["id", "code"])["code"], self.bits)

    def items_of(self, ids) -> pa.Table:
        """As `HammingIndex.items_of`."""
        return self._rows(ids, SCHEMA.names)

    def _rows(self, ids, columns: list[str]) -> pa.Table:
        """Rows of ids, in the order of the ids, which may repeat."""
        ids = as_ids(ids)
        names = np.unique(ids)
        schema = stored_schema(self.bits, columns)
        tables = [schema.empty_table(), *(self._fetch(part, columns) for part in _parts(names))]
        found = pa.concat_tables(tables).sort_by("id")
        there = found["id"].to_numpy()
        checks.check_found(ids, np.isin(ids, there))
        return found.take(pa.array(np.searchsorted(there, ids)))

    def stats(self) -> dict:
        """Numbers and settings, for the screen."""
        counts = {name: self.count(Where(modality=name)) for name in MODALITIES}
        return {
            "items": len(self),
            **{f"{name}s": count for name, count in counts.items()},
            "kind": self.kind,
            "search": "exact" if self.kind == "flat" else "approximate",
            "bits": self.bits,
            "fingerprint": self.fingerprint,
            **self._about(),
        }

    def check(self) -> dict:
        """Reads every code, and compares search with brute force on a sample of items.

        Returns:
            As `interface.Index.check`.

        Raises:
            ValueError: an item occurs twice, a distance is wrong, or an exact search is not exact.
            OSError: the database failed.
        """
        sample, ids = recall.Sample(self.bits), [np.zeros(0, np.int64)]
        for part, codes in self._all_codes("reading"):
            ids.append(part)
            sample.add(part, codes)
        count = sum(map(len, ids))
        if len(np.unique(np.concatenate(ids))) < count or count != len(self):
            raise ValueError(
                "ids occur twice in the index, or another process changes it: check it when that "
                "has ended, or build it again from its codes"
            )
        whole = {"items": count, "whole": "all codes read"}
        best = recall.nearest_others(count)
        if best < 1:
            return {**whole, **recall.NOTHING}
        least: np.ndarray = np.zeros((len(sample.codes), 0), np.int32)
        read = 0
        for part, codes in self._all_codes("comparing"):
            distances = binary.hamming_distance(sample.codes, codes)
            least = np.sort(np.concatenate([least, distances], axis=1), axis=1)[:, : best + 1]
            read += len(part)
        if read != count:
            raise ValueError(
                f"{count:,} items were counted and {read:,} codes read: another process changes "
                "the index, check it when that has ended"
            )
        results = self.search(sample.codes, best + 1)
        there = results.ids >= 0
        codes = np.zeros((*there.shape, self.bits // 8), np.uint8)
        codes[there] = self.codes_of(results.ids[there])
        recall.check_distances(sample.codes, codes, results.distances, there)
        found = recall.share(sample.names, least[:, -1], results.distances, results.ids)
        if self.kind == "flat" and found[recall.RECALL] < 1:
            raise ValueError(
                f"the exact search finds {found[recall.RECALL]:.3f} of the nearest items: build "
                "the index again from its codes"
            )
        return {**whole, **found}

    def _all_codes(self, title: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Ids int64 [n] and codes uint8 [n, bits / 8] of all items, a page at a time."""
        with tqdm(desc=title, unit="item", delay=2) as bar:
            for part in self._scan(EVERYTHING, "code"):
                yield part["id"].to_numpy(), _codes(part["code"], self.bits)
                bar.update(len(part))


def stored_schema(bits: int, columns: list[str] | None = None) -> pa.Schema:
    """The schema of stored rows, or of some columns of them."""
    schema = SCHEMA.append(pa.field("code", pa.binary(bits // 8)))
    return schema if columns is None else pa.schema([schema.field(name) for name in columns])


def _normal(items: pa.Table) -> pa.Table:
    """Items with null for empty paths and texts, and [] for missing tags."""
    for name in ("path", "text"):
        column = items[name].combine_chunks()
        empty = pc.equal(column, pa.scalar("", column.type))
        column = pc.if_else(empty, pa.scalar(None, column.type), column)
        items = items.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
    tags = [tags or [] for tags in items["tags"].to_pylist()]
    at = SCHEMA.get_field_index("tags")
    return items.set_column(at, SCHEMA.field("tags"), pa.array(tags, SCHEMA.field("tags").type))


def _batches(rows: pa.Table, title: str) -> Iterator[tuple[int, pa.Table]]:
    """Parts of a table that fit into one call, each with its first row; with a progress bar."""
    sizes = np.full(len(rows), 256, np.int64)
    for name in ("path", "text"):
        sizes += pc.fill_null(pc.binary_length(rows[name]), 0).to_numpy()
    ends = np.cumsum(sizes)
    start = 0
    with tqdm(total=len(rows), desc=title, unit="item", delay=2) as bar:
        while start < len(rows):
            before = ends[start - 1] if start else 0
            fitting = int(np.searchsorted(ends, before + _BATCH_BYTES, side="right")) - start
            count = min(max(1, fitting), _BATCH_ROWS)
            part = rows.slice(start, count)
            yield start, part
            start += len(part)
            bar.update(len(part))


def _parts(ids: np.ndarray) -> Iterator[np.ndarray]:
    return (ids[i : i + _BATCH_ROWS] for i in range(0, len(ids), _BATCH_ROWS))


def _codes(column: pa.ChunkedArray, bits: int) -> np.ndarray:
    """A column of codes as uint8 [n, bits / 8]."""
    data = b"".join(column.to_pylist())
    return np.frombuffer(data, np.uint8).reshape(-1, bits // 8)
