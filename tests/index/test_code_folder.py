"""Folders of codes: what is refused."""

from __future__ import annotations

import pytest
from index_helpers import image_items, random_codes, write_code_folder

from dsprh_tf.index.code_folder import CodeFolder


@pytest.mark.parametrize("name", ["codes.npy", "items.parquet", "codes.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
def test_damaged_codes(tmp_path, name, damage):
    write_code_folder(tmp_path / "codes", random_codes(20), image_items(20))
    path = tmp_path / "codes" / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        if name == "codes.json":
            data = data.replace(b'"format": 1', b'"format": 9')
        data[len(data) // 2] ^= 1
        path.write_bytes(data[: len(data) // 2] if damage == "truncated" else data)
    with pytest.raises(ValueError, match="encode again with `dsprh encode`"):
        CodeFolder(tmp_path / "codes")
