"""The training set's neighbour graph against dense NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from dsprh_tf import neighbour_graph
from dsprh_tf.losses import GraphObjective, graph_similarity


def clustered(n=60, seed=0):
    """Pairs around ten centres: features [n, 12], bags of words [n, 30]."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, 10, n)
    image = np.abs(rng.normal(size=(10, 12))[which] + 0.3 * rng.normal(size=(n, 12)))
    words = (rng.random((10, 30))[which] + 0.3 * rng.random((n, 30)) > 0.9).astype(np.uint8)
    words[:, 0] = 1
    return image.astype(np.float32), words


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


def standardised(x):
    different = x[~np.eye(len(x), dtype=bool)]
    return (x - different.mean()) / different.std()


def naive(image, words, share, k, second_order):
    """R [n, n], with matrices of all pairs."""
    count = np.count_nonzero(words, axis=0)
    weights = np.where(count > 0, np.log(len(words) / np.maximum(count, 1)), 0)
    text = unit(words * weights)
    first = share * standardised(unit(image) @ unit(image).T)
    first = standardised(first + (1 - share) * standardised(text @ text.T))
    rows = np.zeros_like(first)
    for i, row in enumerate(first):
        others = [j for j in np.argsort(-row, kind="stable") if j != i][: k - 1]
        # An item is as near to itself as first order can be: cosine 1 in both modalities.
        rows[i, others], rows[i, i] = np.maximum(row[others], 0), first.diagonal().max()
    rows = unit(np.maximum(rows, rows.T))
    return standardised((1 - second_order) * first + second_order * standardised(rows @ rows.T))


def batch_of(built, image, words, rows):
    return {
        "target_feature": tf.constant(image[rows]),
        "bow": tf.constant(words[rows].astype(np.float32)),
        "graph_neighbours": tf.constant(built.neighbours[rows]),
        "graph_weights": tf.constant(built.weights[rows]),
    }


@pytest.mark.parametrize("share, k, second_order", [(0.5, 8, 0.5), (0.3, 5, 1.0), (1.0, 8, 0.2)])
def test_targets_equal_the_dense_computation(share, k, second_order):
    image, words = clustered()
    built = neighbour_graph.build_graph(image, words, share, k, second_order)
    rows = np.array([3, 17, 20, 41, 59])
    objective = GraphObjective(target_deviation=0.01, diagonal_target=1e6).fitted(built)
    found = objective.target(batch_of(built, image, words, rows)) / 0.01
    expected = naive(image, words, share, k, second_order)[np.ix_(rows, rows)]
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_targets_are_bounded_and_carry_no_gradient():
    image, words = clustered()
    built = neighbour_graph.build_graph(image, words, neighbours=8)
    objective = GraphObjective().fitted(built)
    batch = batch_of(built, image, words, np.arange(20))
    with tf.GradientTape() as tape:
        tape.watch(batch["target_feature"])
        target = objective.target(batch)
    assert tape.gradient(target, batch["target_feature"]) is None
    assert float(tf.reduce_max(target)) <= 1.5


def test_an_objective_without_a_graph_is_refused():
    with pytest.raises(ValueError, match="knows no graph yet: use objective.fitted"):
        GraphObjective().target({})


def test_the_approximate_search_finds_most_neighbours():
    image, words = clustered(1500)
    exact = neighbour_graph.build_graph(image, words, neighbours=10)
    approximate = neighbour_graph.build_graph(image, words, neighbours=10, exact_limit=100)
    assert exact.exact and not approximate.exact
    recalls = [
        len(np.intersect1d(a[a >= 0], b[b >= 0])) / (a >= 0).sum()
        for a, b in zip(exact.neighbours, approximate.neighbours)
    ]
    assert np.mean(recalls) > 0.9
    again = neighbour_graph.build_graph(image, words, neighbours=10, exact_limit=100)
    np.testing.assert_array_equal(again.neighbours, approximate.neighbours)


def test_sparse_rows_as_inner_products():
    neighbours = np.array([[0, 5, 9], [5, 2, -1], [7, -1, -1]])
    weights = np.array([[0.5, 0.5, 0.7], [0.6, 0.8, 0.0], [1.0, 0.0, 0.0]], np.float32)
    dense = np.zeros((3, 10), np.float32)
    for i in range(3):
        for j, w in zip(neighbours[i], weights[i]):
            if j >= 0:
                dense[i, j] = w
    found = graph_similarity(tf.constant(neighbours, tf.int32), tf.constant(weights))
    np.testing.assert_allclose(found, dense @ dense.T, rtol=1e-6)


def test_hubs_keep_their_strongest_edges():
    rng = np.random.default_rng(0)
    image = np.abs(rng.normal(size=(200, 8))).astype(np.float32)
    image[0] = image.mean(axis=0)  # near to everything
    built = neighbour_graph.build_graph(image, np.ones((200, 3), np.uint8), 1.0, neighbours=4)
    assert built.neighbours.shape[1] <= 16
    np.testing.assert_allclose(np.linalg.norm(built.weights, axis=1), 1, rtol=1e-5)


def test_duplicates_keep_themselves():
    image, words = clustered(40)
    image[:12], words[:12] = image[0], words[0]
    built = neighbour_graph.build_graph(image, words, neighbours=5)
    assert all(i in row for i, row in enumerate(built.neighbours))


def test_word_weights():
    words = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 1], [1, 0, 0, 0]], np.uint8)
    expected = [0, np.log(2), 0, np.log(4)]
    np.testing.assert_allclose(neighbour_graph.inverse_document_frequency(words), expected, rtol=1e-6)
    embeddings = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_array_equal(neighbour_graph.inverse_document_frequency(embeddings), np.ones(3))


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
        neighbour_graph.build_graph(*clustered(10), **changed)


def test_too_few_pairs():
    with pytest.raises(ValueError, match="there are 2 training pairs, expected at least 3"):
        neighbour_graph.build_graph(*(x[:2] for x in clustered(10)))
