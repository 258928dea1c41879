"""`HammingIndex` against naive NumPy: results, changes, files, kills."""

from __future__ import annotations

import json
import os

import faiss
import numpy as np
import pyarrow as pa
import pytest
from index_helpers import (
    assert_same_results,
    clustered_codes,
    expected,
    image_items,
    random_codes,
)

from dsprh_tf import codes as binary
from dsprh_tf.index import faiss_kinds, folder, known_files, recall
from dsprh_tf.index.distinct import DistinctCodes
from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.interface import Changes, Where
from dsprh_tf.index.items import text_items

APPROXIMATE = ("hnsw", "ivf", "hash")


@pytest.fixture(params=faiss_kinds.KINDS)
def kind(request):
    return request.param


class TestSearch:
    @pytest.mark.parametrize("bits", [8, 16, 24, 40, 64, 128, 256])
    def test_exact(self, bits):
        codes, query = random_codes(300, bits), random_codes(7, bits, 1)
        index = HammingIndex(bits)
        index.add(codes, image_items(300))
        ids = 10 * np.arange(300)
        for k in (1, 10, 300, 400):
            found = index.search(query, k)
            assert found.distances.shape == found.ids.shape == (7, k)
            assert_same_results(found, codes, ids, query, k)

    def test_small_indexes_of_every_kind_are_exact(self, kind):
        codes, query = random_codes(200, 32), random_codes(5, 32, 1)
        index = HammingIndex(32, kind)
        index.add(codes, image_items(200))
        assert_same_results(index.search(query, 10), codes, 10 * np.arange(200), query, 10)

    @pytest.mark.parametrize("kind", APPROXIMATE)
    def test_approximate(self, kind):
        codes = clustered_codes(3000)
        index = HammingIndex(64, kind)
        index.add(codes, image_items(3000))
        found = index.search(codes[:50], 10)
        assert index.stats()["search"] == "approximate"
        assert index.stats()["recall@10"] > 0.9
        assert (found.ids >= 0).mean() > 0.99
        limit = expected(codes, 10 * np.arange(3000), codes[:50], 10)[:, -1, 0]
        assert (found.distances <= limit[:, None]).mean() > 0.9
        for one, distances, names in zip(codes[:50], found.distances, found.ids):
            there = names >= 0
            true = np.unpackbits(one ^ codes[names[there] // 10], axis=1).sum(axis=1)
            np.testing.assert_array_equal(distances[there], true)

    def test_recall_is_that_of_a_naive_loop(self):
        """Of inverted lists, whose recall is below 1 on codes without structure."""
        codes = np.concatenate([random_codes(4000, 64), np.repeat(random_codes(1, 64, 1), 900, 0)])
        index = HammingIndex(64, "ivf")
        index.add(codes, image_items(4900))
        index.search(codes[:1])
        chosen = recall.Sample(64)
        chosen.add(np.arange(4900), codes)
        found = index.search(codes[chosen.names], 11)
        hits = 0
        for row, distances, names in zip(chosen.names, found.distances, found.ids):
            others = np.delete(np.unpackbits(codes[row] ^ codes, axis=1).sum(axis=1), row)
            limit = np.sort(others)[9]
            hits += min(10, sum(d <= limit and n not in (-1, 10 * row)
                                for d, n in zip(distances, names)))  # fmt: skip
        assert 0.1 < hits / 1000 < 0.999
        assert index.stats()["recall@10"] == pytest.approx(hits / 1000)
        assert index.stats()["own code found"] == 1

    def test_filters(self, kind):
        codes, query = random_codes(1500, 64), random_codes(4, 64, 1)
        index = HammingIndex(64, kind)
        index.add(codes, image_items(1500))
        texts = text_items(["red dog", "blue dog"], tags=[["third"], []])
        words = random_codes(2, 64, 2)
        index.add(words, texts)
        both = np.concatenate([codes, words])
        ids = np.concatenate([10 * np.arange(1500), texts["id"].to_numpy()])
        i = np.arange(1500)
        for where, mask in (
            (Where(tag="third"), [*(i % 3 == 0), True, False]),
            (Where(prefix="/pictures/odd"), [*(i % 2 == 1), False, False]),
            (Where(tag="third", prefix="/pictures/odd"), [*(i % 6 == 3), False, False]),
            (Where(modality="text"), [*(i < 0), True, True]),
            (Where(modality="image", tag="third"), [*(i % 3 == 0), False, False]),
            (Where(tag="thi"), np.zeros(1502, bool)),
            (Where(prefix="odd"), np.zeros(1502, bool)),
        ):
            mask = np.array(mask)
            np.testing.assert_array_equal(index.ids_where(where), ids[mask])
            found = index.search(query, 10, where)
            assert_same_results(found, both[mask], ids[mask], query, 10)

    def test_all_four_directions(self):
        """Images and texts in one index, found by either."""
        index = HammingIndex(64)
        codes, texts = random_codes(50, 64), text_items([f"text {i}" for i in range(50)])
        index.add(codes, image_items(50))
        index.add(codes, texts)
        for modality, ids in (("image", 10 * np.arange(50)), ("text", texts["id"].to_numpy())):
            found = index.search(codes, 1, Where(modality=modality))
            np.testing.assert_array_equal(found.ids[:, 0], ids)


class TestPlainIds:
    def test_numbered(self, kind):
        codes = random_codes(1500, 64)
        index = HammingIndex(64, kind)
        assert index.add(codes[:1200]) == Changes(1200, 0, 0)
        assert index.add(codes[1200:]) == Changes(300, 0, 0)
        np.testing.assert_array_equal(index.ids_where(), np.arange(1500))
        np.testing.assert_array_equal(index.codes_of(np.arange(1500)), codes)
        assert (index.search(codes[:5], 1, Where(prefix=None)).distances == 0).all()
        assert index.stats()["items"] == 1500

    def test_numbers_go_on_after_the_highest_id(self):
        index = HammingIndex(64)
        index.add(random_codes(3, 64), [7, 40, 12])
        index.add(random_codes(2, 64, 1))
        assert sorted(index.ids_where()) == [7, 12, 40, 41, 42]
        index.remove([42])
        index.add(random_codes(1, 64, 2))
        assert sorted(index.ids_where()) == [7, 12, 40, 41, 42]

    def test_saved_and_loaded(self, tmp_path):
        codes = random_codes(20, 64)
        index = HammingIndex(64)
        index.add(codes)
        index.save(tmp_path / "index")
        del index  # lets go of the folder's lock
        loaded = HammingIndex.load(tmp_path / "index", write=True)
        assert_same_results(loaded.search(codes, 5), codes, np.arange(20), codes, 5)
        assert loaded.add(codes, np.arange(20)) == Changes(0, 0, 20)
        loaded.add(random_codes(1, 64, 1))
        assert loaded.ids_where().max() == 20


class TestChanges:
    def test_adding_again_changes_nothing(self, kind):
        codes, items = random_codes(1200, 64), image_items(1200)
        index = HammingIndex(64, kind)
        assert index.add(codes, items) == Changes(1200, 0, 0)
        assert index.add(codes, items) == Changes(0, 0, 1200)
        assert index.add(codes[5:7], items[5:7]) == Changes(0, 0, 2)
        assert len(index) == 1200
        assert sorted(index.ids_where()) == items["id"].to_pylist()

    def test_other_content_replaces(self, kind):
        codes, items = random_codes(1200, 64), image_items(1200)
        index = HammingIndex(64, kind)
        index.add(codes, items)
        index.search(codes[:1])  # builds the engine
        fresh = random_codes(1200, 64, 1)
        moved = items.set_column(2, "path", pa.array(["/elsewhere"] * 1200, pa.large_string()))
        mixed = pa.concat_tables([moved[:3], items[3:10], image_items(5, 1200)])
        new = np.concatenate([codes[:3], fresh[3:7], codes[7:10], fresh[10:15]])
        assert index.add(new, mixed) == Changes(5, 7, 3)
        assert len(index) == 1205
        now = np.concatenate([new[:10], codes[10:], new[10:]])
        ids = 10 * np.arange(1205)
        np.testing.assert_array_equal(index.codes_of(ids), now)
        assert index.items_of([0, 30])["path"].to_pylist() == ["/elsewhere", "/pictures/odd/3.jpg"]
        for row in (3, 4, 8, 1202):
            found = index.search(now[row : row + 1], 1)
            assert (found.ids[0, 0], found.distances[0, 0]) == (10 * row, 0)
        gone = index.search(codes[3:7], 10)
        assert (gone.distances[:, 0] > 0).all()

    def test_other_tags_replace(self):
        codes, items = random_codes(2, 64), image_items(2)
        index = HammingIndex(64)
        index.add(codes, items)
        tags = items.set_column(6, "tags", pa.array([["new"], ["all"]]))
        assert index.add(codes, tags) == Changes(0, 1, 1)
        assert index.ids_where(Where(tag="new")).tolist() == [0]
        assert index.ids_where(Where(tag="third")).tolist() == []

    def test_removed_items_are_not_found(self, kind):
        codes = clustered_codes(2500)
        index = HammingIndex(64, kind)
        index.add(codes, image_items(2500))
        index.search(codes[:1])
        gone = np.arange(0, 2500, 7)
        assert index.remove([*(10 * gone), 99_999]) == len(gone)
        assert index.remove(10 * gone) == 0
        left = np.setdiff1d(np.arange(2500), gone)
        assert len(index) == len(left)
        found = index.search(codes[gone[:40]], 10)
        assert not np.isin(found.ids // 10, gone).any()
        assert (found.ids >= 0).mean() > 0.99
        if kind == "flat":
            assert_same_results(found, codes[left], 10 * left, codes[gone[:40]], 10)
        with pytest.raises(ValueError, match="no item of the index has the id 70"):
            index.codes_of([10, 70])

    def test_neighbours_that_were_all_removed(self):
        """The 300 nearest are gone: an approximate search looks behind them."""
        codes = np.concatenate([np.zeros((300, 8), np.uint8), random_codes(2700, 64)])
        for kind in ("hash", "ivf"):
            index = HammingIndex(64, kind)
            index.add(codes, image_items(3000))
            index.search(codes[:1])
            index.remove(10 * np.arange(300))
            assert index.stats()["removed rows"] == 300
            found = index.search(np.full((1, 8), 0, np.uint8), 5)
            assert (found.ids[found.ids >= 0] >= 3000).all()
            if kind == "ivf":
                assert (found.ids >= 0).all()

    @pytest.mark.parametrize("kind", APPROXIMATE)
    def test_many_removals_build_anew(self, kind):
        codes = clustered_codes(3000)
        index = HammingIndex(64, kind)
        index.add(codes, image_items(3000))
        index.search(codes[:1])
        index.remove(10 * np.arange(500))
        assert index.stats()["removed rows"] == 500
        index.remove(10 * np.arange(500, 700))
        assert index.stats()["removed rows"] == 0
        found = index.search(codes[1000:1050], 1)
        assert (found.distances == 0).mean() > 0.9
        assert index.stats()["search"] == "approximate"

    @pytest.mark.parametrize("kind", APPROXIMATE)
    def test_growth(self, kind):
        """In steps from below the limit of exact search to four times the size it was built for."""
        codes = clustered_codes(6000)
        index = HammingIndex(64, kind)
        for start in range(0, 6000, 750):
            index.add(codes[start : start + 750], image_items(750, start))
            query = codes[start : start + 20]
            assert (index.search(query, 1).distances == 0).mean() >= 0.9
        assert index.stats()["recall@10"] > 0.85

    def test_bad_searches(self):
        index = HammingIndex(64)
        with pytest.raises(ValueError, match="the index is empty: add items first"):
            index.search(random_codes(1, 64))
        index.add(random_codes(5, 64), image_items(5))
        with pytest.raises(ValueError, match="k is 0"):
            index.search(random_codes(1, 64), 0)
        with pytest.raises(ValueError, match="query codes have 32 bits, the index has 64"):
            index.search(random_codes(1, 32))
        with pytest.raises(ValueError, match="'audio', expected 'image' or 'text'"):
            Where(modality="audio")
        with pytest.raises(ValueError, match="kind is 'tree', expected one of flat, hnsw"):
            HammingIndex(64, "tree")
        with pytest.raises(ValueError, match="multiple of 8"):
            HammingIndex(12)


def build(path, kind="flat", rows=1200, codes=clustered_codes):
    index = HammingIndex.create(path, 64, "abc", kind)
    index.add(codes(rows), image_items(rows))
    index.commit()
    index._lock.release()
    return index


class TestFiles:
    @pytest.mark.parametrize("write", [False, True])
    def test_loaded_is_saved(self, kind, tmp_path, write):
        built = build(tmp_path / "index", kind)
        loaded = HammingIndex.load(tmp_path / "index", write)
        assert (loaded.bits, loaded.kind, loaded.fingerprint) == (64, kind, "abc")
        query = random_codes(20, 64, 1)
        for where in (Where(), Where(tag="third")):
            for a, b in zip(vars(built.search(query, 5, where)).values(),
                            vars(loaded.search(query, 5, where)).values()):  # fmt: skip
                np.testing.assert_array_equal(a, b)
        ids = [30, 10, 11990, 10]
        assert loaded.items_of(ids).equals(image_items(1200).take([3, 1, 1199, 1]))
        np.testing.assert_array_equal(loaded.codes_of(ids), clustered_codes(1200)[[3, 1, 1199, 1]])
        assert loaded.stats() == built.stats()

    def test_items_beyond_one_row_group(self, tmp_path):
        items = image_items(20_000)
        index = HammingIndex(64)
        index.add(random_codes(20_000, 64), items)
        index.save(tmp_path / "index")
        rows = np.random.default_rng(0).integers(0, 20_000, 50)
        found = HammingIndex.load(tmp_path / "index").items_of(10 * rows)
        assert found.equals(items.take(rows))

    def test_what_faiss_can_map_is_mapped(self, tmp_path):
        build(tmp_path / "index", "ivf")
        reading, writing = (HammingIndex.load(tmp_path / "index", write) for write in (False, True))
        lists = [
            faiss.downcast_InvertedLists(index._approximate.engine.invlists)
            for index in (reading, writing)
        ]
        assert [type(x).__name__ for x in lists] == ["OnDiskInvertedLists", "ArrayInvertedLists"]
        assert isinstance(reading._codes.base, np.memmap)
        assert isinstance(reading._approximate.distinct.table.base, np.memmap)

    def test_changes_after_loading(self, kind, tmp_path):
        codes = clustered_codes(1500)
        build(tmp_path / "index", kind)
        for step, (start, stop) in enumerate([(1200, 1300), (1300, 1500)]):
            index = HammingIndex.load(tmp_path / "index", write=True)
            index.add(clustered_codes(1500)[start:stop], image_items(stop - start, start))
            index.remove([10 * step])
            index.commit()
            index._lock.release()
        index = HammingIndex.load(tmp_path / "index")
        assert len(index) == 1498
        assert index.check()["items"] == 1498
        assert not np.isin(index.search(codes[:2], 10).ids, [0, 10]).any()
        names = {entry["name"] for entry in index._files.values()}
        former = json.loads((tmp_path / "index" / "former.json").read_text())["files"]
        names |= {entry["name"] for entry in former.values()}
        assert names | {"index.json", "former.json", ".lock"} == set(os.listdir(tmp_path / "index"))

    def test_removal_from_an_approximate_index_writes_little(self, tmp_path):
        build(tmp_path / "index", "hnsw")
        before = folder.read(tmp_path / "index")["files"]
        index = HammingIndex.load(tmp_path / "index", write=True)
        index.remove([10, 20])
        index.commit()
        after = folder.read(tmp_path / "index")["files"]
        assert {**before, "removed": after["removed"]} == after

    def test_an_empty_index(self, tmp_path, kind):
        HammingIndex.create(tmp_path / "index", 64, "abc", kind).commit()
        index = HammingIndex.load(tmp_path / "index")
        assert len(index) == 0
        found = index.check()
        assert (found["items"], found["whole"]) == (0, "checksums right")
        assert (found["sample"], found["recall@10"], found["own code found"]) == (0, None, None)
        with pytest.raises(ValueError, match="the index is empty"):
            index.search(random_codes(1, 64))

    def test_emptied(self, tmp_path):
        build(tmp_path / "index", rows=5)
        index = HammingIndex.load(tmp_path / "index", write=True)
        assert index.remove(index.ids_where()) == 5
        index.commit()
        assert len(HammingIndex.load(tmp_path / "index")) == 0

    def test_one_writer(self, tmp_path):
        build(tmp_path / "index", rows=5)
        writer = HammingIndex.load(tmp_path / "index", write=True)
        with pytest.raises(ValueError, match="being changed by another process"):
            HammingIndex.load(tmp_path / "index", write=True)
        writer.remove([0])
        reader = HammingIndex.load(tmp_path / "index")
        writer.commit()
        assert len(reader) == 5
        assert reader.items_of([0])["path"].to_pylist() == ["/pictures/even/0.jpg"]
        assert len(HammingIndex.load(tmp_path / "index")) == 4

    def test_an_index_is_not_overwritten_unasked(self, tmp_path):
        build(tmp_path / "index", rows=5)
        with pytest.raises(ValueError, match="holds an index already"):
            HammingIndex.create(tmp_path / "index", 64)
        index = HammingIndex.create(tmp_path / "index", 32, overwrite=True)
        assert len(HammingIndex.load(tmp_path / "index")) == 5
        index.add(random_codes(3, 32), image_items(3))
        index.commit()
        assert HammingIndex.load(tmp_path / "index").bits == 32

    def test_a_full_disk(self, tmp_path, monkeypatch):
        build(tmp_path / "index", rows=5)
        index = HammingIndex.load(tmp_path / "index", write=True)
        index.add(random_codes(2, 64), image_items(2, 5))
        before = sorted(os.listdir(tmp_path / "index"))

        def full(*arguments, **options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("dsprh_tf.index.hamming.parquet.write_table", full)
        with pytest.raises(OSError, match="No space left"):
            index.commit()
        assert sorted(os.listdir(tmp_path / "index")) == before
        monkeypatch.undo()
        index.commit()
        assert len(HammingIndex.load(tmp_path / "index")) == 7


class TestBroken:
    @pytest.mark.parametrize("part", [*folder.ENDINGS, "index"])
    @pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "empty"])
    def test_a_damaged_file(self, tmp_path, part, damage):
        build(tmp_path / "index", "hnsw")
        index = HammingIndex.load(tmp_path / "index", write=True)
        index.remove([10])
        index.know_files(known_files.SCHEMA.empty_table())
        index.commit()
        (path,) = (tmp_path / "index").glob(f"{part}*.*")
        content = bytearray(path.read_bytes())
        if damage == "missing":
            path.unlink()
        elif damage == "altered":
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        else:
            path.write_bytes(content[: len(content) // 2 if damage == "truncated" else 0])
        with pytest.raises(ValueError) as error:
            HammingIndex.load(tmp_path / "index")
        assert "build" in str(error.value)
        assert (str(path) if damage != "missing" else "index") in str(error.value)
        if damage != "altered":  # what sizes show is seen without checksums
            with pytest.raises(ValueError):
                HammingIndex.load(tmp_path / "index", verify=False)
        if damage == "altered" and part != "index":
            with pytest.raises(ValueError, match="its checksum is another"):
                folder.check_files(tmp_path / "index", folder.read(tmp_path / "index"))

    @pytest.mark.parametrize("part", ["codes", "ids", "removed"])
    def test_any_flipped_byte_without_checksums(self, tmp_path, part):
        """It is refused in a line that names the file, or changes no more than a value."""
        build(tmp_path / "index", "hnsw")
        index = HammingIndex.load(tmp_path / "index", write=True)
        index.remove([10])
        index.commit()
        del index
        (path,) = (tmp_path / "index").glob(f"{part}*.*")
        whole = path.read_bytes()
        refused = 0
        for position in (*range(min(200, len(whole))), *range(200, len(whole), 41)):
            damaged = bytearray(whole)
            damaged[position] ^= 64
            path.write_bytes(damaged)
            try:
                HammingIndex.load(tmp_path / "index", verify=False)
            except ValueError as error:
                refused += 1
                assert str(tmp_path / "index") in str(error) and "build" in str(error)
        assert refused > 3  # the header's

    def test_no_index(self, tmp_path):
        for write in (False, True):
            with pytest.raises(ValueError, match="holds no index"):
                HammingIndex.load(tmp_path / "nowhere", write)
        assert not (tmp_path / "nowhere").exists()

    def test_another_format(self, tmp_path):
        build(tmp_path / "index", rows=5)
        path = tmp_path / "index" / "index.json"
        path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
        with pytest.raises(ValueError, match="another version: its format is 3, expected 1 or 2"):
            HammingIndex.load(tmp_path / "index")

    def test_check_finds_an_engine_of_other_codes(self, tmp_path):
        """Checksums are in order, the content is not."""
        build(tmp_path / "index", "ivf")
        index = HammingIndex.load(tmp_path / "index", write=True)
        index._approximate.engine = faiss_kinds.build("ivf", random_codes(1200, 64))
        with pytest.raises(ValueError, match="distances that are not those of the codes"):
            index.check()

    def test_check_finds_a_table_of_other_codes(self, tmp_path):
        build(tmp_path / "index", "hnsw")
        index = HammingIndex.load(tmp_path / "index", write=True)
        index._approximate.distinct = DistinctCodes.of(random_codes(1200, 64), np.arange(1200))
        with pytest.raises(ValueError, match="the search is over other codes than the index has"):
            index.check()

    def test_check_finds_a_worse_search(self, tmp_path):
        build(tmp_path / "index", "ivf", codes=random_codes)
        index = HammingIndex.load(tmp_path / "index")
        assert index.check()["recall@10"] == index.stats()["recall@10"]
        index._approximate.engine.nprobe = 1
        with pytest.raises(ValueError, match="the search finds 0"):
            index.check()

    def test_check_finds_swapped_ids(self, tmp_path):
        build(tmp_path / "index")
        index = HammingIndex.load(tmp_path / "index")
        index._ids = index._ids[::-1]
        with pytest.raises(ValueError, match="items and ids of the index differ"):
            index.check()


class TestKilled:
    def test_at_every_file_operation(self, killed, tmp_path):
        """Former content or new, and the same change again completes it."""
        codes, items = random_codes(60, 64), image_items(60)
        path = tmp_path / "index"
        build(path, rows=50, codes=random_codes)

        def change():
            index = HammingIndex.load(path, write=True)
            index.add(codes, items)
            index.remove([0])
            index.commit()

        seen, point = [], 0
        while True:
            point += 1
            if not killed(path, point, change):
                break
            index = HammingIndex.load(path)
            seen.append(len(index))
            assert len(index) in (50, 59)
            assert index.check()["items"] == len(index)
            if len(index) == 59:  # back to the former content for the next point
                build_again(path)
        assert point > 12
        assert {50, 59} <= set(seen)
        index = HammingIndex.load(path)
        assert sorted(index.ids_where()) == [10 * i for i in range(1, 60)]
        np.testing.assert_array_equal(index.codes_of(10 * np.arange(1, 60)), codes[1:])
        former = json.loads((path / "former.json").read_text())["files"]
        names = {entry["name"] for files in (index._files, former) for entry in files.values()}
        assert names | {"index.json", "former.json", ".lock"} == set(os.listdir(path))


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_undo(kind, tmp_path):
    path = tmp_path / "index"
    build(path, kind)
    with pytest.raises(ValueError, match="nothing to undo"):
        folder.undo(path)
    before = HammingIndex.load(path).ids_where()
    index = HammingIndex.load(path, write=True)
    index.remove(before)
    index.commit()
    with pytest.raises(ValueError, match="is being changed by another process"):
        folder.undo(path)
    index._lock.release()
    for ids in (before, before[:0], before):  # and the other way round
        folder.undo(path)
        index = HammingIndex.load(path)
        np.testing.assert_array_equal(index.ids_where(), ids)
    assert index.check()["items"] == len(before)
    former = json.loads((path / "former.json").read_text())["files"]
    kept = {entry["name"] for entry in index._files.values()}
    (path / next(e["name"] for e in former.values() if e["name"] not in kept)).write_bytes(b"x")
    with pytest.raises(ValueError, match="altered"):
        folder.undo(path)
    assert len(HammingIndex.load(path)) == len(before)


def build_again(path):
    index = HammingIndex.create(path, 64, "abc", overwrite=True)
    index.add(random_codes(60, 64)[:50], image_items(50))
    index.commit()


def test_metadata_stay_small(tmp_path):
    """At most 64 bytes per item beside path and code."""
    rows = 20_000
    items = image_items(rows)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2**63, rows)
    sha256 = [rng.bytes(32) for _ in range(rows)]
    items = items.set_column(0, "id", pa.array(ids))
    items = items.set_column(5, "sha256", pa.array(sha256, pa.binary(32)))
    index = HammingIndex(64)
    index.add(random_codes(rows, 64), items)
    index.save(tmp_path / "index")
    total = sum(p.stat().st_size for p in (tmp_path / "index").iterdir())
    assert total / rows - 8 <= 64


def test_packing_is_that_of_the_project():
    """A query of real hash values finds the code of the same signs."""
    values = np.random.default_rng(0).standard_normal((30, 64))
    index = HammingIndex(64)
    index.add(binary.pack(values), image_items(30))
    found = index.search(binary.pack(values + 0.0), 1)
    assert found.ids[:, 0].tolist() == [10 * i for i in range(30)]
