"""Cells of a manifest: lists spelled as text, texts, ids, names of images."""

from __future__ import annotations

import decimal
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsprh_tf.data import cells

SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text()
LISTS = st.lists(SCALARS, max_size=6)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[]", []),
        ("{}", {}),
        ("['a', \"b's\"]", ["a", "b's"]),
        ("('a',)", ["a"]),
        ("{'a'}", ["a"]),
        ("[u'a', b'b']", ["a", "b"]),
        ("['a\\n', 'b\\\\', 'c\\xe9']", ["a\n", "b\\", "cé"]),
        ("[None, True, nan, 1, -2, 0.5, 007]", [None, True, None, 1, -2, 0.5, "007"]),
        ("[ 98 117 -1]", [98, 117, -1]),
        ("[0. 1. 0.5]", [0.0, 1.0, 0.5]),
        ("['a' 'b c'\n 'd' None]", ["a", "b c", "d", None]),
        ("[hot dog, cat]", ["hot dog", "cat"]),
        ("{hot dog,\"a,b\"}", ["hot dog", "a,b"]),
        ("{'a': 1, 'b': [0, 1]}", {"a": 1, "b": [0, 1]}),
        ("[{'id': 1, 'name': 'dog'}]", [{"id": 1, "name": "dog"}]),
        ("array([0, 1], dtype=int8)", [0, 1]),
        ("set()", []),
        ('["\\ud83d\\ude00"]', ["😀"]),
    ],
)  # fmt: skip
def test_parse(text, value):
    assert cells.parse(text) == value
    assert cells.parse(f"  {text}\n") == value


@pytest.mark.parametrize(
    "text",
    [
        "dog", "", "]", "[", "[dog", "dog]", "['dog]", "{'a': 1, 'b'}", "[1: 2]", "apple (red)",
        "__import__('os')", "[f'{1}']", "[lambda: 0]", "array[1]", "[1] + [2]", "[{[1]: 2}]",
        "[" * 100 + "]" * 100, "(" * 50_000 + ")" * 50_000, '["\\ud83d"]', "['\\ud83d']",
        "['" + "x" * 110_000 + "']",
    ],
)  # fmt: skip
def test_what_parse_leaves_alone(text):
    assert cells.parse(text) is None


@settings(max_examples=100, deadline=None)
@given(LISTS)
def test_parse_reads_what_python_and_json_write(values):
    assert cells.parse(repr(values)) == values
    assert cells.parse(json.dumps(values)) == values
    assert cells.parse(json.dumps(values, ensure_ascii=False)) == values


@settings(max_examples=100, deadline=None)
@given(st.text() | st.text("[](){}'\",: \\01ab", max_size=30))
def test_parse_never_fails(text):
    assert cells.parse(text) is None or isinstance(cells.parse(text), (list, dict))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, ""), (math.nan, ""), ("", ""), (" a ", "a"), (7, "7"), (7.0, "7"), ("7.0", "7"),
        ("7.", "7"), ("7.000", "7"), ("0017", "0017"), ("0017.0", "0017.0"), ("7.5", "7.5"),
        (7.5, "7.5"), ("-7.0", "-7.0"), ("1e5", "1e5"), ("5e12", "5e12"), (b"x", "x"),
        (decimal.Decimal("7"), "7"), (np.int64(7), "7"), (10**30, str(10**30)), ("a.jpg", "a.jpg"),
        (0.0, "0"), ("1.0.0", "1.0.0"),
    ],
)  # fmt: skip
def test_ids(value, name):
    assert cells.plain_id(value) == name


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1e18, "the id 1e.18 was a whole number that has lost its last digits"),
        (2.0**53, "lost its last digits"),
        ("1" * 5000 + ".0", "lost its last digits"),
        ("1.5e+20", "lost its last digits"),
        ([1], r"the id \[1\] is neither"),
        (True, "the id True is neither"),
        (b"\xff", "is no text in UTF-8"),
    ],
)
def test_ids_that_are_none(value, message):
    with pytest.raises(ValueError, match=message):
        cells.plain_id(value)


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (" a \n dog ", ["a dog"]), ("", []), (None, []), (math.nan, []), (2024, ["2024"]),
        (["a", None, " ", "b  c"], ["a", "b c"]), ("['a', 'b']", ["a", "b"]),
        ('["a", null]', ["a"]), ("['a', 1]", ["['a', 1]"]), ("[a, b]", ["[a, b]"]),
        ("['a' is a letter]", ["['a' is a letter]"]), ({"raw": "a", "tokens": ["a"]}, ["a"]),
        ([{"caption": "a"}, "b"], ["a", "b"]), (b"a", ["a"]),
    ],
)  # fmt: skip
def test_texts(value, texts):
    assert cells.texts_of(value) == texts


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x" * 100_001, "a text has 100,001 characters, expected at most 100,000"),
        (["a", "x" * 100_001], "100,001 characters"),
        ({"en": "a"}, "the text is an object with en"),
        ({}, "an object with no key"),
        ([["a"]], "a list of lists"),
        (object, "the text is <class 'object'>"),
    ],
)
def test_texts_that_are_none(value, message):
    with pytest.raises(ValueError, match=message):
        cells.texts_of(value)


@pytest.mark.parametrize(
    ("value", "image"),
    [
        (" a.jpg ", "a.jpg"), (None, ""), (b"\xff\xd8", b"\xff\xd8"),
        ({"bytes": b"x", "path": "a.jpg"}, b"x"), ({"bytes": None, "path": "a.jpg"}, "a.jpg"),
        ({"path": None, "bytes": None}, ""),
    ],
)  # fmt: skip
def test_images(value, image):
    assert cells.image_of(value) == image


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("HTTPS://x/a.jpg", "not a file; download it first"),
        ("data:image/png;base64,iVBOR", "write images in base64 to files"),
        ("x" * 5000, "a text of 5,000 characters"),
        ("a\0b", "which no file can be named"),
        (7, "the image is 7, expected the path"),
        ({"url": "x"}, "the image is {'url': 'x'}"),
    ],
)
def test_images_that_are_none(value, message):
    with pytest.raises(ValueError, match=message):
        cells.image_of(value)
