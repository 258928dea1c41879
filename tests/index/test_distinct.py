"""Distinct codes and their rows, against dictionaries."""

from __future__ import annotations

import numpy as np
import pytest
from index_helpers import random_codes, repeated_codes

from dsprh_tf.index import distinct
from dsprh_tf.index.distinct import DistinctCodes, code_keys
from dsprh_tf.index.recall import SAMPLE, Sample


def check(found: DistinctCodes, codes: np.ndarray, ids: np.ndarray) -> None:
    groups: dict[bytes, list[int]] = {}
    for row, code in enumerate(codes):
        groups.setdefault(code.tobytes(), []).append(row)
    assert (found.rows, found.count) == (len(codes), len(groups))
    everything = np.arange(found.count)
    np.testing.assert_array_equal(found.sizes(everything), [len(g) for g in groups.values()])
    rows = found.rows_of(everything, found.sizes(everything))
    wanted = [row for group in groups.values() for row in sorted(group, key=lambda r: ids[r])]
    np.testing.assert_array_equal(rows, wanted)
    lowest = [min(group, key=lambda r: ids[r]) for group in groups.values()]
    np.testing.assert_array_equal(found.first_rows(everything), lowest)
    query = np.concatenate([codes, random_codes(50, codes.shape[1] * 8, 77)])
    number = {code: i for i, code in enumerate(groups)}
    np.testing.assert_array_equal(found.find(codes, query),
                                  [number.get(code.tobytes(), -1) for code in query])  # fmt: skip


@pytest.mark.parametrize("bits", [8, 24, 64, 72, 128, 256])
@pytest.mark.parametrize("kinds_of_codes", ["random", "repeated", "one", "single", "none"])
def test_against_dictionaries(bits, kinds_of_codes):
    rng = np.random.default_rng(bits)
    codes = {
        "random": random_codes(400, bits),
        "repeated": repeated_codes(rng, 700, bits),
        "one": np.repeat(random_codes(1, bits), 300, axis=0),
        "single": random_codes(1, bits),
        "none": random_codes(0, bits),
    }[kinds_of_codes]
    ids = rng.permutation(10_000)[: len(codes)]
    found = DistinctCodes.of(codes, ids)
    check(found, codes, ids)
    check(DistinctCodes(np.array(found.table), len(codes), found.count), codes, ids)


def test_numbers_stay_when_rows_are_added():
    codes = repeated_codes(np.random.default_rng(0), 1000)
    ids = np.arange(1000)
    small, large = DistinctCodes.of(codes[:600], ids[:600]), DistinctCodes.of(codes, ids)
    np.testing.assert_array_equal(small.find(codes, codes[:600]), large.find(codes, codes[:600]))


@pytest.mark.parametrize("bits", [72, 128])
def test_codes_with_equal_keys_are_told_apart(bits, monkeypatch):
    """Long codes may share one by chance, or on purpose."""
    monkeypatch.setattr(distinct, "code_keys", lambda codes: codes[:, 0].astype(np.uint64) % 3)
    codes = repeated_codes(np.random.default_rng(0), 500, bits)
    ids = np.random.default_rng(1).permutation(500)
    check(DistinctCodes.of(codes, ids), codes, ids)


def test_keys_of_short_codes_are_unique():
    codes = np.array([[a, b] for a in range(256) for b in range(256)], np.uint8)
    assert len(np.unique(code_keys(codes))) == 2**16


def test_another_length_is_refused():
    table = DistinctCodes.of(random_codes(10), np.arange(10)).table
    for rows, count in ((10, 9), (11, 10), (9, 9)):
        with pytest.raises(ValueError, match="it has the shape .20., expected"):
            DistinctCodes(table, rows, count)


class TestSample:
    def test_the_order_does_not_count(self):
        codes = repeated_codes(np.random.default_rng(0), 3000)
        wanted = None
        for seed in range(3):
            order = np.random.default_rng(seed).permutation(3000)
            sample = Sample(64)
            for start in range(0, 3000, 700):
                part = order[start : start + 700]
                sample.add(part, codes[part])
            assert len(sample.codes) == SAMPLE
            np.testing.assert_array_equal(codes[sample.names], sample.codes)
            found = {code.tobytes() for code in sample.codes}
            assert len(found) == SAMPLE
            wanted = wanted or found
            assert found == wanted

    def test_every_code_is_as_likely_as_any_other(self):
        """Of 20,000 rows with one code and 400 others, all but one of the sample are others."""
        common = np.repeat(random_codes(1, 64, 1), 20_000, axis=0)
        hits = 0
        for seed in range(40):
            sample = Sample(64)
            codes = np.concatenate([common ^ np.uint8(seed), random_codes(399, 64, 100 + seed)])
            sample.add(np.arange(len(codes)), codes)
            hits += (sample.names < 20_000).sum()
        assert 2 <= hits <= 20  # 10 expected

    def test_fewer_codes_than_a_sample(self):
        sample = Sample(64)
        sample.add(np.arange(30), np.repeat(random_codes(3), 10, axis=0))
        assert sorted(sample.names) == [0, 10, 20]
