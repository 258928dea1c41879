"""Brings an index up to date with a folder of images, or makes one.

    dsprh sync photos --index=indexes/photos --export_dir=savedmodels/coco-64
    dsprh sync photos --index=indexes/photos --dry_run
    dsprh sync photos --index=indexes/photos --captions=captions.csv --tags=tags.csv --watch=60

Encodes what is new or changed, knows moved and renamed files by their SHA-256 (they keep id and
code), keeps equal files once with all their paths, and removes what is gone. Files whose size and
time are as before are not read. --images names a folder or a manifest, and may stand without its
name. A command that is killed loses nothing: the same command goes on. `dsprh index undo` brings
back the index as it was before.

Refused, unless --yes: a source that is missing or empty, or of which all, or more than 20 % and
more than 5 items, are gone (a disk that is not mounted looks like that).
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from dsprh_tf.cli.program import Program, quiet_imports
from dsprh_tf.index import faiss_kinds, sync
from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.sync_plan import Plan

FLAGS = flags.FlagValues()
_IMAGES = flags.DEFINE_string(
    "images", None, "Folder of images, or a manifest of them.", flag_values=FLAGS
)
_CAPTIONS = flags.DEFINE_string(
    "captions", None, "Manifest with the column text; one that is deleted there is found no more.",
    flag_values=FLAGS,
)  # fmt: skip
_TAGS = flags.DEFINE_string(
    "tags", None, "Manifest with the columns image and tags, for the images of a folder.",
    flag_values=FLAGS,
)  # fmt: skip
_INDEX = flags.DEFINE_string("index", None, "Folder of the index.", flag_values=FLAGS)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Encoders; needed only where something is to encode.", flag_values=FLAGS
)
_KIND = flags.DEFINE_enum(
    "kind", "flat", faiss_kinds.KINDS, "Kind of an index that is made.", flag_values=FLAGS
)
_DRY_RUN = flags.DEFINE_boolean(
    "dry_run", False, "Only show what would be done.", flag_values=FLAGS
)
_YES = flags.DEFINE_boolean(
    "yes", False, "Remove what is gone, however much it is.", flag_values=FLAGS
)
_WATCH = flags.DEFINE_float(
    "watch", None, "Go on, and look again every so many seconds; Ctrl+C ends it.",
    lower_bound=0.1, flag_values=FLAGS,
)  # fmt: skip

SHOWN = 5  # names of each kind on the screen
GROUPS = {
    "collection": ["images", "captions", "tags"],
    "index": ["index", "export_dir", "kind"],
    "how": ["dry_run", "yes", "watch"],
}


def main() -> None:
    """Syncs an index, once or again and again."""
    if not _IMAGES.value or not _INDEX.value:
        raise ValueError("needs a folder of images and --index=FOLDER: dsprh sync photos --index=i")
    if "://" in _INDEX.value:
        raise ValueError(
            "--index is a database, expected a folder: for a database use `dsprh encode`, then "
            "`dsprh index add` and `dsprh index remove --gone`"
        )
    if _DRY_RUN.value and _WATCH.value:
        raise ValueError("got --dry_run and --watch, expected one of them")
    collection = sync.Collection(_IMAGES.value, _CAPTIONS.value, _TAGS.value)
    encoder_of = functools.lru_cache(None)(_load_encoder)
    if _DRY_RUN.value:
        there = (Path(_INDEX.value) / "index.json").exists()
        index = HammingIndex.load(_INDEX.value) if there else HammingIndex(8)
        plans = collection.plans(index, _YES.value)
        show(plans)
        if not _YES.value:
            sync.check_plans(plans)
    elif not _WATCH.value:
        once(collection, encoder_of, quiet=False)
    else:
        watch(collection, encoder_of)


def watch(collection: sync.Collection, encoder_of: Callable) -> None:
    """Syncs again and again; what stops one round is said once and does not stop the next."""
    print(f"watching every {_WATCH.value:g} s; Ctrl+C ends it", flush=True)
    said, quiet = None, False
    while True:
        try:
            once(collection, encoder_of, quiet)
            said, quiet = None, True
        except (ValueError, OSError) as error:
            if f"{error}" != said:
                print(f"waiting: {error}", flush=True)
            said = f"{error}"
        time.sleep(_WATCH.value)


def once(collection: sync.Collection, encoder_of: Callable, quiet: bool) -> None:
    """One sync; if quiet, nothing is printed where nothing has changed."""
    path = _INDEX.value
    if (Path(path) / "index.json").exists():
        index = HammingIndex.load(path, write=True)
    else:
        if not os.path.exists(_IMAGES.value):  # before TensorFlow starts
            raise ValueError(f"{_IMAGES.value} does not exist, expected a folder or a manifest")
        encoder = encoder_of("image")
        fingerprint = encoder.info["fingerprint"]
        index = HammingIndex.create(path, encoder.bits, fingerprint, _KIND.value)
    plans = collection.plans(index, _YES.value)
    if not quiet or any(plan.changes for plan in plans):
        show(plans)
    done = sync.apply(index, path, plans, encoder_of, _YES.value)
    show_some("left out", done.problems)
    if done.changed or not quiet:
        print(f"index: {path} ({len(index):,} items, {done.encoded:,} encoded)", flush=True)


def show(plans: Sequence[Plan]) -> None:
    """Prints what is to be done."""
    for plan in plans:
        for note in plan.source.notes:
            print(f"source: {note}")
        kind = plan.source.modality
        same = plan.total - len(plan.changed) - len(plan.moved) - len(plan.gone_ids)
        print(
            f"{kind}s: {len(plan.new):,} new, {len(plan.changed):,} changed, {len(plan.moved):,} "
            f"moved, {len(plan.gone):,} gone, {len(plan.equal):,} equal to another, {same:,} as "
            f"before ({plan.tagged:,} with other tags)"
        )
        if plan.bad:
            print(f"  {plan.bad:,} could not be encoded before and have not changed")
        if plan.others:
            print(f"  {plan.others:,} texts of the index are not of {plan.source.path} and stay")
        listed = {
            "new": plan.new,
            "changed": plan.changed,
            "moved": [f"{old} -> {new}" for old, new in plan.moved],
            "gone": plan.gone,
            "equal": plan.equal,
        }
        for title, names in listed.items():
            show_some(title, [name.encode("utf-8", "replace").decode()[:1000] for name in names])


def show_some(title: str, lines: Sequence[str]) -> None:
    """Prints the first few lines, and how many more there are."""
    for line in lines[:SHOWN]:
        print(f"  {title}: {line}")
    if len(lines) > SHOWN:
        print(f"  {title}: {len(lines) - SHOWN:,} more")


def _load_encoder(modality: str):
    if not _EXPORT_DIR.value:
        raise ValueError(f"there are {modality}s to encode, which needs --export_dir=FOLDER")
    with quiet_imports():
        from dsprh_tf.serving.encoder import load_encoder
    return load_encoder(_EXPORT_DIR.value, modality)


PROGRAM = Program(__doc__, main, FLAGS, GROUPS, positional="images")
