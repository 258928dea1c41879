"""Builds and changes an index of codes, for `search` and `serve_demo`.

    dsprh index build --codes=codes/photos --index=indexes/photos
    dsprh index add --codes=codes/more --index=indexes/photos
    dsprh index remove --prefix=photos/old/ --index=indexes/photos
    dsprh index check --index=indexes/photos
    dsprh index duplicates --index=indexes/photos --radius=2 --show=duplicates.png

Adding the same codes again changes nothing; items that have changed replace the former ones. A
command that is killed leaves the index as it was before, or complete. In a folder, the content
before the last change is kept, and `undo` brings it back; databases have backups of their own.
`dsprh sync` does all this for a folder of images that changes.

Near-duplicates are items whose codes differ in at most --radius bits from that of the first item of
their group; 0 finds equal codes alone, and the default is 1 of 32 bits. Codes are made to be alike
where pictures mean the same, so look at the groups (--show) before you remove anything. Images and
texts are never in one group. The first items, with those that are in no group, are farther than the
radius from each other.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence

import numpy as np
from absl import flags

from dsprh_tf.cli.program import Program
from dsprh_tf.evaluation.contact_sheet import (
    RESULTS_PER_ROW,
    RetrievalItem,
    RetrievalRow,
    contact_sheet,
)
from dsprh_tf.index import duplicates, faiss_kinds, folder
from dsprh_tf.index.answers import as_shown
from dsprh_tf.index.code_folder import CodeFolder
from dsprh_tf.index.database import without_password
from dsprh_tf.index.gone import check_gone, check_root
from dsprh_tf.index.interface import MODALITIES, Changes, Index, Where
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
_TAG = flags.DEFINE_multi_string(
    "tag", [], "remove, duplicates: items with this tag.", flag_values=FLAGS
)
_PREFIX = flags.DEFINE_string(
    "prefix", None, "remove, duplicates: images whose path begins with this.", flag_values=FLAGS
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
_RADIUS = flags.DEFINE_integer(
    "radius", None, "duplicates: bits in which codes may differ; default 1 of 32.", 0,
    flag_values=FLAGS,
)  # fmt: skip
_FIND = flags.DEFINE_enum(
    "find", None, MODALITIES, "duplicates: only images, or only texts.", flag_values=FLAGS
)
_SHOW = flags.DEFINE_string(
    "show", None, "duplicates: contact sheet to write, PNG, a row per group.", flag_values=FLAGS
)
_JSON = flags.DEFINE_boolean(
    "json", False, "duplicates: print all groups as JSON.", flag_values=FLAGS
)
SHOWN = 10  # ids that are named, and items of a group that are listed, at most
GROUPS_SHOWN, SHEET_ROWS = 100, 100  # groups that are listed, and on a contact sheet, at most

COMMANDS = {
    "build": "builds a new index of --codes",
    "add": "adds more --codes to an index",
    "remove": "removes items by --ids, --tag, --prefix or --gone",
    "sync": "follows a folder of images; the program `dsprh sync`",
    "undo": "brings back what was before the last change (once more: the change)",
    "stats": "prints numbers and settings of an index",
    "check": "compares checksums, and the search with brute force on a sample",
    "duplicates": "lists groups of items whose codes differ in at most --radius bits",
}
GROUPS = {
    "build": ["index", "codes", "kind", "overwrite"],
    "remove": ["ids", "tag", "prefix", "gone", "yes", "missing_ok"],
    "duplicates": ["radius", "find", "show", "json"],
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
    elif command == "duplicates":
        list_duplicates()
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
    where = asked_where("remove the items of each tag by a command of its own")
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


def asked_where(several: str) -> Where:
    """The filter of --tag and --prefix.

    Two tags are refused: read as "all of them" where "any of them" was meant, or the reverse, a
    command would do something else than was asked for.

    Args:
        several: what to do for several tags.
    """
    if len(_TAG.value) > 1:
        raise ValueError(
            f"got --tag {len(_TAG.value)} times ({', '.join(_TAG.value)}), expected one: {several}"
        )
    return Where(_TAG.value[0] if _TAG.value else None, path_prefix(_PREFIX.value))


def list_duplicates() -> None:
    """Prints groups of near-duplicates, and draws them."""
    where = asked_where("look through the items of each tag by a command of its own")
    where = dataclasses.replace(where, modality=_FIND.value)
    index = open_index(_INDEX.value)
    total = len(index.ids_where(where))
    if not total:
        raise ValueError("no item of the index is as --tag, --prefix and --find say")
    given = _RADIUS.value
    radius = duplicates.default_radius(index.bits) if given is None else given
    groups = duplicates.find_duplicates(index, radius, where)
    others = sum(len(group.ids) - 1 for group in groups)
    if _JSON.value:
        about = {"radius": radius, "bits": index.bits, "items": total, "others": others}
        described = [{"results": results} for results in duplicates.described(index, groups)]
        print(json.dumps({**about, "groups": described}, ensure_ascii=False, indent=1))
    else:
        shown = duplicates.described(index, groups[:GROUPS_SHOWN], SHOWN)
        for number, (group, results) in enumerate(zip(groups, shown), 1):
            print(f"{duplicates.format_group(number, group, results)}\n")
        if len(groups) > GROUPS_SHOWN:
            print(f"and {len(groups) - GROUPS_SHOWN:,} more groups (--json has all)")
        print(
            f"{len(groups):,} groups of near-duplicates within {radius} of {index.bits} bits: "
            f"{others:,} of {total:,} items are beside the first of their group"
        )
    if _SHOW.value:
        draw(index, groups)


def draw(index: Index, groups: Sequence[duplicates.Group]) -> None:
    """Writes the contact sheet of groups, and says what is not on it."""
    if not groups:
        print("no groups: no contact sheet", file=sys.stderr)
        return
    rows = []
    for first, *others in duplicates.described(index, groups[:SHEET_ROWS], RESULTS_PER_ROW + 1):
        left = as_shown(first)
        items = [RetrievalItem(**as_shown(one), distance=one["distance"]) for one in others]
        rows.append(RetrievalRow(left.get("image"), left.get("text"), items))
    contact_sheet(rows, _SHOW.value, ("first", "others within the radius (bits from the first)"))
    more = f" (shows the first {SHEET_ROWS} of {len(groups):,} groups)"
    note = more if len(groups) > SHEET_ROWS else ""
    print(f"contact sheet: {_SHOW.value}{note}", file=sys.stderr)


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
