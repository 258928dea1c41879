"""Similarities over a whole set against naive loops: thresholds, word weights, nearest items."""

from __future__ import annotations

import numpy as np
import pytest
from method_helpers import cosine, cosines, normal

from dsprh_tf import similarity
from dsprh_tf.evaluation.retrieval import Encoded, neighbour_map
from dsprh_tf.similarity import nearest_by_features

# Neighbour thresholds


def naive_neighbours(image, text, weight, count):
    """S~, and bool [n, n] whose row i marks the `count` others of largest S~."""
    joint = weight * (2 * cosines(image, image) - 1) + (1 - weight) * (2 * cosines(text, text) - 1)
    near = np.zeros(joint.shape, bool)
    for i in range(len(joint)):
        others = [j for j in range(len(joint)) if j != i]
        near[i, sorted(others, key=lambda j: -joint[i, j])[:count]] = True  # noqa: B023
    return joint, near


@pytest.mark.parametrize("share, count", [(0.01, 1), (0.1, 3), (0.5, 14), (0.999, 28)])
@pytest.mark.parametrize("block", [29, 100, 10**6])
def test_neighbour_thresholds_equal_the_naive_loop(share, count, block, monkeypatch):
    monkeypatch.setattr(similarity, "_BLOCK_VALUES", block)
    image, text = normal(29, 7), np.abs(normal(29, 5, seed=1))
    thresholds = similarity.neighbour_thresholds(image, text, 0.9, share)
    joint, near = naive_neighbours(image, text, 0.9, count)
    np.fill_diagonal(joint, -np.inf)
    assert thresholds.dtype == np.float32
    np.testing.assert_array_equal(joint >= thresholds[:, None], near)


@pytest.mark.parametrize("size, share, message", [
    (5, 0.0, "neighbour share is 0.0, expected a number between 0 and 1"),
    (5, 1.0, "neighbour share is 1.0"),
    (5, float("nan"), "neighbour share is nan"),
    (1, 0.5, "there are 1 training pairs, expected at least 2"),
])  # fmt: skip
def test_neighbour_thresholds_refuse_bad_input(size, share, message):
    with pytest.raises(ValueError, match=message):
        similarity.neighbour_thresholds(np.ones((size, 2)), np.ones((size, 2)), 0.9, share)


# Word weights


def test_word_weights():
    words = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 1], [1, 0, 0, 0]], np.uint8)
    expected = [0, np.log(2), 0, np.log(4)]
    found = similarity.inverse_document_frequency(words)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    embeddings = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    found = similarity.inverse_document_frequency(embeddings)
    np.testing.assert_array_equal(found, np.ones(3))


# Nearness by images and texts together, which stands in for labels in a choice


def naive_nearest(query, database, share):
    count = np.count_nonzero(database[1], axis=0)
    weights = np.log(len(database[1]) / np.maximum(count, 1)) * (count > 0)
    near = np.zeros((len(query[0]), len(database[0])))
    for side, scale in ((0, 1.0), (1, weights)):
        own, others = query[side] * scale, database[side] * scale
        among = [cosine(a, b) for i, a in enumerate(others) for j, b in enumerate(others) if i != j]
        near += [[(cosine(a, b) - np.mean(among)) / np.std(among) for b in others] for a in own]
    k = round(share * len(database[0]))
    return near >= np.sort(near, axis=1)[:, [-k]]


def test_nearest_by_features_equals_the_naive_loop():
    rng = np.random.default_rng(0)
    image, text = rng.random((25, 6)).astype(np.float32), (rng.random((25, 9)) > 0.7).astype("u1")
    text[:, 0], text[3] = 1, 0  # a word that says nothing, a text without a word
    query, database = (image[:5], text[:5]), (image[5:], text[5:])
    found = nearest_by_features(query, database, 0.2)
    np.testing.assert_array_equal(found, naive_nearest(query, database, 0.2))
    assert (found.sum(axis=1) >= 4).all()
    assert (nearest_by_features(query, database, 0.001).sum(axis=1) >= 1).all()


def test_neighbour_map_is_one_for_codes_that_rank_the_near_first_and_mean_of_both_ways():
    near = np.array([[1, 0, 0, 1], [0, 1, 0, 0]], bool)
    query, database = np.array([[0], [255]], np.uint8), np.array([[1], [127], [15], [0]], np.uint8)
    good = neighbour_map(Encoded(query, query, None), Encoded(database, database, None), near)
    assert good == 1
    # The other way round the near ones come last: AP (1/3 + 2/4) / 2 and 1/4.
    turned = Encoded(query, ~query, None)
    one_way = neighbour_map(turned, Encoded(database, database, None), near)
    assert np.isclose(one_way, (1 + ((1 / 3 + 2 / 4) / 2 + 1 / 4) / 2) / 2)
