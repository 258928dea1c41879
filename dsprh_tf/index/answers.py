"""Answers of an index for people: each result with its path or text and its tags."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

import numpy as np

from dsprh_tf.data.images import load_small
from dsprh_tf.index import asymmetric
from dsprh_tf.index.interface import EVERYTHING, Index, Where
from dsprh_tf.index.known_files import paths_of

_SHOWN_SIDE = 512  # pixels: hundreds of them are in memory at once


def answer(
    index: Index,
    query: np.ndarray,
    k: int = 10,
    where: Where = EVERYTHING,
    leave_out: Sequence[Collection[int]] = (),
    offset: int = 0,
    oversample: int = asymmetric.OVERSAMPLE,
) -> list[list[dict]]:
    """The k best items of each query, best first.

    Args:
        index: where to look.
        query: as `asymmetric.rank` takes them: values for asymmetric ranking, codes for ranking by
            Hamming distance.
        k: results per query.
        where: which items count.
        leave_out: for each query ids that must not be among its results (such as the item itself,
            where the query asks for items like it); () for none at all.
        offset: number of better results to pass over.
        oversample: as for `asymmetric.rank`.

    Returns:
        For each query up to k of {"id", "similarity" in 0..1, "distance" in bits, "modality",
        "path" or "text" (None if only the id is known), "tags", "gone": whether it is an image that
        is no longer on disk}, "caption" of an image that has a path and a text, and "paths", all of
        them, of an image that several equal files have.

    Raises:
        ValueError: as `asymmetric.rank`.
    """
    left_out = [set(ids) for ids in leave_out] or [set() for _ in query]
    most = offset + k + max(map(len, left_out), default=0)
    found = asymmetric.rank(index, query, most, where, oversample)
    rows = [found.of(row, out)[offset : offset + k] for row, out in enumerate(left_out)]
    there = sorted({name for results in rows for name, *_ in results})
    items = {item["id"]: item for item in index.items_of(there).to_pylist()}
    several = paths_of(index, items)
    return [
        [as_result(items[name], distance, several.get(name), similarity)
         for name, distance, similarity in results]
        for results in rows
    ]  # fmt: skip


def as_result(
    item: dict,
    distance: int | None = None,
    paths: Sequence[str] | None = None,
    similarity: float | None = None,
) -> dict:
    """An item of an index in the form of `answer`; without distances if there was no query."""
    content = "text" if item["path"] is None else "path"  # of a vector, an image may have none
    result = {
        "id": item["id"],
        "similarity": None if similarity is None else round(similarity, 4),
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
    lines = [f"  {'similarity':>10}  {'distance':>8}{title}  {'id':>{width}}"]
    for result in results:
        content = result.get("path") or result.get("text") or ""
        gone = "  (gone from disk)" if result["gone"] else ""
        content += f"  {result['caption']}" if result.get("caption") else ""
        tags = f"  [{', '.join(result['tags'])}]" if result["tags"] else ""
        similar, near = "-", "-"  # found by words alone
        if result["similarity"] is not None:
            similar, near = f"{result['similarity']:.3f}", f"{result['distance']}"
        found_by = f"{result['found_by']:>10}" if joined else ""
        numbers = f"  {similar:>10}  {near:>8}{found_by}"
        lines.append(f"{numbers}  {result['id']:>{width}}  {content}{tags}{gone}")
        others = [path for path in result.get("paths", ()) if path != result["path"]]
        lines += [f"{'':>{len(numbers)}}  {'equal:':>{width}}  {path}" for path in others]
    return "\n".join(lines)
