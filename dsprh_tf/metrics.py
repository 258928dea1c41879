"""Retrieval metrics from packed codes, or from embeddings, and multi-hot labels.

An item is relevant to a query if they share at least one label. The database is ranked by
Hamming distance, embeddings by cosine. A code of K bits has only K + 1 distances, so there are
many ties; `ties` says how they are counted:

* `"stable"`: tied items keep the order of the database, as in the published evaluations.
* `"average"`: the exact expectation over all orders of the tied items, which does not depend on
  the order of the database (McSherry and Najork, "Computing information retrieval performance
  measures efficiently in the presence of tied scores", ECIR 2008).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dsprh_tf import codes

BLOCK_BYTES = 8 * 2**20
"""Working memory per thread: queries are scored in blocks that need about this much."""

BYTES_PER_PAIR = 32
"""Peak working memory of one query-database pair (distance, order, shared labels, hits)."""

COSINE_BYTES = 128 * 2**20
"""Size of a block of cosines: a matrix product of few queries would wait for memory."""


def evaluate(
    query_codes: np.ndarray,
    database_codes: np.ndarray,
    query_labels: np.ndarray,
    database_labels: np.ndarray,
    at: int = 50,
    ties: str = "stable",
) -> dict:
    """All metrics of one retrieval direction, each a mean over the queries.

    With `rel(i)` the relevance (0 or 1) of the item at rank i, `hits(i) = rel(1) + ... + rel(i)`,
    `R = min(at, database)` and `S(n) = sum_{i <= n} rel(i) * hits(i) / i`:

    * `map`: `S(database) / relevant items`; a query without a relevant item counts 0.
    * `map@50`: `S(R) / hits(R)`, the convention of DJSRH, DSAH and DSPRH; without a hit 0.
    * `map@50_min_r`: `S(R) / min(R, relevant items)`.
    * `ndcg@50`: gain `2^(shared labels) - 1`, discount `1 / log2(1 + rank)`, the form of the
      multi-label hashing literature (Zhao et al., CVPR 2015); without a relevant item 0.
    * `precision@radius2`: relevant share of the items within Hamming distance 2; 0 if none is.
    * `precision_at_k`: `hits(k) / k` over the grid of `precision_grid`.
    * `precision_recall`: one point per Hamming radius 0 ... bits. Precision is the mean over the
      queries that retrieve something within the radius, recall the mean over the queries that
      have a relevant item. Radii within which no query retrieves anything have no precision and
      are left out; `radius` lists those that remain.
    * `queries_without_relevant`: how many queries have no relevant item at all.

    With `ties="average"`, each is the expectation over the orders of the tied items. A group of
    n tied items, r of them relevant, with a items and A hits before it, adds to `S`

        sum_{j <= n} (r / n) * (A + 1 + (j - 1) * (r - 1) / (n - 1)) / (a + j);

    in `map@50`, whose divisor is random too, the hits of the group that rank R cuts follow the
    hypergeometric distribution, and the expectation is the sum over them.

    Args:
        query_codes: uint8 `[nq, bits / 8]`, packed.
        database_codes: uint8 `[nd, bits / 8]`, packed.
        query_labels: `[nq, labels]` of 0 and 1.
        database_labels: `[nd, labels]` of 0 and 1.
        at: Cut-off R of the metrics that carry it in their name.
        ties: `"stable"` or `"average"`.

    Returns:
        A dictionary of floats and lists under the names above (`50` stands for `at`).

    Raises:
        ValueError: For empty sets, codes or labels of different widths or numbers of rows,
            labels other than 0 and 1, `at` below 1 or an unknown `ties`.
    """
    codes.check_same_width(query_codes, database_codes)
    _check_at(at)
    if ties not in ("stable", "average"):
        raise ValueError(f"ties must be 'stable' or 'average', received {ties!r}")
    queries, size, bits = len(query_codes), len(database_codes), query_codes.shape[1] * 8
    query_labels, database_labels = _label_words(query_labels, database_labels, queries, size)
    query_codes, database_codes = codes.to_words(query_codes), codes.to_words(database_codes)
    cut = min(int(at), size)
    grid = precision_grid(size)
    rank_all = _rank_stable if ties == "stable" else _rank_average

    def score(rows: slice) -> dict[str, np.ndarray]:
        distance = codes.count_pairs(np.bitwise_xor, query_codes[:, rows], database_codes)
        shared = codes.count_pairs(np.bitwise_and, query_labels[:, rows], database_labels)
        items, relevant = _histograms(distance, shared, bits)
        ranked = rank_all(distance, shared, items, relevant, cut, grid)
        return {
            **_scores(ranked, shared, relevant.sum(axis=1), cut, grid),
            "items": items.cumsum(axis=1),
            "relevant": relevant.cumsum(axis=1),
        }

    scores = _join(_map_blocks(score, queries, size))
    items, relevant = scores["items"], scores["relevant"]  # [nq, bits + 1], within each radius
    precision = relevant / np.maximum(items, 1)
    answered = (items > 0).sum(axis=0)
    radius = np.flatnonzero(answered)
    return {
        **_means(scores, at, grid),
        "precision@radius2": float(precision[:, 2].mean()),
        "precision_recall": {
            "radius": radius.tolist(),
            "precision": (precision.sum(axis=0)[radius] / answered[radius]).tolist(),
            "recall": _recall(relevant, scores["total"])[radius].tolist(),
        },
    }


def evaluate_cosine(
    query: np.ndarray,
    database: np.ndarray,
    query_labels: np.ndarray,
    database_labels: np.ndarray,
    at: int = 50,
) -> dict:
    """The metrics of `evaluate` for embeddings ranked by cosine similarity.

    Embeddings have no Hamming radius: there is no `precision@radius2`, and `precision_recall` has
    a point per rank of `recall_ranks` (`rank` in place of `radius`): the mean precision of all
    queries, and the mean recall of those that have a relevant item.

    Cosines are computed in float64 and rounded to multiples of 2^-30, so that equal embeddings
    tie however a matrix product orders its sums; tied items keep the order of the database. A
    zero row has cosine 0 with everything.

    Args:
        query: Numbers `[nq, D]`, of any real type.
        database: Numbers `[nd, D]`; converted in blocks, so a memory map will do.
        query_labels: `[nq, labels]` of 0 and 1.
        database_labels: `[nd, labels]` of 0 and 1.
        at: Cut-off R of the metrics that carry it in their name.

    Returns:
        A dictionary of floats and lists, named as in `evaluate`.

    Raises:
        ValueError: For empty sets, embeddings or labels of different widths or numbers of rows,
            embeddings that are not finite, labels other than 0 and 1, or `at` below 1.
    """
    query, database = _check_embeddings(query, database)
    _check_at(at)
    queries, size = len(query), len(database)
    query_labels, database_labels = _label_words(query_labels, database_labels, queries, size)
    cut = min(int(at), size)
    grid, ranks = precision_grid(size), recall_ranks(size)

    def score(keys: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        shared = codes.count_pairs(np.bitwise_and, labels, database_labels)
        ranked = _rank_stable(keys, shared, None, None, cut, np.append(grid, ranks))
        ranked["hits"], hits_at_ranks = np.split(ranked["hits"], [len(grid)], axis=1)
        scores = _scores(ranked, shared, np.count_nonzero(shared, axis=1), cut, grid)
        return {**scores, "hits": hits_at_ranks}

    def score_group(start: int) -> list[dict[str, np.ndarray]]:
        rows = slice(start, min(start + group, queries))
        keys = cosine_keys(query[rows], database, start)  # by all cores, before the threads
        labels = query_labels[:, rows]
        return _map_blocks(lambda block: score(keys[block], labels[:, block]), len(keys), size)

    group = max(1, COSINE_BYTES // (4 * size))
    scores = _join([block for start in range(0, queries, group) for block in score_group(start)])
    return {
        **_means(scores, at, grid),
        "precision_recall": {
            "rank": ranks.tolist(),
            "precision": (scores["hits"] / ranks).mean(axis=0).tolist(),
            "recall": _recall(scores["hits"], scores["total"]).tolist(),
        },
    }


def chance(query_labels: np.ndarray, database_labels: np.ndarray) -> float:
    """Base rate: the probability that a random database item is relevant to a random query.

    Random codes have this precision and, in a large database, this MAP.

    Args:
        query_labels: `[nq, labels]` of 0 and 1.
        database_labels: `[nd, labels]` of 0 and 1.

    Returns:
        The relevant share of all query-database pairs.

    Raises:
        ValueError: For empty sets, different widths, or labels other than 0 and 1.
    """
    query, database = _label_words(query_labels, database_labels)
    queries, size = query.shape[1], database.shape[1]

    def count(rows: slice) -> int:
        return np.count_nonzero(codes.count_pairs(np.bitwise_and, query[:, rows], database))

    return sum(_map_blocks(count, queries, size)) / (queries * size)


def precision_grid(size: int) -> np.ndarray:
    """Ranks k at which precision@k is reported.

    From 5,000 database items on, the grid of the literature: 1, 100, 200, ..., 5,000. Below, 1 and
    the multiples of the largest of 1, 2, 5, 10, 20, 50 that leaves at least 50 points.

    Args:
        size: Number of database items.

    Returns:
        int64 `[points]`, increasing, the last at most `size`.
    """
    step = 100 if size >= 5000 else max(s for s in (1, 2, 5, 10, 20, 50) if s * 50 <= max(size, 50))
    return np.unique(np.append(1, np.arange(step, min(size, 5000) + 1, step)))


def recall_ranks(size: int) -> np.ndarray:
    """Ranks of the precision-recall curve of embeddings: at most 100, log-spaced, 1 to `size`.

    Args:
        size: Number of database items.

    Returns:
        int64 `[points]`, increasing.
    """
    return np.unique(np.geomspace(1, size, 100).round().astype(np.int64))


def _check_at(at) -> None:
    if isinstance(at, bool) or not isinstance(at, (int, np.integer)) or at < 1:
        raise ValueError(f"at must be a whole number of at least 1, received {at!r}")


def _check_embeddings(query, database) -> tuple[np.ndarray, np.ndarray]:
    query, database = np.asarray(query), np.asarray(database)
    for name, rows in (("query", query), ("database", database)):
        if rows.ndim != 2 or rows.dtype.kind not in "biuf" or rows.shape[1] == 0:
            received = f"{rows.dtype} {list(rows.shape)}"
            raise ValueError(f"{name} embeddings must be numbers [n, D], received {received}")
    if query.shape[1] != database.shape[1]:
        raise ValueError(
            f"query and database embeddings must have one width, received {query.shape[1]} and "
            f"{database.shape[1]} dimensions"
        )
    return query, database


def cosine_keys(query: np.ndarray, database: np.ndarray, first: int = 0) -> np.ndarray:
    """int32 `[nq, nd]` that rank as falling cosines do: -2^30 times the cosine, rounded.

    Args:
        query: Floating `[nq, D]`.
        database: Floating `[nd, D]`.
        first: Number of the first query, for errors.

    Raises:
        ValueError: If a value is not finite.
    """
    query = _unit("query", query, first)
    keys = np.empty((len(query), len(database)), np.int32)
    step = max(1, COSINE_BYTES // (16 * (len(query) + database.shape[1])))
    for start in range(0, len(database), step):
        block = slice(start, start + step)
        cosine = query @ _unit("database", database[block], start).T
        cosine *= -(2.0**30)
        keys[:, block] = np.rint(cosine, out=cosine)
    return keys


def _unit(name: str, rows: np.ndarray, first: int) -> np.ndarray:
    """Rows of length 1 in float64; zero rows stay zero, and rows must be finite."""
    rows = rows.astype(np.float64)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{name} embeddings must be finite, received nan or inf in row "
            f"{first + int(np.argmin(finite))}"
        )
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)


def _scores(ranked: dict, shared: np.ndarray, total: np.ndarray, cut: int, grid) -> dict:
    """Scores of each query from its ranked sums; `total` counts its relevant items."""
    return {
        "ap": ranked["sum"] / np.maximum(total, 1),
        "ap_hits": ranked["ap_hits"],
        "ap_min_r": ranked["sum_cut"] / np.clip(total, 1, cut),
        "ndcg": ranked["dcg"] / _ideal_dcg(shared, cut),
        "precision_at_k": ranked["hits"] / grid,
        "total": total,
    }


def _means(scores: dict, at: int, grid: np.ndarray) -> dict:
    """Means over the queries, by the names of the results."""
    return {
        "map": float(scores["ap"].mean()),
        f"map@{at}": float(scores["ap_hits"].mean()),
        f"map@{at}_min_r": float(scores["ap_min_r"].mean()),
        f"ndcg@{at}": float(scores["ndcg"].mean()),
        "queries_without_relevant": int((scores["total"] == 0).sum()),
        "precision_at_k": {
            "k": grid.tolist(),
            "precision": scores["precision_at_k"].mean(axis=0).tolist(),
        },
    }


def _recall(hits: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Mean recall `[points]` of hits `[nq, points]` over queries that have a relevant item."""
    solvable = total > 0
    if not solvable.any():
        return np.zeros(hits.shape[1])
    return (hits[solvable] / total[solvable, None]).mean(axis=0)


def _join(blocks: list) -> dict[str, np.ndarray]:
    """The arrays of all blocks of queries, one after another."""
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _label_words(query, database, query_rows=None, database_rows=None):
    """Both label arrays as words of bits, after checks of shape and values."""
    checked = []
    for name, labels, rows in (
        ("query", query, query_rows),
        ("database", database, database_rows),
    ):
        if labels is None:
            raise ValueError(f"{name} labels must be a multi-hot array [n, labels], received None")
        labels = np.asarray(labels)
        if labels.ndim != 2:
            raise ValueError(
                f"{name} labels must be multi-hot [n, labels], received shape {list(labels.shape)}"
            )
        if len(labels) == 0:
            raise ValueError(f"the {name} set is empty; metrics need at least one item")
        if rows is not None and len(labels) != rows:
            raise ValueError(
                f"{name} labels must have one row per code, received {len(labels)} rows for "
                f"{rows} codes"
            )
        bad = ~((labels == 0) | (labels == 1)).all(axis=1)
        if bad.any():
            raise ValueError(
                f"{name} labels must be 0 or 1, received something else in row "
                f"{int(bad.argmax())} and {int(bad.sum()) - 1} other rows"
            )
        checked.append(labels.astype(bool))
    if checked[0].shape[1] != checked[1].shape[1]:
        raise ValueError(
            f"query and database labels must have one width, received {checked[0].shape[1]} and "
            f"{checked[1].shape[1]} labels"
        )
    return [codes.to_words(np.packbits(labels, axis=1)) for labels in checked]


def _map_blocks(function, rows: int, size: int) -> list:
    """`function(slice)` over blocks of queries, in threads: NumPy's sorts release the lock."""
    block = max(1, BLOCK_BYTES // (BYTES_PER_PAIR * size))
    slices = [slice(start, start + block) for start in range(0, rows, block)]
    if len(slices) == 1:
        return [function(slices[0])]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, len(slices))) as pool:
        return list(pool.map(function, slices))


def _histograms(distance: np.ndarray, shared: np.ndarray, bits: int):
    """Items and relevant items at each distance, two int64 `[rows, bits + 1]`."""
    rows = len(distance)
    key = distance.astype(np.int64)
    key += np.arange(rows)[:, None] * (bits + 1)
    key *= 2
    key += shared > 0
    count = np.bincount(key.ravel(), minlength=rows * (bits + 1) * 2).reshape(rows, bits + 1, 2)
    return count.sum(axis=2), count[:, :, 1]


def _rank_stable(distance, shared, items, relevant, cut, grid) -> dict[str, np.ndarray]:
    """Sums over the ranking in which tied items keep the order of the database."""
    order = np.argsort(distance, axis=1, kind="stable")  # a radix sort for 8 and 16 bit keys
    # Row by row: three times as fast as take_along_axis, which builds a second index array.
    shared = np.stack([row.take(index) for row, index in zip(shared, order)])
    rel = shared > 0
    hits = np.cumsum(rel, axis=1, dtype=np.int32)
    precision = hits / np.arange(1, hits.shape[1] + 1)
    precision *= rel
    sum_cut = precision[:, :cut].sum(axis=1)
    return {
        "sum": precision.sum(axis=1),
        "sum_cut": sum_cut,
        "ap_hits": sum_cut / np.maximum(hits[:, cut - 1], 1),
        "hits": hits[:, grid - 1],
        "dcg": (_gain(shared[:, :cut]) * _discount(cut)).sum(axis=1),
    }


def _rank_average(distance, shared, items, relevant, cut, grid) -> dict[str, np.ndarray]:
    """Expectation of the same sums over all orders of the tied items, from histograms alone."""
    rows, groups = items.shape
    before = items.cumsum(axis=1) - items
    hits_before = relevant.cumsum(axis=1) - relevant
    size = distance.shape[1]
    harmonic = np.append(0.0, np.cumsum(1 / np.arange(1, size + 1)))

    def tied_sum(start, hits, taken, r, n):
        """Expected sum over the first `taken` of n tied items, r relevant (formula above)."""
        first = harmonic[start + taken] - harmonic[start]  # sum of 1 / (a + j)
        second = taken - (start + 1) * first  # sum of (j - 1) / (a + j)
        slope = (r - 1) / np.maximum(n - 1, 1)
        return r / np.maximum(n, 1) * ((hits + 1) * first + slope * second)

    full = tied_sum(before, hits_before, items, relevant, items)
    taken = np.clip(cut - before, 0, items)
    partial = tied_sum(before, hits_before, taken, relevant, items)

    # The group that rank `cut` falls into: its hits h above the cut are hypergeometric.
    group = (items.cumsum(axis=1) < cut).sum(axis=1)
    a, hits, n, r = (
        array[np.arange(rows), group][:, None] for array in (before, hits_before, items, relevant)
    )
    m = cut - a
    settled = np.where(np.arange(groups) < group[:, None], full, 0).sum(axis=1, keepdims=True)
    h = np.arange(cut + 1)[None, :]
    possible = (h <= r) & (h <= m) & (m - h <= n - r)
    log_factorial = np.append(0.0, np.cumsum(np.log(np.arange(1, size + 1))))

    def log_choose(total, chosen):
        chosen = np.clip(chosen, 0, total)
        return log_factorial[total] - log_factorial[chosen] - log_factorial[total - chosen]

    log_probability = log_choose(r, h) + log_choose(n - r, m - h) - log_choose(n, m)
    probability = np.where(possible, np.exp(np.where(possible, log_probability, 0)), 0)
    ap = (settled + tied_sum(a, hits, m, h, m)) / np.maximum(hits + h, 1)

    # Expected gain of a tied group is spread evenly over the discounts of its ranks.
    key = distance + np.arange(rows)[:, None] * groups
    gains = np.bincount(key.ravel(), _gain(shared).ravel(), rows * groups).reshape(rows, groups)
    discount = np.append(0.0, np.cumsum(_discount(cut)))
    spread = discount[np.minimum(before + items, cut)] - discount[np.minimum(before, cut)]
    ends = np.pad(items, ((0, 0), (1, 0))).cumsum(axis=1)
    hit_ends = np.pad(relevant, ((0, 0), (1, 0))).cumsum(axis=1)
    return {
        "sum": full.sum(axis=1),
        "sum_cut": partial.sum(axis=1),
        "ap_hits": (probability * ap).sum(axis=1),
        "hits": np.stack([np.interp(grid, x, y) for x, y in zip(ends, hit_ends)]),
        "dcg": (gains / np.maximum(items, 1) * spread).sum(axis=1),
    }


def _gain(shared: np.ndarray) -> np.ndarray:
    return np.exp2(shared.astype(np.float64)) - 1


def _discount(cut: int) -> np.ndarray:
    return 1 / np.log2(np.arange(2, cut + 2))


def _ideal_dcg(shared: np.ndarray, cut: int) -> np.ndarray:
    """DCG of the best ranking, `[rows]`, and 1 for rows without a relevant item.

    Telescoped over grades: raising a grade from g - 1 to g adds the difference of their gains to
    the first `number of items of at least grade g` ranks.
    """
    rows, grades = len(shared), int(shared.max()) + 1
    key = shared + np.arange(rows)[:, None] * grades
    count = np.bincount(key.ravel(), minlength=rows * grades).reshape(rows, grades)
    at_least = count[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    discount = np.append(0.0, np.cumsum(_discount(cut)))
    steps = np.diff(_gain(np.arange(grades)))
    ideal = (discount[np.minimum(at_least, cut)] * steps).sum(axis=1)
    return np.where(ideal > 0, ideal, 1)
