"""Search of a run's database with exported encoders: images by text, and texts by image."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from dsprh_tf import codes
from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.images import image_bytes, load_image
from dsprh_tf.data.splits import Split
from dsprh_tf.evaluation.contact_sheet import RetrievalItem, RetrievalRow

TOP = 8  # results per query by default: a contact sheet shows no more
DRAWN = 3  # queries of each kind, if none are given
_BATCH = 64
_FOUND = {"text": "image", "image": "text"}  # kind of query -> kind of its results


@dataclasses.dataclass(frozen=True)
class DatabaseQuery:
    """A text that looks for images, or an image that looks for texts.

    Attributes:
        kind: "text" or "image".
        value: the text, or the path of the image.
        labels: uint8 [L] of a query whose labels are known, otherwise None.
    """

    kind: str
    value: str
    labels: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class DatabaseAnswer:
    """The nearest items of a query, nearest first.

    Attributes:
        query: the query.
        items: int [k], rows of the dataset.
        distances: int [k], Hamming distances in bits.
        relevant: bool [k], whether an item shares a label with the query; None if not known.
    """

    query: DatabaseQuery
    items: np.ndarray
    distances: np.ndarray
    relevant: np.ndarray | None


def check_queries(
    encoders: Mapping, queries: Sequence[DatabaseQuery], export_dir: str | os.PathLike
) -> None:
    """Check of encoders and queries, which needs no data.

    Args:
        encoders: "image" and "text" -> `serving.encoder.Encoder`.
        queries: the queries that the user gave.
        export_dir: folder of the encoders, for errors.

    Raises:
        ValueError: the encoders are of different models or take precomputed features, a text has
            no known word, or an image cannot be read.
    """
    image, text = encoders["image"], encoders["text"]
    if image.info["fingerprint"] != text.info["fingerprint"]:
        raise ValueError(
            f"the encoders in {export_dir} are of different models: export them again with "
            "`dsprh export`"
        )
    if image.info["image_size"] is None or text.info["vocabulary_size"] is None:
        raise ValueError(
            f"the encoders in {export_dir} take precomputed features: there is nothing to show"
        )
    text.check_words([query.value for query in queries if query.kind == "text"])
    for query in queries:
        if query.kind == "image":
            load_image(query.value)


def draw_queries(
    dataset: PairDataset, split: Split, seed: int = 0, count: int = DRAWN
) -> list[DatabaseQuery]:
    """Random queries of a run's query split: `count` texts, then the images of as many others.

    Those of a run without test queries are drawn from its database.

    Args:
        dataset: the data of the run.
        split: the split of the run.
        seed: draws the queries.
        count: number of queries of each kind.
    """
    items = split.query if len(split.query) else split.database
    drawn = np.random.default_rng(seed).permutation(items)[: 2 * count]
    values = {"text": dataset.texts, "image": dataset.image_paths}
    return [
        DatabaseQuery(kind, str(values[kind][i]), _labels(dataset, i))
        for kind, items in (("text", drawn[:count]), ("image", drawn[count:]))
        for i in items
    ]


def search_database(
    dataset: PairDataset,
    database: np.ndarray,
    encoders: Mapping,
    queries: Sequence[DatabaseQuery],
    top: int = TOP,
) -> list[DatabaseAnswer]:
    """The nearest items of each query among a run's database, which is encoded for it.

    Args:
        dataset: the data of the run.
        database: int [n], rows of the dataset to search.
        encoders: "image" and "text" -> `serving.encoder.Encoder`.
        queries: the queries.
        top: results per query.

    Returns:
        The answers, in the order of the queries.

    Raises:
        ValueError: an image cannot be read.
    """
    found = {}
    for kind in dict.fromkeys(query.kind for query in queries):
        values = [query.value for query in queries if query.kind == kind]
        contents = [image_bytes(v) for v in values] if kind == "image" else values
        own = encoders[kind].encode(contents, unknown="allow")  # `check_queries` has refused them
        distances = codes.hamming_distance(own, _encode(dataset, database, encoders[_FOUND[kind]]))
        found[kind] = iter(distances)
    return [_answer(dataset, database, query, next(found[query.kind]), top) for query in queries]


def format_answer(dataset: PairDataset, answer: DatabaseAnswer) -> str:
    """An answer as aligned text: distance, id, "*" for a relevant item, and the item's text."""
    names = [str(dataset.ids[i]) for i in answer.items]
    width = max(map(len, names), default=0)
    lines = [
        f"{answer.query.kind} -> {_FOUND[answer.query.kind]}s: {answer.query.value}",
        f"  {'distance':>8}  {'id':<{width}}    text",
    ]
    relevant = [False] * len(names) if answer.relevant is None else answer.relevant
    for i, name, distance, mark in zip(answer.items, names, answer.distances, relevant):
        text = _text(dataset, i)[:70]
        lines.append(f"  {distance:>8}  {name:<{width}}  {'*' if mark else ' '} {text}")
    return "\n".join(lines)


def sheet_row(dataset: PairDataset, answer: DatabaseAnswer) -> RetrievalRow:
    """An answer as a row of a contact sheet."""
    results = []
    for rank, i in enumerate(answer.items):
        image = answer.query.kind == "text"
        shown = {"image": dataset.image_paths[i]} if image else {"text": _text(dataset, i)}
        relevant = None if answer.relevant is None else bool(answer.relevant[rank])
        distance = int(answer.distances[rank])
        results.append(RetrievalItem(**shown, distance=distance, relevant=relevant))
    return RetrievalRow(**{f"query_{answer.query.kind}": answer.query.value}, results=results)


def _encode(dataset: PairDataset, database: np.ndarray, encoder) -> np.ndarray:
    """Packed codes of the images or texts of the database, with a progress bar."""
    images = encoder.kind == "image"
    items = (dataset.image_paths if images else dataset.texts)[database]
    parts = []
    for start in tqdm(range(0, len(items), _BATCH), f"encoding {encoder.kind}s", unit="batch"):
        batch = items[start : start + _BATCH]
        contents = [image_bytes(x) if images else str(x) for x in batch]
        parts.append(encoder.encode(contents, unknown="allow"))
    return np.concatenate(parts)


def _answer(dataset, database, query, distances, top: int) -> DatabaseAnswer:
    rows = np.argsort(distances, kind="stable")[:top]
    items = database[rows]
    relevant = None
    if query.labels is not None:
        relevant = (query.labels & dataset.labels[items]).any(axis=1)
    return DatabaseAnswer(query, items, distances[rows], relevant)


def _labels(dataset: PairDataset, item: int) -> np.ndarray | None:
    return None if dataset.labels is None else dataset.labels[item]


def _text(dataset: PairDataset, item: int) -> str:
    return " ".join(str(dataset.texts[item]).split())
