"""Vectors as a source: ids, what is shown of them, shards, kills, and what is refused."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil

import numpy as np
import pytest
from index_helpers import assert_same_folders

from dsprh_tf.index.code_folder import CodeFolder, CodeWriter
from dsprh_tf.index.encode_collection import encode_source
from dsprh_tf.index.items import stable_id
from dsprh_tf.index.vector_source import VectorSource

WIDTH = 12


class SignEncoder:
    """Codes that depend on the vector, and on the size of the batch as real ones may."""

    bits = 64

    def encode(self, items, batch_size):
        rows = [hashlib.sha256(v.tobytes()).digest()[:7] + bytes([len(items)]) for v in items]
        return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 8)


@pytest.fixture
def path(tmp_path):
    values = np.random.default_rng(0).normal(size=(21, WIDTH)).astype(np.float32)
    np.save(tmp_path / "v.npy", values)
    return tmp_path / "v.npy"


def manifest(path, *lines):
    file = path.with_name("ids.csv")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def named(path, header, row, modality="image"):
    """The items of a manifest whose rows are made of the row's number."""
    ids = manifest(path, header, *(row.format(i=i) for i in range(21)))
    return VectorSource(path, modality, WIDTH, ids)


def encode(source, out):
    writer = CodeWriter(out, 64, "abc", source.modality, source.path)
    try:
        return encode_source(source, SignEncoder(), writer, 4, 8)
    finally:
        writer._lock.release()


class TestItems:
    def test_row_numbers(self, path):
        source = VectorSource(path, "text", WIDTH)
        assert [item.id for item in source.items] == [item.row for item in source.items]
        assert len(source.items) == 21
        assert source.notes == ["21 vectors of texts", "ids are the row numbers, 0 to 20"]
        vector = np.load(path)[3]
        assert source.items[3].sha256 == hashlib.sha256(vector.astype("<f4").tobytes()).digest()

    def test_ids_are_those_of_files_and_texts(self, path):
        """Numbers as they are, names hashed as `encode --images` does, else the path or text."""
        item = named(path, "image_id,caption,labels", "{i}7,a dog {i},dog;sea").items[2]
        assert item[:5] == (27, "", ("dog", "sea"), 2, "a dog 2")
        item = named(path, "id", "00{i}").items[2]
        assert (item.id, item.content, item.caption) == (stable_id("image", "002"), "", "002")
        item = named(path, "id,text", "x{i},a dog", "text").items[2]
        assert (item.id, item.content, item.caption) == (stable_id("text", "x2"), "a dog", None)
        item = named(path, "text", "a dog {i}", "text").items[2]
        assert (item.id, item.content) == (stable_id("text", "a dog 2"), "a dog 2")
        item = named(path, "image,tags", "p/{i}.jpg,sea").items[2]
        photo = str(path.parent / "p/2.jpg")
        assert item[:5] == (stable_id("image", photo), photo, ("sea",), 2, None)

    def test_shards_share_the_vectors(self, path):
        parts = [VectorSource(path, "image", WIDTH, shard=(i, 4)) for i in range(4)]
        rows = sorted(item.row for part in parts for item in part.items)
        assert rows == list(range(21))
        assert parts[1].notes[-1] == "shard 1 of 4: 5 of 21"

    def test_zeros_are_told(self, path):
        np.save(path, np.eye(21, WIDTH))
        assert "9 vectors are zeros, and all of these get one code" in "".join(
            VectorSource(path, "image", WIDTH).notes
        )

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (["id", "1", "2"], "ids.csv has 2 rows and .*v.npy 21 vectors, expected a row for ea"),
            (["id", *range(20), 3], "row 22: its id 3 is that of row 5 already; ids are unique$"),
            (["image", *["a.jpg"] * 21], "is that of row 2 already; .* give a column id"),
            (["id,x", *[f"{i}," for i in range(20)], ",x"], "row 22: it has no id; fill it in"),
            (["size", *range(21)], "no column id .*; or image, with a row for each vector"),
            (["id", *range(20), 2**63], "row 22: id 9223372036854775808 is too large"),
        ],
    )
    def test_ids_that_are_refused(self, path, lines, message):
        with pytest.raises(ValueError, match=message) as error:
            VectorSource(path, "image", WIDTH, manifest(path, *map(str, lines)))
        assert "\n" not in str(error.value)

    def test_all_that_is_not_finite_is_found_at_once(self, path):
        values = np.load(path).astype(float)
        values[[7, 9, 20], 1] = np.nan, -np.inf, 1e300
        np.save(path, values)
        message = r"v.npy row 7 \(counted from 0\) holds NaN, .*, as do 2 more; drop or repair"
        with pytest.raises(ValueError, match=message):
            VectorSource(path, "image", WIDTH)


class TestEncoding:
    def test_items_of_a_folder_of_codes(self, path, tmp_path):
        done = encode(named(path, "id,image,text", "{i},{i}.jpg,a dog {i}"), tmp_path / "codes")
        assert (done.encoded, done.count, done.skipped) == (21, 21, [])
        values = np.load(path)
        for i, row in enumerate(CodeFolder(tmp_path / "codes").items().to_pylist()):
            assert row == {
                "id": i, "modality": "image", "path": str(tmp_path / f"{i}.jpg"),
                "text": f"a dog {i}", "size": 4 * WIDTH, "tags": [],
                "sha256": hashlib.sha256(values[i].tobytes()).digest(),
            }  # fmt: skip

    def test_killed_at_file_operations(self, path, killed, tmp_path):
        """Whenever it is killed, the same command leaves the same codes."""
        encode(VectorSource(path, "image", WIDTH), tmp_path / "whole")
        out, points = tmp_path / "codes", 0
        for point in itertools.count(1):
            shutil.rmtree(out, ignore_errors=True)
            if not killed(out, point, lambda: encode(VectorSource(path, "image", WIDTH), out)):
                break
            points += 1
            encode(VectorSource(path, "image", WIDTH), out)
            assert_same_folders(out, tmp_path / "whole")
        assert points > 5

    def test_what_is_gone_is_dropped_and_other_sources_are_refused(self, path, tmp_path):
        out = tmp_path / "codes"
        encode(VectorSource(path, "image", WIDTH), out)
        np.save(path, np.load(path)[:20])
        done = encode(VectorSource(path, "image", WIDTH), out)
        assert (done.encoded, done.known, done.gone, done.count) == (0, 20, 1, 20)
        other = path.with_name("w.npy")
        os.link(path, other)
        with pytest.raises(ValueError, match="holds codes of another source"):
            encode(VectorSource(other, "image", WIDTH), out)
        with pytest.raises(ValueError, match="holds codes of another modality"):
            encode(VectorSource(path, "text", WIDTH), out)
