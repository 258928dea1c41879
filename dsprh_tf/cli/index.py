"""Builds and changes an index of codes, which scripts/search.py searches.

    python scripts/index.py build --codes=codes/photos --index=indexes/photos
    python scripts/index.py add --codes=codes/more --index=indexes/photos
    python scripts/index.py remove --prefix=photos/old/ --index=indexes/photos
    python scripts/index.py check --index=indexes/photos

Adding the same codes again changes nothing; items that changed take the place of what they were.
A command that is killed leaves the index as it was before, or as it is after.
"""

from __future__ import annotations

import os

import numpy as np
import program
from absl import flags

from dsprh_tf.index import faiss_kinds
from dsprh_tf.index.code_folder import CodeFolder
from dsprh_tf.index.database import without_password
from dsprh_tf.index.interface import Changes, Where
from dsprh_tf.index.location import check_encoders, create_index, open_index
from dsprh_tf.index.queries import check_id
from dsprh_tf.index.sources import path_prefix

_INDEX = flags.DEFINE_string("index", None, "Folder of the index, or a database: milvus://..., postgresql://...")
_CODES = flags.DEFINE_list("codes", [], "build, add: folders of scripts/encode.py.")
_KIND = flags.DEFINE_enum(
    "kind", "flat", faiss_kinds.KINDS, "build: flat is exact; hnsw, ivf and hash are approximate."
)
_OVERWRITE = flags.DEFINE_boolean("overwrite", False, "build: replace an index that is there.")
_IDS = flags.DEFINE_list("ids", [], "remove: these items.")
_TAG = flags.DEFINE_string("tag", None, "remove: items with this tag.")
_PREFIX = flags.DEFINE_string("prefix", None, "remove: pictures whose path begins like this.")
_GONE = flags.DEFINE_boolean("gone", False, "remove: pictures that are no longer on disk.")

COMMANDS = {
    "build": "a new index of --codes",
    "add": "more --codes to an index",
    "remove": "items by --ids, --tag, --prefix or --gone",
    "stats": "what the index holds",
    "check": "compares checksums, and the search with brute force on a sample",
}
GROUPS = {
    "build": ["index", "codes", "kind", "overwrite"],
    "remove": ["ids", "tag", "prefix", "gone"],
}


def change(command: str) -> None:
    if not _CODES.value:
        raise ValueError("needs --codes=FOLDER, written by scripts/encode.py")
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


def report(index) -> None:
    print(f"index: {without_password(_INDEX.value)}")
    for name, value in index.stats().items():
        if value is not None:
            print(f"  {name:<20} {value:,}" if isinstance(value, int) else f"  {name:<20} {value}")


def main(command: str) -> None:
    if not _INDEX.value:
        raise ValueError("needs --index=FOLDER")
    if command in ("build", "add"):
        change(command)
    elif command == "remove":
        remove()
    elif command == "stats":
        report(open_index(_INDEX.value))
    else:
        found = open_index(_INDEX.value).check()
        shown = without_password(_INDEX.value)
        print(f"{shown} is in order: {found['items']:,} items, {found['whole']}")
        if found["recall@10"] is not None:
            print(f"recall@10 {found['recall@10']:.4f} on {found['sample']} of them")


if __name__ == "__main__":
    program.run(main, GROUPS, COMMANDS)
