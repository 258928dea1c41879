"""`HammingIndex`: codes on one machine, searched exactly or with FAISS's approximate indexes."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from dsprh_tf import codes as binary
from dsprh_tf.data.files import Lock
from dsprh_tf.index import checks, faiss_kinds, folder, known_files, recall
from dsprh_tf.index.approximate import ApproximateSearch
from dsprh_tf.index.id_rows import IdRows
from dsprh_tf.index.interface import (
    EVERYTHING,
    MODALITIES,
    Changes,
    ItemsLike,
    Results,
    Where,
)
from dsprh_tf.index.items import GROUP_ROWS, SCHEMA, WRITING, Items, as_ids, as_items, unchanged

_AGAIN = "build the index again"
_REMOVED_SHARE = 0.2  # share of removed rows, or codes, at which an engine is built anew
_KEPT_MASKS = 16  # filters whose rows are remembered
_DROP = 0.1  # loss of recall since the engine was built that `check` accepts


class HammingIndex:
    """Codes with ids, searched by Hamming distance.

    | kind | search | removed items |
    |---|---|---|
    | `flat` | exact, compares every code | are dropped at once |
    | `hnsw`, `ivf`, `hash` | approximate, by a FAISS index (the engine) of the distinct codes: graph, inverted lists, multi-index hashing; the code of the query itself is always found | are skipped in the results; the engine is rebuilt once they are a fifth of all rows or codes |

    Below 1,000 distinct codes every kind is exact, and so are searches for more results than a
    quarter of the distinct codes, and every search with a filter: it compares all codes that the
    filter admits.

    `save` writes an index to a folder; `commit` writes the changes of an index that was loaded for
    writing. Both are atomic: whenever the process ends, the folder holds either the complete old
    content or the complete new content.

        index = HammingIndex(64)
        index.add(codes)  # uint8 [n, 8]; the ids are 0..n-1
        found = index.search(query_codes, k=10)  # found.ids, found.distances: [queries, 10]

    Attributes:
        bits: length of a code.
        kind: kind of search.
        fingerprint: fingerprint of the encoders, see `Encoder.info`; None if unknown.
        known_files: table of `known_files`, None if the index was never synced.

    Args:
        bits: length of a code, a multiple of 8.
        kind: kind of search, as in the table.
        fingerprint: fingerprint of the encoders that made the codes.

    Raises:
        ValueError: the kind is unknown, or `bits` is not a multiple of 8.
    """  # noqa: E501 - a table

    def __init__(self, bits: int, kind: str = "flat", fingerprint: str | None = None):
        binary.check_bits(bits)
        checks.check_kind(kind, faiss_kinds.KINDS)
        self.bits, self.kind, self.fingerprint = int(bits), kind, fingerprint
        self._codes: np.ndarray = np.zeros((0, bits // 8), np.uint8)
        self._ids: np.ndarray = np.zeros(0, np.int64)
        self._items = Items(SCHEMA.empty_table())
        self.known_files: pa.Table | None = None
        self._removed: np.ndarray = np.zeros(0, bool)
        self._approximate: ApproximateSearch | None = None
        self._recall: dict | None = None
        self._outdated = False  # whether the search has to follow codes that have changed
        self._folder: Path | None = None
        self._lock: Lock | None = None
        self._files: dict = {}
        self._changed = set(folder.ENDINGS)
        self._forget()

    # Loading and saving

    @classmethod
    def create(
        cls,
        path: str | os.PathLike,
        bits: int,
        fingerprint: str | None = None,
        kind: str = "flat",
        overwrite: bool = False,
    ) -> HammingIndex:
        """An empty index that `commit` will write into a folder, which is locked meanwhile.

        Args:
            path: the folder; nothing in it changes before `commit`.
            bits: as for the class.
            fingerprint: as for the class.
            kind: as for the class.
            overwrite: whether `commit` may replace an index that is there.

        Raises:
            ValueError: there is an index already, or another process writes to the folder.
        """
        index = cls(bits, kind, fingerprint)
        if (Path(path) / "index.json").exists():
            checks.check_free(f"{path}", overwrite)
        index._lock_folder(path)
        return index

    @classmethod
    def load(
        cls, path: str | os.PathLike, write: bool = False, verify: bool = True
    ) -> HammingIndex:
        """The index in a folder.

        Codes, ids and, where FAISS supports it, the engine are memory-mapped; items are read when
        they are needed. If another process replaces the index, this one stays as it was loaded.

        Args:
            path: the folder.
            write: whether changes will be committed; other processes can then only read.
            verify: whether to compare checksums, about a second per gigabyte; without it truncated
                files are still detected, but altered ones may not be.

        Raises:
            ValueError: there is no index, a file is missing, truncated or altered, or another
                process writes to the folder.
        """
        lock = folder.lock(path) if write else None
        for attempt in range(3):
            content = folder.read(path)
            try:
                folder.check_files(path, content, verify)
                index = cls._read(Path(path), content, write)
                break
            except (ValueError, OSError):
                # Another process may have replaced the files between the two steps.
                if attempt == 2 or folder.read(path) == content:
                    raise
        index._folder, index._lock = Path(path), lock
        return index

    @classmethod
    def _read(cls, path: Path, content: dict, write: bool) -> HammingIndex:
        index = cls(content["bits"], content["kind"], content["fingerprint"])
        files = {kind: path / entry["name"] for kind, entry in content["files"].items()}
        rows = content["rows"]
        index._codes = folder.load_array(files["codes"], np.uint8)
        index._ids = folder.load_array(files["ids"], np.int64)
        index._items = Items(files["items"])
        if "files" in files:
            index.known_files = known_files.read(files["files"])
        lengths = {len(index._codes), len(index._ids), len(index._items), rows}
        if len(lengths) > 1 or index._codes.shape[1:] != (index.bits // 8,):
            raise ValueError(f"the files in {path} do not fit together: {_AGAIN}")
        index._removed = np.zeros(rows, bool)
        if "removed" in files:
            removed = folder.load_array(files["removed"], np.int64)
            if len(removed) and not 0 <= removed.min() <= removed.max() < rows:
                raise ValueError(f"{files['removed']} is broken: {_AGAIN}")
            index._removed[removed] = True
        index._files, index._changed, index._recall = content["files"], set(), content.get("recall")
        if "engine" in files and "distinct" not in files and write:
            # Of an older version, over rows instead of distinct codes: the next commit builds it.
            index._outdated, index._changed = True, {"engine", "distinct"}
        elif "engine" in files:
            engine = faiss_kinds.read(index.kind, files["engine"], not write)
            built, table = content["built_rows"], files.get("distinct")
            index._approximate = ApproximateSearch.read(index.kind, engine, table, rows, built)
        index._forget()
        return index

    def save(self, path: str | os.PathLike) -> None:
        """Writes the index into a folder; an index that is there is replaced.

        Raises:
            ValueError: another process writes to the folder.
            OSError: the files cannot be written; the former content stays.
        """
        if self._folder is None or os.path.realpath(path) != os.path.realpath(self._folder):
            self._lock_folder(path)
        self.commit()

    def commit(self) -> None:
        """Makes all changes durable, in one step.

        Raises:
            ValueError: the index has no folder, or was loaded for reading.
            OSError: the files cannot be written; the former content stays.
        """
        self._check_writable()
        if self._folder is None:
            raise ValueError("the index has no folder yet: give it one with save")
        self._prepare()
        if not self._changed:
            return
        writers = {
            "codes": lambda path: folder.save_array(path, self._codes),
            "ids": lambda path: folder.save_array(path, self._ids),
            "items": lambda path: parquet.write_table(
                self._items.table(), path, row_group_size=GROUP_ROWS, **WRITING
            ),
            "removed": lambda path: folder.save_array(path, np.flatnonzero(self._removed)),
            "files": lambda path: parquet.write_table(self.known_files, path, **WRITING),
        }
        if self._approximate is not None:
            writers.update(self._approximate.writers())
        absent = {"removed"} if not self._removed.any() else set()
        absent |= {"engine", "distinct"} if self._approximate is None else set()
        absent |= {"files"} if self.known_files is None else set()
        self._files = folder.write(
            self._folder,
            {
                "kind": self.kind,
                "bits": self.bits,
                "fingerprint": self.fingerprint,
                "rows": len(self._ids),
                "built_rows": self._approximate.built if self._approximate else 0,
                "recall": self._recall,
            },
            {kind: writers[kind] for kind in folder.ENDINGS if kind in self._changed - absent},
            {k: v for k, v in self._files.items() if k not in self._changed | absent},
        )
        self._changed = set()

    def committed(self) -> tuple[Path, dict] | None:
        """The folder and the entries of its files by kind, if they hold what this index holds."""
        return None if self._folder is None or self._changed else (self._folder, self._files)

    def _lock_folder(self, path) -> None:
        """Locks a folder for writing; everything has to be written there."""
        Path(path).mkdir(parents=True, exist_ok=True)
        self._lock = folder.lock(path)
        self._folder, self._files, self._changed = Path(path), {}, set(folder.ENDINGS)

    # Changes

    def add(self, codes: np.ndarray, items: ItemsLike = None) -> Changes:
        """Adds items, which replace those with the same ids; repeating it changes nothing.

        Args:
            codes: uint8 [n, bits / 8]; or [n, bits] of 0 and 1, or of -1 and 1.
            items: a table with n rows of `items.SCHEMA`; or n ids, whole numbers from 0 to
                2^63 - 1, which may be floats below 2^53; or n names, each of which becomes an id
                (`items.stable_id`) and the item's text; or None, which numbers the items after
                the highest id, from 0 on.

        Raises:
            ValueError: codes or items are of another type or length, an id occurs twice, or an
                item has another modality than the one that it would replace; nothing was added.
        """
        self._check_writable()
        codes = checks.checked_codes("codes", codes, self.bits)
        table = as_items(items, len(codes), lambda: int(self._by_id.ids.max(initial=-1)))
        ids = table["id"].to_numpy()
        rows = self._by_id.find(ids)
        known = np.flatnonzero(rows >= 0)
        same = np.zeros(len(ids), bool)
        if len(known):
            old, new = self._items.take(rows[known]), table.take(pa.array(known))
            checks.check_modalities(old, new)
            same[known] = unchanged(old, new)
            same[known] &= (self._codes[rows[known]] == codes[known]).all(axis=1)
        replaced = known[~same[known]]
        changes = Changes(int((rows < 0).sum()), len(replaced), int(same.sum()))
        if changes.unchanged < len(ids):
            self._drop(rows[replaced])
            fresh = np.flatnonzero(~same)
            self._codes = np.concatenate([self._codes, codes[fresh]])
            self._ids = np.concatenate([self._ids, ids[fresh]])
            new = table.take(pa.array(fresh))
            self._items = Items(pa.concat_tables([self._items.table(), new]))
            self._removed = np.concatenate([self._removed, np.zeros(len(fresh), bool)])
            self._changed |= {"codes", "ids", "items", "engine", "distinct"}
            self._outdated = True
            self._forget()
        return changes

    def remove(self, ids) -> int:
        """Removes items and returns their number; ids that are not there are ignored."""
        self._check_writable()
        rows = self._by_id.find(np.unique(as_ids(ids)))
        rows = rows[rows >= 0]
        self._drop(rows)
        return len(rows)

    def know_files(self, files: pa.Table) -> None:
        """Replaces the table of the files that the items are from."""
        self.known_files = files
        self._changed |= {"files"}

    def _drop(self, rows: np.ndarray) -> None:
        if not len(rows):
            return
        self._removed[rows] = True
        self._changed |= {"removed"}
        share = 1.0
        if self._approximate is not None:
            share = self._approximate.removed_share(self._codes, self._removed)
        if share > _REMOVED_SHARE:
            left = np.flatnonzero(~self._removed)
            self._codes, self._ids = self._codes[left], self._ids[left]
            self._items = Items(self._items.table().take(pa.array(left)))
            self._removed = np.zeros(len(left), bool)
            self._approximate, self._outdated = None, True
            self._changed |= {"codes", "ids", "items", "engine", "distinct"}
        self._forget()

    def _prepare(self) -> None:
        """Brings the engine up to date with the codes, and measures its recall if it changed."""
        if not self._outdated:
            return
        self._approximate = ApproximateSearch.of(
            self.kind, self._codes, self._ids, self._approximate
        )
        self._outdated, self._recall = False, None
        if self._approximate is not None:
            self._recall = self._measure(faiss_kinds.search_exact)

    def _check_writable(self) -> None:
        checks.check_writable(self._folder is None or self._lock is not None)

    # Queries

    def __len__(self) -> int:
        return self._count

    def any(self, where: Where = EVERYTHING) -> bool:
        """Whether there is an item that a filter admits."""
        return bool(self._mask(where).any())

    def count(self, where: Where = EVERYTHING) -> int:
        """Number of items that a filter admits."""
        return int(np.count_nonzero(self._mask(where))) if where else len(self)

    def search(self, query: np.ndarray, k: int = 10, where: Where = EVERYTHING) -> Results:
        """The k nearest items of each query.

        Args:
            query: uint8 [queries, bits / 8]; or [queries, bits] of 0 and 1, or of -1 and 1.
            k: results per query.
            where: filter of the items to search.

        Raises:
            ValueError: the codes are of another length or type, k is below 1, or the index is
                empty.
        """
        return self.nearest_codes(query, k, where)[0]

    def nearest_codes(
        self, query: np.ndarray, k: int, where: Where = EVERYTHING
    ) -> tuple[Results, np.ndarray]:
        """As `search`, and codes of the results, uint8 [queries, k, bits / 8]; any fill rows."""
        query = checks.checked_codes("query codes", query, self.bits)
        checks.check_search(k, not len(self))
        self._prepare()
        everything = not where or self.count(where) == len(self)
        if everything and self._approximate is not None and self._approximate.suits(k):
            names, codes = self._ids, self._codes
            distances, rows = self._search_approximate(self._approximate, query, k)
        else:
            names, codes = self.codes_where(where)
            distances, rows = faiss_kinds.search_exact(codes, query, k)
        if not len(names):  # nothing to fill rows with
            names, codes = np.array([-1]), np.zeros((1, self.bits // 8), np.uint8)
        if k > rows.shape[1]:
            width = ((0, 0), (0, k - rows.shape[1]))
            distances, rows = (np.pad(v, width, constant_values=-1) for v in (distances, rows))
        ids = np.where(rows < 0, -1, names[rows])
        order = np.lexsort((ids, np.where(ids < 0, self.bits + 1, distances)), axis=-1)
        each = np.arange(len(query))[:, None]
        return Results(distances[each, order], ids[each, order]), codes[rows[each, order]]

    def _search_approximate(
        self, search: ApproximateSearch, query: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `ApproximateSearch.search`, of the present rows."""
        removed = self._removed if len(self) < len(self._ids) else None
        return search.search(self._codes, self._ids, removed, query, k)

    def codes_where(self, where: Where = EVERYTHING) -> tuple[np.ndarray, np.ndarray]:
        """Ids int64 [n] and codes uint8 [n, bits / 8] of the items that a filter admits."""
        if self.count(where) == len(self._ids):
            return self._ids, self._codes
        rows = np.flatnonzero(self._mask(where))
        return self._ids[rows], self._codes[rows]

    def ids_where(self, where: Where = EVERYTHING) -> np.ndarray:
        """Ids of the items that a filter admits, int64, in the order in which they were added."""
        return np.array(self._ids[self._mask(where)])

    def contains(self, ids) -> np.ndarray:
        """Whether there is an item with each of some ids: bool [n]."""
        return self._by_id.find(as_ids(ids)) >= 0

    def codes_of(self, ids) -> np.ndarray:
        """Codes of items, uint8 [n, bits / 8].

        Raises:
            ValueError: an id is not in the index.
        """
        return np.array(self._codes[self._needed_rows(ids)])

    def items_of(self, ids) -> pa.Table:
        """Rows of `items.SCHEMA` for ids, in their order.

        Raises:
            ValueError: an id is not in the index.
        """
        return self._items.take(self._needed_rows(ids))

    def stats(self) -> dict:
        """Numbers and settings, for the screen."""
        counts = {name: int(self._mask(Where(modality=name)).sum()) for name in MODALITIES}
        sizes = {kind: entry["size"] for kind, entry in self._files.items()}
        distinct = self._approximate.distinct if self._approximate else None
        return {
            "items": len(self),
            **{f"{name}s": count for name, count in counts.items()},
            "removed rows": int(self._removed.sum()),
            "kind": self.kind,
            "search": "exact" if self._approximate is None else "approximate",
            "bits": self.bits,
            "fingerprint": self.fingerprint,
            "distinct codes": distinct.count if distinct else None,
            recall.RECALL: None,
            **(self._recall or {}),
            "bytes": sum(sizes.values()),
            **{f"bytes of {kind}": size for kind, size in sizes.items()},
        }

    def check(self) -> dict:
        """Compares files with their checksums, and the search with brute force on a sample.

        Returns:
            As `interface.Index.check`.

        Raises:
            ValueError: a file is broken, codes, ids and items do not belong together, a distance
                is wrong, an exact search is not exact, or the recall of an approximate one has
                dropped since it was built.
        """
        if self._folder is not None and not self._changed:
            folder.check_files(self._folder, folder.read(self._folder))
        if len(np.unique(self._ids[~self._removed])) < len(self):
            raise ValueError("ids occur twice in the index: build it again from its codes")
        if not np.array_equal(self._items.column("id").to_numpy(), self._ids):
            raise ValueError("items and ids of the index differ: build it again from its codes")
        self._prepare()
        least, whole = 1.0, "checksums right"
        if self._approximate is not None:
            least = (self._recall or {}).get(recall.RECALL, 0) - _DROP
            whole += self._approximate.check(self._codes, self._ids)
        found = self._measure(recall.brute_force) or recall.NOTHING
        share = found[recall.RECALL]
        if share is not None and share < least:
            raise ValueError(
                f"the search finds {share:.3f} of the nearest items, expected at least "
                f"{least:.3f}: build the index again from its codes"
            )
        return {"items": len(self), "whole": whole, **found}

    def _measure(self, exact) -> dict | None:
        rows = np.flatnonzero(~self._removed)
        search = functools.partial(faiss_kinds.search_exact, self._codes)
        if self._approximate is not None:
            search = functools.partial(self._search_approximate, self._approximate)
        return recall.measure(self._codes, rows, search, exact)

    def _mask(self, where: Where) -> np.ndarray:
        """Mask of the rows that a filter admits and that were not removed: bool [rows]."""
        if where not in self._masks:
            if len(self._masks) == _KEPT_MASKS:
                self._masks.clear()
            self._masks[where] = self._items.mask(where) & ~self._removed
        return self._masks[where]

    def _forget(self) -> None:
        """Drops what was derived from rows that have changed."""
        self._masks: dict[Where, np.ndarray] = {}
        self._count = len(self._ids) - int(self._removed.sum())
        self.__dict__.pop("_by_id", None)

    @functools.cached_property
    def _by_id(self) -> IdRows:
        return IdRows(self._ids, np.flatnonzero(~self._removed))

    def _needed_rows(self, ids) -> np.ndarray:
        ids = as_ids(ids)
        rows = self._by_id.find(ids)
        checks.check_found(ids, rows >= 0)
        return rows
