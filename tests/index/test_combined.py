"""Several queries as one, and queries moved by items of the index."""

from __future__ import annotations

import numpy as np
import pytest
from index_helpers import image_items, learned_values, random_codes

from dsprh_tf import codes as binary
from dsprh_tf.index.combined import Combined, combined_values, moved
from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.queries import Encoded, Query


@pytest.fixture
def index():
    index = HammingIndex(64)
    index.add(random_codes(20), image_items(20))
    return index


TEXTS = learned_values(3, 64, seed=2)


def encode(kind, names):
    problems = {at: f"{name} is not known" for at, name in enumerate(names) if name == "xyzzy"}
    rows = {"dog": 0, "sea": 1, "a.jpg": 2, "xyzzy": 2}
    return Encoded(TEXTS[[rows[name] for name in names]], problems)


def test_values_are_sums(index):
    dog, sea, photo = Query("text", "dog"), Query("text", "sea"), Query("image", "a.jpg")
    searches = [
        Combined((dog,)),
        Combined((sea, photo)),
        Combined((dog, Query("like", "30"))),
        Combined((dog,), more=(0, 10), less=(20,)),
        Combined((), more=(50,)),
        Combined((sea, Query("text", "xyzzy"))),
    ]
    found = combined_values(index, searches, encode)
    assert found.problems == {5: "xyzzy is not known"} and found.good == [0, 1, 2, 3, 4]
    signs = binary.unpack(index.codes_of(10 * np.arange(20))).astype(np.float32)
    np.testing.assert_array_equal(found.values[0], TEXTS[0])
    np.testing.assert_allclose(found.values[1], TEXTS[1] + TEXTS[2], atol=1e-6)
    np.testing.assert_allclose(found.values[2], TEXTS[0] + signs[3], atol=1e-6)
    expected = TEXTS[0] + 0.75 * (signs[0] + signs[1]) / 2 - 0.15 * signs[2]
    np.testing.assert_allclose(found.values[3], expected, atol=1e-6)
    np.testing.assert_array_equal(binary.pack(found.values[4:5]), index.codes_of([50]))
    assert not found.values[5].any()
    with pytest.raises(ValueError, match="no item of the index has the id 7"):
        combined_values(index, [Combined((dog,), less=(7,))], encode)


def test_what_is_moved_away_from_is_farther():
    codes = np.sign(learned_values(2, 64, seed=4))
    start = learned_values(1, 64, seed=5)[0]
    near, far = codes
    there = moved(start, near[np.newaxis], far[np.newaxis])
    assert there @ near / np.abs(there).sum() > start @ near / np.abs(start).sum()
    assert there @ far / np.abs(there).sum() < start @ far / np.abs(start).sum()
    none = np.zeros((0, 64), np.float32)
    np.testing.assert_array_equal(moved(start, none, none), start)


@pytest.mark.parametrize(
    ("search", "line", "as_json", "own"),
    [
        (Combined((Query("text", "a dog"),)), "text: a dog", {"text": "a dog"}, set()),
        (
            Combined((Query("text", "sea"), Query("like", "7")), less=(5,)),
            "text: sea + like: 7 + less: 5",
            {"together": [{"text": "sea"}, {"like": "7"}], "less": ["5"]},
            {5, 7},
        ),
        (Combined((), more=(1, 2)), "more: 1, 2", {"more": ["1", "2"]}, {1, 2}),
    ],
)
def test_shown(search, line, as_json, own):
    assert str(search) == line
    assert search.as_json == as_json
    assert search.own == own
