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


def naive_ranking(distance, query_labels, database_labels, at=50):
    """The definitions that need only an order, one item at a time."""
    size = distance.shape[1]
    cut = min(at, size)
    ranks = metrics.recall_ranks(size)
    rows = {name: [] for name in ("map", "hits", "min_r", "ndcg", "p_at_k", "p_curve", "recall")}
    for q in range(len(distance)):
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
        rows["p_curve"].append([hits_at[k - 1] / k for k in ranks])
        if total:
            rows["recall"].append([hits_at[k - 1] / total for k in ranks])
    return {
        "map": np.mean(rows["map"]),
        f"map@{at}": np.mean(rows["hits"]),
        f"map@{at}_min_r": np.mean(rows["min_r"]),
        f"ndcg@{at}": np.mean(rows["ndcg"]),
        "precision_at_k": np.mean(rows["p_at_k"], axis=0),
        "rank": ranks,
        "precision": np.mean(rows["p_curve"], axis=0),
        "recall": np.mean(rows["recall"], axis=0) if rows["recall"] else np.zeros(len(ranks)),
    }


def naive_evaluate(query_codes, database_codes, query_labels, database_labels, at=50):
    """The definitions of `evaluate`: those of a ranking, and the curve over radii."""
    distance = codes.hamming_distance(query_codes, database_codes)
    bits = query_codes.shape[1] * 8
    result = naive_ranking(distance, query_labels, database_labels, at)
    del result["rank"]
    radius2, curve = [], [([], []) for _ in range(bits + 1)]
    for q in range(len(query_codes)):
        shared = [int((query_labels[q] * row).sum()) for row in database_labels]
        total = sum(s > 0 for s in shared)
        for radius in range(bits + 1):
            inside = [s > 0 for s, d in zip(shared, distance[q]) if d <= radius]
            precision = sum(inside) / len(inside) if inside else None
            if radius == 2:
                radius2.append(precision or 0)
            if inside:
                curve[radius][0].append(precision)
            if total:
                curve[radius][1].append(sum(inside) / total)
    kept = [r for r in range(bits + 1) if curve[r][0]]
    return {
        **result,
        "precision@radius2": np.mean(radius2),
        "radius": kept,
        "precision": [np.mean(curve[r][0]) for r in kept],
        "recall": [np.mean(curve[r][1]) if curve[r][1] else 0 for r in kept],
    }


def random_embeddings(seed, queries=13, database=70, size=6, labels=5, rate=0.2):
    """Small whole numbers, so that many cosines are equal, and zero rows."""
    rng = np.random.default_rng(seed)
    query, database = (rng.integers(-1, 2, (n, size)) for n in (queries, database))
    query[0] = database[3] = 0
    return (
        query.astype(float),
        database * rng.integers(1, 4, (len(database), 1)) * 0.7,  # a length changes no cosine
        (rng.random((queries, labels)) < rate).astype(np.uint8),
        (rng.random((len(database), labels)) < rate).astype(np.uint8),
    )


def naive_cosine_distance(query, database):
    def cosine(x, y):
        norms = math.sqrt(sum(a * a for a in x)) * math.sqrt(sum(b * b for b in y))
        return round(sum(a * b for a, b in zip(x, y)) / norms, 9) if norms else 0.0

    return np.array([[-cosine(x, y) for y in database] for x in query])


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


class TestCosine:
    @pytest.mark.parametrize("at", [1, 7, 50, 1000])
    @pytest.mark.parametrize("size", [1, 6, 40])
    def test_equals_the_naive_loop_in_both_directions(self, at, size):
        query, database, query_labels, labels = random_embeddings(at + size, size=size)
        for problem in (
            (query, database, query_labels, labels),
            (database, query, labels, query_labels),
        ):
            result = metrics.evaluate_cosine(*problem, at=at)
            expected = naive_ranking(naive_cosine_distance(*problem[:2]), *problem[2:], at=at)
            assert_same(flatten(result), expected)
            total = (problem[2].astype(int) @ problem[3].T > 0).sum(axis=1)
            assert result["queries_without_relevant"] == (total == 0).sum()

    def test_ranks_like_hamming_distance_on_signs(self):
        """For +-1 vectors cosine is 1 - 2 * distance / bits: all shared metrics must agree."""
        problem = random_problem(4, database=300)
        signs = [codes.unpack(side).astype(np.float32) for side in problem[:2]]
        by_codes = metrics.evaluate(*problem)
        by_cosine = metrics.evaluate_cosine(*signs, *problem[2:])
        for name in by_cosine:
            if name != "precision_recall":
                assert by_cosine[name] == by_codes[name], name

    def test_equal_items_tie_whatever_the_width_and_the_blocks(self, monkeypatch):
        rng = np.random.default_rng(0)
        row = rng.standard_normal((1, 333))
        query = rng.standard_normal((5, 333))
        database = np.concatenate([row * scale for scale in rng.random(101) + 0.1])
        labels = np.arange(101)[:, None] % 3 == 0
        expected = naive_ranking(np.zeros((5, 101)), np.ones((5, 1)), labels)
        for budget in (metrics.COSINE_BYTES, 16 * 340 * 7):
            monkeypatch.setattr(metrics, "COSINE_BYTES", budget)
            result = metrics.evaluate_cosine(query, database, np.ones((5, 1)), labels)
            assert_same(flatten(result), expected)

    def test_groups_blocks_and_types_do_not_change_the_numbers(self, monkeypatch):
        query, database, *labels = random_embeddings(8, queries=40)
        query, database = query.astype(np.float16), (database / 0.7).round().astype(np.int8)
        whole = metrics.evaluate_cosine(query, database, *labels)
        monkeypatch.setattr(metrics, "COSINE_BYTES", 4 * 70 * 9)
        monkeypatch.setattr(metrics, "BLOCK_BYTES", 3 * 70 * metrics.BYTES_PER_PAIR)
        small = metrics.evaluate_cosine(query.astype(float), database.astype(np.float32), *labels)
        assert small == whole

    def test_queries_without_relevant_items_count_zero(self):
        result = metrics.evaluate_cosine(np.ones((2, 3)), np.eye(3), np.eye(2, 3), np.zeros((3, 3)))
        assert result["queries_without_relevant"] == 2
        assert result["map"] == result["map@50"] == result["map@50_min_r"] == result["ndcg@50"] == 0
        assert set(result["precision_recall"]["recall"]) == {0}

    def test_one_item_is_a_database(self):
        result = metrics.evaluate_cosine([[0, 1]], [[1.5, 0]], [[1]], [[1]])
        assert result["map"] == result["map@50"] == result["map@50_min_r"] == result["ndcg@50"] == 1
        assert result["precision_at_k"] == {"k": [1], "precision": [1.0]}
        assert result["precision_recall"] == {"rank": [1], "precision": [1.0], "recall": [1.0]}

    @pytest.mark.parametrize(
        "position, value, message",
        [
            (0, lambda x: x[:, :5], "one width, received 5 and 6 dimensions"),
            (0, lambda x: x[:0], "13 rows for 0 codes"),
            (0, lambda x: with_nan(x), "query embeddings must be finite, .* in row 4"),
            (1, lambda x: np.where(np.arange(70)[:, None] == 66, np.inf, x), "database .* row 66"),
            (1, lambda x: x.astype(str), "database embeddings must be numbers"),
            (1, lambda x: x[0], r"must be numbers \[n, D\], received float64 \[6\]"),
            (3, lambda y: None, "database labels .* received None"),
        ],
    )
    def test_bad_input_is_refused_in_one_line(self, position, value, message, monkeypatch):
        monkeypatch.setattr(metrics, "COSINE_BYTES", 16 * 19 * 8)  # rows are counted over blocks
        problem = list(random_embeddings(0))
        problem[position] = value(problem[position])
        with pytest.raises(ValueError, match=message) as error:
            metrics.evaluate_cosine(*problem)
        assert "\n" not in str(error.value)

    def test_at_must_be_a_whole_number(self):
        with pytest.raises(ValueError, match="at must be"):
            metrics.evaluate_cosine(*random_embeddings(0), at=0)


@pytest.mark.parametrize("size", [1, 2, 40, 18015, 184577])
def test_recall_ranks(size):
    ranks = metrics.recall_ranks(size)
    assert (ranks[0], ranks[-1]) == (1, size)
    assert (np.diff(ranks) > 0).all()
    assert len(ranks) <= 100
