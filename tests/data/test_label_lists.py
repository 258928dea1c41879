"""A column of labels as a whole; the spellings of cells are in the tests of the pairs' kinds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsprh_tf.data.label_lists import Flags, read_labels

NAMES = (
    st.text("abcdé ßЖ'-&/", min_size=1, max_size=6).map(lambda name: name.strip(" '")).filter(bool)
)
CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=4),
    st.text("[]{}(),;|'\"01 a-", max_size=12),
    st.lists(st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.text(max_size=3))),
    st.dictionaries(st.text(max_size=3), st.one_of(st.booleans(), st.integers(-1, 2), st.text())),
)  # fmt: skip


def read(*column):
    return read_labels(column, lambda i: f"m.csv row {i + 2}")


def test_no_label_at_all():
    assert read("", None, []) == ([(), (), ()], (), [])
    found = read("None", "nan")
    assert found.names == ()
    assert found.notes == ["None in 2 cells of labels was read as no label"]


def test_names_are_in_the_order_of_the_alphabet_and_columns_in_theirs():
    assert read("b;a", "c").names == ("a", "b", "c")
    assert read([1, 0] * 6, [0, 1] * 6).names == tuple(map(str, range(12)))
    flags = [Flags(b="1", a="0"), Flags(b="", a="true")]
    assert read(*flags) == ([("b",), ("a",)], ("b", "a"), [
        "2 labels, each a column of 0 and 1 (b, a)"
    ])  # fmt: skip


def test_the_same_labels_twice_are_one():
    assert read("a;a; a").lists == [("a",)]
    assert read(["a", "a"], "b").lists == [("a",), ("b",)]
    assert read([3, 3.0, "3"]).lists == [("3",)]


def test_several_cells_of_one_item():
    assert read("a;b", "b;c", "d").of([0, 1]) == ("a", "b", "c")


def test_lists_and_text_in_one_column():
    assert read(["a, b"], "c,d").lists == [("a, b",), ("c", "d")]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (([0, 1], [1, 0, 1]), "m.csv row 3: labels are 3 values of 0 and 1, but 2 in m.csv row 2"),
        (("1,0", "1"), "m.csv row 3: labels are 1 values of 0 and 1, but 2 in m.csv row 2"),
        (("a", [1.5, 2]), None),
        (([1.5, 2.0],), "m.csv row 2: labels hold 1.5: scores"),
        ((0.5, 1.0), "m.csv row 2: labels hold 0.5: scores"),
        (("a;b", "x", "b,a"), "m.csv row 4: labels are 'b,a', separated by a comma, but 'a;b'"),
        (("a", "[a"), None),
        (("a", "[a', b]"), "m.csv row 3: labels: .* is neither a list nor an object"),
        (("a", b"\xff"), "m.csv row 3: labels: "),
        (("a", object()), "m.csv row 3: labels: .* is of the type object"),
        (("a", {"b": 2}), "m.csv row 3: labels: .* is an object of other kinds"),
    ],
)
def test_refusals(column, message):
    if message is None:
        read(*column)
        return
    with pytest.raises(ValueError, match=message) as error:
        read(*column)
    assert "\n" not in str(error.value)


def test_long_names_and_many_names_make_short_notes():
    (note,) = read(*(f"{'x' * 500}{i}" for i in range(1000))).notes
    assert len(note) < 400


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(NAMES, max_size=4, unique=True), min_size=1, max_size=6))
def test_spellings_of_one_column_have_one_meaning(rows):
    """Lists, their repr, text with semicolons, and PostgreSQL's arrays."""
    rows = [[*row, "every row", "ж"] for row in rows]
    expected = [set(row) for row in rows]
    for spell in (list, repr, ";".join, lambda row: f"{{{','.join(map(repr, row))}}}"):
        found = read(*map(spell, rows))
        assert [set(names) for names in found.lists] == expected
        assert found.names == tuple(sorted({name for row in expected for name in row}))


@settings(max_examples=100, deadline=None)
@given(st.lists(CELLS, max_size=5))
def test_any_column_is_read_or_refused_in_one_line(column):
    try:
        found = read(*column)
    except ValueError as error:
        assert "m.csv row " in str(error) and "\n" not in str(error)
        return
    assert len(found.lists) == len(column)
    assert {name for names in found.lists for name in names} <= set(found.names)
    assert len(set(found.names)) == len(found.names)
    assert all("\n" not in note for note in found.notes)
    assert "" not in found.names
