"""The program `index`: building, adding, removing, checking, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from index_helpers import (
    clustered_codes,
    image_items,
    random_codes,
    write_code_folder,
    write_image,
)
from PIL import Image

from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.items import text_items


@pytest.fixture(scope="module")
def built(program, collection, tmp_path_factory):
    """What `build` and `add` print of an index like the collection's: (folder, output)."""
    index = tmp_path_factory.mktemp("built") / "index"
    codes = f"--codes={collection}/image,{collection}/text"
    outcome = program("index", "build", codes, f"--index={index}")
    assert outcome.code == 0, outcome.err
    return index, outcome.out


def test_build_says_what_there_is(built, everything):
    said = built[1]
    total = len(everything[1])
    assert f"{total} added, 0 replaced, 0 unchanged" in said
    for line in ("images               120", f"texts                {total - 120}",
                 "kind                 flat", "search               exact",
                 "bits                 16"):  # fmt: skip
        assert line in said


def test_check(program, collection, everything):
    outcome = program("index", "check", f"--index={collection}/index")
    assert outcome.code == 0, outcome.err
    assert f"is in order: {len(everything[1])} items, checksums right" in outcome.out
    assert re.search(r"recall@10 1.0000 on \d+ of its codes, each counted once", outcome.out)
    assert "own code found: 100 %" in outcome.out


def test_stats(program, built):
    outcome = program("index", "stats", f"--index={built[0]}")
    assert outcome.out == built[1].split("\n", 1)[1]


def test_adding_step_by_step_gives_the_same(program, collection, tmp_path):
    for command, part in (("build", "image"), ("add", "text"), ("add", "image")):
        outcome = program("index", command, f"--codes={collection}/{part}",
                          f"--index={tmp_path}/index")  # fmt: skip
        assert outcome.code == 0, outcome.err
    assert "0 added, 0 replaced, 120 unchanged" in outcome.out
    a, b = HammingIndex.load(collection / "index"), HammingIndex.load(tmp_path / "index")
    np.testing.assert_array_equal(a.ids_where(), b.ids_where())
    np.testing.assert_array_equal(a.codes_of(a.ids_where()), b.codes_of(a.ids_where()))
    assert a.items_of(a.ids_where()).equals(b.items_of(a.ids_where()))


def test_an_approximate_kind_prints_its_recall(program, tmp_path):
    """Through a folder of codes that was not encoded here."""
    rows = 2000
    write_code_folder(tmp_path / "codes", clustered_codes(rows), image_items(rows))
    outcome = program("index", "build", f"--codes={tmp_path}/codes", "--kind=ivf",
                      f"--index={tmp_path}/index")  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "search               approximate" in outcome.out
    recall = float(outcome.out.split("recall@10 ")[1].split()[0])
    assert 0.8 < recall <= 1
    assert "own code found       100 %" in outcome.out
    checked = program("index", "check", f"--index={tmp_path}/index")
    assert f"recall@10 {recall:.4f} on 100 of its codes" in checked.out
    assert "own code found: 100 %" in checked.out


def test_many_equal_codes_are_no_reason_for_praise(program, tmp_path):
    """Recall is that of the codes, each counted once; without them, 95 of 100 would be equal."""
    codes = np.concatenate([np.repeat(random_codes(1, 64, 1), 20_000, axis=0), random_codes(1500)])
    write_code_folder(tmp_path / "codes", codes, image_items(len(codes)))
    outcome = program("index", "build", f"--codes={tmp_path}/codes", "--kind=ivf",
                      f"--index={tmp_path}/index")  # fmt: skip
    assert "distinct codes       1,501" in outcome.out
    assert float(outcome.out.split("recall@10 ")[1].split()[0]) < 0.8
    assert "own code found       100 %" in outcome.out


class TestIds:
    """Ids as people have them, by `remove` and what it says."""

    @pytest.fixture
    def index(self, tmp_path):
        index = HammingIndex.create(tmp_path / "index", 64, "abc")
        index.add(random_codes(30), image_items(30))
        index.commit()
        index._lock.release()
        return tmp_path / "index"

    @pytest.mark.parametrize(
        ("ids", "said", "left"),
        [
            ("10,20", "2 removed\n", 28),
            ("10.0,20.", "2 removed\n", 28),
            ("10,10.0,0010", "1 removed\n", 29),
            ("10,7,20", "2 of 3 removed; not there: 7\n", 28),
            (",".join(map(str, range(10, 30))),
             "2 of 20 removed; not there: 11, 12, 13, 14, 15, 16, 17, 18, 19, 21 and 8 more\n", 28),
        ],
        ids=["numbers", "floats", "one-id", "part", "many"],
    )  # fmt: skip
    def test_removed(self, program, index, ids, said, left):
        outcome = program("index", "remove", f"--index={index}", f"--ids={ids}")
        assert outcome.code == 0, outcome.err
        assert said in outcome.out
        assert len(HammingIndex.load(index)) == left

    @pytest.mark.parametrize(
        ("flag", "message"),
        [
            ("--ids=3", "no item of the index has the id 3; check it, or give --missing_ok"),
            ("--ids=3.0,7", "no item of the index has the id 3, 7; check it, or give"),
            ("--tag=unknown", "no item of the index has the --tag and --prefix; check"),
            ("--prefix=/nowhere", "no item of the index has the --tag and --prefix; check"),
        ],
    )
    def test_nothing_was_removed(self, program, index, flag, message):
        before = sorted(index.iterdir())
        line = program("index", "remove", f"--index={index}", flag).line  # exit code 2
        assert "nothing was removed" in line and message in line
        assert sorted(index.iterdir()) == before
        outcome = program("index", "remove", f"--index={index}", flag, "--missing_ok")
        assert outcome.code == 0, outcome.err
        assert "removed" in outcome.out
        assert len(HammingIndex.load(index)) == 30

    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            ("1.5", "--ids has '1.5', expected the id of an item, a whole number"),
            ("-1", "--ids has '-1', expected the id of an item"),
            ("nan", "--ids has 'nan', expected the id of an item"),
            ("1e+16", "--ids has '1e+16': the id 1e+16 was a whole number that has lost its last"),
            ("9007199254740993.0", "the id 9007199254740993.0 was a whole number that has lost"),
            ("10,,20", "--ids has '', expected the id of an item"),
        ],
    )
    def test_what_is_no_id(self, program, index, ids, message):
        assert message in program("index", "remove", f"--index={index}", f"--ids={ids}").line
        assert len(HammingIndex.load(index)) == 30

    def test_like(self, program, index):
        found = [program("search", f"--index={index}", f"--like={name}", "--json").out
                 for name in ("10", "10.0", "010")]  # fmt: skip
        assert [json.loads(out)[0]["query"] for out in found[:2]] == [{"like": "10"}] * 2
        assert found[0] == found[1] == found[2]
        line = program("search", f"--index={index}", "--like=1.5").line
        assert "--like=1.5, expected the id of an item, a whole number below 2^63" in line


class TestDuplicates:
    @pytest.fixture
    def album(self, tmp_path):
        """30 images, of which 0, 10, 20 are within 2 bits and 30, 40 within 3, and two texts."""
        codes = random_codes(32)
        codes[1] = codes[2] = codes[0]
        codes[2, 0] ^= 3
        codes[4] = codes[3]
        codes[4, 0] ^= 7
        codes[31] = codes[30] = codes[0]
        items = image_items(30).to_pylist()
        for item in items[:5]:
            item["path"] = str(write_image(tmp_path / "photos" / f"{item['id']}.png"))
        index = HammingIndex.create(tmp_path / "index", 64, "abc")
        texts = text_items(["a dog", "the dog"], [5, 7])
        index.add(codes, pa.concat_tables([pa.Table.from_pylist(items, texts.schema), texts]))
        index.commit()
        return f"--index={tmp_path}/index"

    def test_table(self, program, album):
        outcome = program("index", "duplicates", album)
        assert outcome.code == 0, outcome.err
        first, second, last = outcome.out.strip().split("\n\n")
        assert first.split("\n")[0] == "group 1: 3 images"
        assert [line.split()[:3] for line in first.split("\n")[2:]] == [
            ["1.000", "0", "0"], ["1.000", "0", "10"], ["0.969", "2", "20"]
        ]  # fmt: skip
        assert "photos/20.png  [all]" in first
        assert second.split("\n")[0] == "group 2: 2 texts"
        assert last == (
            "2 groups of near-duplicates within 2 of 64 bits: 3 of 32 items are beside the first "
            "of their group"
        )

    @pytest.mark.parametrize(
        ("flags", "groups"),
        [
            (["--radius=0"], [[0, 10], [5, 7]]),
            (["--radius=3"], [[0, 10, 20], [5, 7], [30, 40]]),
            (["--radius=3", "--find=image"], [[0, 10, 20], [30, 40]]),
            (["--radius=3", "--find=text"], [[5, 7]]),
            (["--radius=3", "--tag=third"], []),
            (["--radius=3", "--prefix=/pictures/odd"], []),
        ],
    )
    def test_json(self, program, album, flags, groups):
        outcome = program("index", "duplicates", album, "--json", *flags)
        assert outcome.code == 0, outcome.err
        found = json.loads(outcome.out)
        assert [[r["id"] for r in group["results"]] for group in found["groups"]] == groups
        assert found["others"] == sum(len(group) - 1 for group in groups)
        assert (found["radius"], found["bits"]) == (int(flags[0][9:]), 64)

    def test_contact_sheet(self, program, album, tmp_path):
        outcome = program("index", "duplicates", album, f"--show={tmp_path}/out.png")
        assert outcome.code == 0, outcome.err
        assert outcome.err == f"contact sheet: {tmp_path}/out.png\n"
        with Image.open(tmp_path / "out.png") as sheet:
            assert sheet.size[1] > 2 * 168
            assert np.asarray(sheet.convert("RGB")).std() > 20
        outcome = program("index", "duplicates", album, "--tag=third", f"--show={tmp_path}/no.png")
        assert "no groups: no contact sheet" in outcome.err
        assert not (tmp_path / "no.png").exists()

    def test_many_groups(self, program, tmp_path):
        codes = np.repeat(random_codes(120), 2, axis=0)
        index = HammingIndex.create(tmp_path / "index", 64, "abc")
        index.add(codes, image_items(240))
        index.commit()
        outcome = program("index", "duplicates", f"--index={tmp_path}/index",
                          f"--show={tmp_path}/out.png")  # fmt: skip
        assert outcome.out.count("group ") == 100
        assert "and 20 more groups (--json has all)" in outcome.out
        assert "out.png (shows the first 100 of 120 groups)" in outcome.err

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--radius=65"], "radius is 65, expected 0 to 64"),
            (["--tag=nosuchtag"], "no item of the index is as --tag, --prefix and --find say"),
        ],
    )
    def test_refused(self, program, album, flags, message):
        assert message in program("index", "duplicates", album, *flags).line


def test_remove(program, copy, everything):
    items = everything[1]
    first = items[0]["id"]
    outcome = program("index", "remove", f"--index={copy}", f"--ids={first},77")
    assert "1 of 2 removed; not there: 77" in outcome.out
    tag = items[5]["tags"][0]
    tagged = sum(tag in item["tags"] for item in items[1:])
    outcome = program("index", "remove", f"--index={copy}", f"--tag={tag}")
    assert f"{tagged} removed" in outcome.out
    left = [item for item in items[1:] if tag not in item["tags"]]
    prefix = str(Path(items[0]["path"]).parent / "00001")
    outcome = program("index", "remove", f"--index={copy}", f"--prefix={prefix}")
    left = [item for item in left if not (item["path"] or "").startswith(prefix)]
    index = HammingIndex.load(copy)
    assert sorted(index.ids_where()) == sorted(item["id"] for item in left)


def test_remove_what_is_gone(program, collection, copy, everything):
    pictures = collection / "scenes" / "images"
    hidden = pictures.with_name("hidden")
    gone = everything[1][3]
    pictures.rename(hidden)
    pictures.mkdir()
    try:
        for path in hidden.iterdir():
            if path.name != Path(gone["path"]).name:
                (pictures / path.name).symlink_to(path)
        outcome = program("index", "remove", f"--index={copy}", "--gone")
    finally:
        shutil.rmtree(pictures)
        hidden.rename(pictures)
    assert outcome.code == 0, outcome.err
    assert "1 removed" in outcome.out
    assert gone["id"] not in HammingIndex.load(copy).ids_where()


def test_gone_is_refused_for_a_folder_that_is_away(program, tmp_path):
    photos, index = tmp_path / "photos", HammingIndex.create(tmp_path / "index", 64, "abc")
    photos.mkdir()
    items = image_items(20).to_pydict()
    items["path"] = [str(photos / f"{i}.png") for i in range(20)]
    for path in items["path"]:
        Path(path).touch()
    index.add(random_codes(20), pa.table(items, image_items(1).schema))
    index.commit()
    index._lock.release()
    remove = ("index", "remove", f"--index={tmp_path}/index", "--gone")
    photos.rename(tmp_path / "away")
    assert f"the folder {photos} that all images" in program(*remove).line
    photos.mkdir()
    line = program(*remove).line
    assert "20 of 20 items of" in line and "--yes" in line
    assert len(HammingIndex.load(tmp_path / "index")) == 20
    outcome = program(*remove, "--yes")
    assert "20 removed" in outcome.out and outcome.code == 0
    outcome = program("index", "undo", f"--index={tmp_path}/index")
    assert outcome.code == 0, outcome.err
    assert len(HammingIndex.load(tmp_path / "index")) == 20


def test_killed_while_adding(program, collection, killed, tmp_path):
    """At 20 random points: the former content or the new, and once more gives the new."""
    index = tmp_path / "index"
    program("index", "build", f"--codes={collection}/image", f"--index={index}")
    before = len(HammingIndex.load(index))
    shutil.copytree(index, tmp_path / "before")
    add = ("index", "add", f"--codes={collection}/text", f"--index={index}")
    whole = HammingIndex.load(collection / "index")
    rng = np.random.default_rng(0)
    deaths = 0
    for point in rng.integers(1, 14, 20):
        shutil.rmtree(index)
        shutil.copytree(tmp_path / "before", index)
        deaths += killed(index, int(point), lambda: program(*add))
        assert len(HammingIndex.load(index)) in (before, len(whole))
        outcome = program(*add)
        assert outcome.code == 0, outcome.err
        found = HammingIndex.load(index)
        np.testing.assert_array_equal(found.ids_where(), whole.ids_where())
        assert found.items_of(found.ids_where()).equals(whole.items_of(found.ids_where()))
    assert deaths >= 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "got no command, expected one of build, add, remove, sync, undo, stats, check, dup"),
        (["--index=a", "stats"], "got '--index=a', expected one of build"),
        (["destroy"], "got 'destroy', expected one of"),
        (["stats", "check"], "got 'check', expected only --flag=value"),
        (["stats"], "needs --index=FOLDER"),
        (["stats", "--index=nowhere"], "nowhere holds no index"),
        (["add", "--index=nowhere"], "needs --codes=FOLDER"),
        (["add", "--index=nowhere", "--codes=gone"], "gone holds no codes"),
        (["build", "--index=x", "--kind=tree"], "tree"),
        (["remove", "--index=x"], "needs either --ids, or --tag and --prefix, or --gone"),
        (["remove", "--index=x", "--ids=1", "--gone"], "needs either --ids"),
        (
            ["remove", "--index=x", "--tag=bus", "--tag=car"],
            "got --tag 2 times (bus, car)",
        ),
        (
            ["duplicates", "--index=x", "--tag=bus", "--tag=car"],
            "got --tag 2 times (bus, car), expected one: look through the items of each",
        ),
        (["duplicates", "--index=nowhere", "--radius=-1"], "radius"),
        (["duplicates", "--index=nowhere"], "nowhere holds no index"),
        (["undo", "--index=nowhere"], "nowhere holds no index"),
        (["undo", "--index=milvus://host:1/x"], "undo is for an index in a folder"),
        (["remove", "--index=x", "--ids=1,b"], "--ids has 'b', expected the id of an item"),
        (["remove", "--index=x", f"--ids=1,{'9' * 20}"], "9', expected the id of an item"),
        (["remove", "--index=x", f"--ids=1,{'9' * 9999}"], "9', expected the id of an item"),
        (["stats", "--index=redis://host/x"], "no engine for redis://"),
    ],
)
def test_bad_commands(program, arguments, message):
    line = program("index", *arguments).line
    assert line.startswith("index: ")
    assert message in line


def test_an_index_that_is_there(program, collection, copy):
    codes = f"--codes={collection}/image"
    assert "holds an index already" in program("index", "build", codes, f"--index={copy}").line
    outcome = program("index", "build", codes, f"--index={copy}", "--overwrite")
    assert outcome.code == 0, outcome.err
    assert len(HammingIndex.load(copy)) == 120


def test_codes_of_other_encoders(program, collection, copy, tmp_path):
    shutil.copytree(collection / "image", tmp_path / "codes")
    path = tmp_path / "codes" / "codes.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "fingerprint": "0" * 64}))
    outcome = program("index", "add", f"--codes={tmp_path}/codes", f"--index={copy}")
    assert "is of other encoders than the index (fingerprint 000000000000" in outcome.line


def test_help_names_the_commands(program):
    said = program("index", "--help").out
    for word in ("commands:", "build  ", "check  ", "--kind", "--gone"):
        assert word in said
