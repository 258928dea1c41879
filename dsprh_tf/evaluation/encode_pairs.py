"""Codes of a dataset's items by a model in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dsprh_tf import codes
from dsprh_tf.data.pipeline import PairSource
from dsprh_tf.data.single_texts import SingleTexts
from dsprh_tf.data.splits import Split
from dsprh_tf.evaluation.own_items import mean_reciprocal_rank
from dsprh_tf.evaluation.retrieval import (
    Encoded,
    TypedQueries,
    neighbour_map,
    typed_neighbour_map,
)
from dsprh_tf.similarity import nearest_by_features

_QUERIES, _DATABASE = 500, 5_000  # pairs at most in a MAP of near pairs
_TEXTS = 1024  # encoded at once


class PairEncoder:
    """Encodes pairs with a model; its graphs are traced once and used for every epoch.

    Args:
        model: a `CrossModalHashing`.
        source: where its inputs come from.
        batch_size: pairs encoded at once.
    """

    def __init__(self, model, source: PairSource, batch_size: int = 64):
        self.source = source
        self.batch_size = batch_size
        self._encode_image, self._encode_text = model.encode_image, model.encode_text
        self._image: Callable | None = None  # graphs, of the first batch's inputs
        self._text: Callable | None = None

    def hash_values(self, indices: np.ndarray, progress: str | None = None):
        """Real-valued H_I, H_T of the items: two float32 [n, bits].

        Args:
            indices: the items.
            progress: title of a progress bar, or None for no bar.
        """
        image, text = [], []
        bar = tqdm(total=len(indices), desc=progress, unit="pair", disable=progress is None)
        for batch in self.source.batches(indices, self.batch_size):
            bow = batch.pop("bow")
            if self._image is None or self._text is None:
                self._image = _any_size(self._encode_image, batch)
                self._text = _any_size(self._encode_text, bow)
            image.append(self._image(batch).numpy())
            text.append(self._text(bow).numpy())
            bar.update(len(bow))
        bar.close()
        return np.concatenate(image), np.concatenate(text)

    def __call__(self, indices: np.ndarray, progress: str | None = None) -> Encoded:
        """Packed codes of both modalities, with the items' labels."""
        return self.packed(indices, *self.hash_values(indices, progress))

    def packed(self, indices: np.ndarray, image: np.ndarray, text: np.ndarray) -> Encoded:
        """The same from the hash values of these items, as `hash_values` returns them."""
        labels = self.source.dataset.labels
        return Encoded(
            image_codes=codes.pack(image),
            text_codes=codes.pack(text),
            labels=None if labels is None else labels[indices],
        )

    def queries(self, indices: np.ndarray, progress: str | None = None) -> Encoded:
        """The same with real values, by which the items can search by asymmetric distance."""
        image, text = self.hash_values(indices, progress)
        packed = self.packed(indices, image, text)
        soft = Encoded(codes.soften(image), codes.soften(text), packed.labels)
        return dataclasses.replace(packed, soft=soft)

    def typed(self, texts: SingleTexts) -> TypedQueries:
        """Single texts of queries."""
        bow = texts.rows
        values = np.concatenate(
            [
                self._encode_text(tf.constant(bow[start : start + _TEXTS].toarray(), tf.float32))
                for start in range(0, bow.shape[0], _TEXTS)
            ]
        )
        packed, soft = codes.pack(values), codes.soften(values)
        return TypedQueries(texts.owner, packed, soft, texts.left_out)


def _any_size(encode: Callable, batch) -> Callable:
    """A graph for batches of any size with the inputs of this one."""
    signature = tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), batch)
    return tf.function(encode, input_signature=[signature])


class Side(NamedTuple):
    """The pairs of one side of `near_map`.

    Attributes:
        items: int64 [n], their indices.
        encoded: positions among them, int64 [m] -> their codes or embeddings.
    """

    items: np.ndarray
    encoded: Callable[[np.ndarray], Encoded]


def near_map(
    query: Side,
    database: Side,
    source: PairSource,
    image_features: Callable[[np.ndarray], np.ndarray],
    seed: int,
) -> float:
    """MAP of pairs that search others for near ones, which needs no labels.

    Near are the 5 % nearest by features (`similarity.nearest_by_features`). At most 500 pairs
    search at most 5,000.

    Args:
        query: the pairs that search.
        database: the pairs that are searched.
        source: has their texts' features.
        image_features: items -> [N, D_I] with their features by the untouched backbone filled in.
        seed: of the draw of pairs.
    """
    searching, searched, near = _near(query, database, source, image_features, seed)
    return neighbour_map(query.encoded(searching), database.encoded(searched), near)


def _near(query: Side, database: Side, source: PairSource, image_features, seed: int):
    """Positions of the pairs that search and of those that are searched, and who is near whom."""
    rng = np.random.default_rng(seed)
    sides = (query, _QUERIES), (database, _DATABASE)
    drawn = [np.sort(rng.permutation(len(side.items))[:most]) for side, most in sides]
    parts = [side.items[rows] for (side, _), rows in zip(sides, drawn)]
    images = image_features(np.concatenate(parts))
    searching, searched = ((images[rows], source.text_features(rows)) for rows in parts)
    return (*drawn, nearest_by_features(searching, searched))


def validation_scores(
    encode: PairEncoder,
    split: Split,
    image_features,
    seed: int,
    single_texts: Callable[[np.ndarray], SingleTexts | None],
) -> dict[str, float]:
    """How validation pairs search training pairs; no labels, no test queries.

    Args:
        encode: of the model.
        split: with validation pairs.
        image_features: as in `near_map`.
        seed: of the draw of pairs.
        single_texts: items -> their texts one by one, or None where no pair has several.

    Returns:
        "validation_map", as `near_map`; "validation_mrr", the mean reciprocal rank of each pair's
        own image and text among all; and, if there are several texts, both of single texts that
        search images: "typed_validation_map" (what is near to their pair is relevant) and
        "typed_validation_mrr".
    """
    items = Side(split.validation, lambda rows: encode(split.validation[rows]))
    others = Side(split.train, lambda rows: encode(split.train[rows]))
    searching, searched, near = _near(items, others, encode.source, image_features, seed)
    query, database = items.encoded(searching), others.encoded(searched)
    images = np.concatenate([query.image_codes, database.image_codes])
    texts = np.concatenate([query.text_codes, database.text_codes])
    sides = (query.image_codes, texts), (query.text_codes, images)
    scores = {
        "validation_map": neighbour_map(query, database, near),
        "validation_mrr": float(np.mean([mean_reciprocal_rank(*side) for side in sides])),
    }
    texts = single_texts(split.validation[searching])
    if texts is not None:
        typed = encode.typed(texts)
        scores["typed_validation_map"] = typed_neighbour_map(typed, database, near)
        found = mean_reciprocal_rank(typed.text_codes, images, typed.owner)
        scores["typed_validation_mrr"] = found
    return scores
