"""Brings an index in a folder up to date with the images and captions that it is of.

A sync is planned without changing anything, then encodes into `.sync/` in the index's folder,
where a sync that was killed goes on, and at last changes the index in one step. What it knows of
the files is part of that step (`known_files`), so that items and files always belong together.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from dsprh_tf.index import known_files
from dsprh_tf.index.code_folder import CodeFolder, CodeWriter
from dsprh_tf.index.encode_collection import MOST_BAD, encode_source
from dsprh_tf.index.gone import check_gone
from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.items import SCHEMA, stable_id
from dsprh_tf.index.location import check_encoders
from dsprh_tf.index.sources import Item, Source
from dsprh_tf.index.sync_plan import Plan, plan_images, plan_texts


@dataclasses.dataclass(frozen=True)
class Collection:
    """What an index is kept up to date with.

    Attributes:
        images: a folder of images, or a manifest of them.
        captions: a manifest of texts, or None.
        tags: a manifest of images with their tags, or None.
    """

    images: str
    captions: str | None = None
    tags: str | None = None

    def plans(self, index: HammingIndex, empty_ok: bool = False) -> list[Plan]:
        """What a sync would do, for each source; nothing is changed.

        Args:
            index: the index as it is.
            empty_ok: whether there may be no images or captions any more.

        Raises:
            ValueError: a source is missing, empty or broken.
        """
        tags = None
        if self.tags:
            tags = {item.content: item.tags for item in Source(self.tags, "image").items}
        images = Source(self.images, "image", empty_ok=empty_ok)
        plans = [plan_images(index, images, tags)]
        if self.captions:
            texts = Source(self.captions, "text", empty_ok=empty_ok)
            plans.append(plan_texts(index, texts))
        return plans


@dataclasses.dataclass(frozen=True)
class Done:
    """Outcome of a sync: whether the index has changed, number of encoded items, problems."""

    changed: bool
    encoded: int
    problems: list[str]


@dataclasses.dataclass
class _Todo:
    """The part of a source that is to be encoded, as `encode_source` takes it."""

    path: str
    modality: str
    items: list[Item]

    @property
    def content(self) -> str:
        """What is encoded."""
        return self.modality


def check_plans(plans: Iterable[Plan]) -> None:
    """Refuses plans that remove suspiciously much, see `gone`.

    Raises:
        ValueError: as `gone.check_gone`.
    """
    for plan in plans:
        check_gone(len(plan.gone), plan.total, plan.source.path)


def apply(
    index: HammingIndex,
    path: str | os.PathLike,
    plans: list[Plan],
    encoder_of: Callable,
    yes: bool = False,
) -> Done:
    """Carries out plans that were made of the index as it is.

    Args:
        index: the index, open for writing.
        path: its folder.
        plans: of `Collection.plans`.
        encoder_of: the `Encoder` of "image" or "text"; only called where something is to encode.
        yes: whether it may remove however many items are gone.

    Raises:
        ValueError: too many are gone, the encoders are not those of the index, or most items of a
            source are bad; the index is as it was before, and what was encoded is kept.
        OSError: the disk is full or cannot be written.
    """
    if not yes:
        check_plans(plans)
    work, encoded = Path(path) / ".sync", 0
    problems: list[str] = []
    files: list[dict] = []
    bad: list[int] = []
    for plan in plans:
        troubles: dict[int, str] = {}
        if plan.todo:
            folder, troubles = _encode(index, work, plan, encoder_of(plan.source.modality))
            encoded += len(folder)
            index.add(folder.codes, folder.items())
            problems += troubles.values()
            lost = [n for n in troubles if index.contains([n])[0]]
            share = len(troubles) + plan.bad
            if share > MOST_BAD * max(1, len(plan.source.items)) and not yes:
                raise ValueError(
                    f"{share:,} of {len(plan.source.items):,} items of {plan.source.path} cannot "
                    f"be encoded, such as: {next(iter(troubles.values()))}. The index was not "
                    "changed; give --yes to go on with the others"
                )
            if not yes:
                check_gone(len(plan.gone) + len(lost), plan.total, plan.source.path)
            bad += lost  # what it shows now is no longer there
        if plan.rows:
            ids = [row["id"] for row in plan.rows]
            index.add(index.codes_of(ids), pa.Table.from_pylist(plan.rows, SCHEMA))
        for row in plan.files:
            files.append({**row, "problem": troubles.get(row["id"], row["problem"])})
    index.remove(np.array([*bad, *(n for plan in plans for n in plan.gone_ids)], np.int64))
    changed = any(plan.changes for plan in plans)
    if any(not plan.same for plan in plans):
        table = _with_others(index.known_files, files, plans)
        if index.known_files is None or not table.equals(index.known_files):
            index.know_files(table)
    index.commit()
    shutil.rmtree(work, ignore_errors=True)
    return Done(changed, encoded, problems)


def _encode(
    index: HammingIndex, work: Path, plan: Plan, encoder
) -> tuple[CodeFolder, dict[int, str]]:
    """The codes of a plan's items, and the problems of the others by id."""
    source, fingerprint = plan.source, encoder.info["fingerprint"]
    check_encoders(f"the {source.modality} encoder", index, encoder.bits, fingerprint)
    # Named by what it holds, so that what another sync has left behind is not in the way.
    name = f"{source.modality}-{stable_id(fingerprint, source.path):016x}"
    writer = CodeWriter(work / name, encoder.bits, fingerprint, source.modality, source.path)
    try:
        todo = _Todo(source.path, source.modality, plan.todo)
        encode_source(todo, encoder, writer, on_bad="skip")
    finally:
        writer.close()
    folder = CodeFolder(work / name)
    good = set(folder.items()["id"].to_pylist())
    said = {entry["item"]: entry["problem"] for entry in folder.skipped}
    left = [item for item in plan.todo if item.id not in good]
    return folder, {
        item.id: said.get(item.content, f"{ascii(item.content)} cannot be encoded") for item in left
    }


def _with_others(known: pa.Table | None, files: list[dict], plans: list[Plan]) -> pa.Table:
    """The table of known files with those of some sources replaced."""
    synced = {plan.source.path for plan in plans if not plan.same}
    others = [] if known is None else [r for r in known.to_pylist() if r["source"] not in synced]
    return pa.Table.from_pylist([*others, *filter(_nameable, files)], known_files.SCHEMA)


def _nameable(row: dict) -> bool:
    """Whether a path is UTF-8; others are reported each time."""
    try:
        (row["path"] or "").encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
