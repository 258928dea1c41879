"""Answers of an index for people: each result with its path or text and its tags."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from dsprh_tf.data.images import load_small
from dsprh_tf.index.interface import EVERYTHING, Index, Where
from dsprh_tf.index.known_files import paths_of

_SHOWN_SIDE = 512  # pixels: hundreds of them are in memory at once


def answer(
    index: Index,
    query: np.ndarray,
    k: int = 10,
    where: Where = EVERYTHING,
    leave_out: Sequence[int | None] = (),
) -> list[list[dict]]:
    """The k nearest items of each query, nearest first.

    Args:
        index: where to look.
        query: uint8 [queries, bits / 8].
        k: results per query.
        where: which items count.
        leave_out: for each query an id that must not be among its results (the item itself, where
            the query asks for items like it), or None; () for none at all.

    Returns:
        For each query up to k of {"id", "distance" in bits, "modality", "path" or "text" (None if
        only the id is known), "tags", "gone": whether it is an image that is no longer on disk},
        "caption" of an image that has a path and a text, and "paths", all of them, of an image that
        several equal files have.

    Raises:
        ValueError: as `Index.search`.
    """
    left_out = list(leave_out) or [None] * len(query)
    found = index.search(query, k + any(name is not None for name in left_out), where)
    there = np.unique(found.ids[found.ids >= 0])
    items = {item["id"]: item for item in index.items_of(there).to_pylist()}
    several = paths_of(index, items)
    return [
        [
            as_result(items[name], distance, several.get(name))
            for name, distance in zip(names, distances)
            if name >= 0 and name != without
        ][:k]
        for names, distances, without in zip(found.ids.tolist(), found.distances.tolist(), left_out)
    ]


def as_result(item: dict, distance: int | None = None, paths: Sequence[str] | None = None) -> dict:
    """An item of an index in the form of `answer`; without a distance if there was no query."""
    content = "text" if item["path"] is None else "path"  # of a vector, an image may have none
    result = {
        "id": item["id"],
        "distance": distance,
        "modality": item["modality"],
        content: item[content],
        "tags": item["tags"] or [],
        "gone": content == "path" and not any(map(os.path.exists, paths or [item["path"]])),
    }
    if content == "path" and item["text"]:
        result["caption"] = item["text"]
    return {**result, "paths": list(paths)} if paths else result


def as_shown(item: dict) -> dict:
    """An item, or a result, in the form that a contact sheet takes.

    Args:
        item: with "path" for an image, else "text".

    Returns:
        {"image": uint8 [height, width, 3], small}, or {"text": its text}; where an image is gone
        or broken, or of an item only the id is known, a text that says so.
    """
    if item.get("path") is None:
        return {"text": item["text"] or f"item {item['id']}"}
    try:
        return {"image": load_small(item["path"], _SHOWN_SIDE)}
    except ValueError:
        return {"text": f"cannot be read: {os.path.basename(item['path'])}"}


def format_table(results: list[dict]) -> str:
    """The results of one query as aligned text, without a newline at the end."""
    if not results:
        return "  no results"
    width = max(len(str(result["id"])) for result in results)
    joined = "found_by" in results[0]  # of two rankings
    title = f"{'found by':>10}" if joined else ""
    lines = [f"  {'distance':>8}{title}  {'id':>{width}}"]
    for result in results:
        content = result.get("path") or result.get("text") or ""
        gone = "  (gone from disk)" if result["gone"] else ""
        content += f"  {result['caption']}" if result.get("caption") else ""
        tags = f"  [{', '.join(result['tags'])}]" if result["tags"] else ""
        near = "-" if result["distance"] is None else result["distance"]
        found_by = f"{result['found_by']:>10}" if joined else ""
        numbers = f"  {near:>8}{found_by}"
        lines.append(f"{numbers}  {result['id']:>{width}}  {content}{tags}{gone}")
        others = [path for path in result.get("paths", ()) if path != result["path"]]
        lines += [f"{'':>{len(numbers)}}  {'equal:':>{width}}  {path}" for path in others]
    return "\n".join(lines)
