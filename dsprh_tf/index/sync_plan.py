"""What has changed in a collection since its index was last synced with it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsprh_tf.data.files import file_sha256
from dsprh_tf.data.threads import by_threads
from dsprh_tf.index.interface import Index, Where
from dsprh_tf.index.items import stable_id
from dsprh_tf.index.sources import Item, Source


@dataclasses.dataclass
class Plan:
    """What a sync would do with the items of one source.

    Attributes:
        source: the items as they are now.
        todo: items to encode, those of `changed` among them.
        new: names of items that are not in the index.
        changed: names of items whose content is another one; they keep their ids.
        moved: (former path, path) of files that have moved or were renamed.
        equal: paths of files with the bytes of another, which are no items of their own.
        gone: names of items that are no longer in the source.
        gone_ids: their ids.
        tagged: number of items that get other tags.
        rows: rows of `items.SCHEMA` of items that keep their codes: `moved` and `tagged`.
        files: rows of `known_files.SCHEMA`, of all that is in the source.
        same: whether nothing has changed; `files` is empty then, the index has its rows.
        bad: number of items that could not be encoded before and have not changed.
        total: number of items that the index has of this source.
        others: number of texts that the index has of other sources, or of before its first sync;
            they stay.
    """

    source: Source
    todo: list[Item] = dataclasses.field(default_factory=list)
    new: list[str] = dataclasses.field(default_factory=list)
    changed: list[str] = dataclasses.field(default_factory=list)
    moved: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    equal: list[str] = dataclasses.field(default_factory=list)
    gone: list[str] = dataclasses.field(default_factory=list)
    gone_ids: list[int] = dataclasses.field(default_factory=list)
    tagged: int = 0
    rows: list[dict] = dataclasses.field(default_factory=list)
    files: list[dict] = dataclasses.field(default_factory=list)
    same: bool = False
    bad: int = 0
    total: int = 0
    others: int = 0

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.todo or self.rows or self.gone_ids)

    def _known(self, number: int, path: str | None, problem: str | None, mark: _Mark) -> None:
        row = {"id": number, "source": self.source.path, "path": path, "problem": problem}
        self.files.append({**row, "size": mark.size, "modified": mark.modified, "sha256": mark.sha})

    def _update(self, row: dict, path: str | None, tags: Sequence[str]) -> None:
        """Notes an item that keeps its code, if its path or tags are others."""
        tagged = list(row["tags"] or ()) != list(tags)
        self.tagged += tagged
        if tagged or row["path"] != path:
            self.rows.append({**row, "path": path, "tags": list(tags)})

    def _lose(self, rows: Iterable[dict]) -> None:
        for row in rows:
            self.gone.append(row["path"] or row["text"])
            self.gone_ids.append(row["id"])


@dataclasses.dataclass(frozen=True)
class _Mark:
    """The state of a file; nothing is known of one that cannot be read."""

    size: int | None = None
    modified: int | None = None
    sha: bytes | None = None


def plan_images(
    index: Index, source: Source, tags: Mapping[str, tuple[str, ...]] | None = None
) -> Plan:
    """What to do with the images of a source.

    A file whose size and time are as they were is not read; others are known by their SHA-256. An
    image keeps its id as long as its bytes are in the source under any path, and as long as its
    path is there if its bytes are not. Files of equal bytes are one item, with the tags of all.

    Args:
        index: the index, synced before or not.
        source: images of a folder or manifest.
        tags: tags by absolute path; None leaves those of a folder's images as they are.
    """
    if tags is None and os.path.isdir(source.path) and (plan := _as_before(index, source)):
        return plan
    plan = Plan(source)
    known = {row["path"]: row for row in _known_rows(index, source) if row["path"] is not None}
    rows = _owned_images(index, source, known)
    plan.total = len(rows)
    marks = _marks(source.items, known)
    groups: dict[Any, list[Item]] = {}
    for item in source.items:
        mark, before = marks[item.content], known.get(item.content)
        if before and before["problem"] and before["sha256"] == mark.sha:
            plan.bad += 1
            plan._known(before["id"], item.content, before["problem"], mark)
        else:
            groups.setdefault(mark.sha or item.content, []).append(item)
    by_sha: dict[bytes, list[int]] = {}
    for row in rows.values():
        if row["sha256"] is not None:
            by_sha.setdefault(row["sha256"], []).append(row["id"])
    free, taken = dict(rows), set()
    from_manifest = any(item.row for item in source.items)
    fresh = []
    for mark, items in groups.items():
        own = by_sha.get(mark, ())
        paths = [item.content for item in items]
        plan.equal += paths[1:]
        if not own:
            fresh.append(items)
            continue
        # Of several items with these bytes, as `encode` makes them, one stays.
        number = min(own, key=lambda other: (rows[other]["path"] not in paths, other))
        for other in own:
            free.pop(other)
        taken.add(number)
        row = rows[number]
        plan.gone_ids += [other for other in own if other != number]
        path = row["path"] if row["path"] in paths else paths[0]
        if path != row["path"]:
            plan.moved.append((row["path"], path))
        keeps = tags is None and not from_manifest
        plan._update(row, path, row["tags"] or () if keeps else _tags(items, tags))
        for same in paths:
            plan._known(number, same, None, marks[same])
    for items in fresh:
        first = items[0]
        ids = [known[i.content]["id"] for i in items if i.content in known]
        ids += [row["id"] for row in free.values() if row["path"] == first.content][:1]
        former = next((each for each in [*ids, first.id] if each in free), None)
        found = _tags(items, tags)
        if former is not None:
            number = former
            row = free.pop(number)
            plan.changed.append(first.content)
            found = tuple(row["tags"] or ()) if tags is None and not from_manifest else found
        else:
            number = first.id
            if number in taken or index.contains([number])[0]:
                # The image that had this path has moved, and its id with it.
                sha = marks[first.content].sha or b""
                number = stable_id("image", f"{first.content}\0{sha.hex()}")
            plan.new.append(first.content)
        taken.add(number)
        plan.todo.append(Item(number, first.content, found, first.row))
        for item in items:
            plan._known(number, item.content, None, marks[item.content])
    plan._lose(free.values())
    return plan


def _as_before(index: Index, source: Source) -> Plan | None:
    """The plan of a folder in which nothing has changed, None if something may have.

    It is what `plan_images` would find, from whole columns instead of a dict for each file: of a
    large collection that is watched this is the usual answer.
    """
    table = getattr(index, "known_files", None)
    if table is None:
        return None
    is_file = pc.and_(pc.equal(table["source"], source.path), pc.is_valid(table["path"]))
    known = table.filter(is_file)
    if len(known) != len(source.items) or known["sha256"].null_count:
        return None
    paths = [item.content for item in source.items]
    try:
        states = [(found.st_size, found.st_mtime_ns) for found in map(os.stat, paths)]
        order = pc.index_in(pa.array(paths, pa.large_string()), known["path"])
    except (OSError, ValueError):  # a file that has vanished, a name that is not UTF-8
        return None
    if order.null_count:
        return None
    known = known.take(order)
    sizes, times = (known[name].to_numpy() for name in ("size", "modified"))
    if not np.array_equal(np.stack([sizes, times], axis=1), states):
        return None
    good = known.filter(pc.is_null(known["problem"]))
    ids, first, at = np.unique(good["id"].to_numpy(), return_index=True, return_inverse=True)
    owned = index.ids_where(Where(prefix=os.path.join(source.path, "")))
    if not np.array_equal(np.sort(owned), ids):
        return None
    items = index.items_of(ids).select(["modality", "path", "sha256"]).take(pa.array(at))
    one_path_each = pc.sum(pc.equal(items["path"], good["path"])).as_py() == len(ids)
    same_bytes = pc.all(pc.equal(items["sha256"], good["sha256"]), skip_nulls=False).as_py()
    if not (one_path_each and same_bytes and pc.all(pc.equal(items["modality"], "image")).as_py()):
        return None
    repeated = np.setdiff1d(np.arange(len(good)), first)
    equal = good["path"].take(pa.array(repeated)).to_pylist()
    bad = len(known) - len(good)
    return Plan(source, equal=equal, same=True, bad=bad, total=len(ids))


def plan_texts(index: Index, source: Source) -> Plan:
    """What to do with the texts of a manifest.

    Texts without an id of their own in the manifest are known by what they say, so that one that
    has changed is a new one, and the former one is gone.
    """
    plan = Plan(source)
    known = {row["id"]: row for row in _known_rows(index, source) if row["path"] is None}
    ids = [*{item.id for item in source.items}, *known]
    rows = _rows(index, ids)
    own = {n: row for n, row in rows.items() if n in known}
    plan.total = len(own)
    plan.others = len(np.setdiff1d(index.ids_where(Where(modality="text")), ids))
    for item in source.items:
        content = item.content.encode("utf-8")
        mark = _Mark(len(content), None, hashlib.sha256(content).digest())
        before, row = known.get(item.id), rows.get(item.id)
        own.pop(item.id, None)
        problem = None
        if row is not None and row["modality"] == "text" and row["text"] == item.content:
            plan._update(row, None, item.tags)
        elif before and before["problem"] and before["sha256"] == mark.sha:
            problem, plan.bad = before["problem"], plan.bad + 1
        else:
            (plan.new if row is None else plan.changed).append(item.content)
            plan.todo.append(item)
        plan._known(item.id, None, problem, mark)
    plan._lose(own.values())
    return plan


def _known_rows(index: Index, source: Source) -> list[dict]:
    table = getattr(index, "known_files", None)
    rows = [] if table is None else table.to_pylist()
    return [row for row in rows if row["source"] == source.path]


def _rows(index: Index, ids: Iterable[int]) -> dict[int, dict]:
    """Rows of those of some items that the index has."""
    numbers: np.ndarray = np.array(list(ids), np.int64)
    numbers = numbers[index.contains(numbers)] if len(index) else numbers[:0]
    return {row["id"]: row for row in index.items_of(numbers).to_pylist()}


def _owned_images(index: Index, source: Source, known: Mapping[str, dict]) -> dict[int, dict]:
    """The images of the index that are of a source: known to be, or by their paths."""
    if os.path.isdir(source.path):
        ids = set(index.ids_where(Where(prefix=os.path.join(source.path, ""))).tolist())
    else:
        every = index.ids_where(Where(modality="image"))
        paths = {item.content for item in source.items}
        found = index.items_of(every)["path"].to_pylist()
        ids = {int(number) for number, path in zip(every, found) if path in paths}
    ids |= {row["id"] for row in known.values() if not row["problem"]}
    return {n: row for n, row in _rows(index, ids).items() if row["modality"] == "image"}


def _tags(items: Sequence[Item], tags: Mapping[str, tuple[str, ...]] | None) -> tuple[str, ...]:
    found = (tag for item in items for tag in (*item.tags, *(tags or {}).get(item.content, ())))
    return tuple(dict.fromkeys(found))


def _marks(items: Sequence[Item], known: Mapping[str, dict]) -> dict[str, _Mark]:
    """The state of each file, by path; only those that seem to have changed are read."""
    marks, todo = {}, []
    for item in items:
        path, before = item.content, known.get(item.content)
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            marks[path] = _Mark()
            continue
        same = before and (before["size"], before["modified"]) == (found.st_size, found.st_mtime_ns)
        if before and same and before["sha256"]:
            marks[path] = _Mark(found.st_size, found.st_mtime_ns, before["sha256"])
        elif stat.S_ISREG(found.st_mode):  # reading a pipe without a writer would wait
            todo.append(path)
        else:
            marks[path] = _Mark()
    marks.update(zip(todo, by_threads(_read_marks, todo, "comparing images", "file")))
    return marks


def _read_marks(paths: Sequence[str]) -> list[_Mark]:
    marks = []
    for path in paths:
        try:
            # The time first: a file that changes meanwhile is read once more the next time.
            found = os.stat(path)
            sha = bytes.fromhex(file_sha256(path))
            marks.append(_Mark(found.st_size, found.st_mtime_ns, sha))
        except OSError:
            marks.append(_Mark())
    return marks
