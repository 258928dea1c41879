"""Approximate kinds where many items have equal codes: nothing is lost, whatever changes."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from index_helpers import (
    assert_same_results,
    clustered_codes,
    image_items,
    random_codes,
    random_walk,
)

from dsprh_tf.index import faiss_kinds, folder
from dsprh_tf.index.hamming import HammingIndex

APPROXIMATE = ("hnsw", "ivf", "hash")


@pytest.fixture(params=APPROXIMATE)
def kind(request):
    return request.param


def shuffled(*parts: np.ndarray) -> np.ndarray:
    codes = np.concatenate(parts)
    return codes[np.random.default_rng(5).permutation(len(codes))]


def equal(count: int, bits: int = 64) -> np.ndarray:
    return np.repeat(random_codes(1, bits, 9), count, axis=0)


def near(count: int, most: int, bits: int = 64) -> np.ndarray:
    """Different codes within `most` bits of each other's centre."""
    rng = np.random.default_rng(7)
    order = np.argsort(rng.random((count, bits)), axis=1)
    flips = order < rng.integers(0, most + 1, (count, 1))
    return np.unique(np.packbits(flips, axis=1), axis=0)


def assert_own_items_found(codes: np.ndarray, kind: str, most_equal: int = 10) -> HammingIndex:
    """Every item is found by its own code, where no more than `most_equal` have it."""
    index = HammingIndex(codes.shape[1] * 8, kind)
    index.add(codes)
    found = index.search(codes, most_equal)
    assert (found.distances[:, 0] == 0).all()
    _, inverse, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    few = counts[inverse.reshape(-1)] <= most_equal
    assert (found.ids == np.arange(len(codes))[:, None]).any(axis=1)[few].all()
    return index


@pytest.mark.parametrize("kinds_of_codes", [
    lambda: shuffled(equal(5000), random_codes(500)),
    lambda: shuffled(equal(4000, 128), random_codes(1100, 128)),
    lambda: shuffled(np.repeat(random_codes(300, 64, 3), 40, axis=0), random_codes(900)),
    lambda: shuffled(equal(200), random_codes(5000)),
    lambda: shuffled(near(4000, 3), random_codes(300)),
    lambda: shuffled(near(4000, 3, 128), random_codes(300, 128)),
    lambda: random_codes(3000, 16),
    lambda: np.repeat(random_codes(1, 8), 3000, axis=0),
], ids=["5000-equal", "4000-titles", "40-of-each", "200-equal", "near-64", "near-128", "16-bits",
        "all-equal"])  # fmt: skip
def test_every_item_is_found_by_its_own_code(kind, kinds_of_codes):
    assert_own_items_found(kinds_of_codes(), kind)


def test_what_surrounds_equal_codes_is_found(kind):
    """Neighbours of items beside many equal codes, not only the items themselves."""
    others = clustered_codes(2000)
    codes = shuffled(equal(5000), others)
    index = HammingIndex(64, kind)
    index.add(codes)
    index.search(codes[:1])
    stats = index.stats()
    assert stats["distinct codes"] == len(np.unique(codes, axis=0))
    assert stats["own code found"] == 1
    assert stats["recall@10"] > 0.9
    limit = faiss_kinds.search_exact(codes, others[:200], 10)[0][:, -1:]
    assert (index.search(others[:200], 10).distances <= limit).mean() > 0.9


def test_results_fill_with_all_items_of_a_code(kind):
    codes = shuffled(equal(300), random_codes(2000))
    index = HammingIndex(64, kind)
    index.add(codes, 7 * np.arange(2300)[::-1])
    same = np.sort(7 * np.arange(2300)[::-1][(codes == equal(1)).all(axis=1)])
    for k in (1, 10, 299, 300, 301):
        found = index.search(equal(2), k)
        np.testing.assert_array_equal(found.ids[:, :300], [same[:k]] * 2)  # the lowest ids
        assert (found.distances[:, :300] == 0).all()
        assert (found.distances[:, 300:] != 0).all()
    ids = 7 * np.arange(2300)[::-1]
    for k in (1000, 2300, 2400):  # more than a quarter of the codes: exact
        assert_same_results(index.search(equal(1), k), codes, ids, equal(1), k)
    index.remove(same[:250])
    left = np.isin(ids, same[:250], invert=True)
    assert_same_results(index.search(equal(1), 50), codes[left], ids[left], equal(1), 50)
    index.remove(same)
    assert (index.search(equal(1), 10).distances[0, 0]) > 0


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE])
def test_random_changes(kind, seed, tmp_path, monkeypatch):
    monkeypatch.setattr(faiss_kinds, "SMALLEST", 60)
    rng = np.random.default_rng(seed)

    def reopen(index):
        index._lock.release()
        reader = HammingIndex.load(tmp_path / "index")
        assert (reader._approximate is None) == (index._approximate is None)
        return HammingIndex.load(tmp_path / "index", write=True)

    index = HammingIndex.create(tmp_path / "index", 64, "abc", kind)
    random_walk(index, reopen, rng, steps=10, rows=70, exact=kind == "flat")


def test_memory_falls_where_codes_repeat(tmp_path):
    sizes = {}
    for name, codes in (("repeated", np.repeat(random_codes(1100), 3, axis=0)),
                        ("different", random_codes(3300))):  # fmt: skip
        index = HammingIndex(64, "hnsw")
        index.add(codes)
        index.save(tmp_path / name)
        sizes[name] = index.stats()["bytes of engine"] + index.stats()["bytes of distinct"]
    assert sizes["repeated"] < sizes["different"] / 2


class TestFormerFormat:
    """Folders of format 1, whose engines have every row."""

    @pytest.fixture
    def old(self, kind, tmp_path):
        codes = shuffled(equal(1500), random_codes(1200))
        index = HammingIndex.create(tmp_path / "old", 64, "abc", kind)
        index.add(codes, image_items(2700))
        index.commit()
        index._lock.release()
        path = tmp_path / "old"
        content = json.loads((path / "index.json").read_text())
        engine = faiss_kinds.build(kind, codes)
        faiss_kinds.write(engine, path / content["files"]["engine"]["name"])
        entry = content["files"]["engine"]
        entry.update(size=(path / entry["name"]).stat().st_size,
                     sha256=folder.file_sha256(path / entry["name"]))  # fmt: skip
        os.unlink(path / content["files"].pop("distinct")["name"])
        content.pop("recall")
        content.pop("sha256")
        content.update({"format": 1, "built_rows": 2700, "recall@10": 0.97})
        content["sha256"] = folder._digest(content)
        (path / "index.json").write_text(json.dumps(content))
        return path, codes

    def test_it_is_searched_as_before(self, old, kind):
        path, codes = old
        index = HammingIndex.load(path)
        assert index._approximate.engine.ntotal == len(index) == 2700
        query = random_codes(50, 64, 3)
        wanted = faiss_kinds.search(index._approximate.engine, query, 5)[0]
        np.testing.assert_array_equal(index.search(query, 5).distances,
                                      np.where(wanted > 64, -1, wanted))  # fmt: skip
        found = index.check()
        assert "engine is of an older version" in found["whole"]
        assert index.stats()["recall@10"] is None

    @pytest.mark.parametrize("change", ["none", "add", "remove"])
    def test_the_next_commit_renews_it(self, old, kind, change):
        path, codes = old
        index = HammingIndex.load(path, write=True)
        codes, ids = np.array(codes), 10 * np.arange(2700)
        if change == "add":
            codes = np.concatenate([codes, random_codes(5, 64, 4)])
            ids = np.append(ids, 10 * np.arange(2700, 2705))
            index.add(codes[2700:], image_items(5, 2700))
        elif change == "remove":
            index.remove([0, 10])
            codes, ids = codes[2:], ids[2:]
        index.commit()
        index = HammingIndex.load(path)
        assert folder.read(path)["format"] == 2
        assert index.stats()["distinct codes"] == len(np.unique(codes, axis=0))
        assert index.check()["own code found"] == 1
        found = index.search(codes, 1)
        assert (found.distances == 0).all()
        same = index.search(equal(1), 1000)
        assert_same_results(same, codes, ids, equal(1), 1000)
