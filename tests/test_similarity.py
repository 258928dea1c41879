"""Nearness by pictures and words together, which stands in for labels in a choice."""

from __future__ import annotations

import numpy as np

from dsprh_tf.evaluation.retrieval import Encoded, neighbour_map
from dsprh_tf.similarity import nearest_by_features


def cosine(a, b):
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))


def naive(query, database, share):
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
    np.testing.assert_array_equal(found, naive(query, database, 0.2))
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
