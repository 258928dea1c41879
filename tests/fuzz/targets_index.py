"""Readers around an index: folders of codes, indexes, accounts of the page, flag files."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from fuzz import mutators
from fuzz.mutators import Files
from fuzz.target import Target, check

# Codes


def _codes(rows: int, bits: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, bits // 8), np.uint8)


def _made(write) -> Files:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return {n: c for n, c in mutators.read(Path(folder)).items() if not n.endswith(".lock")}


def _write_codes(folder: Path, finish: bool = True) -> None:
    import pyarrow as pa
    from index_helpers import image_items

    from dsprh_tf.index.code_folder import CodeWriter, part_schema

    codes, items = _codes(6), image_items(6)
    writer = CodeWriter(folder / "codes", 64, "abc", "image", "/pictures")
    for part in (slice(0, 4), slice(4, 6)):
        table = {name: values[part] for name, values in items.to_pydict().items()}
        rows = len(table["id"])
        table.update(
            modified=[1] * rows, code=[bytes(c) for c in codes[part]], problem=[None] * rows
        )
        if part.start == 4:
            table["code"][1], table["problem"][1] = None, "broken"
        writer.write_part(pa.table(table, part_schema(64)))
    if finish:
        writer.finish(items["id"].to_pylist())


def _codes_samples() -> list[Files]:
    return [_made(_write_codes)]


def _codes_folder(folder: Path) -> None:
    from dsprh_tf.index.code_folder import CodeFolder
    from dsprh_tf.index.hamming import HammingIndex

    found = CodeFolder(folder / "codes")
    check(found.codes.shape == (len(found), found.bits // 8), "codes of another shape")
    check(found.codes.dtype == np.uint8, "codes of another type")
    items = found.items()
    check(len(items) == len(found), "another number of items than codes")
    check(all(isinstance(entry["problem"], str) for entry in found.skipped), "skipped items")
    index = HammingIndex(found.bits)
    index.add(found.codes, items)
    index.check()


def _seal_codes(files: Files) -> Files:
    """Sizes and checksums in codes.json as the files are."""
    about = json.loads(files["codes/codes.json"])
    for name, entry in about["files"].items():
        content = files[f"codes/{name}"]
        entry.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    return {**files, "codes/codes.json": json.dumps(about).encode()}


def _writer_samples() -> list[Files]:
    def merged(folder: Path) -> None:
        """Killed while finished files were moved into place."""
        _write_codes(folder)
        done = folder / "codes" / ".merged"
        done.mkdir()
        for name in ("codes.npy", "items.parquet", "codes.json"):
            (folder / "codes" / name).rename(done / name)

    return [_made(lambda f: _write_codes(f, finish=False)), _made(_write_codes), _made(merged)]


def _writer(folder: Path) -> None:
    from dsprh_tf.index.code_folder import CodeFolder, CodeWriter

    writer = CodeWriter(folder / "codes", 64, "abc", "image", "/pictures")
    count, skipped, _ = writer.finish([10 * i for i in range(6)])
    check(count + len(skipped) <= 6, "more codes than items")
    found = CodeFolder(folder / "codes")
    check(len(found) == count == len(found.items()), "codes and items")
    check(len(set(found.items()["id"].to_pylist())) == count, "an id twice")


# Indexes


def _write_index(folder: Path, kind: str, removed: bool = False) -> None:
    from index_helpers import clustered_codes, image_items

    from dsprh_tf.index.hamming import HammingIndex

    rows = 12 if kind == "flat" else 1010
    index = HammingIndex(64, kind, "abc")
    index.add(clustered_codes(rows), image_items(rows))
    index.save(folder / "index")
    if removed:
        index.remove([10, 30])
        index.commit()


def _index_samples(kind: str):
    return lambda: [
        _made(lambda folder: _write_index(folder, kind)),
        _made(lambda folder: _write_index(folder, kind, removed=True)),
    ]


def _index(folder: Path) -> None:
    from dsprh_tf.index.hamming import HammingIndex
    from dsprh_tf.index.interface import Where

    try:
        index = HammingIndex.load(folder / "index")
    except ValueError:
        if not _engine_altered(folder / "index"):
            with contextlib.suppress(ValueError):
                _use(HammingIndex.load(folder / "index", verify=False))
        raise
    _use(index)
    index.check()
    index.stats()
    index.ids_where(Where(tag="third", prefix="/pictures/odd/"))


def _engine_altered(folder: Path) -> bool:
    """Whether FAISS would read a file that it did not write: it then may crash, and only checksums
    keep it from that."""
    if not (folder / "index.json").is_file():
        return True
    with contextlib.suppress(Exception):
        entry = json.loads((folder / "index.json").read_bytes())["files"].get("engine")
        if entry is None:
            return False
        engine = folder / entry["name"]
        if not engine.is_file():
            return True
        return hashlib.sha256(engine.read_bytes()).hexdigest() != entry["sha256"]
    return True


def _use(index) -> None:
    """A search and its items: fewer than asked for is no fault, an item that is not there is."""
    if not len(index):
        return
    found = index.search(_codes(3, index.bits), 5)
    check(found.ids.shape == (3, 5) == found.distances.shape, "results of another shape")
    check(bool((found.distances <= index.bits).all()), "a distance beyond the bits")
    ids = found.ids[found.ids >= 0]
    check(len(index.items_of(ids)) == len(ids), "items")


def _seal_index(files: Files) -> Files:
    """Sizes and checksums in index.json as the files are, and its own; the engine's stay."""
    from dsprh_tf.index.folder import _digest

    content = json.loads(files["index/index.json"])
    for kind, entry in content["files"].items():
        if kind == "engine":
            continue
        there = files[f"index/{entry['name']}"]
        entry.update(size=len(there), sha256=hashlib.sha256(there).hexdigest())
    content.pop("sha256", None)
    sealed = {**content, "sha256": _digest(content)}
    return {**files, "index/index.json": json.dumps(sealed).encode()}


def _change_index(folder: Path) -> None:
    """A change of an index: refused with all files left, or whole afterwards."""
    from index_helpers import image_items

    from dsprh_tf.index.hamming import HammingIndex

    index = HammingIndex.load(folder / "index", write=True)
    index.check()  # what was in order before a change is so after it
    index.add(_codes(3, index.bits), image_items(3, start=5))
    index.remove([20])
    index.commit()
    HammingIndex.load(folder / "index").check()


# Accounts and flags


def _accounts_samples() -> list[Files]:
    line = f"anna:{'00' * 16}:{'ab' * 64}\n"
    return [{"people.txt": f"# users\n\n{line}bert:{'11' * 16}:{'cd' * 64}\n".encode()}]


def _accounts(folder: Path) -> None:
    from dsprh_tf.web.accounts import Accounts

    accounts = Accounts(folder / "people.txt")
    check(accounts.recalls("Basic YTpi") is None, "a stranger is known")


@lru_cache(None)
def _program():
    from absl import flags

    from dsprh_tf.cli.program import Program
    from dsprh_tf.cli.settings import define_settings, given_settings

    values = flags.FlagValues()
    define_settings(values)

    def main() -> None:
        from dsprh_tf.settings import effective_settings

        effective_settings(given_settings(values), weights=lambda: None)

    return Program("Reads flags.", main, values)


def _flags_samples() -> list[Files]:
    plain = "# settings\n--method=dsah\n--bits=32\n--dataset=features\n\n--noaugment\n--epochs=3\n"
    nested = "--flagfile={folder}/b.flags\n--seed=3\n--fusion_weights=0,0.5,0.5\n--method=dsprh\n"
    return [
        {"a.flags": plain.encode()},
        {"a.flags": nested.encode(), "b.flags": plain.encode()},
    ]


def _flags(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 2**20:
            content = path.read_bytes().replace(b"{folder}", str(folder).encode())
            path.write_bytes(content)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = _program().run("train", [f"--flagfile={folder / 'a.flags'}"], "dsprh train")
    lines = said.getvalue().splitlines()
    if code == 2:
        check(len(lines) == 1 and lines[0].startswith("train: "), f"not one line: {lines}")
        # A wrong value names its flag, not the file.
        raise ValueError(f"{lines[0]} ({folder.name})")
    check(code == 0 and not lines, f"exit code {code}: {lines}")


TARGETS = [
    Target("codes", _codes_samples, _codes_folder, seal=_seal_codes),
    Target("code_writer", _writer_samples, _writer, seal=_seal_codes, keeps=True),
    Target("index_flat", _index_samples("flat"), _index, seal=_seal_index),
    Target("index_hnsw", _index_samples("hnsw"), _index, seal=_seal_index),
    Target("index_ivf", _index_samples("ivf"), _index, seal=_seal_index),
    Target("index_hash", _index_samples("hash"), _index, seal=_seal_index),
    Target("index_change", _index_samples("flat"), _change_index, seal=_seal_index, keeps=True),
    Target("accounts", _accounts_samples, _accounts),
    Target("flags", _flags_samples, _flags),
]  # fmt: skip
