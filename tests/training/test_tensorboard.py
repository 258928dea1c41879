"""Code statistics against naive loops, and what is said of the curves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dsprh_tf import codes
from dsprh_tf.methods import METHODS
from dsprh_tf.training.curve_notes import curve_note
from dsprh_tf.training.tensorboard import bit_correlation, code_balance


def signs(items, bits, seed=0):
    """Codes of uneven, correlated bits."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((items, bits)) + np.linspace(-1, 1, bits)
    values[:, 1] += values[:, 0]
    return np.where(values >= 0, 1, -1)


def naive_correlation(rows):
    """Mean of |Pearson correlation| over all pairs of different bits."""
    items, bits = rows.shape
    total = 0.0
    for a in range(bits):
        for b in range(bits):
            if a == b:
                continue
            x, y = rows[:, a] - np.mean(rows[:, a]), rows[:, b] - np.mean(rows[:, b])
            spread = math.sqrt(sum(x * x) * sum(y * y))
            total += abs(sum(x * y)) / spread if spread else 0.0
    return total / (bits * (bits - 1))


@pytest.mark.parametrize("items, bits", [(1, 8), (2, 8), (40, 8), (40, 24)])
def test_statistics_equal_the_naive_loop(items, bits):
    rows = signs(items, bits)
    packed = codes.pack(rows)
    balance = np.mean([abs(sum(int(v) for v in column)) / items for column in rows.T])
    assert code_balance(packed) == pytest.approx(balance)
    assert bit_correlation(packed) == pytest.approx(naive_correlation(rows))


def test_statistics_of_extreme_codes():
    constant = codes.pack(np.ones((6, 8)))
    assert code_balance(constant) == 1
    assert bit_correlation(constant) == 0
    # One bit repeated, half of the copies inverted: balanced, and wholly correlated.
    repeated = np.array([[1], [-1], [1], [-1]]) * np.array([1, -1, 1, 1, -1, 1, -1, 1])
    assert code_balance(codes.pack(repeated)) == 0
    assert bit_correlation(codes.pack(repeated)) == pytest.approx(1)
    # All 256 bytes: balanced and uncorrelated.
    everything = np.arange(256, dtype=np.uint8)[:, None]
    assert code_balance(everything) == 0
    assert bit_correlation(everything) == 0


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_every_term_of_a_loss_is_explained(method):
    notes = [curve_note(f"loss/{name}", method.terms) for name in (*method.terms, "total")]
    assert len(set(notes)) == len(notes) > 1
    assert all("no unit. **Good:**" in note for note in notes)


def test_a_note_is_that_of_the_longest_name():
    def of(tag):
        return curve_note(f"validation/{tag}", {})

    assert len({of("map"), of("map@50_image_to_text"), of("recall"), of("recall@5_x")}) == 4
    assert of("map@50_image_to_text") == of("map@50_text_to_image")
    with pytest.raises(KeyError, match="validation/mrr"):
        of("mrr")
