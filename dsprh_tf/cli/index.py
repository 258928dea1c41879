"""Builds and changes an index of codes, for `search` and `serve_demo`.

    dsprh index build --codes=codes/photos --index=indexes/photos
    dsprh index add --codes=codes/more --index=indexes/photos
    dsprh index remove --prefix=photos/old/ --index=indexes/photos
    dsprh index check --index=indexes/photos

Adding the same codes again changes nothing; items that have changed replace the former ones. A
command that is killed leaves the index as it was before, or complete.
"""

from __future__ import annotations

import os

import numpy as np
from absl import flags

from dsprh_tf.cli.program import Program
from dsprh_tf.index import faiss_kinds
from dsprh_tf.index.code_folder import CodeFolder
from dsprh_tf.index.database import without_password
from dsprh_tf.index.interface import Changes, Where
from dsprh_tf.index.location import check_encoders, create_index, open_index
from dsprh_tf.index.queries import check_id
from dsprh_tf.index.sources import path_prefix

FLAGS = flags.FlagValues()
_INDEX = flags.DEFINE_string(
    "index", None, "Folder, or address of a database: milvus://..., postgresql://...",
    flag_values=FLAGS,
)  # fmt: skip
_CODES = flags.DEFINE_list("codes", [], "build, add: folders written by encode.", flag_values=FLAGS)
_KIND = flags.DEFINE_enum(
    "kind", "flat", faiss_kinds.KINDS,
    "build: flat is exact; hnsw, ivf and hash are approximate.", flag_values=FLAGS,
)  # fmt: skip
_OVERWRITE = flags.DEFINE_boolean(
    "overwrite", False, "build: replace an index that is there.", flag_values=FLAGS
)
_IDS = flags.DEFINE_list("ids", [], "remove: items with these ids.", flag_values=FLAGS)
_TAG = flags.DEFINE_string("tag", None, "remove: items with this tag.", flag_values=FLAGS)
_PREFIX = flags.DEFINE_string(
    "prefix", None, "remove: images whose path begins with this.", flag_values=FLAGS
)
_GONE = flags.DEFINE_boolean(
    "gone", False, "remove: images that are no longer on disk.", flag_values=FLAGS
)

COMMANDS = {
    "build": "builds a new index of --codes",
    "add": "adds more --codes to an index",
    "remove": "removes items by --ids, --tag, --prefix or --gone",
    "stats": "prints numbers and settings of an index",
    "check": "compares checksums, and the search with brute force on a sample",
}
GROUPS = {
    "build": ["index", "codes", "kind", "overwrite"],
    "remove": ["ids", "tag", "prefix", "gone"],
}


def main(command: str) -> None:
    """Runs a command."""
    if not _INDEX.value:
        raise ValueError("needs --index=FOLDER")
    if command in ("build", "add"):
        change(command)
    elif command == "remove":
        remove()
    elif command == "stats":
        report(open_index(_INDEX.value))
    else:
        check()


def change(command: str) -> None:
    """Builds an index of folders of codes, or adds them to one."""
    if not _CODES.value:
        raise ValueError("needs --codes=FOLDER, written by `dsprh encode`")
    folders = [CodeFolder(path) for path in _CODES.value]
    if command == "build":
        bits, fingerprint = folders[0].bits, folders[0].fingerprint
        index = create_index(_INDEX.value, bits, fingerprint, _KIND.value, _OVERWRITE.value)
    else:
        index = open_index(_INDEX.value, write=True)
    for codes in folders:
        check_encoders(f"{codes.path}", index, codes.bits, codes.fingerprint)
    changes = Changes()
    for codes in folders:
        new = index.add(codes.codes, codes.items())
        changes = Changes(*(a + b for a, b in zip(vars(changes).values(), vars(new).values())))
    index.commit()
    print(
        f"{changes.added:,} added, {changes.replaced:,} replaced, {changes.unchanged:,} unchanged"
    )
    report(index)


def remove() -> None:
    """Removes items by one of the flags for that."""
    where = Where(tag=_TAG.value, prefix=path_prefix(_PREFIX.value))
    if sum(map(bool, (_IDS.value, where, _GONE.value))) != 1:
        raise ValueError("needs either --ids, or --tag and --prefix, or --gone")
    for name in _IDS.value:
        check_id(name, f"--ids has {name[:40]!r}")
    index = open_index(_INDEX.value, write=True)
    ids = np.array(_IDS.value, np.int64)
    if not _IDS.value:
        ids = index.ids_where(Where(modality="image") if _GONE.value else where)
    if _GONE.value:
        paths = index.items_of(ids)["path"].to_pylist()
        ids = ids[[not os.path.exists(path) for path in paths]]
    count = index.remove(ids)
    index.commit()
    print(f"{count:,} removed" + (f", {len(ids) - count:,} not found" if _IDS.value else ""))
    report(index)


def check() -> None:
    """Checks an index and prints the result."""
    found = open_index(_INDEX.value).check()
    shown = without_password(_INDEX.value)
    print(f"{shown} is in order: {found['items']:,} items, {found['whole']}")
    if found["recall@10"] is not None:
        print(f"recall@10 {found['recall@10']:.4f} on {found['sample']} of them")


def report(index) -> None:
    """Prints numbers and settings of an index."""
    print(f"index: {without_password(_INDEX.value)}")
    for name, value in index.stats().items():
        if value is not None:
            print(f"  {name:<20} {value:,}" if isinstance(value, int) else f"  {name:<20} {value}")


PROGRAM = Program(__doc__, main, FLAGS, GROUPS, COMMANDS)
