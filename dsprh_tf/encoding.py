"""Codes of a dataset's items by a model in memory."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dsprh_tf import codes
from dsprh_tf.data.pipeline import PairSource
from dsprh_tf.evaluation import Encoded


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
        self._image = tf.function(model.encode_image, reduce_retracing=True)
        self._text = tf.function(model.encode_text, reduce_retracing=True)

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
            image.append(self._image(batch).numpy())
            text.append(self._text(bow).numpy())
            bar.update(len(bow))
        bar.close()
        return np.concatenate(image), np.concatenate(text)

    def __call__(self, indices: np.ndarray, progress: str | None = None) -> Encoded:
        """Packed codes of both modalities, with the items' labels."""
        image, text = self.hash_values(indices, progress)
        labels = self.source.dataset.labels
        return Encoded(
            image_codes=codes.pack(image),
            text_codes=codes.pack(text),
            labels=None if labels is None else labels[indices],
        )
