"""Builds and changes an index of codes, for `search` and `serve_demo`.

    dsprh index build --codes=codes/photos --index=indexes/photos
    dsprh index add --codes=codes/more --index=indexes/photos
    dsprh index remove --prefix=photos/old/ --index=indexes/photos
    dsprh index check --index=indexes/photos

Adding the same codes again changes nothing; items that have changed replace the former ones. A
command that is killed leaves the index as it was before, or complete. In a folder, the content
before the last change is kept, and `undo` brings it back; databases have backups of their own.
`dsprh sync` does all this for a folder of images that changes.
"""

from __future__ import annotations

import os

import numpy as np
from absl import flags

from dsprh_tf.cli.program import Program
from dsprh_tf.index import faiss_kinds, folder
from dsprh_tf.index.code_folder import CodeFolder
from dsprh_tf.index.database import without_password
from dsprh_tf.index.gone import check_gone, check_root
from dsprh_tf.index.interface import Changes, Index, Where
from dsprh_tf.index.items import id_of
from dsprh_tf.index.known_files import paths_of
from dsprh_tf.index.location import check_encoders, create_index, open_index
from dsprh_tf.index.recall import LONELY, OWN, RECALL
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
_TAG = flags.DEFINE_multi_string("tag", [], "remove: items with this tag.", flag_values=FLAGS)
_PREFIX = flags.DEFINE_string(
    "prefix", None, "remove: images whose path begins with this.", flag_values=FLAGS
)
_GONE = flags.DEFINE_boolean(
    "gone", False,
    "remove: images that are no longer on disk; refused if the folder of all images is missing, or "
    "if all, or more than 20 % and more than 5 images, are gone (people seldom delete so many, a "
    "disk that is not mounted loses all), unless --yes.", flag_values=FLAGS,
)  # fmt: skip
_YES = flags.DEFINE_boolean(
    "yes", False, "remove: with --gone, however many are gone.", flag_values=FLAGS
)
_MISSING_OK = flags.DEFINE_boolean(
    "missing_ok", False, "remove: no error if there is no such item.", flag_values=FLAGS
)
SHOWN = 10  # ids that are named, at most

COMMANDS = {
    "build": "builds a new index of --codes",
    "add": "adds more --codes to an index",
    "remove": "removes items by --ids, --tag, --prefix or --gone",
    "sync": "follows a folder of images; the program `dsprh sync`",
    "undo": "brings back what was before the last change (once more: the change)",
    "stats": "prints numbers and settings of an index",
    "check": "compares checksums, and the search with brute force on a sample",
}
GROUPS = {
    "build": ["index", "codes", "kind", "overwrite"],
    "remove": ["ids", "tag", "prefix", "gone", "yes", "missing_ok"],
}


def main(command: str) -> None:
    """Runs a command."""
    if not _INDEX.value:
        raise ValueError("needs --index=FOLDER")
    if command in ("build", "add"):
        change(command)
    elif command == "remove":
        remove()
    elif command == "undo":
        undo()
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
    if len(_TAG.value) > 1:
        raise ValueError(
            f"got --tag {len(_TAG.value)} times ({', '.join(_TAG.value)}), expected one: remove "
            "the items of each tag by a command of its own"
        )
    where = Where(tag=_TAG.value[0] if _TAG.value else None, prefix=path_prefix(_PREFIX.value))
    if sum(map(bool, (_IDS.value, where, _GONE.value))) != 1:
        raise ValueError("needs either --ids, or --tag and --prefix, or --gone")
    given = [id_of(name, f"--ids has {name[:40]!r}") for name in _IDS.value]
    index = open_index(_INDEX.value, write=True)
    ids, missing = np.unique(np.array(given, np.int64)), np.zeros(0, np.int64)
    if given:
        missing = ids[~index.contains(ids)]
    else:
        ids = index.ids_where(Where(modality="image") if _GONE.value else where)
    if _GONE.value:
        ids = gone(index, ids)
    if len(missing) == len(ids) and not _GONE.value and not _MISSING_OK.value:
        what = f"id {listed(ids)}" if given else "--tag and --prefix"
        raise ValueError(
            f"nothing was removed: no item of the index has the {what}; check it, or give "
            "--missing_ok"
        )
    count = index.remove(ids)
    index.commit()
    if len(missing):
        print(f"{count:,} of {len(ids):,} removed; not there: {listed(missing)}")
    else:
        print(f"{count:,} removed")
    report(index)


def gone(index: Index, ids: np.ndarray) -> np.ndarray:
    """Ids of those of all images that are no longer on disk under any of their paths."""
    paths = index.items_of(ids)["path"].to_pylist()
    # Of a vector, an image may have no path.
    ids = ids[[path is not None for path in paths]]
    paths = [path for path in paths if path is not None]
    if not _YES.value:
        check_root(paths)
    several = paths_of(index, ids.tolist())
    left = [any(map(os.path.exists, several.get(n, [path]))) for n, path in zip(ids, paths)]
    missing = ids[~np.array(left, bool)]
    if not _YES.value:
        check_gone(len(missing), len(ids), without_password(_INDEX.value))
    return missing


def undo() -> None:
    """Brings back the content of an index before its last change."""
    if "://" in _INDEX.value:
        raise ValueError(
            "undo is for an index in a folder, received a database: restore it from its backup"
        )
    now, before = folder.undo(_INDEX.value)
    print(f"undone: {now:,} rows, {before:,} before; the same command brings the change back")
    report(open_index(_INDEX.value))


def listed(ids: np.ndarray) -> str:
    """Some ids for a line."""
    more = f" and {len(ids) - SHOWN:,} more" if len(ids) > SHOWN else ""
    return ", ".join(map(str, ids[:SHOWN].tolist())) + more


def check() -> None:
    """Checks an index and prints the result."""
    found = open_index(_INDEX.value).check()
    shown = without_password(_INDEX.value)
    print(f"{shown} is in order: {found['items']:,} items, {found['whole']}")
    if found[RECALL] is not None:
        print(
            f"{RECALL} {found[RECALL]:.4f} on {found['sample']} of its codes, each counted once "
            f"however many items have it; {found[LONELY]:.4f} on those that lie farthest from "
            f"others; {OWN}: {percent(found[OWN])}"
        )


def percent(share: float) -> str:
    """A share for the screen, not rounded up to 100 %."""
    return f"{int(1000 * share + 1e-9) / 10:g} %"


def report(index) -> None:
    """Prints numbers and settings of an index."""
    print(f"index: {without_password(_INDEX.value)}")
    for name, value in index.stats().items():
        if name == OWN and value is not None:
            value = percent(value)
        if value is not None:
            print(f"  {name:<20} {value:,}" if isinstance(value, int) else f"  {name:<20} {value}")


PROGRAM = Program(__doc__, main, FLAGS, GROUPS, COMMANDS, other_programs=["sync"])
