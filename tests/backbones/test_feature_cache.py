"""A frozen backbone's outputs on disk: their values, what is computed when, and their key."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from dsprh_tf.backbones.feature_cache import FeatureCache
from dsprh_tf.data.pipeline import PairSource
from dsprh_tf.methods import DSPRH
from dsprh_tf.model import CrossModalHashing

SIZES = {"bow": 6, "feature": 12, "conv_map": (4, 4, 8)}


@pytest.fixture
def source(pairs, bag_of_words):
    return PairSource(pairs, bag_of_words, 16, 20)


def outputs(backbone, source, items):
    batch = next(iter(source.batches(items, len(items), texts=False)))
    return {name: value.numpy() for name, value in backbone(batch["pixels"]).items()}


def test_values_are_the_backbones_to_float16_rounding(source, tiny_backbone, tmp_path):
    backbone = tiny_backbone()
    cache = FeatureCache(tmp_path, source, backbone)
    items = np.array([20, 1, 7])
    assert cache.ensure(items, batch_size=2) == 3
    for name, direct in outputs(backbone, source, items).items():
        assert cache.arrays[name].dtype == np.float16
        np.testing.assert_allclose(cache.arrays[name][items], direct, rtol=1e-3, atol=1e-5)
        assert direct.any()


def test_batches_read_the_cache_instead_of_pictures(source, tiny_backbone, tmp_path):
    cache = FeatureCache(tmp_path, source, tiny_backbone())
    items = np.array([4, 9, 2])
    cache.ensure(items)
    source.cache = cache
    batch = next(iter(source.batches(items, 3)))
    assert set(batch) == {"bow", "feature", "conv_map"}
    for name in ("feature", "conv_map"):
        np.testing.assert_array_equal(batch[name], cache.arrays[name][items].astype(np.float32))


def test_only_missing_rows_are_computed(source, tiny_backbone, tmp_path):
    backbone = tiny_backbone()
    cache = FeatureCache(tmp_path, source, backbone)
    assert cache.ensure(np.array([3, 1, 3])) == 2
    assert cache.ensure(np.array([1, 3])) == 0
    before = np.array(cache.arrays["feature"][[1, 3]])
    again = FeatureCache(tmp_path, source, tiny_backbone())
    assert again.folder == cache.folder
    np.testing.assert_array_equal(again.missing(np.array([5, 3, 0])), [0, 5])
    assert again.ensure(np.arange(6)) == 4
    np.testing.assert_array_equal(cache.arrays["feature"][[1, 3]], before)
    assert again.size_of(10) == 10 * 2 * (12 + 4 * 4 * 8)


def test_an_interrupted_computation_goes_on(source, tiny_backbone, tmp_path, monkeypatch):
    items = np.arange(10)
    write = FeatureCache._write

    def write_until_full(self, file, name, rows, values):
        if rows[0] >= 8 and name == "conv_map":
            raise OSError(28, "No space left on device")
        write(self, file, name, rows, values)

    cache = FeatureCache(tmp_path, source, tiny_backbone())
    monkeypatch.setattr(FeatureCache, "_write", write_until_full)
    with pytest.raises(OSError, match="No space left"):
        cache.ensure(items, batch_size=4)
    monkeypatch.undo()
    resumed = FeatureCache(tmp_path, source, tiny_backbone())
    assert resumed.ensure(items, batch_size=4) == 2
    whole = FeatureCache(tmp_path / "other", source, tiny_backbone())
    whole.ensure(items, batch_size=4)
    for name in whole.arrays:
        np.testing.assert_array_equal(resumed.arrays[name], whole.arrays[name])


def test_key_is_of_weights_data_and_size(source, pairs, bag_of_words, tiny_backbone, tmp_path):
    def key(source, backbone, **names):
        return FeatureCache(tmp_path, source, backbone, **names).folder

    keys = [
        key(source, tiny_backbone()),
        key(source, tiny_backbone(seed=1)),
        key(source, tiny_backbone(), names=["feature"]),
        key(PairSource(pairs, bag_of_words, 16, 24), tiny_backbone()),
        key(PairSource(pairs.take(np.arange(12)), bag_of_words, 16, 20), tiny_backbone()),
    ]
    assert len(set(keys)) == len(keys)
    assert key(source, tiny_backbone()) == keys[0]
    # Where the pairs lie does not matter, so that a moved folder keeps its cache.
    moved = dataclasses.replace(pairs, notes=("moved",))
    assert key(PairSource(moved, bag_of_words, 16, 20), tiny_backbone()) == keys[0]


def test_features_alone(source, tiny_backbone, tmp_path):
    cache = FeatureCache(tmp_path, source, tiny_backbone(), ["feature"])
    cache.ensure(np.arange(3))
    assert set(cache.arrays) == {"feature"}


def test_what_float16_cannot_hold_is_refused(source, tiny_backbone, tmp_path):
    cache = FeatureCache(tmp_path, source, tiny_backbone(scale=1e6))
    with pytest.raises(ValueError, match=r"reaches .*e\+0., more than float16 holds.*--nocache"):
        cache.ensure(np.arange(3))
    np.testing.assert_array_equal(cache.missing(np.arange(3)), np.arange(3))


def test_cached_and_uncached_training_agree(source, pairs, bag_of_words, tiny_backbone, tmp_path):
    def train(source):
        keras.utils.set_random_seed(0)
        backbone = tiny_backbone()
        backbone.trainable = False
        method = DSPRH(16, cov_channels=4, text_hidden=8)
        model = CrossModalHashing(method, SIZES, backbone, 16)
        model.compile(keras.optimizers.SGD(0.01), keras.optimizers.SGD(0.01))
        losses = []
        step = tf.function(model.local_gradients)
        for batch in source.training_batches(np.arange(24), 8, 0, range(3)):
            terms, image, text = step(batch)
            losses.append(float(terms["total"]))
            model.optimizer.apply_gradients(zip(image, model.image_variables))
            model.text_optimizer.apply_gradients(zip(text, model.text_variables))
        return losses, [v.numpy() for v in model.image_variables + model.text_variables]

    cached = PairSource(pairs, bag_of_words, 16, 20)
    cached.cache = FeatureCache(tmp_path, source, tiny_backbone())
    cached.cache.ensure(np.arange(24))
    plain_losses, plain_weights = train(source)
    cached_losses, cached_weights = train(cached)
    assert plain_losses[0] != plain_losses[-1]
    np.testing.assert_allclose(cached_losses, plain_losses, rtol=2e-3)
    for a, b in zip(cached_weights, plain_weights):
        np.testing.assert_allclose(a, b, atol=2e-3)
