"""Sign convention, packing and Hamming distance against hand-written and naive results."""

from __future__ import annotations

import numpy as np
import pytest

from dsprh_tf import codes


def test_first_bit_is_the_most_significant_and_zero_is_plus_one():
    h = np.array([[0.0, -0.1, -1, -1, -1, -1, -1, 2], [-0.0, 3, -1, -1, -1, -1, -1, -1]])
    np.testing.assert_array_equal(codes.pack(h), np.array([[0b10000001], [0b11000000]], np.uint8))


@pytest.mark.parametrize("bits", [8, 64, 136])
def test_unpack_inverts_pack(bits):
    signs = np.random.default_rng(bits).choice([-1, 1], (7, bits)).astype(np.int8)
    packed = codes.pack(signs)
    assert packed.shape == (7, bits // 8)
    assert codes.unpack(packed).dtype == np.int8
    np.testing.assert_array_equal(codes.unpack(packed), signs)


@pytest.mark.parametrize("bits", [8, 128, 256, 512])
def test_hamming_distance_equals_counting(bits):
    rng = np.random.default_rng(0)
    query, database = rng.standard_normal((5, bits)), rng.standard_normal((9, bits))
    query[0], database[0] = 1, -1  # the largest distance
    expected = ((query[:, None] >= 0) != (database[None] >= 0)).sum(axis=2)
    distance = codes.hamming_distance(codes.pack(query), codes.pack(database))
    assert distance.dtype == np.uint16
    assert distance[0, 0] == bits
    np.testing.assert_array_equal(distance, expected)


def test_counting_bits_by_shifts_for_numpy_1():
    words = np.random.default_rng(0).integers(0, 2**64, 200, np.uint64)
    words[:2] = 0, 2**64 - 1
    expected = [bin(int(word)).count("1") for word in words]
    np.testing.assert_array_equal(codes._count_bits_by_shifts(words), expected)


def test_empty_sets_have_no_distances():
    empty = np.zeros((0, 2), np.uint8)
    assert codes.hamming_distance(empty, np.zeros((3, 2), np.uint8)).shape == (0, 3)
    assert codes.unpack(empty).shape == (0, 16)


@pytest.mark.parametrize("bits", [0, -8, 12, 64.0, True, "64"])
def test_odd_code_lengths_are_refused(bits):
    with pytest.raises(ValueError, match="positive multiple of 8"):
        codes.check_bits(bits)


def test_bad_hash_values_are_refused():
    with pytest.raises(ValueError, match="multiple of 8, received 12"):
        codes.pack(np.zeros((2, 12)))
    with pytest.raises(ValueError, match=r"shape \[8\]"):
        codes.pack(np.zeros(8))
    h = np.zeros((3, 8))
    h[1, 4] = np.nan
    with pytest.raises(ValueError, match="row 1"):
        codes.pack(h)


@pytest.mark.parametrize(
    "packed", [np.zeros((2, 8)), np.zeros(8, np.uint8), np.zeros((2, 0), np.uint8)]
)
def test_arrays_that_are_not_packed_codes_are_refused(packed):
    with pytest.raises(ValueError, match="codes.pack"):
        codes.unpack(packed)


def test_widths_must_agree():
    with pytest.raises(ValueError, match="16 and 32 bits"):
        codes.hamming_distance(np.zeros((1, 2), np.uint8), np.zeros((1, 4), np.uint8))


def naive_similarity(values, packed):
    """By the definition, one bit at a time."""
    found = np.zeros((len(values), len(packed)))
    for row, one in enumerate(values.tolist()):
        for column, code in enumerate(np.unpackbits(packed, axis=1).tolist()):
            total = sum(abs(q) for q in one)
            dot = sum(q if bit else -q for q, bit in zip(one, code))
            found[row, column] = (1 + dot / total) / 2 if total else 0.5
    return found


class TestAsymmetric:
    def test_soften_is_the_definition(self):
        h = np.random.default_rng(0).standard_normal((5, 16)) * [[1], [1e-30], [1e30], [0], [7]]
        found = codes.soften(h.astype(np.float32))
        assert found.dtype == np.float32
        assert not found[3].any()
        for row in (0, 1, 2, 4):
            expected = np.tanh(h[row] / np.mean(np.abs(h[row])))
            np.testing.assert_allclose(found[row], expected, rtol=1e-5)
        np.testing.assert_array_equal(codes.pack(found), codes.pack(h))
        assert codes.soften(np.zeros((0, 8))).shape == (0, 8)

    @pytest.mark.parametrize("bits", [8, 24, 64, 136])
    @pytest.mark.parametrize("scale", [1, 1e-20, 1e20])
    def test_similarity_equals_a_loop(self, bits, scale):
        rng = np.random.default_rng(bits)
        values = rng.standard_normal((4, bits)) * scale
        values[2] = 0
        values[3, 5:] = 0
        packed = rng.integers(0, 256, (30, bits // 8), np.uint8)
        found = codes.asymmetric_similarity(values.astype(np.float32), packed)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, naive_similarity(values, packed), atol=1e-6)
        assert (found[2] == 0.5).all()
        own = codes.pack(values)
        most, least = (codes.asymmetric_similarity(values, each) for each in (own, ~own))
        np.testing.assert_array_equal(np.diag(most)[[0, 1, 3]], 1)
        np.testing.assert_array_equal(np.diag(least)[[0, 1, 3]], 0)
        assert ((found >= 0) & (found <= 1)).all()

    @pytest.mark.parametrize("bits", [24, 128])
    def test_of_a_code_it_is_the_hamming_distance(self, bits):
        packed = np.random.default_rng(1).integers(0, 256, (200, bits // 8), np.uint8)
        similarity = codes.asymmetric_similarity(0.3 * codes.unpack(packed[:5]), packed)
        distance = codes.hamming_distance(packed[:5], packed)
        np.testing.assert_allclose(similarity, 1 - distance / bits, atol=1e-6)
        for one, near in zip(similarity, distance):  # ties are ties, to the last digit
            assert len(np.unique(one)) == len(np.unique(near))

    def test_equal_codes_have_equal_similarities(self, monkeypatch):
        """Wherever they stand, beside whatever, and in blocks of any size."""
        rng = np.random.default_rng(2)
        values = codes.soften(rng.standard_normal((3, 64)))
        packed = rng.integers(0, 256, (500, 8), np.uint8)
        whole = codes.asymmetric_similarity(values, packed)
        monkeypatch.setattr(codes, "_BLOCK", 7)
        order = rng.permutation(500)
        np.testing.assert_array_equal(
            codes.asymmetric_similarity(values, packed[order]), whole[:, order]
        )
        np.testing.assert_array_equal(
            codes.asymmetric_similarity(values[1:2], packed[40:41]), whole[1:2, 40:41]
        )
        assert codes.asymmetric_similarity(values, packed[:0]).shape == (3, 0)
        assert codes.asymmetric_similarity(values[:0], packed).shape == (0, 500)

    def test_what_is_refused(self):
        packed = np.zeros((2, 2), np.uint8)
        with pytest.raises(ValueError, match="24 and 16 bits"):
            codes.asymmetric_similarity(np.zeros((1, 24)), packed)
        with pytest.raises(ValueError, match="must be finite, received nan or inf in row 0"):
            codes.asymmetric_similarity(np.full((1, 16), np.inf), packed)
        with pytest.raises(ValueError, match="must be finite"):
            codes.soften(np.full((1, 8), np.nan))
        with pytest.raises(ValueError, match="database codes must be packed codes"):
            codes.asymmetric_similarity(np.zeros((1, 16)), packed.astype(float))
