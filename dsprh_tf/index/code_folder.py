"""The folder of codes that an encoding run leaves, for `dsprh index` or programs of yours.

| file | content |
|---|---|
| codes.npy | uint8 [n, bits / 8] |
| items.parquet | `items.SCHEMA`, one row per code, and `modified` (ns) of images |
| codes.json | bits, fingerprint of the encoders, source, shard, skipped items, checksums |

While a run is at work, its results stand in `.parts/`, one complete file per part. At the end they
are merged in `.merging/` and moved into place; a run that finds an unfinished move completes it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from dsprh_tf.data.files import (
    LARGE_JSON,
    Lock,
    file_sha256,
    read_json,
    sync,
    write_bytes,
    write_json,
)
from dsprh_tf.data.npy_files import map_npy
from dsprh_tf.index.items import GROUP_ROWS, SCHEMA, WRITING, code_column, reading, whole
from dsprh_tf.index.sources import Item

FORMAT = 1
STORED = SCHEMA.append(pa.field("modified", pa.int64()))
_AGAIN = "encode again with `dsprh encode`"
_ABOUT = ("bits", "fingerprint", "modality", "source", "shard")
_FILES = ("codes.npy", "items.parquet")


def part_schema(bits: int) -> pa.Schema:
    """Columns of a part: those of items.parquet, and `code` or else `problem`."""
    code = pa.field("code", pa.binary(bits // 8))
    return STORED.append(code).append(pa.field("problem", pa.string()))


class CodeFolder:
    """Codes and items of a finished run.

    Attributes:
        bits: length of a code.
        fingerprint: fingerprint of the encoders.
        modality: "image" or "text".
        skipped: items without a code, {"item": path or text, "problem": reason}.
        codes: uint8 [n, bits / 8], memory-mapped.

    Args:
        path: the folder.

    Raises:
        ValueError: there are no codes, the run has not ended, or a file is missing or altered.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        about = _about(self.path)
        self.bits, self.fingerprint = about["bits"], about["fingerprint"]
        self.modality, self.skipped = about["modality"], about["skipped"]
        for name, entry in about["files"].items():
            file = self.path / name
            if not file.is_file():
                raise ValueError(f"{file} is missing: {_AGAIN}")
            if file.stat().st_size != entry["size"] or file_sha256(file) != entry["sha256"]:
                raise ValueError(f"{file} is truncated or altered: {_AGAIN}")
        codes = np.asarray(map_npy(self.path / "codes.npy"))
        with reading(self.path / "items.parquet"):
            rows = parquet.read_metadata(self.path / "items.parquet").num_rows
        if codes.dtype != np.uint8 or codes.shape != (rows, self.bits // 8):
            raise ValueError(
                f"{self.path} has {rows:,} items, {self.bits} bits and codes of {codes.dtype} "
                f"{list(codes.shape)}, which do not fit together: {_AGAIN}"
            )
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes)

    def items(self) -> pa.Table:
        """Rows of `items.SCHEMA`, one per code."""
        file = self.path / "items.parquet"
        table = _read_table(file, SCHEMA.names, SCHEMA, len(self))
        ids = table["id"]
        if ids.null_count or len(pc.unique(ids)) < len(table):
            raise ValueError(f"{file} has an item without an id, or an id twice: {_AGAIN}")
        return table


class CodeWriter:
    """Writer of a folder of codes, which knows what was encoded before.

    Args:
        path: the folder, made if it is missing.
        bits: length of a code.
        fingerprint: fingerprint of the encoders.
        modality: "image" or "text".
        source: path of the folder or manifest that the items are from.
        shard: (i, n), see `sources.Source`.
        overwrite: whether to remove the codes that the folder holds.

    Raises:
        ValueError: the folder holds codes of other encoders or another source, or another process
            writes there.
    """

    def __init__(self, path, bits, fingerprint, modality, source, shard=(0, 1), overwrite=False):
        self.path, self.bits = Path(path), bits
        values = (bits, fingerprint, modality, str(source), list(shard))
        self.about = dict(zip(_ABOUT, values))
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(
            self.path / ".lock",
            f"{path} is being written by another process: wait for it, or give another --out",
        )
        self._parts = self.path / ".parts"
        self._finish_move()
        finished = (self.path / "codes.json").exists()
        if overwrite:
            shutil.rmtree(self._parts, ignore_errors=True)
            for name in ("codes.json", "items.parquet", "codes.npy"):
                (self.path / name).unlink(missing_ok=True)
        elif finished:
            self._compare(_about(self.path))
        elif (self._parts / "about.json").exists():
            self._compare(read_json(self._parts / "about.json", "give --overwrite"))
        self._known = {}
        columns = ["id", "path", "text", "size", "modified", "sha256", "tags"]
        for table in self._tables(columns):
            for number, *state in zip(*(table[name].to_pylist() for name in columns)):
                self._known[number] = _state(*state)
        # Once all that is there could be read: damaged parts are left as they are.
        self._parts.mkdir(exist_ok=True)
        if finished or not (self._parts / "about.json").exists():
            write_json(self._parts / "about.json", self.about)

    def close(self) -> None:
        """Lets others write to the folder."""
        self._lock.release()

    def has(self, item: Item) -> bool:
        """Whether an item was encoded, or skipped, and has not changed since."""
        known = self._known.get(item.id)
        if known is None:
            return False
        path, text, digest = item.content or None, item.caption, item.sha256
        if self.about["modality"] == "text":
            path, text = None, path
            digest = digest or hashlib.sha256(item.content.encode("utf-8")).digest()
        if digest is not None:
            return known == _state(path, text, None, None, digest, item.tags)
        try:
            stat = os.stat(item.content)
        except OSError:
            return False
        return known == _state(path, text, stat.st_size, stat.st_mtime_ns, None, item.tags)

    def write_part(self, rows: pa.Table) -> None:
        """Writes some more items to disk: rows of `part_schema`."""
        buffer = pa.BufferOutputStream()
        parquet.write_table(rows, buffer, **WRITING)
        number = len(self._part_files())
        write_bytes(self._parts / f"{number:08}.parquet", buffer.getvalue().to_pybytes())

    def finish(self, ids) -> tuple[int, list[dict], int]:
        """Merges all parts and the former codes into the folder's files.

        Args:
            ids: ids of all items of the source; others are left out, as they are gone from it.

        Returns:
            The number of items with codes, the skipped items, and the number of those left out.
        """
        newest = {}  # id -> number of the last table that has it
        for number, table in enumerate(self._tables(["id"])):
            names = dict.fromkeys(table["id"].to_pylist(), number)
            if None in names or len(names) < len(table):
                raise ValueError(f"{self.path} has an item without an id, or an id twice: {_AGAIN}")
            newest.update(names)
        gone = newest.keys() - set(ids)
        for name in gone:
            del newest[name]
        new = self.path / ".merging"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        count = 0
        for _, good, _ in self._merged(newest, ["id", "problem"]):
            count += pc.sum(good).as_py() or 0
        skipped = []
        finished = (self.path / "codes.json").exists()
        if finished and not gone and not self._part_files():
            for folder in (new, self._parts):
                shutil.rmtree(folder)
            return count, [], 0
        with (
            open(new / "codes.npy", "wb") as codes,
            parquet.ParquetWriter(
                new / "items.parquet", STORED, compression=WRITING["compression"]
            ) as items,
        ):
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, self.bits // 8)}
            np.lib.format.write_array_header_1_0(codes, header)
            for table, is_good, is_bad in self._merged(newest):
                bad, good = table.filter(is_bad), table.filter(is_good)
                names = pc.coalesce(bad["path"], bad["text"]).to_pylist()
                skipped += [
                    {"item": name, "problem": problem}
                    for name, problem in zip(names, bad["problem"].to_pylist())
                ]
                codes.write(b"".join(good["code"].to_pylist()))
                items.write_table(good.select(STORED.names), row_group_size=GROUP_ROWS)
        files = {}
        for name in ("codes.npy", "items.parquet"):
            sync(new / name)
            size = (new / name).stat().st_size
            files[name] = {"size": size, "sha256": file_sha256(new / name)}
        about = {"format": FORMAT, **self.about, "count": count, "skipped": skipped}
        write_json(new / "codes.json", {**about, "files": files})
        sync(new)
        os.rename(new, self.path / ".merged")
        self._finish_move()
        return count, skipped, len(gone)

    def _finish_move(self) -> None:
        """Moves a complete merge into place, also one that an earlier run was killed during."""
        merged = self.path / ".merged"
        if not merged.exists():
            return
        self._check_merged(merged)
        shutil.rmtree(self._parts, ignore_errors=True)
        for name in ("codes.npy", "items.parquet", "codes.json"):
            if (merged / name).exists():
                os.replace(merged / name, self.path / name)
        sync(self.path)
        shutil.rmtree(merged)

    def _check_merged(self, merged: Path) -> None:
        """Refuses a merge that is damaged, before anything is replaced by it."""
        if not (merged / "codes.json").exists():  # it is moved last
            if any((merged / name).exists() for name in _FILES):
                raise ValueError(f"{merged} has no codes.json: remove it, and {_AGAIN}")
            return
        for name, entry in _about(merged)["files"].items():
            file = merged / name if (merged / name).exists() else self.path / name
            if not file.is_file() or file_sha256(file) != entry["sha256"]:
                raise ValueError(f"{file} is missing or damaged: remove {merged}, and {_AGAIN}")

    def _compare(self, found) -> None:
        if not isinstance(found, dict):
            raise ValueError(f"{self._parts / 'about.json'} is damaged: give --overwrite")
        for name in _ABOUT:
            if found.get(name) != self.about[name]:
                raise ValueError(
                    f"{self.path} holds codes of another {name}: {found.get(name)}, now it is "
                    f"{self.about[name]}; give another --out, or --overwrite to start anew"
                )

    def _part_files(self) -> list[Path]:
        return sorted(self._parts.glob("*.parquet"))

    def _tables(self, columns: list[str] | None) -> Iterator[pa.Table]:
        """The former codes and all parts, a moderate number of rows at a time."""
        schema = part_schema(self.bits)
        names = columns or schema.names
        if (self.path / "codes.json").exists():
            finished = CodeFolder(self.path)
            start = 0
            with parquet.ParquetFile(self.path / "items.parquet") as file:
                batches = file.iter_batches(GROUP_ROWS)
                while (batch := _next(batches, self.path / "items.parquet")) is not None:
                    table = pa.Table.from_batches([batch])
                    codes = finished.codes[start : start + len(table)]
                    start += len(table)
                    table = table.append_column(schema.field("code"), code_column(codes))
                    table = table.append_column(
                        schema.field("problem"), pa.nulls(len(table), pa.string())
                    )
                    missing = [name for name in names if name not in table.column_names]
                    if missing:
                        raise ValueError(
                            f"{self.path / 'items.parquet'} has no column {missing[0]}: {_AGAIN}"
                        )
                    yield table.select(names)
        for path in self._part_files():
            yield _read_table(path, names, schema, None)

    def _merged(self, newest: dict, columns=None) -> Iterator[tuple]:
        """Each table, with masks of its rows that are valid codes and valid problems."""
        for number, table in enumerate(self._tables(columns)):
            last = [newest.get(name) == number for name in table["id"].to_pylist()]
            counts = pa.array(last, pa.bool_())
            problem = pc.is_valid(table["problem"])
            yield table, pc.and_not(counts, problem), pc.and_(counts, problem)


def _about(path: Path) -> dict:
    file = path / "codes.json"
    if not file.is_file():
        unfinished = (path / ".parts").exists()
        reason = "its encoding has not ended" if unfinished else "no codes.json in it"
        raise ValueError(f"{path} holds no codes ({reason}): {_AGAIN}")
    about = read_json(file, _AGAIN, LARGE_JSON)
    found = about.get("format") if isinstance(about, dict) else None
    if found != FORMAT:
        raise ValueError(f"{file} has the format {found!r}, expected {FORMAT}: {_AGAIN}")
    missing = [n for n in (*_ABOUT, "skipped", "files") if n not in about]
    if missing:
        raise ValueError(f"{file} lacks {', '.join(missing)}: {_AGAIN}")
    problem = _problem(about)
    if problem:
        raise ValueError(f"{file} is damaged, {problem}: {_AGAIN}")
    return about


def _problem(about: dict) -> str | None:
    """The first field of codes.json that is not as `CodeWriter` writes it."""
    bits, skipped, files = about["bits"], about["skipped"], about["files"]
    if type(bits) is not int or bits < 8 or bits % 8:
        return f"bits is {str(bits)[:40]}"
    fingerprint = about["fingerprint"]
    # JSON can spell half a character, which cannot be written again.
    written = isinstance(fingerprint, str) and fingerprint.encode("utf-8", "replace").decode()
    if written != fingerprint or about["modality"] not in ("image", "text"):
        return "fingerprint or modality is something else"
    if not isinstance(skipped, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("problem"), str) for entry in skipped
    ):
        return "skipped is no list of items and problems"
    if not isinstance(files, dict) or set(files) != set(_FILES):
        return f"files are not {' and '.join(_FILES)}"
    for name, entry in files.items():
        if not isinstance(entry, dict) or not {"size", "sha256"} <= set(entry):
            return f"{name} has no size and checksum"
    return None


def _next(batches: Iterator, path: Path) -> pa.RecordBatch | None:
    with reading(path):
        return next(batches, None)


def _read_table(path: Path, names: list[str], schema: pa.Schema, rows: int | None) -> pa.Table:
    """Columns of a Parquet file of this folder.

    Raises:
        ValueError: it is damaged, has other columns, or another number of rows.
    """
    with reading(path):
        table = parquet.read_table(path, columns=names)
        table = whole(table, len(table) if rows is None else rows)
    if not table.schema.equals(pa.schema([schema.field(name) for name in names])):
        raise ValueError(f"{path} has other columns than {', '.join(names)}: {_AGAIN}")
    return table


def _state(path, text, size, modified: int | None, sha256: bytes | None, tags) -> int:
    """A hash of all that tells whether an item has changed; of a file not what is in it."""
    stamp = (path, text, size, modified) if modified is not None else (path, text, sha256)
    return hash((*stamp, tuple(tags or ())))
