"""Batches: their order, their augmentation, and what stands in them."""

from __future__ import annotations

import numpy as np
import pytest

from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.images import load_image
from dsprh_tf.data.pipeline import PairSource
from dsprh_tf.data.preprocess import resize_crop

ITEMS = np.arange(2, 22)  # 20 training items of the 24


@pytest.fixture
def source(pairs, bag_of_words):
    source = PairSource(pairs, bag_of_words, 16, 20)
    # Each item's number travels with it, so that the order can be read off.
    source.extra["item"] = np.arange(len(pairs), dtype=np.float32)
    return source


def read(batches) -> list:
    return [{name: value.numpy() for name, value in batch.items()} for batch in batches]


def order(batches) -> list:
    return [batch["item"].astype(int).tolist() for batch in batches]


def assert_same(a: list, b: list) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b):
        assert x.keys() == y.keys()
        for name in x:
            np.testing.assert_array_equal(x[name], y[name], err_msg=name)


def test_order_is_a_function_of_seed_and_epoch(source):
    batches = order(read(source.training_batches(ITEMS, 6, 3, range(2))))
    assert len(batches) == 6  # three whole batches an epoch; the last two items wait
    for epoch in range(2):
        expected = np.random.default_rng([3, epoch]).permutation(ITEMS)[:18].reshape(3, 6)
        np.testing.assert_array_equal(batches[3 * epoch : 3 * epoch + 3], expected)
    assert batches[:3] != batches[3:]
    assert order(read(source.training_batches(ITEMS, 6, 4, range(1)))) != batches[:3]


def test_same_seed_gives_the_same_batches_and_a_resumed_run_the_tail(source):
    first = read(source.training_batches(ITEMS, 6, 5, range(3), augmented=True))
    assert_same(first, read(source.training_batches(ITEMS, 6, 5, range(3), augmented=True)))
    assert_same(first[3:], read(source.training_batches(ITEMS, 6, 5, range(1, 3), augmented=True)))


def test_augmentation_is_a_function_of_seed_epoch_and_item(source):
    def crops(batches):
        return {
            (i // 2, item): pixels
            for i, batch in enumerate(batches)
            for item, pixels in zip(batch["item"].astype(int), batch["pixels"])
        }

    whole = crops(read(source.training_batches(ITEMS, 10, 1, range(2), augmented=True)))
    # The reverse order of items shuffles differently, and must not change an item's crop.
    turned = crops(read(source.training_batches(ITEMS[::-1], 10, 1, range(2), augmented=True)))
    assert whole.keys() == turned.keys()
    for key in whole:
        np.testing.assert_array_equal(whole[key], turned[key])
    again = crops(read(source.training_batches(ITEMS, 10, 2, range(1), augmented=True)))
    assert any((whole[0, item] != again[0, item]).any() for item in ITEMS)  # another seed
    assert any((whole[0, item] != whole[1, item]).any() for item in ITEMS)  # another epoch


def test_pixels_and_words_are_those_of_the_item(source, pairs, bag_of_words):
    batch = read(source.training_batches(ITEMS, 6, 0, range(1)))[0]
    assert batch["pixels"].shape == (6, 16, 16, 3)
    for item, pixels, bow in zip(batch["item"].astype(int), batch["pixels"], batch["bow"]):
        expected = resize_crop(load_image(pairs.image_paths[item]), 16, 20).numpy()
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(bow, bag_of_words.encode([pairs.texts[item]])[0])


def test_last_batch_is_as_long_as_it_is(source):
    items = np.array([5, 3, 23, 0, 9])
    batches = read(source.batches(items, 2))
    assert order(batches) == [[5, 3], [23, 0], [9]]
    assert [len(batch["pixels"]) for batch in batches] == [2, 2, 1]
    pixels = read(source.batches(items, 2, texts=False))
    assert [set(batch) for batch in pixels] == [{"pixels"}] * 3
    np.testing.assert_array_equal(pixels[2]["pixels"], batches[2]["pixels"])
    assert [set(b) for b in read(source.batches(items, 4, images=False))] == [{"bow"}] * 2


@pytest.mark.parametrize("augmented", [False, True])
def test_workers_parts_join_to_the_whole_batch(source, augmented):
    whole = read(source.training_batches(ITEMS, 6, 0, range(2), augmented))
    parts = [
        read(source.training_batches(ITEMS, 6, 0, range(2), augmented, shard=(worker, 2)))
        for worker in range(2)
    ]
    joined = [
        {name: np.concatenate([first[name], second[name]]) for name in first}
        for first, second in zip(*parts)
    ]
    assert_same(whole, joined)


def test_bags_of_words_are_kept_as_uint8_rows(source, pairs, bag_of_words):
    assert source.text_size == bag_of_words.size
    assert source.text_features(ITEMS).dtype == np.uint8
    plain = read(source.batches(ITEMS, 8))
    source.keep_texts(ITEMS[::-1])
    assert_same(plain, read(source.batches(ITEMS, 8)))
    # Items that were not kept are encoded when asked for.
    mixed = np.array([0, 4])
    np.testing.assert_array_equal(
        read(source.batches(mixed, 2))[0]["bow"], bag_of_words.encode(pairs.texts[mixed])
    )


def test_targets_travel_with_their_items(source):
    source.targets = np.arange(24, dtype=np.float16)[:, None] * np.ones(3, np.float16)
    batch = read(source.training_batches(ITEMS, 6, 0, range(1)))[0]
    np.testing.assert_array_equal(batch["target_feature"][:, 2], batch["item"])
    assert batch["target_feature"].dtype == np.float32


def test_features_need_neither_pictures_nor_words():
    rng = np.random.default_rng(0)
    image = rng.random((10, 4), np.float32)
    text = rng.random((10, 3), np.float32)
    dataset = PairDataset(
        name="features", ids=[str(i) for i in range(10)], image_features=image, text_features=text
    )
    source = PairSource(dataset, None, None)
    assert source.text_size == 3
    batches = read(source.batches(np.arange(10)[::-1], 4))
    np.testing.assert_array_equal(np.concatenate([b["feature"] for b in batches]), image[::-1])
    np.testing.assert_array_equal(np.concatenate([b["bow"] for b in batches]), text[::-1])
    batch = read(source.training_batches(np.arange(10), 5, 0, range(1), augmented=False))[0]
    shapes = {name: value.shape for name, value in batch.items()}
    assert shapes == {"bow": (5, 3), "feature": (5, 4)}


def test_fewer_pairs_than_a_batch(source):
    with pytest.raises(ValueError, match="20 training pairs, fewer than a batch of 21.*batch_size"):
        source.training_batches(ITEMS, 21, 0, range(1))


def test_picture_that_vanishes_while_training_is_named(source, tmp_path):
    source.dataset = PairDataset(
        name="gone",
        ids=["a"],
        image_paths=[str(tmp_path / "gone.jpg")],
        texts=["red dog"],
    )
    source.extra = {}
    with pytest.raises(Exception, match=r"gone\.jpg does not exist"):
        read(source.batches(np.array([0]), 1))
