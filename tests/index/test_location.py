"""Locations of an index: which engine they name, their titles, and the check of encoders."""

from __future__ import annotations

import pytest

from dsprh_tf.index.location import check_encoders, create_index, open_index, short_name


def test_locations(tmp_path):
    with pytest.raises(ValueError, match="no engine for redis://, expected a folder"):
        open_index("redis://host/collection")
    index = create_index(str(tmp_path / "index"), 64, "abc")
    check_encoders("the export", index, 64, "abc")
    with pytest.raises(ValueError, match="codes of 32 bits, the index was built with 64"):
        check_encoders("the export", index, 32, "abc")
    with pytest.raises(ValueError, match="other encoders .*fingerprint xyz, the index has abc"):
        check_encoders("the export", index, 64, "xyz")


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("indexes/photos/", "photos"),
        ("milvus://me:pw@host:1/birds", "birds"),
        ("milvus:///folder/file.db/birds", "birds"),
        ("postgresql://host/d?password=pw&table=my%20pictures.birds", "my pictures.birds"),
    ],
)
def test_short_names(location, name):
    assert short_name(location) == name
