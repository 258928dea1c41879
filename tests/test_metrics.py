"""Metrics against a naive loop, against all orders of tied items, and on degenerate input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from dsprh_tf import codes, metrics


def random_problem(seed, queries=13, database=70, bits=16, labels=5, rate=0.2):
    rng = np.random.default_rng(seed)
    return (
        codes.pack(rng.standard_normal((queries, bits))),
        codes.pack(rng.standard_normal((database, bits))),
        (rng.random((queries, labels)) < rate).astype(np.uint8),
        (rng.random((database, labels)) < rate).astype(np.uint8),
    )


def problem_from_distances(distances, shared):
    """One query and a database at the given distances that shares so many labels with it."""
    bits = 8 * math.ceil(max(max(distances), 1) / 8)
    width = max(max(shared), 1)
    database = np.array([[-1] * d + [1] * (bits - d) for d in distances])
    labels = np.array([[1] * s + [0] * (width - s) for s in shared])
    return codes.pack(np.ones((1, bits))), codes.pack(database), np.ones((1, width)), labels


def naive_evaluate(query_codes, database_codes, query_labels, database_labels, at=50):
    """The definitions, one item at a time."""
    distance = codes.hamming_distance(query_codes, database_codes)
    bits = query_codes.shape[1] * 8
    size = len(database_codes)
    cut = min(at, size)
    rows = {name: [] for name in ("map", "hits", "min_r", "ndcg", "radius2", "p_at_k")}
    curve = [([], []) for _ in range(bits + 1)]
    for q in range(len(query_codes)):
        shared = [int((query_labels[q] * row).sum()) for row in database_labels]
        order = sorted(range(size), key=lambda i: distance[q, i])  # sorted() is stable
        total = sum(s > 0 for s in shared)
        hits, precisions, hits_at = 0, [], []
        for rank, item in enumerate(order, 1):
            if shared[item] > 0:
                hits += 1
                precisions.append((rank, hits / rank))
            hits_at.append(hits)
        top = [p for rank, p in precisions if rank <= cut]
        rows["map"].append(sum(p for _, p in precisions) / total if total else 0)
        rows["hits"].append(sum(top) / len(top) if top else 0)
        rows["min_r"].append(sum(top) / min(cut, total) if total else 0)
        gains = [2 ** shared[i] - 1 for i in order[:cut]]
        best = sorted((2**s - 1 for s in shared), reverse=True)[:cut]
        dcg, ideal = (
            sum(g / math.log2(rank + 1) for rank, g in enumerate(gs, 1)) for gs in (gains, best)
        )
        rows["ndcg"].append(dcg / ideal if ideal else 0)
        rows["p_at_k"].append([hits_at[k - 1] / k for k in metrics.precision_grid(size)])
        for radius in range(bits + 1):
            inside = [shared[i] > 0 for i in range(size) if distance[q, i] <= radius]
            precision = sum(inside) / len(inside) if inside else None
            if radius == 2:
                rows["radius2"].append(precision or 0)
            if inside:
                curve[radius][0].append(precision)
            if total:
                curve[radius][1].append(sum(inside) / total)
    kept = [r for r in range(bits + 1) if curve[r][0]]
    return {
        "map": np.mean(rows["map"]),
        f"map@{at}": np.mean(rows["hits"]),
        f"map@{at}_min_r": np.mean(rows["min_r"]),
        f"ndcg@{at}": np.mean(rows["ndcg"]),
        "precision@radius2": np.mean(rows["radius2"]),
        "precision_at_k": np.mean(rows["p_at_k"], axis=0),
        "radius": kept,
        "precision": [np.mean(curve[r][0]) for r in kept],
        "recall": [np.mean(curve[r][1]) if curve[r][1] else 0 for r in kept],
    }


def flatten(result):
    """Numbers of `evaluate` under the names of `naive_evaluate`."""
    flat = {k: v for k, v in result.items() if isinstance(v, float)}
    flat["precision_at_k"] = result["precision_at_k"]["precision"]
    return {**flat, **result["precision_recall"]}


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_ranking_written_by_hand():
    # Ranking: relevant, not, relevant (two labels), not; the fourth item ties with the fifth.
    problem = problem_from_distances([5, 0, 3, 7, 7], shared=[2, 1, 0, 0, 1])
    result = metrics.evaluate(*problem, at=3)
    # Order of items: 1 (rel), 2 (no), 0 (rel), 3 (no), 4 (rel).
    assert result["map"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)
    assert result["map@3"] == pytest.approx((1 + 2 / 3) / 2)
    assert result["map@3_min_r"] == pytest.approx((1 + 2 / 3) / 3)
    assert result["ndcg@3"] == pytest.approx(
        (1 + 3 / math.log2(4)) / (3 + 1 / math.log2(3) + 1 / math.log2(4))
    )
    assert result["precision@radius2"] == 1
    assert result["precision_at_k"]["k"] == [1, 2, 3, 4, 5]
    assert result["precision_at_k"]["precision"] == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4, 3 / 5])
    assert result["precision_recall"]["precision"][5] == pytest.approx(2 / 3)
    assert result["precision_recall"]["recall"][5] == pytest.approx(2 / 3)


@pytest.mark.parametrize("at", [1, 7, 50, 1000])
@pytest.mark.parametrize("bits", [8, 16, 264])
def test_stable_ties_equal_the_naive_loop(at, bits):
    problem = random_problem(at + bits, bits=bits)
    assert_same(flatten(metrics.evaluate(*problem, at=at)), naive_evaluate(*problem, at=at))


def test_finer_grid_and_many_labels_equal_the_naive_loop():
    problem = random_problem(3, queries=4, database=612, labels=300, rate=0.05)
    assert_same(flatten(metrics.evaluate(*problem)), naive_evaluate(*problem))


@pytest.mark.parametrize("at", [3, 4, 50])
@pytest.mark.parametrize(
    "distances, shared",
    [
        ([0, 2, 2, 2, 2, 5], [0, 1, 0, 2, 0, 1]),
        ([1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 3]),
        ([0, 0, 3, 3, 8, 8], [1, 1, 0, 1, 0, 0]),
        ([4, 3, 4, 3, 4, 3], [0, 0, 0, 0, 0, 0]),
        ([1, 2, 3, 4, 5, 6], [0, 1, 2, 0, 1, 0]),
    ],
)
def test_averaged_ties_equal_the_mean_over_all_orders(distances, shared, at):
    query_codes, database_codes, query_labels, labels = problem_from_distances(distances, shared)
    orders = [
        flatten(metrics.evaluate(query_codes, database_codes[p], query_labels, labels[p], at=at))
        for p in map(list, itertools.permutations(range(len(distances))))
    ]
    expected = {name: np.mean([order[name] for order in orders], axis=0) for name in orders[0]}
    averaged = metrics.evaluate(
        query_codes, database_codes, query_labels, labels, at=at, ties="average"
    )
    assert_same(flatten(averaged), expected)


def test_averaged_ties_do_not_depend_on_the_order_of_the_database():
    query_codes, database_codes, query_labels, labels = random_problem(5, database=300, bits=8)
    order = np.random.default_rng(1).permutation(300)
    first, second = (
        flatten(metrics.evaluate(query_codes, c, query_labels, y, ties="average"))
        for c, y in ((database_codes, labels), (database_codes[order], labels[order]))
    )
    assert_same(first, second)


@pytest.mark.parametrize("ties", ["stable", "average"])
def test_blocks_and_threads_do_not_change_the_numbers(ties, monkeypatch):
    problem = random_problem(8, queries=40)
    whole = metrics.evaluate(*problem, ties=ties)
    base_rate = metrics.chance(*problem[2:])
    monkeypatch.setattr(metrics, "BLOCK_BYTES", 3 * 70 * metrics.BYTES_PER_PAIR)
    assert metrics.evaluate(*problem, ties=ties) == whole
    assert metrics.chance(*problem[2:]) == base_rate


@pytest.mark.parametrize("ties", ["stable", "average"])
def test_queries_without_relevant_items_count_zero(ties):
    problem = problem_from_distances([0, 1, 9], shared=[0, 0, 0])
    result = metrics.evaluate(*problem, ties=ties)
    for name in ("map", "map@50", "map@50_min_r", "ndcg@50", "precision@radius2"):
        assert result[name] == 0, name
    assert result["queries_without_relevant"] == 1
    assert set(result["precision_recall"]["recall"]) == {0}


@pytest.mark.parametrize("ties", ["stable", "average"])
def test_one_item_is_a_database(ties):
    result = metrics.evaluate(*problem_from_distances([3], shared=[1]), ties=ties)
    assert result["map"] == result["map@50"] == result["map@50_min_r"] == result["ndcg@50"] == 1
    assert result["precision@radius2"] == 0
    assert result["precision_at_k"] == {"k": [1], "precision": [1.0]}
    # No query retrieves anything below radius 3: those radii are left out.
    assert result["precision_recall"]["radius"] == [3, 4, 5, 6, 7, 8]
    assert result["precision_recall"]["precision"] == [1.0] * 6


def test_chance_is_the_base_rate():
    _, _, query_labels, labels = random_problem(2)
    pairs = [bool((q & d).any()) for q in query_labels for d in labels]
    assert metrics.chance(query_labels, labels) == pytest.approx(np.mean(pairs))
    assert metrics.chance(query_labels.astype(bool), labels) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(
    "size, first, last, points",
    [(1, 1, 1, 1), (40, 1, 40, 40), (612, 1, 610, 62), (18015, 1, 5000, 51)],
)
def test_precision_grid(size, first, last, points):
    grid = metrics.precision_grid(size)
    assert (grid[0], grid[-1], len(grid)) == (first, last, points)
    assert (np.diff(grid) > 0).all()


def replaced(position, value):
    problem = list(random_problem(0))
    problem[position] = value(problem[position])
    return problem


def with_nan(labels):
    labels = labels.astype(float)
    labels[4, 1] = np.nan
    return labels


@pytest.mark.parametrize(
    "position, value, message",
    [
        (0, lambda c: c[:, :1], "8 and 16 bits"),
        (0, lambda c: c[:0], "13 rows for 0 codes"),
        (1, lambda c: c.astype(float), "database codes must be packed"),
        (2, lambda y: y[:5], "query labels must have one row per code, received 5 rows for 13"),
        (2, lambda y: y[:, :4], "one width, received 4 and 5 labels"),
        (2, lambda y: y[:, 0], r"query labels must be multi-hot \[n, labels\]"),
        (2, lambda y: None, "query labels .* received None"),
        (2, with_nan, "query labels must be 0 or 1, received something else in row 4"),
        (3, lambda y: y * 2, "database labels must be 0 or 1"),
    ],
)
def test_bad_input_is_refused_in_one_line(position, value, message):
    with pytest.raises(ValueError, match=message) as error:
        metrics.evaluate(*replaced(position, value))
    assert "\n" not in str(error.value)


def test_empty_sets_and_unknown_options_are_refused():
    query_codes, database_codes, query_labels, labels = random_problem(0)
    with pytest.raises(ValueError, match="the query set is empty"):
        metrics.evaluate(query_codes[:0], database_codes, query_labels[:0], labels)
    with pytest.raises(ValueError, match="the database set is empty"):
        metrics.chance(query_labels, labels[:0])
    with pytest.raises(ValueError, match="ties must be"):
        metrics.evaluate(query_codes, database_codes, query_labels, labels, ties="random")
    for at in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="at must be"):
            metrics.evaluate(query_codes, database_codes, query_labels, labels, at=at)


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
    assert metrics.pair_reciprocal_rank(image, text) == pytest.approx(expected)
    assert metrics.pair_reciprocal_rank(text, image) == pytest.approx(expected)


def test_pair_reciprocal_rank_of_perfect_and_of_constant_codes():
    perfect = codes.pack(np.where(np.eye(16) > 0, 1, -1))
    assert metrics.pair_reciprocal_rank(perfect, perfect) == 1
    constant = codes.pack(np.ones((9, 16)))
    assert metrics.pair_reciprocal_rank(constant, constant) == pytest.approx(1 / 5)


def test_pair_reciprocal_rank_refuses_codes_that_are_no_pairs():
    packed = codes.pack(np.ones((3, 16)))
    for image, text in ((packed, packed[:2]), (packed[:0], packed[:0])):
        with pytest.raises(ValueError, match="expected as many of one as of the other, at least"):
            metrics.pair_reciprocal_rank(image, text)
    with pytest.raises(ValueError, match="16 and 8 bits"):
        metrics.pair_reciprocal_rank(packed, packed[:, :1])
