"""From codes to answers by the programs: index.py, search.py and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsprh_tf.index.answers import answer, format_table
from dsprh_tf.index.code_folder import CodeFolder
from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.interface import Where
from dsprh_tf.serving.encoder import Encoder
from dsprh_tf.serving.suggestions import describe

PARTS = ("image", "text")


@pytest.fixture(scope="module")
def library(program, exported, scenes_dir, tmp_path_factory):
    """Codes of the drawn pictures and texts, and an index of both: (folder, pictures' folder)."""
    folder = tmp_path_factory.mktemp("library")
    shutil.copytree(scenes_dir, folder / "scenes")
    manifest = folder / "scenes" / "manifest.csv"
    for part in PARTS:
        outcome = program("encode", f"--export_dir={exported}", f"--{part}s={manifest}",
                          f"--out={folder}/codes/{part}", "--on_bad_text=skip")  # fmt: skip
        assert outcome.code == 0, outcome.err
    codes = ",".join(f"{folder}/codes/{part}" for part in PARTS)
    outcome = program("index", "build", f"--codes={codes}", f"--index={folder}/index")
    assert outcome.code == 0, outcome.err
    return folder, outcome


@pytest.fixture
def copy(library, tmp_path):
    """A copy of the library whose index a test may change."""
    shutil.copytree(library[0] / "index", tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture(scope="module")
def everything(library):
    """Codes, items: all of the index by brute force."""
    folders = [CodeFolder(library[0] / "codes" / part) for part in PARTS]
    items = [item for folder in folders for item in folder.items().to_pylist()]
    return np.concatenate([folder.codes for folder in folders]), items


@pytest.fixture(scope="module")
def encoders(exported):
    return {kind: Encoder(exported, kind) for kind in PARTS}


@pytest.fixture
def search(program, library, exported):
    """`search(*flags) -> Outcome` on the library."""

    def run(*flags):
        return program("search", f"--index={library[0]}/index", f"--export_dir={exported}", *flags)

    return run


def nearest(everything, code, k, admits=lambda item: True):
    """Distances of the k nearest, by the definition."""
    codes, items = everything
    rows = [row for row, item in enumerate(items) if admits(item)]
    return np.sort(np.unpackbits(codes[rows] ^ code, axis=1).sum(axis=1))[:k].tolist()


def check_results(found, everything, code, k, admits=lambda item: True):
    """Right up to ties: distances, and every item at its true one, none twice."""
    codes, items = everything
    row_of = {item["id"]: row for row, item in enumerate(items)}
    assert [r["distance"] for r in found] == nearest(everything, code, k, admits)
    assert len({r["id"] for r in found}) == len(found)
    for result in found:
        item = items[row_of[result["id"]]]
        assert admits(item)
        assert result["distance"] == np.unpackbits(codes[row_of[result["id"]]] ^ code).sum()
        assert result["modality"] == item["modality"]
        assert result.get("path") == item["path"]
        assert result.get("text") == item["text"]
        assert result["tags"] == item["tags"]


class TestIndexProgram:
    def test_build_says_what_there_is(self, library, everything):
        said = library[1].out
        total = len(everything[1])
        assert f"{total} added, 0 replaced, 0 unchanged" in said
        for line in ("images               120", f"texts                {total - 120}",
                     "kind                 flat", "search               exact",
                     "bits                 16"):  # fmt: skip
            assert line in said

    def test_check(self, program, library, everything):
        outcome = program("index", "check", f"--index={library[0]}/index")
        assert outcome.code == 0, outcome.err
        assert f"is in order: {len(everything[1])} items, checksums right" in outcome.out
        assert "recall@10 1.0000 on 100 of them" in outcome.out

    def test_stats(self, program, library):
        outcome = program("index", "stats", f"--index={library[0]}/index")
        assert outcome.out == library[1].out.split("\n", 1)[1]

    def test_adding_step_by_step_gives_the_same(self, program, library, tmp_path):
        folder = library[0]
        for command, part in (("build", "image"), ("add", "text"), ("add", "image")):
            outcome = program("index", command, f"--codes={folder}/codes/{part}",
                              f"--index={tmp_path}/index")  # fmt: skip
            assert outcome.code == 0, outcome.err
        assert "0 added, 0 replaced, 120 unchanged" in outcome.out
        a, b = HammingIndex.load(folder / "index"), HammingIndex.load(tmp_path / "index")
        np.testing.assert_array_equal(a.ids_where(), b.ids_where())
        np.testing.assert_array_equal(a.codes_of(a.ids_where()), b.codes_of(a.ids_where()))
        assert a.items_of(a.ids_where()).equals(b.items_of(a.ids_where()))

    def test_an_approximate_kind_prints_its_recall(self, program, tmp_path):
        """Through a folder of codes that was not encoded here."""
        from test_index import clustered_codes, picture_items

        from dsprh_tf.index.code_folder import CodeWriter, part_schema

        rows = 2000
        writer = CodeWriter(tmp_path / "codes", 64, "abc", "image", "/pictures")
        codes = [bytes(code) for code in clustered_codes(rows)]
        table = picture_items(rows).to_pydict()
        table.update(modified=[1] * rows, code=codes, problem=[None] * rows)
        import pyarrow as pa

        writer.write_part(pa.table(table, part_schema(64)))
        writer.finish(table["id"])
        outcome = program("index", "build", f"--codes={tmp_path}/codes", "--kind=ivf",
                          f"--index={tmp_path}/index")  # fmt: skip
        assert outcome.code == 0, outcome.err
        assert "search               approximate" in outcome.out
        recall = float(outcome.out.split("recall@10")[1].split()[0])
        assert 0.8 < recall <= 1
        checked = program("index", "check", f"--index={tmp_path}/index")
        assert f"recall@10 {recall:.4f} on 100 of them" in checked.out

    def test_remove(self, program, copy, everything):
        items = everything[1]
        first = items[0]["id"]
        outcome = program("index", "remove", f"--index={copy}", f"--ids={first},77")
        assert "1 removed, 1 not found" in outcome.out
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

    def test_remove_what_is_gone(self, program, library, copy, everything):
        pictures = library[0] / "scenes" / "images"
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

    def test_killed_while_adding(self, program, library, killed, tmp_path):
        """At 20 random points: the former content or the new, and once more gives the new."""
        folder, index = library[0], tmp_path / "index"
        program("index", "build", f"--codes={folder}/codes/image", f"--index={index}")
        before = len(HammingIndex.load(index))
        shutil.copytree(index, tmp_path / "before")
        add = ("index", "add", f"--codes={folder}/codes/text", f"--index={index}")
        whole = HammingIndex.load(folder / "index")
        rng = np.random.default_rng(0)
        deaths = 0
        for point in rng.integers(1, 25, 20):
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
            ([], "got no command, expected one of build, add, remove, stats, check before all"),
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
            (["remove", "--index=x", "--ids=1,b"], "--ids has 'b', expected the id of an item"),
            (["remove", "--index=x", f"--ids=1,{'9' * 20}"], "9', expected the id of an item"),
            (["remove", "--index=x", f"--ids=1,{'9' * 9999}"], "9', expected the id of an item"),
            (["stats", "--index=redis://host/x"], "no engine for redis://"),
        ],
    )
    def test_bad_commands(self, program, arguments, message):
        line = program("index", *arguments).line
        assert line.startswith("index: ")
        assert message in line

    def test_an_index_that_is_there(self, program, library, copy):
        codes = f"--codes={library[0]}/codes/image"
        assert "holds an index already" in program("index", "build", codes, f"--index={copy}").line
        outcome = program("index", "build", codes, f"--index={copy}", "--overwrite")
        assert outcome.code == 0, outcome.err
        assert len(HammingIndex.load(copy)) == 120

    def test_codes_of_other_encoders(self, program, library, copy, tmp_path):
        shutil.copytree(library[0] / "codes" / "image", tmp_path / "codes")
        path = tmp_path / "codes" / "codes.json"
        about = json.loads(path.read_text())
        path.write_text(json.dumps({**about, "fingerprint": "0" * 64}))
        outcome = program("index", "add", f"--codes={tmp_path}/codes", f"--index={copy}")
        assert "is of other encoders than the index (fingerprint 000000000000" in outcome.line

    def test_help_names_the_commands(self, program):
        said = program("index", "--help").out
        for word in ("commands:", "build  ", "check  ", "--kind", "--gone"):
            assert word in said


class TestSearch:
    @pytest.mark.parametrize("find", [None, *PARTS])
    def test_words(self, search, everything, encoders, find):
        text = everything[1][-1]["text"]
        flags = [f"--find={find}"] if find else []
        outcome = search(f"--text={text}", "--json", "--top=7", *flags)
        assert outcome.code == 0, outcome.err
        (found,) = json.loads(outcome.out)
        assert found["query"] == {"text": text}
        check_results(found["results"], everything, encoders["text"].encode([text])[0], 7,
                      lambda item: find in (None, item["modality"]))  # fmt: skip

    @pytest.mark.parametrize("find", PARTS)
    def test_picture(self, search, everything, encoders, find):
        path = everything[1][7]["path"]
        outcome = search(f"--image={path}", "--json", f"--find={find}")
        code = encoders["image"].encode([Path(path).read_bytes()])[0]
        (found,) = json.loads(outcome.out)
        check_results(found["results"], everything, code, 10, lambda i: i["modality"] == find)

    def test_like_an_item_without_encoders(self, program, library, everything):
        item = everything[1][9]
        outcome = program("search", f"--index={library[0]}/index", f"--like={item['id']}", "--json")
        assert outcome.code == 0, outcome.err
        (found,) = json.loads(outcome.out)
        check_results(found["results"], everything, everything[0][9], 10,
                      lambda other: other["id"] != item["id"])  # fmt: skip

    def test_filters(self, search, everything):
        codes, items = everything
        tag = items[2]["tags"][0]
        prefix = str(Path(items[0]["path"]).parent / "0000")
        outcome = search(f"--like={items[0]['id']}", f"--tag={tag}", f"--prefix={prefix}", "--json")
        (found,) = json.loads(outcome.out)

        def admits(item):
            there = tag in item["tags"] and (item["path"] or "").startswith(prefix)
            return there and item["id"] != items[0]["id"]

        check_results(found["results"], everything, codes[0], 10, admits)
        assert found["results"]

    def test_a_relative_prefix(self, search, everything, library, monkeypatch):
        monkeypatch.chdir(library[0])
        outcome = search(f"--like={everything[1][0]['id']}", "--prefix=scenes/images/", "--top=200",
                         "--json")  # fmt: skip
        assert len(json.loads(outcome.out)[0]["results"]) == 119

    def test_table(self, search, everything):
        text = everything[1][-1]["text"]
        outcome = search(f"--text={text}", f"--like={everything[1][4]['id']}", "--top=3")
        lines = outcome.out.split("\n")
        assert lines[0] == f"text: {text}"
        assert lines[1].split() == ["distance", "id"]
        rows = [line for line in lines if line.startswith("  ") and "distance" not in line]
        assert len(rows) == 6
        ids = {str(item["id"]): item for item in everything[1]}
        for row in rows:
            distance, name, content = row.split(maxsplit=2)
            assert 0 <= int(distance) <= 16
            assert content.startswith(ids[name]["path"] or ids[name]["text"])

    def test_many_queries_of_a_file(self, search, everything, tmp_path):
        items = everything[1]
        texts = [items[-1]["text"], items[-2]["text"]]
        (tmp_path / "q.txt").write_text("\n".join([texts[0], "", texts[1], ""]))
        outcome = search(f"--queries={tmp_path}/q.txt", "--json")
        assert [a["query"] for a in json.loads(outcome.out)] == [{"text": t} for t in texts]
        (tmp_path / "q.csv").write_text(
            f"text,image,like\n{texts[0]},,\n,{items[3]['path']},\n,,{items[5]['id']}\n"
        )
        outcome = search(f"--queries={tmp_path}/q.csv", f"--text={texts[1]}", "--json")
        answers = json.loads(outcome.out)
        assert [a["query"] for a in answers] == [
            {"text": texts[1]}, {"text": texts[0]}, {"image": items[3]["path"]},
            {"like": str(items[5]["id"])},
        ]  # fmt: skip
        alone = json.loads(search(f"--image={items[3]['path']}", "--json").out)
        distances = [[r["distance"] for r in a["results"]] for a in (answers[2], *alone)]
        assert distances[0] == distances[1]

    def test_pictures_of_a_file_lie_beside_it(self, search, everything, library):
        path = Path(everything[1][3]["path"])
        listed = path.parents[1] / "q.jsonl"
        listed.write_text(json.dumps({"image": f"{path.parent.name}/{path.name}"}))
        outcome = search(f"--queries={listed}", "--json")
        listed.unlink()
        assert outcome.code == 0, outcome.err
        (found,) = json.loads(outcome.out)
        assert found["query"] == {"image": str(path)}
        assert found["results"][0]["distance"] == 0

    def test_contact_sheet(self, search, everything, tmp_path):
        items = everything[1]
        flags = [f"--text={items[-1]['text']}", f"--image={items[0]['path']}",
                 f"--like={items[1]['id']}", f"--like={items[-3]['id']}"]  # fmt: skip
        outcome = search(*flags, f"--show={tmp_path}/out.png")
        assert outcome.code == 0, outcome.err
        with Image.open(tmp_path / "out.png") as sheet:
            assert sheet.size[1] > 4 * 168
            # The picture of the second row's query is the one that was asked by.
            tile = np.asarray(sheet.convert("RGB"))
        assert tile.std() > 20
        assert f"sheet: {tmp_path}/out.png (shows 8 results of each)\n" in outcome.err

    def test_a_contact_sheet_of_many_queries(self, search, everything, tmp_path):
        listed = "\n".join(["like", *(str(item["id"]) for item in everything[1][:103])])
        (tmp_path / "q.csv").write_text(listed)
        outcome = search(f"--queries={tmp_path}/q.csv", "--top=1", f"--show={tmp_path}/out.png")
        assert outcome.code == 0, outcome.err
        assert outcome.out.count("like: ") == 103
        assert "out.png (shows the first 100 of 103 queries)" in outcome.err

    def test_an_item_that_is_gone(self, search, everything, library, tmp_path):
        pictures = library[0] / "scenes" / "images"
        like = everything[1][0]["id"]
        flags = [f"--like={like}", "--find=image", "--top=3"]
        pictures.rename(library[0] / "scenes" / "away")
        try:
            outcome = search(*flags, f"--show={tmp_path}/out.png")
            found = json.loads(search(*flags, "--json").out)[0]["results"]
        finally:
            (library[0] / "scenes" / "away").rename(pictures)
        assert outcome.code == 0, outcome.err
        assert outcome.out.count("(gone from disk)") == 3
        assert "3 results are no longer on disk: remove such items" in outcome.err
        assert all(result["gone"] for result in found)
        assert (tmp_path / "out.png").exists()

    def test_answers_leave_out_only_what_was_asked(self, library, everything):
        index = HammingIndex.load(library[0] / "index")
        codes, items = everything
        found = answer(index, codes[:2], 5, Where(modality="image"), [items[0]["id"], None])
        assert [len(results) for results in found] == [5, 5]
        assert items[0]["id"] not in [result["id"] for result in found[0]]
        assert items[1]["id"] in [r["id"] for r in answer(index, codes[1:2], 120)[0]]
        assert format_table([]) == "  no results"


class TestRefused:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ([], "nothing to search by: give --text, --image, --like or --queries"),
            (["--like=5"], "no item of the index has the id 5"),
            (["--like=photo.jpg"], "--like=photo.jpg, expected the id of an item"),
            (["--text=dog", "--tag=nosuchtag"], "no item of the index has this --tag"),
            (["--image=nowhere.jpg"], "image nowhere.jpg cannot be read (No such file or dir"),
            ([f"--image={__file__}"], "is no JPEG, PNG, GIF, BMP, WebP or TIFF picture; choose"),
            (["--queries=nowhere.csv"], "nowhere.csv cannot be read"),
            (["--queries=nowhere.txt"], "nowhere.txt cannot be read"),
            (["--queries=nowhere.doc"], "is not a .csv, .parquet or .jsonl file"),
            (["--top=0"], "--top=0"),
            (["--find=sound"], "sound"),
        ],
    )
    def test_flags(self, search, flags, message):
        line = search(*flags).line
        assert line.startswith("search: ")
        assert message in line

    def test_needs(self, program, library):
        assert "needs --index=FOLDER" in program("search", "--text=dog").line
        line = program("search", f"--index={library[0]}/index", "--text=dog").line
        assert "needs --export_dir=FOLDER" in line

    def test_unknown_words(self, search, encoders):
        word = next(w for w in encoders["text"].vocabulary if len(w) > 6)
        wrong = word[:3] + word[4:]
        line = search(f"--text=xyzzy {wrong}").line
        assert f"'xyzzy {wrong}' has no word of the vocabulary of" in line
        assert f"unknown: xyzzy, {wrong}; near: " in line
        assert word in line.split("near: ")[1]
        assert "unknown: (empty)" in search("--text=").line

    def test_unknown_words_beside_known_ones_are_noted(self, search, encoders):
        word = encoders["text"].vocabulary[0]
        outcome = search(f"--text=the {word} of xyzzy", "--json")
        assert outcome.code == 0
        assert json.loads(outcome.out)
        assert f"note: 'the {word} of xyzzy': unknown: xyzzy" in outcome.err

    def test_unknown_words_of_the_encoder(self, encoders):
        text = encoders["text"]
        word = text.vocabulary[0]
        assert text.unknown_words(f"{word} {word.upper()}!") == {}
        assert set(text.unknown_words("the of")) == {"the", "of"}
        assert set(text.unknown_words("the xyzzy of")) == {"xyzzy"}
        assert describe({"a": ["b", "c"], "d": ["c"]}) == "unknown: a, d; near: b, c"
        assert encoders["image"].vocabulary == ()

    def test_a_broken_row_of_queries(self, search, tmp_path):
        (tmp_path / "q.csv").write_text("text,image\nred,a.jpg\n")
        line = search(f"--queries={tmp_path}/q.csv").line
        assert "q.csv row 2: expected one of text, image and like, found text and image" in line
        (tmp_path / "q.csv").write_text("like\n5\nphoto.jpg\n")
        line = search(f"--queries={tmp_path}/q.csv").line
        assert "q.csv row 3: like is 'photo.jpg', expected the id of an item" in line
        (tmp_path / "q.csv").write_text("words\nred\n")
        assert "row 2: expected one of text, image and like, found none" in search(
            f"--queries={tmp_path}/q.csv"
        ).line

    def test_other_encoders(self, program, copy, exported, tmp_path, everything):
        shutil.copytree(exported, tmp_path / "export")
        for path in (tmp_path / "export").glob("*/*/assets.extra/encoder.json"):
            path.write_text(path.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
        flags = (f"--index={copy}", f"--export_dir={tmp_path}/export")
        for flag in (f"--image={everything[1][0]['path']}", "--text=dog"):
            line = program("search", *flags, flag).line
            assert "is of other encoders than the index (fingerprint 0" in line

    def test_other_bits(self, program, exported, tmp_path):
        HammingIndex.create(tmp_path / "index", 32, "abc").commit()
        index = HammingIndex.load(tmp_path / "index", write=True)
        from test_index import picture_items, random_codes

        index.add(random_codes(3, 32), picture_items(3))
        index.commit()
        flags = (f"--index={tmp_path}/index", f"--export_dir={exported}")
        line = program("search", *flags, "--text=dog").line
        assert "makes codes of 16 bits, the index was built with 32" in line

    @pytest.mark.parametrize("part", ["codes", "ids", "items", "index"])
    @pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
    def test_a_damaged_index(self, program, copy, part, damage):
        (path,) = copy.glob(f"{part}*.*")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(content if damage == "altered" else content[: len(content) // 2])
        for command in (["search", "--like=1"], ["index", "check"], ["index", "stats"],
                        ["index", "remove", "--ids=1"]):  # fmt: skip
            line = program(*command, f"--index={copy}").line
            assert str(copy) in line
            assert "build" in line

    def test_an_empty_index(self, program, exported, copy):
        everything = HammingIndex.load(copy).ids_where()
        ids = ",".join(map(str, everything))
        outcome = program("index", "remove", f"--index={copy}", f"--ids={ids}")
        assert outcome.code == 0, outcome.err
        line = program("search", f"--index={copy}", f"--export_dir={exported}", "--text=dog").line
        assert f"{copy} is empty: add codes with scripts/index.py add" in line
        checked = program("index", "check", f"--index={copy}")
        assert "is in order: 0 items, checksums right" in checked.out
