"""Items tables: ids, what `Index.add` takes, and files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from index_helpers import image_items, random_codes

from dsprh_tf.index.interface import Where
from dsprh_tf.index.items import (
    SCHEMA,
    Items,
    as_items,
    code_column,
    id_items,
    is_id,
    stable_id,
    text_items,
)


def test_ids_are_stable():
    """Pinned: ids on disk must not change with the code."""
    assert stable_id("image", "/a/b.jpg") == 7275705668645474050
    assert stable_id("text", "/a/b.jpg") != stable_id("image", "/a/b.jpg")
    assert 0 <= stable_id("image", "odd \udcff name") < 2**63


@pytest.mark.parametrize("value", ["0", "7", "0012", str(2**63 - 1)])
def test_ids(value):
    assert is_id(value)


@pytest.mark.parametrize(
    "value", ["", "-1", "1.5", "x", " 1", "²", "٣", str(2**63), "9" * 20, "9" * 9999]
)
def test_what_is_no_id(value):
    assert not is_id(value)


def no_highest():
    raise AssertionError("the highest id is not needed")


class TestAsItems:
    def test_a_table(self):
        items = image_items(5)
        assert as_items(items, 5, no_highest).equals(items)

    @pytest.mark.parametrize("make", [list, tuple, np.array, pa.array], ids=lambda m: m.__name__)
    @pytest.mark.parametrize("ids", [[], [5], [9, 3, 2**63 - 1]], ids=len)
    def test_ids(self, make, ids):
        items = as_items(make(ids), len(ids), no_highest)
        assert items.schema.equals(SCHEMA)
        assert items["id"].to_pylist() == ids
        for name, value in {
            "modality": "", "path": None, "text": None, "size": None, "sha256": None, "tags": [],
        }.items():  # fmt: skip
            assert items[name].to_pylist() == [value] * len(ids)

    @pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64, np.float32, float, object])
    def test_types_of_ids(self, dtype):
        assert as_items(np.arange(4, dtype=dtype), 4, no_highest)["id"].to_pylist() == [0, 1, 2, 3]

    @pytest.mark.parametrize(
        "kind", [list, np.array, lambda names: np.array(names, object), pa.array, pd.Series]
    )
    def test_names(self, kind):
        """As a manifest's column id has them: whole numbers are ids, others are hashed and kept."""
        table = as_items(kind(["cat.jpg", "12", "0012", "7.0"]), 4, no_highest)
        expected = [stable_id("", "cat.jpg"), 12, stable_id("", "0012"), 7]
        assert table["id"].to_pylist() == expected
        assert table["text"].to_pylist() == ["cat.jpg", None, "0012", None]
        assert set(table["modality"].to_pylist()) == {""}

    def test_none(self):
        assert as_items(None, 3, lambda: -1)["id"].to_pylist() == [0, 1, 2]
        assert as_items(None, 2, lambda: 41)["id"].to_pylist() == [42, 43]
        last = 2**63 - 1
        assert as_items(None, 1, lambda: last - 1)["id"].to_pylist() == [last]
        with pytest.raises(ValueError, match=f"no 2 ids after .* {last - 1}: give the items ids"):
            as_items(None, 2, lambda: last - 1)

    @pytest.mark.parametrize(
        ("items", "message"),
        [
            (["1", "", "3"], "item 1 has no id"),
            (np.array(["a", -5, 1], object), "received the id -5, expected numbers from 0"),
            (["a", 1.5, 1], "received the id 1.5, expected whole numbers"),
            (np.array(["a", np.nan, 1], object), "received the id nan|item 1 has no id"),
            (["1", "2", "2"], "id 2 occurs twice"),
            (["a", "b", "a"], "id .* occurs twice"),
            (["1", "2", str(2**63)], "id 9223372036854775808 is too large"),
            ([b"1", b"2", b"3"], r"type list \(.S1 \[3\]\), expected an Arrow table .*ids .*None"),
            ([0, 1.5, 2], "received the id 1.5, expected whole numbers below 2.63, and as floats"),
            (np.array([0, np.nan, 2]), "received the id nan, expected whole numbers"),
            ([0.0, 1.0, 2.0**53], "received the id 9007199254740992.0, expected whole .*exact"),
            (image_items(3).set_column(0, "id", pa.array([-1, 0, 1])), "received the id -1"),
            (np.zeros((3, 1), int), r"of type ndarray \(int64 \[3, 1\]\), expected"),
            (np.zeros(3, bool), r"of type ndarray \(bool \[3\]\), expected"),
            ("abc", r"of type str \(<U3 \[\]\), expected"),
            (7, r"of type int \(int64 \[\]\), expected"),
            ({"id": [1, 2, 3]}, r"of type dict \(object \[\]\), expected"),
            (pd.DataFrame({"path": ["a", "b", "c"]}), r"of type DataFrame \(object \[3, 1\]\)"),
            ([0, -1, 2], "received the id -1, expected numbers from 0"),
            (np.array([0, 1, 2**63], np.uint64), "received the id 9223372036854775808, expected"),
            ([0, 1], "3 codes and 2 items, expected one item per code"),
            ([0, 1, 1], "id 1 occurs twice"),
            (image_items(2), "3 codes and 2 items"),
            (image_items(3).drop_columns(["path", "tags"]), "received one without path, tags"),
            (image_items(3).set_column(0, "id", pa.array(["a", "b", "c"])), "of other types"),
            (image_items(3).set_column(0, "id", pa.array([1, None, 3])), "an item has no id"),
        ],
    )
    def test_refused(self, items, message):
        with pytest.raises(ValueError, match=message):
            as_items(items, 3, no_highest)


def test_code_column():
    codes = random_codes(6, 24)
    column = code_column(codes[::2])
    assert column.type == pa.binary(3)
    assert column.to_pylist() == [code.tobytes() for code in codes[::2]]


def test_id_items_are_another_modality():
    """Neither images nor texts, so that no filter on them admits one."""
    items = Items(pa.concat_tables([id_items([1]), image_items(1, 1), text_items(["a"], [2])]))
    for where, mask in (
        (Where(), [True, True, True]),
        (Where(modality="image"), [False, True, False]),
        (Where(modality="text"), [False, False, True]),
        (Where(tag="all"), [False, True, False]),
        (Where(prefix=""), [False, True, False]),
    ):
        assert items.mask(where).tolist() == mask


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "items.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(ValueError, match="items.parquet is damaged"):
        Items(tmp_path / "items.parquet")
