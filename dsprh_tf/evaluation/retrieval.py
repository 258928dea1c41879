"""Metrics of retrieval in four directions, from codes of queries and database."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from dsprh_tf import codes, metrics
from dsprh_tf.evaluation.own_items import evaluate_own

DIRECTIONS = ("image_to_text", "text_to_image", "image_to_image", "text_to_text")
CROSS_MODAL = DIRECTIONS[:2]
"""The two directions between modalities."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Codes or embeddings of both modalities of the same items, with their labels.

    uint8 arrays are packed codes `[n, bits / 8]`, compared by Hamming distance; floating arrays
    are embeddings `[n, D]`, compared by cosine.

    Attributes:
        image_codes: Codes or embeddings of the images.
        text_codes: Codes or embeddings of the texts.
        labels: `[n, labels]` of 0 and 1, or None where the dataset has none.
        image_within: Codes or embeddings for image-to-image retrieval; None: `image_codes`.
        text_within: Codes or embeddings for text-to-text retrieval; None: `text_codes`.
        soft: The real values under the codes (`codes.soften`), by which the items can search as
            queries by asymmetric distance; None where there are none.
    """

    image_codes: np.ndarray
    text_codes: np.ndarray
    labels: np.ndarray | None
    image_within: np.ndarray | None = None
    text_within: np.ndarray | None = None
    soft: Encoded | None = None

    def take(self, rows: np.ndarray) -> Encoded:
        """Some of the items: int64 [m], their rows."""
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        taken: dict[str, Any] = {
            name: v if v is None else v.take(rows) if isinstance(v, Encoded) else v[rows]
            for name, v in values
        }
        return dataclasses.replace(self, **taken)

    def side(self, modality: str, within: bool = False) -> np.ndarray:
        """Codes or embeddings of one modality.

        Args:
            modality: `"image"` or `"text"`.
            within: For comparison with the same modality.
        """
        own = getattr(self, f"{modality}_within") if within else None
        return getattr(self, f"{modality}_codes") if own is None else own


def evaluate_directions(
    query: Encoded, database: Encoded, at: int = 50, ties: str = "stable"
) -> dict:
    """Metrics of all four directions of retrieval, with the base rate beside them.

    Real values that search codes are compared by asymmetric distance: the items rank by falling
    inner product of the values with the codes' signs.

    Within one modality a query never finds itself, since queries are not in the database.

    Args:
        query: The queries.
        database: The items that are ranked.
        at: Cut-off of the metrics that have one.
        ties: How tied distances are read, see `dsprh_tf.metrics`; of embeddings always "stable".

    Returns:
        `{"image_to_text": ..., "text_to_image": ..., "image_to_image": ..., "text_to_text": ...}`
        as `metrics.evaluate` (of embeddings: `metrics.evaluate_cosine`) gives them, and
        `"ties"`, `"chance"`, `"queries"`, `"database"`.

    Raises:
        ValueError: If labels are missing, codes and labels do not match, or `ties` is not "stable"
            for embeddings.
    """
    if query.labels is None or database.labels is None:
        raise ValueError(
            "evaluation needs labels: without them nothing says which results are relevant; add "
            "a labels column to the dataset, or leave evaluation out"
        )
    results = {}
    for direction in DIRECTIONS:
        source, target = direction.split("_to_")
        within = source == target
        results[direction] = _metrics(
            query.side(source, within), database.side(target, within),
            query.labels, database.labels, at, ties,
        )  # fmt: skip
    return {
        **results,
        "ties": ties,
        "chance": metrics.chance(query.labels, database.labels),
        "queries": len(query.labels),
        "database": len(database.labels),
    }


def _metrics(query, database, query_labels, database_labels, at: int = 50, ties: str = "stable"):
    """The metrics of one direction, by what its two sides are."""
    labels = query_labels, database_labels
    if query.dtype.kind != "f":
        return metrics.evaluate(query, database, *labels, at, ties)
    if ties != "stable":
        raise ValueError(
            f"ties is {ties!r}, but embeddings are ranked by cosine, where ties are rare and keep "
            "the order of the database: use 'stable'"
        )
    if database.dtype == np.uint8:
        database = codes.unpack(database)  # all of one length: cosine ranks as the product does
    return metrics.evaluate_cosine(query, database, *labels, at)


@dataclasses.dataclass(frozen=True)
class TypedQueries:
    """Single texts of query items, each a query of its own: what people type.

    Attributes:
        owner: int64 `[m]`, the position of each text's item among the queries.
        text_codes: Codes or embeddings of the texts, as `Encoded` has them.
        soft: The real values under the codes, or None.
        left_out: Number of texts that no encoder can read, such as those without a known word.
    """

    owner: np.ndarray
    text_codes: np.ndarray
    soft: np.ndarray | None = None
    left_out: int = 0


def evaluate_all(
    query: Encoded, database: Encoded, typed: TypedQueries | None = None, ties: str = "stable"
) -> dict:
    """`evaluate_directions`, by asymmetric distance as well, and with single texts as queries.

    Args:
        query: The queries; without `soft`, nothing is compared by asymmetric distance.
        database: The items that are ranked.
        typed: Texts of the queries one by one, or None.
        ties: As in `evaluate_directions`, of codes alone: by asymmetric distance ties are rare.

    Returns:
        What `evaluate_directions` returns, and `"asymmetric"` with the four directions, `"typed"`
        and `"typed_asymmetric"` with `"text_to_image"`, as far as there are any.
    """
    results = evaluate_directions(query, database, ties=ties)
    if query.soft is not None:
        asymmetric = evaluate_directions(query.soft, database)
        results["asymmetric"] = {name: asymmetric[name] for name in DIRECTIONS}
    if typed is not None and query.labels is not None:  # without labels it was refused above
        labels = query.labels[typed.owner], database.labels
        sides = {"typed": typed.text_codes, "typed_asymmetric": typed.soft}
        for name, side in sides.items():
            if side is not None:
                order = ties if name == "typed" else "stable"
                found = _metrics(side, database.image_codes, *labels, ties=order)
                results[name] = {"text_to_image": found}
        results["typed_left_out"] = typed.left_out
    return results


def evaluate_own_items(query: Encoded, database: Encoded, ties: str = "stable") -> dict:
    """Metrics of data without labels: where each query's own text or image ranks among all items.

    Args:
        query: Held-out pairs. A query's own partner is the one relevant item.
        database: The items that are ranked together with the partners of all queries.
        ties: Recorded; ties always count by expectation, see `dsprh_tf.evaluation.own_items`.

    Returns:
        `{"image_to_text": ..., "text_to_image": ...}` as `own_items.evaluate_own` gives them, and
        `"compared_by"` ("hamming" or "cosine"), `"ties"`, `"chance"` (of recall@1), `"queries"`,
        `"database"`.
    """
    results: dict = {}
    for direction in CROSS_MODAL:
        source, target = direction.split("_to_")
        gallery = np.concatenate([query.side(target), database.side(target)])
        results[direction] = evaluate_own(query.side(source), gallery)
    return {
        **results,
        "compared_by": "cosine" if query.image_codes.dtype.kind == "f" else "hamming",
        "ties": ties,
        "chance": 1 / len(gallery),
        "queries": len(query.image_codes),
        "database": len(database.image_codes),
    }


def neighbour_map(query: Encoded, database: Encoded, near: np.ndarray) -> float:
    """MAP with neighbours instead of labels, mean of both cross-modal directions.

    Args:
        query: codes or embeddings of held-out pairs.
        database: codes or embeddings of the pairs that they search.
        near: bool [queries, database], such as `similarity.nearest_by_features` gives.
    """
    labels = _as_labels(near)
    pairs = ((query.image_codes, database.text_codes), (query.text_codes, database.image_codes))
    by_cosine = query.image_codes.dtype.kind == "f"
    evaluate = metrics.evaluate_cosine if by_cosine else metrics.evaluate
    return float(np.mean([evaluate(*pair, *labels)["map"] for pair in pairs]))


def typed_neighbour_map(typed: TypedQueries, database: Encoded, near: np.ndarray) -> float:
    """The same of single texts that search images, by their codes.

    Args:
        typed: texts of the held-out pairs.
        database: codes of the pairs that they search.
        near: bool [pairs, database].
    """
    query_labels, labels = _as_labels(near)
    pair = typed.text_codes, database.image_codes
    return metrics.evaluate(*pair, query_labels[typed.owner], labels)["map"]


def _as_labels(near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels of queries and items: each item has the numbers of the queries that it is near to."""
    return np.eye(len(near), dtype=np.uint8), near.T.astype(np.uint8)
