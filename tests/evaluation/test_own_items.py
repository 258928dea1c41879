"""Metrics that need no labels, against naive loops."""

from __future__ import annotations

import numpy as np
import pytest

from dsprh_tf import codes
from dsprh_tf.evaluation.own_items import (
    evaluate_own,
    mean_reciprocal_rank,
    own_ranks,
    pair_reciprocal_rank,
)


def naive_own(query, gallery, distance):
    """For each query the ranks, from 1, that its partner has in all orders of tied items."""
    ranks = []
    for i, one in enumerate(query):
        row = [distance(one, other) for other in gallery]
        nearer, tied = sum(d < row[i] for d in row), sum(d == row[i] for d in row)
        ranks.append([nearer + place for place in range(1, tied + 1)])
    return ranks


def bits_between(a, b):
    return int(np.unpackbits(a ^ b).sum())


@pytest.mark.parametrize("queries, others, bits", [(1, 0, 8), (1, 3, 8), (30, 40, 8), (20, 0, 64)])
def test_recall_and_rank_equal_the_naive_loop(queries, others, bits):
    rng = np.random.default_rng(queries + bits)
    text = codes.pack(rng.standard_normal((queries + others, bits)))
    image = codes.pack(rng.standard_normal((queries, bits)))
    ranks = naive_own(image, text, bits_between)
    found = evaluate_own(image, text)
    for k in (1, 5, 10):
        expected = np.mean([np.mean([rank <= k for rank in own]) for own in ranks])
        assert found[f"recall@{k}"] == pytest.approx(expected)
    assert found["median_rank"] == pytest.approx(np.median([np.mean(own) for own in ranks]))
    curve = found["recall_at_k"]
    assert curve["k"][-1] == len(text) and curve["recall"][-1] == 1
    assert curve["recall"] == sorted(curve["recall"])
    at = dict(zip(curve["k"], curve["recall"]))
    assert all(at[k] == found[f"recall@{k}"] for k in (1, 5, 10) if k in at)


def test_embeddings_are_compared_by_cosine():
    rng = np.random.default_rng(0)
    image, text = rng.standard_normal((7, 5)), rng.standard_normal((12, 5))
    image[2], text[3], text[4] = 0, text[1] * 3, 0

    def distance(a, b):
        norm = np.linalg.norm(a) * np.linalg.norm(b)
        return -round(float(a @ b) / norm, 9) if norm else 0.0

    ranks = naive_own(image, text, distance)
    nearer, tied = own_ranks(image, text)
    assert [(own[0] - 1, len(own)) for own in ranks] == list(zip(nearer, tied))


def test_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    image, text = (codes.pack(rng.standard_normal((n, 16))) for n in (20, 31))
    whole = own_ranks(image, text)
    monkeypatch.setattr("dsprh_tf.evaluation.own_items.BLOCK_BYTES", 8 * 31 * 3)
    for one, other in zip(whole, own_ranks(image, text)):
        np.testing.assert_array_equal(one, other)


def test_constant_codes_are_chance():
    constant = codes.pack(np.ones((10, 16)))
    found = evaluate_own(constant[:4], constant)
    assert found["recall@1"] == pytest.approx(0.1) and found["median_rank"] == 5.5


@pytest.mark.parametrize("queries, items", [(0, 3), (3, 2)])
def test_partners_must_be_there(queries, items):
    packed = codes.pack(np.ones((3, 16)))
    with pytest.raises(ValueError, match=f"got {queries} queries and {items} items to rank"):
        own_ranks(packed[:queries], packed[:items])


def naive_reciprocal_rank(image, text):
    distance = codes.hamming_distance(image, text).astype(int)
    reciprocal = []
    for matrix in (distance, distance.T):
        for i, row in enumerate(matrix):
            nearer = sum(d < row[i] for d in row)
            tied = sum(d == row[i] for d in row)  # itself included
            ranks = [nearer + place for place in range(1, tied + 1)]
            reciprocal.append(1 / np.mean(ranks))
    return np.mean(reciprocal)


@pytest.mark.parametrize("items, bits", [(1, 8), (2, 8), (30, 8), (30, 64)])
def test_pair_reciprocal_rank_equals_the_naive_loop(items, bits):
    rng = np.random.default_rng(items + bits)
    image = rng.standard_normal((items, bits))
    text = image + rng.standard_normal((items, bits))
    image, text = codes.pack(image), codes.pack(text)
    expected = naive_reciprocal_rank(image, text)
    assert pair_reciprocal_rank(image, text) == pytest.approx(expected)
    assert pair_reciprocal_rank(text, image) == pytest.approx(expected)


def test_pair_reciprocal_rank_of_perfect_and_of_constant_codes():
    perfect = codes.pack(np.where(np.eye(16) > 0, 1, -1))
    assert pair_reciprocal_rank(perfect, perfect) == 1
    constant = codes.pack(np.ones((9, 16)))
    assert pair_reciprocal_rank(constant, constant) == pytest.approx(1 / 5)


def test_pair_reciprocal_rank_refuses_codes_that_are_no_pairs():
    packed = codes.pack(np.ones((3, 16)))
    for image, text in ((packed, packed[:2]), (packed[:0], packed[:0])):
        with pytest.raises(ValueError, match="expected as many of one as of the other, at least"):
            pair_reciprocal_rank(image, text)
    with pytest.raises(ValueError, match="16 and 8 bits"):
        pair_reciprocal_rank(packed, packed[:, :1])


def test_several_queries_may_have_one_partner():
    rng = np.random.default_rng(0)
    query, gallery = (codes.pack(rng.standard_normal((n, 16))) for n in (7, 5))
    owner = np.array([0, 0, 1, 3, 3, 3, 4])
    total = 0.0
    for one, own in zip(query, owner):
        distances = [int(codes.hamming_distance(one[None], other[None])[0, 0]) for other in gallery]
        nearer = sum(d < distances[own] for d in distances)
        tied = sum(d == distances[own] for d in distances)
        total += 1 / (nearer + (tied + 1) / 2)
    assert mean_reciprocal_rank(query, gallery, owner) == pytest.approx(total / 7)
