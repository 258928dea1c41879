"""One suite over all engines of an index: FAISS, Milvus, PostgreSQL with pgvector.

    make test-engines

The databases are real and started here; without their packages those tests are skipped. TensorFlow
is not needed, nor what conftest.py offers.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import engine_servers
import numpy as np
import pyarrow as pa
import pytest
from helpers import ROOT
from index_helpers import (
    assert_best,
    assert_same_results,
    clustered_codes,
    expected,
    image_items,
    learned_values,
    random_codes,
    random_walk,
    write_code_folder,
)

from dsprh_tf import codes as binary
from dsprh_tf.index import asymmetric, database
from dsprh_tf.index.answers import answer
from dsprh_tf.index.duplicates import find_duplicates, near
from dsprh_tf.index.hybrid import Hybrid
from dsprh_tf.index.interface import EVERYTHING, Changes, Where
from dsprh_tf.index.items import SCHEMA, stable_id, text_items
from dsprh_tf.index.location import check_encoders, create_index, open_index
from dsprh_tf.index.words import word_search, words_of
from dsprh_tf.web.searcher import Question, Searcher

DATABASES = {"milvus": engine_servers.Milvus, "pgvector": engine_servers.Postgres}
numbers = itertools.count()

# Of packages that the databases' own import, none of which this project can mend.
pytestmark = pytest.mark.filterwarnings(
    "ignore:pkg_resources is deprecated", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="session")
def servers():
    """`servers(name)`: a running database, started when it is first asked for."""
    running = {}

    def start(name):
        if why := engine_servers.missing(name):
            pytest.skip(why)
        if name not in running:
            running[name] = DATABASES[name]()
            running[name].start()
        elif running[name].process.poll() is not None:
            # A test failed while its server was down: the others are not to fail for that.
            running[name].start()
        return running[name]

    yield start
    for server in running.values():
        server.stop()


@pytest.fixture(params=["faiss", *DATABASES])
def place(request, servers, tmp_path):
    """Where an index can be built: a new folder, collection or table."""
    if request.param == "faiss":
        return str(tmp_path / "index")
    return servers(request.param).address(f"index_{next(numbers)}")


@pytest.fixture(params=list(DATABASES))
def server(request, servers):
    return servers(request.param)


def new_place(server, timeout=60.0) -> str:
    return server.address(f"index_{next(numbers)}", timeout)


def address(name, host) -> str:
    """An address of a database that is not ours, with a short timeout."""
    return {
        "milvus": f"milvus://{host}/x?timeout=2",
        "pgvector": f"postgresql://{host}/x?table=x&timeout=2",
    }[name]


def build(place, codes, items, kind="flat"):
    index = create_index(place, codes.shape[1] * 8, "abc", kind)
    index.add(codes, items)
    index.commit()
    return index


def at_once(write, values):
    """Calls `write` with each value, each in a thread of its own; none may fail."""
    errors = []

    def call(value):
        try:
            write(value)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def let_go(index):
    """An index in a folder has one writer at a time."""
    if hasattr(index, "_lock"):
        index._lock.release()


class TestAnswers:
    @pytest.mark.parametrize("bits", [8, 64, 128])
    def test_exact(self, place, bits):
        codes, query = random_codes(1500, bits), random_codes(7, bits, 1)
        build(place, codes, image_items(1500))
        index = open_index(place)
        ids = 10 * np.arange(1500)
        about = (index.bits, index.kind, index.fingerprint, len(index))
        assert about == (bits, "flat", "abc", 1500)
        for k in (1, 10, 1600):
            found = index.search(query, k)
            assert found.distances.shape == found.ids.shape == (7, k)
            assert (found.distances.dtype, found.ids.dtype) == (np.int32, np.int64)
            assert_same_results(found, codes, ids, query, k)

    def test_filters(self, place):
        codes, query = random_codes(300, 64), random_codes(4, 64, 1)
        odd = ['/pictures/100%_"x"\\\'/', "/pictures/100%_", "/pictures/100a", "/пример/"]
        items = image_items(300)
        paths = [f"{odd[i // 20]}{i}.jpg" if i < 80 else path
                 for i, path in enumerate(items["path"].to_pylist())]  # fmt: skip
        items = items.set_column(2, "path", pa.array(paths, pa.large_string()))
        tags = [['a "quoted" \\ tag'] if i < 9 else t
                for i, t in enumerate(items["tags"].to_pylist())]  # fmt: skip
        items = items.set_column(6, "tags", pa.array(tags, SCHEMA.field("tags").type))
        index = build(place, codes, items)
        texts = text_items(["red dog", "/pictures/odd"], ids=[5, 7], tags=[["third"], []])
        words = random_codes(2, 64, 2)
        index.add(words, texts)
        index.commit()
        both = np.concatenate([codes, words])
        rows = [*items.to_pylist(), *texts.to_pylist()]
        ids = np.array([row["id"] for row in rows])
        for where in (
            Where(tag="third"),
            Where(tag="thi"),
            Where(tag='a "quoted" \\ tag'),
            Where(tag="') or true or ('"),
            Where(prefix="/pictures/odd"),
            Where(prefix="odd"),
            Where(prefix=""),
            *(Where(prefix=prefix) for prefix in odd),
            Where(tag="third", prefix="/pictures/odd"),
            Where(modality="text"),
            Where(modality="image", tag="third"),
            Where(tags=(("third", 'a "quoted" \\ tag'),)),
            Where(tags=(("all",), ("third", "nothing"))),
            Where(tags=(("nothing", "') or true or ('"),)),
            Where(without=("third",)),
            Where(without=("third", 'a "quoted" \\ tag')),
            Where(tag="all", tags=(("third", "all"),), without=("third",), modality="image"),
        ):
            mask = np.array([
                where.modality in (None, row["modality"])
                and (where.tag is None or where.tag in row["tags"])
                and all(set(group) & set(row["tags"]) for group in where.tags)
                and not set(where.without) & set(row["tags"])
                and (where.prefix is None or (row["path"] is not None
                                            and row["path"].startswith(where.prefix)))
                for row in rows
            ])  # fmt: skip
            np.testing.assert_array_equal(np.sort(index.ids_where(where)), np.sort(ids[mask]))
            assert index.any(where) == mask.any()
            assert_same_results(index.search(query, 10, where), both[mask], ids[mask], query, 10)

    def test_items_come_back_as_they_were(self, place):
        codes = random_codes(5, 64)
        texts = text_items(["ein Hund\n", "\u72ac"], [7, 2**62])
        rows = image_items(3).to_pylist() + texts.to_pylist()
        rows[1].update(size=None, sha256=None, tags=[])
        rows[2].update(path="/odd/\\N\t{a,b}.jpg", tags=["NULL", "", "{x}", "ä"])
        items = pa.Table.from_pylist(rows, SCHEMA)
        build(place, codes, items)
        index = open_index(place)
        ids = items["id"].to_pylist()
        order = [4, 1, 0, 2, 3, 1]
        assert index.items_of([ids[i] for i in order]).to_pylist() == [rows[i] for i in order]
        np.testing.assert_array_equal(index.codes_of([ids[i] for i in order]), codes[order])
        assert len(index.items_of([])) == len(index.codes_of([])) == 0
        assert open_index(place, write=False).stats()["texts"] == 2

    def test_check_and_stats(self, place):
        codes = clustered_codes(1200)
        build(place, codes, image_items(1200))
        index = open_index(place)
        found = index.check()
        assert found.pop("whole")
        assert [found[n] for n in ("items", "sample", "recall@10", "own code found")] == [
            1200, 100, 1.0, 1.0
        ]  # fmt: skip
        stats = index.stats()
        assert [stats[n] for n in ("items", "images", "texts", "kind", "search", "bits")] == [
            1200, 1200, 0, "flat", "exact", 64
        ]  # fmt: skip

    def test_near_duplicates(self, place):
        """The codes of every engine are read and grouped alike."""
        codes = clustered_codes(400)
        codes[7] = codes[9]
        build(place, codes, image_items(400))
        index = open_index(place)
        for where, rows in ((Where(), np.arange(400)), (Where(tag="third"), np.arange(0, 400, 3))):
            wanted = near(codes[rows], 10 * rows, 6)
            found = find_duplicates(index, 6, where)
            assert len(found) == len(wanted) > 1
            assert sorted(g.ids.tolist() for g in found) == sorted(g.ids.tolist() for g in wanted)
        assert [g.ids.tolist() for g in find_duplicates(index, 0)] == [[70, 90]]

    def test_words(self, place):
        """Texts and tags by their words, whatever was typed; filters hold."""
        texts = ["a dog on the beach", "the dog", "a scattered cat", "The Café", "nothing", "DOGS"]
        tags = [["x"], [], ["Red Wine"], ["dog"], [], []]
        index = build(place, random_codes(60, 64), image_items(60))
        index.add(random_codes(6, 64, 1), text_items(texts, [1, 2, 3, 4, 5, 6], tags))
        index.commit()
        words = word_search(index)

        def found(text, k=10, where=EVERYTHING):
            return words.by_words(words_of(text), k, where).tolist()

        assert found("dog beach")[0] == 1
        assert set(found("dog")) == {1, 2, 4}
        assert set(found("DOG'S")) == {1, 2, 4}
        assert found("cat") == found("red wine") == found("my cat zzz") == [3]
        assert found("café") == [4]
        assert found("zzz") == found("") == found("% _") == []
        assert len(found("third")) == 10 and len(found("third", 100)) == 20
        assert set(found("dog", where=Where(tag="x"))) == {1}
        assert set(found("dog", where=Where(without=("x",), modality="text"))) == {2, 4}
        assert found("dog", where=Where(modality="image")) == []
        for typed in ('dog" OR "beach', "dog & !beach", "dog') or ('", "dog%", "{dog}"):
            assert set(found(typed)) == set(found(" ".join(words_of(typed))))
        index.remove([1])
        index.commit()
        assert set(word_search(index).by_words(["dog"])) == {2, 4}
        results = Hybrid(index).answer("the dog", index.codes_of([2])[0], 3)
        assert (results[0]["id"], results[0]["found_by"]) == (2, "both")

    def test_an_empty_index(self, place):
        create_index(place, 64, "abc").commit()
        index = open_index(place)
        assert (len(index), index.any(), len(index.ids_where())) == (0, False, 0)
        assert index.check()["items"] == 0
        with pytest.raises(ValueError, match="the index is empty: add items first"):
            index.search(random_codes(1, 64))


class TestAsymmetric:
    """Ranking by values on every engine; tests/index/test_asymmetric.py has the folder's kinds."""

    CODES = binary.pack(learned_values(600))
    IDS = 10 * np.arange(600)

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr(asymmetric, "EXACT", 20)

    def test_of_all_candidates_it_is_exact(self, place):
        index = build(place, self.CODES, image_items(600))
        values = learned_values(4, seed=1)
        values[3] = 0.7 * binary.unpack(self.CODES[5:6])
        for k in (1, 10, 700):
            found = asymmetric.rank(index, values, k, oversample=30)
            assert_best(found, self.CODES, self.IDS, values)
        third = np.arange(0, 600, 3)
        found = asymmetric.rank(index, values, 12, Where(tag="third"), oversample=30)
        assert_best(found, self.CODES[third], self.IDS[third], values)
        (results,) = answer(index, values[:1], 5, offset=3, leave_out=[[0, 10]])
        assert len(results) == 5
        near = [result["similarity"] for result in results]
        assert near == sorted(near, reverse=True)

    def test_more_results_begin_with_those_of_fewer(self, place):
        index = build(place, self.CODES, image_items(600))
        values = learned_values(3, seed=1)
        whole = asymmetric.rank(index, values, 600, oversample=2)
        for k in (1, 24, 25, 100, 500):
            found = asymmetric.rank(index, values, k, oversample=2)
            np.testing.assert_array_equal(found.ids, whole.ids[:, :k])
        for names in whole.ids:
            np.testing.assert_array_equal(np.sort(names), self.IDS)

    def test_a_database_answers_with_so_many_at_most(self, server, monkeypatch):
        index = build(new_place(server), self.CODES, image_items(600))
        monkeypatch.setattr(type(index), "MOST", 200)
        values = learned_values(2, seed=1)
        found = asymmetric.rank(index, values, 150)
        assert (found.ids >= 0).all()
        near = [set(names.tolist()) for names in index.search(binary.pack(values), 200).ids]
        assert all(set(names.tolist()) <= more for names, more in zip(found.ids, near))


class TestChanges:
    def test_add_replace_remove(self, place, monkeypatch):
        monkeypatch.setattr(database, "_BATCH_ROWS", 150)
        codes, items = random_codes(400, 64), image_items(400)
        index = create_index(place, 64, "abc")
        assert index.add(codes, items) == Changes(400, 0, 0)
        assert index.add(codes, items) == Changes(0, 0, 400)
        fresh = random_codes(400, 64, 1)
        moved = items.set_column(2, "path", pa.array(["/elsewhere"] * 400, pa.large_string()))
        mixed = pa.concat_tables([moved[:3], items[3:10], image_items(5, 400)])
        new = np.concatenate([codes[:3], fresh[3:7], codes[7:10], fresh[10:15]])
        assert index.add(new, mixed) == Changes(5, 7, 3)
        assert index.add(new, mixed) == Changes(0, 0, 15)
        tags = mixed.set_column(6, "tags", pa.array([["new"]] * 15, SCHEMA.field("tags").type))
        assert index.add(new, tags) == Changes(0, 15, 0)
        index.commit()
        now = np.concatenate([new[:10], codes[10:], new[10:]])
        ids = 10 * np.arange(405)
        assert index.remove([0, 10, 77, 10, *range(2000, 4000, 10)]) == 202
        assert index.remove([0, 10]) == 0
        index.commit()
        left = np.setdiff1d(np.arange(405), [0, 1, *range(200, 400)])
        let_go(index)
        index = open_index(place)
        assert len(index) == len(left)
        np.testing.assert_array_equal(np.sort(index.ids_where()), ids[left])
        np.testing.assert_array_equal(index.codes_of(ids[left]), now[left])
        assert index.items_of([20, 30])["path"].to_pylist() == ["/elsewhere", "/pictures/odd/3.jpg"]
        query = random_codes(3, 64, 3)
        assert_same_results(index.search(query, 10), now[left], ids[left], query, 10)
        assert sorted(index.ids_where(Where(tag="new"))) == sorted(
            set(range(20, 100, 10)) | {4000, 4010, 4020, 4030, 4040}
        )

    def test_plain_ids(self, place):
        """Ids of the caller, or none at all, as with an items table."""
        codes, query = random_codes(30, 64), random_codes(3, 64, 1)
        index = create_index(place, 64, "abc")
        assert index.add(codes[:10]) == Changes(10, 0, 0)
        assert index.add(codes[10:20], np.arange(100, 110)) == Changes(10, 0, 0)
        assert index.add(codes[20:]) == Changes(10, 0, 0)
        index.commit()
        ids = np.array([*range(10), *range(100, 120)])
        np.testing.assert_array_equal(np.sort(index.ids_where()), ids)
        np.testing.assert_array_equal(index.codes_of(ids), codes)
        assert_same_results(index.search(query, 12), codes, ids, query, 12)
        assert index.add(codes[10:20], list(range(100, 110))) == Changes(0, 0, 10)
        assert index.add(codes[:2], [1, 0]) == Changes(0, 2, 0)
        stats = index.stats()
        assert [stats[name] for name in ("items", "images", "texts")] == [30, 0, 0]
        assert answer(index, codes[20:21], 1)[0][0]["id"] == 110
        with pytest.raises(ValueError, match="id 5 is of modality unknown in .* and image among"):
            index.add(codes[:1], image_items(1).set_column(0, "id", pa.array([5])))

    def test_codes_and_names_in_two_lines(self, place):
        """Signs or bits of any type instead of packed codes, and names instead of numbers."""
        codes = random_codes(20, 64)
        bits = np.unpackbits(codes, axis=1)
        names = [f"photo {i}.jpg" for i in range(20)]
        index = create_index(place, 64, "abc")
        assert index.add(bits, names) == Changes(20, 0, 0)
        signs = 2.0 * bits - 1
        for other in (codes, bits.astype(bool), signs, signs.astype(np.int8), bits.astype(float)):
            assert index.add(other, names) == Changes(0, 0, 20)
        index.commit()
        for query in (codes[3:5], bits[3:5], signs[3:5], signs[3:5] > 0):
            found = index.search(query, 2)
            assert found.distances[:, 0].tolist() == [0, 0]
            assert index.items_of(found.ids[:, 0])["text"].to_pylist() == names[3:5]
        np.testing.assert_array_equal(index.codes_of([stable_id("", names[7])]), codes[7:8])
        for ask in (index.codes_of, index.contains, index.remove):
            with pytest.raises(ValueError, match=r"id of a name is stable_id\('', 'photo 1.jpg'\)"):
                ask(names[1:2])
        with pytest.raises(ValueError, match="must be 0 and 1, or -1 and 1, received 0.25; the"):
            index.search(signs[:1] / 4 + 0.5)
        for byte, bit in ((0, 0), (255, 1)):  # all 0 or all 1 are bits of either kind
            same = index.search(np.full((1, 8), byte, np.uint8), 20)
            found = index.search(np.full((1, 64), bit, np.uint8), 20)
            np.testing.assert_array_equal(found.ids, same.ids)

    def test_overwrite(self, place):
        let_go(build(place, random_codes(5, 64), image_items(5)))
        with pytest.raises(ValueError, match="holds an index already: add to it, give another"):
            create_index(place, 64, "abc")
        index = create_index(place, 32, "xyz", overwrite=True)
        index.add(random_codes(3, 32), image_items(3))
        index.commit()
        index = open_index(place)
        assert (index.bits, index.fingerprint, len(index)) == (32, "xyz", 3)


class TestRepeatedCodes:
    """Many items with equal codes, on every engine and kind."""

    @pytest.fixture(params=["faiss-flat", "milvus-flat", "pgvector-flat", "pgvector-hnsw"])
    def kind_and_place(self, request, servers, tmp_path):
        engine, kind = request.param.split("-")
        if engine == "faiss":
            return kind, str(tmp_path / "index")
        return kind, new_place(servers(engine))

    @pytest.mark.parametrize("seed", range(2))
    def test_random_changes(self, kind_and_place, seed):
        kind, place = kind_and_place

        def reopen(index):
            let_go(index)
            return open_index(place, write=True)

        index = create_index(place, 64, "abc", kind)
        rng = np.random.default_rng(seed)
        random_walk(index, reopen, rng, steps=8, rows=60, exact=kind == "flat")

    def test_ids_that_are_there(self, place):
        index = build(place, random_codes(5, 64), image_items(5))
        assert index.contains([0, 7, 40, 0, 50]).tolist() == [True, False, True, True, False]
        assert index.contains([]).tolist() == []
        assert index.contains([10.0]).tolist() == [True]
        with pytest.raises(ValueError, match="received the id 1.5, expected whole numbers"):
            index.remove([1.5])
        assert index.add(random_codes(2, 64, 1), [60.0, 70.0]) == Changes(2, 0, 0)
        assert index.remove(["60.0", "70"]) == 2


class TestErrors:
    def test_bad_items_change_nothing(self, place):
        index = build(place, random_codes(5, 64), image_items(5))
        for codes, items, message in (
            (random_codes(2, 32), image_items(2), "codes have 32 bits, the index has 64"),
            (random_codes(2, 64).astype(int), image_items(2), "must be packed codes"),
            (random_codes(2, 64)[0], None, r"must be packed codes, .*received uint8 \[8\]"),
            (np.ones((2, 63)), [1, 2], r"must be packed codes, .*received float64 \[2, 63\]"),
            (np.full((2, 64), 0.5), [1, 2], "columns must be 0 and 1, or -1 and 1, received 0.5;"),
            (np.eye(2, 64) - np.eye(2, 64, 9), [1, 2], "-1 and 1, received both 0 and -1; .*pack"),
            (np.full((2, 64), np.nan), [1, 2], "received nan"),
            (random_codes(2, 512), [1, 2], "codes have 512 bits, the index has 64"),
            (random_codes(2, 64), ["a", ""], "item 1 has no id"),
            (random_codes(2, 64), np.ones((2, 1)), "type ndarray .*expected an Arrow table"),
            (random_codes(2, 64), [1.0, 2.5], "received the id 2.5, expected whole numbers"),
            (random_codes(2, 64), [1, -5], "received the id -5, expected numbers from 0"),
            (random_codes(3, 64), image_items(2), "3 codes and 2 items"),
            (random_codes(2, 64), image_items(2).drop_columns(["tags"]), "without tags"),
            (
                random_codes(2, 64),
                pa.concat_tables([image_items(1), image_items(1)]),
                "id 0 occurs twice",
            ),
            (
                random_codes(2, 64),
                text_items(["new", "words"], ids=[1, 20]),
                "id 20 is of modality image in the index and text",
            ),
        ):
            with pytest.raises(ValueError, match=message):
                index.add(codes, items)
        assert len(index) == 5

    def test_bad_searches(self, place):
        index = build(place, random_codes(5, 64), image_items(5))
        for ask, message in (
            (lambda: index.search(random_codes(1, 64), 0), "k is 0, expected at least 1"),
            (lambda: index.search(random_codes(1, 32)), "query codes have 32 bits, the index has"),
            (lambda: index.codes_of([10, 11]), "no item of the index has the id 11"),
            (lambda: index.items_of([11]), "no item of the index has the id 11"),
        ):
            with pytest.raises(ValueError, match=message):
                ask()

    def test_loaded_for_reading(self, place):
        let_go(build(place, random_codes(5, 64), image_items(5)))
        index = open_index(place)
        for change in (
            lambda: index.add(random_codes(1, 64), image_items(1)),
            lambda: index.remove([0]),
            index.commit,
        ):
            with pytest.raises(ValueError, match="loaded for reading: load it with write=True"):
                change()

    def test_no_index(self, place):
        for write in (False, True):
            with pytest.raises(ValueError, match="holds no index"):
                open_index(place, write)

    def test_other_encoders(self, place):
        index = build(place, random_codes(5, 64), image_items(5))
        check_encoders("the export", index, 64, "abc")
        with pytest.raises(ValueError, match="codes of 32 bits, the index was built with 64"):
            check_encoders("the export", index, 32, "abc")
        with pytest.raises(ValueError, match="is of other encoders than the index"):
            check_encoders("the export", index, 64, "xyz")

    def test_unknown_kind(self, place):
        with pytest.raises(ValueError, match="'tree', expected one of flat"):
            create_index(place, 64, "abc", "tree")

    @pytest.mark.parametrize("name", [*DATABASES])
    def test_nobody_listens(self, name):
        if why := engine_servers.missing(name):
            pytest.skip(why)
        place = address(name, f"me:secret@127.0.0.1:{engine_servers.free_port()}")
        for act in (lambda: open_index(place), lambda: create_index(place, 64, "abc")):
            with pytest.raises(OSError, match="no connection to|did not answer") as error:
                act()
            assert "secret" not in str(error.value)
            assert "me:***@127.0.0.1" in str(error.value)

    @pytest.mark.parametrize("name", [*DATABASES])
    def test_a_server_that_says_nothing(self, name):
        """It accepts the connection, as a machine that is out of memory does."""
        if why := engine_servers.missing(name):
            pytest.skip(why)
        with socket.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            place = address(name, f"me@127.0.0.1:{mute.getsockname()[1]}")
            start = time.monotonic()
            with pytest.raises(OSError, match="no connection to|did not answer"):
                open_index(place)
            assert time.monotonic() - start < 15

    @pytest.mark.parametrize(
        ("place", "message"),
        [
            ("milvus://host:19530", "expected milvus://host:port/collection"),
            ("milvus://host:19530/a-b", "expected milvus://host:port/collection"),
            ("milvus:///folder/file/collection", "expected milvus://host:port/collection"),
            ("milvus://host:port/x", "is not an address"),
            ("milvus://host/x?timeout=soon", "timeout is 'soon', expected seconds above 0"),
            ("milvus://host/x?tls=1", "option tls is unknown"),
            ("milvus:///nowhere/file.db/x", "holds no index"),
            ("postgresql://host/db", "expected [?]table=NAME"),
            ("postgresql://host/db?table=a.b.c", "expected [?]table=NAME"),
            ("postgresql://host/db?table=" + "x" * 64, "at most 63 bytes"),
            ("postgresql://host/db?table=x&colour=red", "is not an address .*colour"),
        ],
    )
    def test_bad_addresses(self, place, message):
        if why := engine_servers.missing("milvus" if place.startswith("milvus") else "pgvector"):
            pytest.skip(why)
        with pytest.raises((ValueError, OSError), match=message):
            open_index(place)

    @pytest.mark.parametrize(
        ("scheme", "module", "file"),
        [("milvus", "pymilvus", "milvus"), ("postgresql", "psycopg", "pgvector")],
    )
    def test_a_missing_package_is_named(self, monkeypatch, scheme, module, file):
        monkeypatch.delitem(sys.modules, f"dsprh_tf.index.{file}", raising=False)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ValueError, match=f"pip install -r requirements-{file}.txt"):
            open_index(f"{scheme}://host/x?table=x")


class WordEncoder:
    """Stands for both exported encoders: a text's code is that of item int(text)."""

    bits, info, vocabulary = 64, {"fingerprint": "abc"}, ("7",)

    def __init__(self, kind, codes):
        self.kind, self._codes = kind, codes

    def known_words(self, texts):
        return [text.isdecimal() for text in texts]

    def unknown_words(self, text):
        return {} if text.isdecimal() else {text: ["7"]}

    def encode_values(self, texts, unknown="error"):
        return np.float32(0.4) * binary.unpack(self._codes[[int(text) for text in texts]])


class TestPage:
    """The searcher of the web page on every engine; tests/web has the server around it."""

    def test_searcher(self, place):
        codes, items = random_codes(300, 64), image_items(300)
        build(place, codes, items)
        index = open_index(place)
        searcher = Searcher(index, WordEncoder("text", codes), WordEncoder("image", codes), "all")
        about = searcher.about()
        assert [about[n] for n in ("name", "items", "images", "texts", "bits")] == [
            "all", 300, 300, 0, 64
        ]  # fmt: skip
        assert {"tag": "third", "count": 100} in about["tags"]
        third = np.arange(0, 300, 3)
        for where, rows in ((Where(), np.arange(300)), (Where(tag="third"), third)):
            wanted = expected(codes[rows], 10 * rows, codes[7:8], 6)[0]
            for kind, value in (("text", "7"), ("code", codes[7].tobytes().hex())):
                found = searcher.search(Question(where, 6, **{kind: value}))
                assert found["query"] == {"kind": kind, "code": codes[7].tobytes().hex()}
                assert [r["distance"] for r in found["results"]] == wanted[:, 0].tolist()
                for result in found["results"]:
                    row = int(result["id"]) // 10
                    assert row in rows
                    assert result["code"] == codes[row].tobytes().hex()
                    assert result["path"] == items["path"][row].as_py()
                    assert result["gone"]
        like = searcher.search(Question(Where(), 5, like="70"))
        assert like["query"]["item"]["path"] == items["path"][7].as_py()
        assert "70" not in [result["id"] for result in like["results"]]
        assert len(like["results"]) == 5
        found = searcher.image_of("70")
        path, sha256 = found["path"], found["sha256"]
        assert (path, sha256) == (items["path"][7].as_py(), items["sha256"][7].as_py())
        for name in ("71", "x", "9" * 30):
            with pytest.raises(LookupError, match="no item"):
                searcher.image_of(name)
        assert {r["id"] for r in searcher.browse(Where(tag="third"), 240)["results"]} == {
            str(10 * row) for row in third
        }
        assert searcher.search(Question(Where(), 5, "dgo"))["unknown"] == [
            {"word": "dgo", "near": ["7"]}
        ]
        assert searcher.search(Question(Where(tag="none"), 5, "7"))["message"]

    def test_empty_or_of_other_encoders(self, place):
        codes = random_codes(3, 64)
        encoders = [WordEncoder(kind, codes) for kind in ("text", "image")]
        index = create_index(place, 64, "xyz")
        with pytest.raises(ValueError, match="all is empty: add codes with"):
            Searcher(index, *encoders, "all")
        index.add(codes, image_items(3))
        with pytest.raises(ValueError, match="text encoder is of other encoders than the"):
            Searcher(index, *encoders, "all")


class TestStopped:
    def test_killed_while_adding(self, server, monkeypatch):
        """At several batches: what was acknowledged is there, the same again completes it."""
        monkeypatch.setattr(database, "_BATCH_ROWS", 40)
        codes, items = random_codes(400, 64), image_items(400)
        interrupted = 0
        for batch in (2, 6):
            place = new_place(server)
            create_index(place, 64, "abc")
            index = open_index(place.replace("timeout=60", "timeout=2"), write=True)
            store, acknowledged, calls = index._store, [], itertools.count(1)
            timer = threading.Timer(0.002 * batch, server.kill)

            def failing(
                rows, store=store, acknowledged=acknowledged, calls=calls, batch=batch, timer=timer
            ):
                if next(calls) == batch:
                    timer.start()
                    time.sleep(0.002 * (batch - 1))
                store(rows)
                acknowledged.extend(rows["id"].to_pylist())

            monkeypatch.setattr(index, "_store", failing)
            try:
                index.add(codes, items)
            except OSError as error:
                interrupted += 1
                assert f"{len(acknowledged)} of 400 new items were stored before" in str(error)
                assert "\n" not in str(error)
            if timer.ident is not None:
                timer.join()  # it must not end the server that is started next
            server.kill()  # a slow one gave no answer before the batch that was to end it
            with pytest.raises(OSError):
                index.count()
            server.start()
            index = open_index(place, write=True)
            there = index.ids_where()
            assert set(acknowledged) <= set(there.tolist())
            assert len(there) % 40 == 0
            np.testing.assert_array_equal(index.codes_of(there), codes[there // 10])
            changes = index.add(codes, items)
            assert changes == Changes(400 - len(there), 0, len(there))
            assert index.check()["items"] == 400
        assert interrupted

    def test_an_index_outlives_its_server(self, server):
        """As the page has to, which opens its index once."""
        index = build(new_place(server, timeout=5), random_codes(5, 64), image_items(5))
        server.kill()
        for _ in range(2):
            with pytest.raises(OSError):
                index.search(random_codes(1, 64))
        server.start()
        assert (index.search(random_codes(1, 64), 5).ids >= 0).all()
        assert index.add(random_codes(1, 64, 1), image_items(1, 5)).added == 1
        assert len(index) == 6

    def test_a_slow_postgres(self, servers):
        server = servers("pgvector")
        place = new_place(server, timeout=1)
        index = build(place, random_codes(5, 64), image_items(5))
        name = index._names[-1]
        with server.connect() as other:
            other.execute("BEGIN")
            other.execute(f"LOCK TABLE {name}")
            for act in (lambda: index.search(random_codes(1, 64)), lambda: index.remove([0]),
                        lambda: index.add(random_codes(1, 64, 1), image_items(1))):  # fmt: skip
                with pytest.raises(OSError, match=r"did not answer within 1 s .*timeout=SECONDS"):
                    act()
            other.execute("ROLLBACK")
        assert len(index) == 5

    def test_a_frozen_postgres(self, servers, monkeypatch):
        server = servers("pgvector")  # skips without its packages
        from dsprh_tf.index import pgvector

        monkeypatch.setattr(pgvector, "_GRACE", 0.2)
        place = new_place(server, timeout=0.5)
        index = build(place, random_codes(5, 64), image_items(5))
        process = index._connection.info.backend_pid
        os.kill(process, signal.SIGSTOP)
        try:
            with pytest.raises(OSError, match=r"no connection to the database .*silent for 0.5 s"):
                index.search(random_codes(1, 64))
        finally:
            os.kill(process, signal.SIGCONT)
        assert len(open_index(place)) == 5

    def test_a_frozen_milvus(self, servers):
        server = servers("milvus")
        place = new_place(server, timeout=2)
        index = build(place, random_codes(5, 64), image_items(5))
        server.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(OSError, match="did not answer within 2 s"):
                index.search(random_codes(1, 64))
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert len(open_index(place)) == 5


class TestPostgres:
    def test_graph(self, servers):
        place = new_place(servers("pgvector"))
        codes = clustered_codes(4000)
        index = build(place, codes, image_items(4000), "hnsw")
        index.search(codes[:5])
        with index._talking() as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
            scans = connection.execute(
                "SELECT idx_scan FROM pg_stat_user_indexes WHERE relname = %s "
                "AND indexrelname LIKE '%%code_idx'",
                (f"dsprh_codes_{index._names[-1]}",),
            ).fetchall()
        assert scans == [(5,)]
        assert 0.9 < index.check()["recall@10"] <= 1
        assert index.stats()["search"] == "approximate"
        limit = expected(codes, 10 * np.arange(4000), codes[:20], 10)[:, -1, 0]
        found = index.search(codes[:20], 10)
        assert (found.distances <= limit[:, None]).mean() > 0.9
        third = np.arange(0, 4000, 3)
        found = index.search(codes[:5], 10, Where(tag="third"))
        assert_same_results(found, codes[third], 10 * third, codes[:5], 10)
        assert (index.search(codes[:1], 3000).ids >= 0).all()

    def test_another_schema(self, servers):
        server = servers("pgvector")
        place = new_place(server)
        index = build(place, random_codes(5, 64), image_items(5))
        name = index._names[-1]
        with server.connect() as other:
            other.execute(f"ALTER TABLE {name} ALTER size TYPE int")
            with pytest.raises(ValueError, match="another schema .*size is integer, expected bigi"):
                open_index(place)
            other.execute(f"ALTER TABLE {name} DROP size")
            with pytest.raises(ValueError, match="size is missing, expected bigint"):
                open_index(place)
            other.execute("UPDATE dsprh_indexes SET format = 3 WHERE name = %s", (name,))
            with pytest.raises(ValueError, match="its format is 3, expected 1 or 2: build it"):
                open_index(place)
            other.execute("CREATE TABLE theirs (id int)")
        theirs = server.address("theirs")
        with pytest.raises(ValueError, match="holds no index [(]the table was not made by"):
            open_index(theirs)
        with pytest.raises(ValueError, match="the table exists and is not an index"):
            create_index(theirs, 64, "abc", overwrite=True)

    def test_names_are_quoted(self, servers):
        server = servers("pgvector")
        with server.connect() as other:
            other.execute('CREATE SCHEMA "my pictures"')
        place = server.address('my%20pictures.a"b;%20drop')
        build(place, random_codes(5, 64), image_items(5))
        index = open_index(place)
        assert len(index) == 5
        with server.connect() as other:
            assert other.execute('SELECT count(*) FROM "my pictures"."a""b; drop"').fetchone() == (
                5,
            )

    def test_a_zero_character(self, servers):
        index = build(new_place(servers("pgvector")), random_codes(5, 64), image_items(5))
        with pytest.raises(ValueError, match="text of item 3 has a zero character"):
            index.add(random_codes(1, 64), text_items(["a\0b"], ids=[3]))
        tags = [["x"], [], None, ["y", "a\0b"], ["z"]]
        items = [text_items([f"word {i}"], [10 + i], [tags[i]]) for i in range(5)]
        with pytest.raises(ValueError, match="a tag of item 13 has a zero character"):
            index.add(random_codes(5, 64), pa.concat_tables(items))
        assert len(index) == 5

    def test_writers_at_once(self, servers):
        """Two that add the same items, in any order, and others."""
        place = new_place(servers("pgvector"))
        create_index(place, 64, "abc")
        codes, items = random_codes(3000, 64), image_items(3000)

        def write(order):
            index = open_index(place, write=True)
            index.add(codes[order], items.take(pa.array(order)))

        at_once(write, [np.arange(3000), np.arange(3000)[::-1], np.arange(1000, 2000)])
        index = open_index(place)
        np.testing.assert_array_equal(index.ids_where(), 10 * np.arange(3000))
        np.testing.assert_array_equal(index.codes_of(10 * np.arange(3000)), codes)

    def test_many_equal_codes(self, servers):
        """Each of the others is found, though a graph of all items would lose them."""
        others = random_codes(1500, 64)
        codes = np.concatenate([np.repeat(random_codes(1, 64, 9), 4000, axis=0), others])
        index = build(new_place(servers("pgvector")), codes, image_items(5500), "hnsw")
        assert index.stats()["distinct codes"] == 1501
        found = index.search(others[::7], 10)
        assert (found.distances[:, 0] == 0).all()
        np.testing.assert_array_equal(found.ids[:, 0], 10 * np.arange(4000, 5500, 7))
        limit = np.stack([e[-1] for e in expected(codes, 10 * np.arange(5500), others[:140:7], 10)])
        assert (found.distances[:20] <= limit[:, :1]).mean() > 0.9
        found = index.check()
        assert (found["own code found"], found["recall@10"]) == (1, pytest.approx(1, abs=0.1))
        for k in (10, 4000, 4001):
            names = index.search(codes[:1], k).ids[0]
            np.testing.assert_array_equal(names[:4000], 10 * np.arange(min(k, 4000)))

    @pytest.mark.parametrize("kind", ["flat", "hnsw"])
    def test_as_many_results_as_there_are(self, servers, kind, monkeypatch):
        """More than a graph keeps as candidates, and more than there are with a rare tag."""
        codes, items = random_codes(3000, 64), image_items(3000)
        tags = [["all", "rare"] if i % 9 == 0 else ["all"] for i in range(3000)]
        items = items.set_column(6, "tags", pa.array(tags, SCHEMA.field("tags").type))
        index = build(new_place(servers("pgvector")), codes, items, kind)
        query, ids = random_codes(2, 64, 1), 10 * np.arange(3000)
        found = index.search(query, 500, Where(tag="rare"))
        assert_same_results(found, codes[::9], ids[::9], query, 500)
        assert (found.ids >= 0).sum(axis=1).tolist() == [334, 334]
        for k in (500, 1500, 3000, 3500):
            found = index.search(query, k)
            assert ((found.ids >= 0).sum(axis=1) == min(k, 3000)).all()
            if k >= 3000:
                assert_same_results(found, codes, ids, query, k)
        ended = lambda table, connection, code, k: [(0, 3)]  # noqa: E731 - a graph ends early
        monkeypatch.setattr("dsprh_tf.index.pgvector_codes.CodeTable.nearest", ended)
        assert_same_results(index.search(query, 700), codes, ids, query, 700)

    def test_codes_without_items_are_removed(self, servers):
        server = servers("pgvector")
        codes, items = random_codes(60, 64), image_items(60)
        place = new_place(server)
        index = build(place, np.repeat(codes[:20], 3, axis=0), items, "hnsw")
        table = f"dsprh_codes_{index._names[-1]}"

        def stored():
            with server.connect() as other:
                ours = other.execute(f"SELECT code FROM {table} ORDER BY 1").fetchall()
                needed = other.execute(
                    f"SELECT DISTINCT code FROM {index._names[-1]} ORDER BY 1"
                ).fetchall()
            assert set(needed) <= set(ours)
            return len(ours), len(needed)

        assert stored() == (20, 20)
        index.remove([0, 10, 20, 30, 40])  # all items of one code, two of another
        assert stored() == (20, 19)
        assert index.search(codes[:1], 1).distances[0, 0] > 0
        assert (index.search(codes[:1], 55).ids >= 0).all()
        index.add(codes[20:22], items[6:8])  # replaces two of three
        assert stored() == (22, 21)
        index.add(codes[:1], image_items(1))  # a code that was to be removed
        index.commit()
        assert stored() == (22, 22)
        index.add(codes[20:21], items[8:9])
        index.commit()
        assert stored() == (21, 21)
        assert index.check()["own code found"] == 1
        index.remove(index.ids_where())
        index.commit()
        assert stored() == (0, 0)
        index.add(codes, items)
        assert stored() == (60, 60)

    def test_writers_at_once_with_a_graph(self, servers):
        """Some store codes that others, at the same time, remove the last items of."""
        server = servers("pgvector")
        place = new_place(server)
        codes = random_codes(40, 64)
        build(place, codes, 1000 + np.arange(40), "hnsw")

        def write(number):
            index = open_index(place, write=True)
            rng = np.random.default_rng(number)
            for _ in range(12):
                ids = 10 * rng.permutation(30) + number
                index.add(codes[rng.integers(0, 40, 30)], ids)
                index.remove(ids[: rng.integers(31)])
                index.commit()

        at_once(write, range(4))
        index = open_index(place)
        name = index._names[-1]
        with server.connect() as other:
            lost = other.execute(
                f"SELECT count(*) FROM {name} i WHERE NOT EXISTS "
                f"(SELECT FROM dsprh_codes_{name} WHERE code = i.code)"
            ).fetchone()
        assert lost == (0,)
        assert index.check()["own code found"] == 1

    @pytest.mark.parametrize("moment", ["made", "removed"])
    def test_a_code_that_another_process_is_storing(self, servers, moment):
        """While its table is made, or the last item that had it is removed: it stays."""
        server = servers("pgvector")
        place = new_place(server)
        codes = random_codes(3, 64)
        index = create_index(place, 64, "abc", "hnsw")
        index.add(codes, [0, 1, 2])
        if moment == "removed":
            index.commit()
        writer = open_index(place, write=True)

        def change():
            index.remove([0])
            index.commit()

        thread = threading.Thread(target=change)
        with writer._connection.transaction():
            new = codes[:1] if moment == "removed" else random_codes(1, 64, 5)
            writer.add(new, [7])
            thread.start()
            time.sleep(0.5)
        thread.join()
        with server.connect() as other:
            stored = other.execute(f"SELECT count(*) FROM dsprh_codes_{index._names[-1]}")
            assert stored.fetchone() == (3,)
        found = index.search(new, 5)
        assert sorted(found.ids[0]) == [-1, -1, 1, 2, 7]
        assert found.ids[0, 0] == 7

    def test_a_graph_of_an_older_version(self, servers):
        """Of all items: searched as it is, and replaced by the next commit."""
        server = servers("pgvector")
        place = new_place(server)
        codes = np.concatenate([random_codes(1200, 64), np.repeat(random_codes(1, 64, 9), 50, 0)])
        index = build(place, codes, image_items(1250), "flat")
        name = index._names[-1]
        with server.connect() as other:
            other.execute(f"CREATE INDEX ON {name} USING hnsw (code bit_hamming_ops)")
            other.execute("UPDATE dsprh_indexes SET kind = 'hnsw' WHERE name = %s", (name,))
        reader = open_index(place)
        assert "distinct codes" not in {k for k, v in reader.stats().items() if v is not None}
        assert (reader.search(codes[:50], 5).distances[:, 0] == 0).mean() > 0.9
        assert reader.check()["items"] == 1250
        writer = open_index(place, write=True)
        writer.add(random_codes(1, 64, 3), image_items(1, 1250))
        writer.commit()
        with server.connect() as other:
            formats = other.execute(
                "SELECT format FROM dsprh_indexes WHERE name = %s", (name,)
            ).fetchone()
            graphs = other.execute(
                "SELECT tablename FROM pg_indexes WHERE indexdef LIKE %s AND tablename LIKE %s",
                ("%hnsw%", f"%{name}"),
            ).fetchall()
        assert (formats, graphs) == ((2,), [(f"dsprh_codes_{name}",)])
        for index in (reader, open_index(place)):  # a reader that was there before as well
            assert index.stats()["distinct codes"] == 1202
            assert (index.search(codes, 1).distances == 0).all()

    def test_the_table_of_codes_goes_with_the_index(self, servers):
        server = servers("pgvector")
        for name in ("gone", "g" * 63):
            place = server.address(name)
            build(place, random_codes(50, 64), image_items(50), "hnsw")
            for kind in ("hnsw", "flat"):
                index = create_index(place, 32, "xyz", kind, overwrite=True)
                index.add(random_codes(3, 32), image_items(3))
                index.commit()
                assert index.stats()["distinct codes"] == (3 if kind == "hnsw" else None)
        with server.connect() as other:
            other.execute("CREATE TABLE dsprh_codes_mine (id int, code int)")
        with pytest.raises(ValueError, match="dsprh_codes_mine exists and is not of an index"):
            create_index(server.address("mine"), 64, "abc", "hnsw")


class TestMilvus:
    def test_one_id_twice(self, servers):
        """In one batch it is refused, as Milvus 2.5 would store both rows; later it replaces."""
        codes = random_codes(6, 64)
        index = build(new_place(servers("milvus")), codes[:2], [7, 8])
        with pytest.raises(ValueError, match="id 9 occurs twice among the items"):
            index.add(codes[2:5], [9, 5, 9])
        assert (len(index), sorted(index.ids_where())) == (2, [7, 8])
        for code in codes[2:]:
            assert index.add(code[None], [7]) == Changes(0, 1, 0)
            assert (len(index), index.stats()["items"]) == (2, 2)
            np.testing.assert_array_equal(index.codes_of([7]), code[None])
            assert sorted(index.search(code[None], 5).ids[0]) == [-1, -1, -1, 7, 8]

    def test_counts_after_upserts(self, servers):
        """Rows that were replaced or removed are counted no more, before any compaction."""
        place = new_place(servers("milvus"))
        index = build(place, random_codes(900, 64), image_items(900))
        for round_ in range(1, 4):
            index.add(random_codes(600, 64, round_), image_items(600))
            index.commit()
            assert index.remove(10 * np.arange(890 - 10 * round_, 900)) == 10 * (1 + (round_ == 1))
            left = 890 - 10 * round_
            for reader in (index, open_index(place)):
                stats = reader.stats()
                assert (len(reader), stats["items"], stats["images"]) == (left, left, left)
                assert reader.count(Where(tag="third")) == len(range(0, left, 3))
                assert len(reader.ids_where()) == reader.check()["items"] == left
            assert (index.search(random_codes(1, 64), 1000).ids >= 0).sum() == left

    def test_an_id_that_the_server_has_twice(self, servers):
        """As two processes that store it at the same moment may leave it: shown once, and said."""
        index = build(new_place(servers("milvus")), random_codes(5, 64), image_items(5))
        nearest, scan = index._nearest, index._scan

        def doubled(query, k, where):
            return [(ids[:1] + ids, near[:1] + near) for ids, near in nearest(query, k, where)]

        index._nearest = doubled
        found = index.search(random_codes(2, 64), 5)
        assert all(len(set(ids)) == 5 for ids in found.ids.tolist())
        index._scan = lambda *a: itertools.chain(scan(*a), scan(*a))
        with pytest.raises(ValueError, match="ids occur twice"):
            index.check()

    def test_another_schema(self, servers):
        server = servers("milvus")  # skips without its packages
        from pymilvus import DataType, MilvusClient

        client = MilvusClient(f"http://127.0.0.1:{server.port}")
        about = {"format": 1, "bits": 64, "kind": "flat", "fingerprint": "abc"}
        for name, description in (("theirs", ""), ("narrow", json.dumps(about))):
            schema = MilvusClient.create_schema(description=description)
            schema.add_field("id", DataType.INT64, is_primary=True)
            schema.add_field("code", DataType.BINARY_VECTOR, dim=32)
            client.create_collection(name, schema=schema)
        with pytest.raises(ValueError, match="holds no index [(]the collection was not made by"):
            open_index(server.address("theirs"))
        with pytest.raises(ValueError, match="the collection exists and is not an index"):
            create_index(server.address("theirs"), 64, "abc", overwrite=True)
        with pytest.raises(ValueError, match="another schema than an index of 64 bits .code is B"):
            open_index(server.address("narrow"))

    def test_limits(self, servers):
        index = build(new_place(servers("milvus")), random_codes(5, 64), image_items(5))
        with pytest.raises(ValueError, match="text of item 3 .row 0. has 70,000 bytes, Milvus"):
            index.add(random_codes(1, 64), text_items(["a" * 70_000], ids=[3]))
        with pytest.raises(ValueError, match="k is 20,000, Milvus answers with at most 16,384"):
            index.search(random_codes(1, 64), 20_000)

    def test_a_kind_that_the_server_lacks(self, servers, tmp_path):
        with pytest.raises(OSError, match="BIN_IVF_FLAT"):
            create_index(new_place(servers("milvus")), 64, "abc", "ivf")
        with pytest.raises(ValueError, match="Milvus Lite has only --kind=flat"):
            create_index(f"milvus://{tmp_path}/file.db/x", 64, "abc", "ivf")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of codes: items 0..299, and 200..399."""
    folder = tmp_path_factory.mktemp("codes")
    codes = random_codes(400, 64)
    write_code_folder(folder / "a", codes[:300], image_items(300))
    write_code_folder(folder / "b", codes[200:], image_items(200, 200))
    return folder


def run(name, *arguments):
    command = [sys.executable, ROOT / "scripts" / f"{name}.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


class TestPrograms:
    def test_from_codes_to_answers(self, place, folders):
        index = f"--index={place}"
        outcome = run("index", "build", index, f"--codes={folders}/a")
        assert outcome.returncode == 0, outcome.stderr
        assert "300 added, 0 replaced, 0 unchanged" in outcome.stdout
        outcome = run("index", "add", index, f"--codes={folders}/b")
        assert "100 added, 0 replaced, 100 unchanged" in outcome.stdout, outcome.stderr
        outcome = run("index", "remove", index, "--ids=0,77")
        assert "1 of 2 removed; not there: 77" in outcome.stdout, outcome.stderr
        outcome = run("index", "check", index)
        assert "is in order: 399 items" in outcome.stdout, outcome.stderr
        assert "recall@10 1.0000 on 100 of its codes" in outcome.stdout
        assert "own code found: 100 %" in outcome.stdout
        outcome = run("search", index, "--like=20", "--json", "--top=5", "--tag=third")
        assert outcome.returncode == 0, outcome.stderr
        (found,) = json.loads(outcome.stdout)
        codes = random_codes(400, 64)
        rows = np.arange(3, 400, 3)
        wanted = expected(codes[rows], 10 * rows, codes[2:3], 5)[0]
        assert [r["distance"] for r in found["results"]] == wanted[:, 0].tolist()
        outcome = run("index", "build", index, f"--codes={folders}/a")
        assert outcome.returncode == 2
        assert len(outcome.stderr.strip().split("\n")) == 1
        assert "holds an index already" in outcome.stderr
        outcome = run("index", "stats", index)
        assert "items                399" in outcome.stdout

    def test_a_milvus_file(self, folders, tmp_path):
        if why := engine_servers.missing("milvus"):
            pytest.skip(why)
        index = f"--index=milvus://{tmp_path}/file.db/pictures"
        for command, said in (("build", "300 added"), ("add", "300 unchanged")):
            outcome = run("index", command, index, f"--codes={folders}/a")
            assert outcome.returncode == 0, outcome.stderr
            assert said in outcome.stdout

    @pytest.mark.parametrize("name", [*DATABASES])
    def test_a_database_that_is_down(self, name, folders):
        if why := engine_servers.missing(name):
            pytest.skip(why)
        place = address(name, f"me@127.0.0.1:{engine_servers.free_port()}")
        for outcome in (
            run("index", "build", f"--index={place}", f"--codes={folders}/a"),
            run("search", f"--index={place}", "--like=3"),
        ):
            assert outcome.returncode == 2
            assert len(outcome.stderr.strip().split("\n")) == 1, outcome.stderr
            assert "no connection to" in outcome.stderr
            assert "start it, or check the address" in outcome.stderr


def test_an_index_imports_no_tensorflow():
    code = (
        "import sys; import dsprh_tf.index.location, dsprh_tf.index.code_folder; "
        "sys.exit('tensorflow' in sys.modules or 'pymilvus' in sys.modules or 'psycopg' in "
        "sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_pins_are_those_of_the_default_stack():
    ours, theirs = (
        {line for name in names for line in (ROOT / name).read_text().split() if "==" in line}
        for names in (["requirements-engines.txt"], ["requirements.txt", "requirements-dev.txt"])
    )
    assert {line for line in ours if "pgserver" not in line} <= theirs
