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


def test_soft_values_are_the_signs_and_how_sure_they_are():
    h = np.array([[3.0, -1, 0.5, 0, -8, 2, 2, -0.25], [0] * 8])
    soft = codes.soften(h)
    assert soft.dtype == np.float32
    mean = sum(abs(value) for value in h[0]) / 8
    np.testing.assert_allclose(soft[0], [np.tanh(v / mean) for v in h[0]], rtol=1e-6)
    assert not soft[1].any()
    np.testing.assert_array_equal(codes.soften(7 * h), soft)  # their size does not count
