"""Asymmetric ranking: the definition, candidates of engines, and pages of results."""

from __future__ import annotations

import numpy as np
import pytest
from index_helpers import assert_best, assert_same_results, dots, image_items, learned_values

from dsprh_tf import codes as binary
from dsprh_tf.index import asymmetric
from dsprh_tf.index.asymmetric import rank
from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.interface import Where

BITS, ITEMS = 64, 2000


@pytest.fixture(scope="module")
def values():
    """Hash values of items in clusters of some 50, softened; one code occurs 61 times."""
    values = learned_values(ITEMS, BITS)
    values[100:160] = values[5]
    return values


@pytest.fixture(scope="module")
def codes(values):
    return binary.pack(values)


@pytest.fixture(scope="module")
def query():
    return learned_values(6, BITS, seed=1)


def build(codes, kind="flat"):
    """Images with ids in another order than that of the rows."""
    index = HammingIndex(codes.shape[1] * 8, kind)
    order = np.random.default_rng(3).permutation(len(codes))
    index.add(codes[order], image_items(len(codes)).take(order))
    return index


@pytest.fixture(scope="module", params=["flat", "hnsw", "ivf", "hash"])
def index(request, codes):
    """Tests must leave it as it is."""
    return build(codes, request.param)


class TestExact:
    @pytest.mark.parametrize("k", [1, 10, 300, 2100])
    def test_equals_a_loop(self, index, codes, query, k):
        found = rank(index, query, k)
        assert (found.ids.dtype, found.distances.dtype) == (np.int64, np.int32)
        assert found.ids.shape == found.similarities.shape == (6, k)
        assert_best(found, codes, 10 * np.arange(len(codes)), query)

    def test_ties_are_in_the_order_of_ids(self, index, values):
        found = rank(index, values[5:6], 61)
        assert found.ids[0].tolist() == sorted([50, *range(1000, 1600, 10)])
        assert (found.similarities == 1).all() and (found.distances == 0).all()

    def test_filters_and_removed_items(self, index, codes, query):
        index = build(codes, index.kind)
        index.remove(10 * np.arange(0, ITEMS, 7))
        left = np.setdiff1d(np.arange(ITEMS), np.arange(0, ITEMS, 7))
        assert_best(rank(index, query, 20), codes[left], 10 * left, query)
        third = left[left % 3 == 0]
        found = rank(index, query, 20, Where(tag="third"))
        assert_best(found, codes[third], 10 * third, query)
        assert (rank(index, query, 3, Where(tag="none")).ids == -1).all()

    def test_zeros_are_as_near_to_all(self, index):
        found = rank(index, np.zeros((1, BITS), np.float32), 3)
        assert found.ids.tolist() == [[0, 10, 20]]
        assert (found.similarities == 0.5).all()

    def test_codes_are_ranked_by_hamming_distance(self, index, codes, query):
        """Packed, and as values; ties by id."""
        code = binary.pack(query)
        packed = rank(index, code, 12)
        assert_same_results(packed, codes, 10 * np.arange(ITEMS), code, 12)
        assert_best(packed, codes, 10 * np.arange(ITEMS), binary.unpack(code))
        signs = rank(index, 0.5 * binary.unpack(code).astype(np.float32), 12)
        np.testing.assert_array_equal(packed.ids, signs.ids)
        expected = (1 - packed.distances / BITS).astype(np.float32)
        np.testing.assert_array_equal(packed.similarities, expected)

    def test_codes_and_values_in_one_search(self, index, codes, query):
        mixed = np.concatenate([query[:1], binary.unpack(codes[7:8]), query[1:2]])
        found = rank(index, mixed.astype(np.float32), 8)
        for row, one in enumerate(mixed.astype(np.float32)):
            alone = rank(index, one[np.newaxis], 8)
            np.testing.assert_array_equal(found.ids[row], alone.ids[0])
            np.testing.assert_array_equal(found.similarities[row], alone.similarities[0])


class TestCandidates:
    """A collection that counts as too large to be ranked as a whole."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr(asymmetric, "EXACT", 100)

    @pytest.fixture(scope="class")
    def limits(self, codes, query):
        """Similarity of the tenth best item of each query, but for rounding."""
        return [np.sort(dots(codes, one))[-10] - 2e-6 for one in query]

    def test_recall(self, index, query, limits):
        found = rank(index, query, 10)
        shares = [(s >= limit).mean() for s, limit in zip(found.similarities, limits)]
        assert np.mean(shares) > (0.99 if index.kind == "flat" else 0.9)
        assert (np.diff(found.similarities, axis=1) <= 0).all()
        for row, one in enumerate(query):
            stored = index.codes_of(found.ids[row])
            similarities = binary.asymmetric_similarity(one[np.newaxis], stored)[0]
            np.testing.assert_array_equal(found.similarities[row], similarities)

    def test_few_candidates_find_less(self, codes, query, limits):
        index = build(codes)

        def share(oversample):
            found = rank(index, query, 10, oversample=oversample).similarities
            return (found >= np.array(limits)[:, np.newaxis]).mean()

        assert share(1) < share(3) <= share(16)
        assert share(16) == 1

    @pytest.mark.parametrize("oversample", [1, 4, 16, 1000])
    def test_more_results_begin_with_those_of_fewer(self, index, query, oversample):
        """From one number of candidates to the next, to the end, without any twice."""
        whole = rank(index, query, ITEMS + 100, oversample=oversample)
        for k in (1, 10, 24, 25, 96, 97, 500, 1500):
            found = rank(index, query, k, oversample=oversample)
            np.testing.assert_array_equal(found.ids, whole.ids[:, :k])
            np.testing.assert_array_equal(found.similarities, whole.similarities[:, :k])
        for names in whole.ids:
            assert sorted(names[names >= 0].tolist()) == list(range(0, 10 * ITEMS, 10))

    def test_codes_need_no_more_candidates(self, index, query):
        code = binary.pack(query)
        whole = rank(index, code, 300)
        found = rank(index, code, 20)
        np.testing.assert_array_equal(found.ids, whole.ids[:, :20])
        if index.kind == "flat":
            np.testing.assert_array_equal(found.distances, index.search(code, 20).distances)

    def test_few_admitted_items_are_all_compared(self, index, codes, query):
        where = Where(prefix="/pictures/odd/19")
        rows = np.array([i for i in range(1, ITEMS, 2) if str(i).startswith("19")])
        assert_best(rank(index, query, 60, where), codes[rows], 10 * rows, query)


def test_what_is_refused(codes, query):
    index = build(codes[:50])
    with pytest.raises(ValueError, match="oversample is 0, expected at least 1"):
        rank(index, query, 5, oversample=0)
    with pytest.raises(ValueError, match="k is 0, expected at least 1"):
        rank(index, query, 0)
    with pytest.raises(ValueError, match=r"query values are \[6, 32\], the index has 64 bits"):
        rank(index, query[:, :32])
    with pytest.raises(ValueError, match="must be finite"):
        rank(index, np.full((1, BITS), np.nan))
    with pytest.raises(ValueError, match="the index is empty"):
        rank(HammingIndex(BITS), query)
