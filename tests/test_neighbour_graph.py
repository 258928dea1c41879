"""The training set's neighbour graph: its rows, its approximate search, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from method_helpers import clustered

from dsprh_tf.neighbour_graph import build_graph


def test_the_approximate_search_finds_most_neighbours():
    image, words = clustered(1500)
    exact = build_graph(image, words, neighbours=10)
    approximate = build_graph(image, words, neighbours=10, exact_limit=100)
    assert exact.exact and not approximate.exact
    recalls = [
        len(np.intersect1d(a[a >= 0], b[b >= 0])) / (a >= 0).sum()
        for a, b in zip(exact.neighbours, approximate.neighbours)
    ]
    assert np.mean(recalls) > 0.9
    again = build_graph(image, words, neighbours=10, exact_limit=100)
    np.testing.assert_array_equal(again.neighbours, approximate.neighbours)


def test_hubs_keep_their_strongest_edges():
    rng = np.random.default_rng(0)
    image = np.abs(rng.normal(size=(200, 8))).astype(np.float32)
    image[0] = image.mean(axis=0)  # near to everything
    built = build_graph(image, np.ones((200, 3), np.uint8), 1.0, neighbours=4)
    assert built.neighbours.shape[1] <= 16
    np.testing.assert_allclose(np.linalg.norm(built.weights, axis=1), 1, rtol=1e-5)


def test_duplicates_keep_themselves():
    image, words = clustered(40)
    image[:12], words[:12] = image[0], words[0]
    built = build_graph(image, words, neighbours=5)
    assert all(i in row for i, row in enumerate(built.neighbours))


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"image_weight": 1.2}, r"image_weight is 1.2, expected a number in \[0, 1\]"),
        ({"second_order": -0.1}, "second_order is -0.1"),
        ({"neighbours": 1}, "neighbours is 1, expected at least 2"),
    ],
)
def test_bad_settings_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        build_graph(*clustered(10), **changed)


def test_too_few_pairs():
    with pytest.raises(ValueError, match="there are 2 training pairs, expected at least 3"):
        build_graph(*(x[:2] for x in clustered(10)))
