"""Batches of pairs as `tf.data`: parallel decoding, augmentation, cached backbone outputs.

The order of items is a function of (seed, epoch) and every random crop one of (seed, epoch,
item), so that a run resumed at an epoch sees what the uninterrupted one sees.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.images import load_image
from dsprh_tf.data.preprocess import augment, resize_crop
from dsprh_tf.data.single_texts import SingleTexts

_ALL_TEXTS = np.int64(-1)  # in place of a draw


class PairSource:
    """Batches of a dataset's pairs, in the form that `CrossModalHashing` takes.

    Args:
        dataset: the pairs.
        bag_of_words: text -> multi-hot vector; None for `features` datasets.
        image_size: pixels per side that the backbone takes; None for `features` datasets.
        resize: the short side before the crop, in pixels.
        cache: backbone outputs to read instead of images (`FeatureCache`), or None.
        targets: float [N, D_I] rows of "target_feature", or None; anything that can be indexed by
            an integer array.
    """

    def __init__(
        self,
        dataset: PairDataset,
        bag_of_words,
        image_size=224,
        resize=256,
        cache=None,
        targets=None,
    ):
        self.dataset = dataset
        self.bag_of_words = bag_of_words
        self.image_size = image_size
        self.resize = resize
        self.cache = cache
        self.targets = targets
        self.extra: dict[str, np.ndarray] = {}
        self.pairwise: Callable[[dict], dict] | None = None  # `Method.pairwise`
        self._bow_rows: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def text_size(self) -> int:
        """D_T."""
        if self.bag_of_words is None:
            return self.dataset.text_features.shape[1]
        return self.bag_of_words.size

    def text_features(self, indices: np.ndarray) -> np.ndarray:
        """F_T of the given items: [n, D_T], uint8 for words, float32 for given features."""
        if self.bag_of_words is None:
            return self.dataset.text_features[indices]
        return self.bag_of_words.encode(self.dataset.texts[indices]).astype(np.uint8)

    def keep_texts(self, indices: np.ndarray) -> None:
        """Keeps the bags of words of these items in memory (uint8), so that epochs read rows."""
        position = np.full(len(self.dataset), -1, np.int64)
        position[indices] = np.arange(len(indices))
        self._bow_rows = (position, self.text_features(indices))

    def _texts(self, indices: np.ndarray) -> np.ndarray:
        if self._bow_rows is not None:
            position, rows = self._bow_rows
            at = position[indices]
            if (at >= 0).all():
                return rows[at]
        return self.text_features(indices)

    def training_batches(
        self,
        indices: np.ndarray,
        batch_size: int,
        seed: int,
        epochs: range,
        augmented: bool = False,
        shard: tuple[int, int] = (0, 1),
        replica_size: int | None = None,
        single_texts: float = 0.0,
    ) -> tf.data.Dataset:
        """Shuffled whole batches of several epochs, one after another.

        Args:
            indices: the training items.
            batch_size: pairs per batch; the last partial batch of an epoch is dropped.
            seed: of order and augmentation.
            epochs: which epochs.
            augmented: random flip and crop; needs images, not a cache.
            shard: (worker, workers); a worker gets its part of each batch.
            replica_size: pairs of a batch that one replica gets, which are compared with one
                another (`Method.pairwise`); None for all of a worker's.
            single_texts: share of batches whose "bow" has one text of each pair, drawn anew, in
                place of all its texts; these stand beside it as "target_bow". Of pairs with one
                text each nothing changes.

        Returns:
            A dataset of dicts, `len(indices) // batch_size` batches per epoch.

        Raises:
            ValueError: fewer items than a batch.
        """
        if len(indices) < batch_size:
            raise ValueError(
                f"there are {len(indices)} training pairs, fewer than a batch of {batch_size}: "
                "lower --batch_size or give more pairs"
            )
        steps = len(indices) // batch_size
        worker, workers = shard
        share = batch_size // workers
        texts = None
        if single_texts and self.dataset.text_lists is not None:
            texts = SingleTexts(self.dataset, self.bag_of_words, np.unique(indices))

        def generate():
            for epoch in epochs:
                order = np.random.default_rng([seed, epoch]).permutation(indices)
                rng = np.random.default_rng([seed, epoch, 1])
                single = rng.random(steps) < single_texts
                for step in range(steps):
                    drawn = np.full(batch_size, _ALL_TEXTS)
                    if single[step]:
                        drawn = rng.integers(2**31, size=batch_size)
                    part = slice(worker * share, (worker + 1) * share)
                    rows = order[step * batch_size : (step + 1) * batch_size]
                    yield rows[part], drawn[part], epoch

        signature = tuple(tf.TensorSpec(shape, tf.int64) for shape in ([share], [share], []))
        order = tf.data.Dataset.from_generator(generate, output_signature=signature)
        crops = seed if augmented else None
        return self._load(order, share, True, True, crops, replica_size or share, texts)

    def batches(
        self, indices: np.ndarray, batch_size: int = 64, images: bool = True, texts: bool = True
    ) -> tf.data.Dataset:
        """The given items in their order; the last batch may be smaller."""
        order = tf.data.Dataset.from_tensor_slices(np.asarray(indices, np.int64)).batch(batch_size)
        order = order.map(
            lambda rows: (rows, tf.fill(tf.shape(rows), _ALL_TEXTS), tf.constant(0, tf.int64))
        )
        return self._load(order, batch_size, images, texts, None)

    def _load(
        self,
        order,
        batch_size,
        images,
        texts,
        augment_seed,
        compared=0,
        single: SingleTexts | None = None,
    ) -> tf.data.Dataset:
        """From (indices [batch], draws of texts [batch], epoch) to batches."""
        fields = self._fields(images, texts)
        if single is not None:
            fields = {"target_bow": fields["bow"], **fields}
        decode = images and self.cache is None and self.image_size is not None

        def read(rows, drawn):
            values = {name: get(rows) for name, (get, _, _) in fields.items()}
            if single is not None and drawn[0] != _ALL_TEXTS:
                values["bow"] = single.drawn(rows, drawn)
            return tuple(map(np.ascontiguousarray, values.values()))

        def rows_of(rows, drawn, _):
            dtypes = [dtype for _, dtype, _ in fields.values()]
            values = tf.numpy_function(read, [rows, drawn], dtypes, stateful=False)
            batch = {}
            for (name, (_, dtype, shape)), value in zip(fields.items(), values):
                value.set_shape((rows.shape[0], *shape))
                keep = dtype in (tf.float32, tf.int32)  # int32: positions, not quantities
                batch[name] = value if keep else tf.cast(value, tf.float32)
            return batch

        options = tf.data.Options()
        options.deterministic = True
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        parts = order.map(rows_of, num_parallel_calls=2) if fields else None
        if compared and self.pairwise is not None:
            parts = parts.map(lambda batch: self._compare(batch, compared), num_parallel_calls=2)
        if decode:
            items = order.flat_map(
                lambda rows, _, epoch: tf.data.Dataset.from_tensor_slices(rows).map(
                    lambda row: (row, epoch)
                )
            )
            pixels = items.map(
                lambda row, epoch: self._pixels(row, epoch, augment_seed),
                num_parallel_calls=tf.data.AUTOTUNE,
            ).batch(batch_size, drop_remainder=augment_seed is not None)
            if parts is None:
                parts = pixels.map(lambda x: {"pixels": x})
            else:
                parts = tf.data.Dataset.zip((parts, pixels)).map(self._with_pixels)
        return parts.with_options(options).prefetch(2)

    def _compare(self, batch: dict, size: int) -> dict:
        """`pairwise` on each replica's part: what it makes of n pairs has n columns."""
        count = next(iter(batch.values())).shape[0]
        parts = [
            self.pairwise({name: rows[i : i + size] for name, rows in batch.items()})
            for i in range(0, count, size)
        ]
        return {name: tf.concat([part[name] for part in parts], axis=0) for name in parts[0]}

    def _with_pixels(self, batch: dict, pixels: tf.Tensor) -> dict:
        rows = next(iter(batch.values())).shape[0]
        shape = [rows, self.image_size, self.image_size, 3]
        return {**batch, "pixels": tf.ensure_shape(pixels, shape)}

    def _fields(self, images: bool, texts: bool) -> dict:
        """name -> (rows of it for an index array, dtype, shape of a row)."""
        fields: dict[str, tuple] = {}
        if texts:
            dtype = tf.float32 if self.bag_of_words is None else tf.uint8
            fields["bow"] = (self._texts, dtype, (self.text_size,))
        if images and self.image_size is None:
            values = self.dataset.image_features
            fields["feature"] = (values.__getitem__, tf.float32, values.shape[1:])
        elif images and self.cache is not None:
            for name, values in self.cache.arrays.items():
                fields[name] = (values.__getitem__, tf.float16, values.shape[1:])
        if images and texts:
            if self.targets is not None:
                dtype = tf.as_dtype(self.targets.dtype)
                shape = self.targets.shape[1:]
                fields["target_feature"] = (self.targets.__getitem__, dtype, shape)
            for name, values in self.extra.items():
                fields[name] = (values.__getitem__, tf.as_dtype(values.dtype), values.shape[1:])
        return fields

    def _pixels(self, row: tf.Tensor, epoch: tf.Tensor, augment_seed) -> tf.Tensor:
        """float32 [size, size, 3] of one item."""
        paths = self.dataset.image_paths
        image = tf.numpy_function(
            lambda r: load_image(paths[int(r)]), [row], tf.uint8, stateful=False
        )
        image.set_shape([None, None, 3])
        if augment_seed is None:
            return resize_crop(image, self.image_size, self.resize)
        # One stream of random numbers per item and epoch, whatever the order of decoding.
        seed = tf.stack([augment_seed * 1_000_003 + epoch, row])
        return augment(image, seed, self.image_size, self.resize)
