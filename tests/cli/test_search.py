"""The program `search`: answers of an index and of a run, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import ROOT
from index_helpers import dots, image_items, random_codes
from PIL import Image

from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.items import SCHEMA
from dsprh_tf.serving.encoder import Encoder

PARTS = ("image", "text")


@pytest.fixture(scope="module")
def encoders(exported):
    return {kind: Encoder(exported, kind) for kind in PARTS}


@pytest.fixture
def search(program, collection, exported):
    """`search(*flags) -> Outcome` on the collection."""

    def run(*flags):
        return program("search", f"--index={collection}/index", f"--export_dir={exported}", *flags)

    return run


def check_results(found, everything, values, k, admits=lambda item: True):
    """Right up to rounding: similarities, and every item at its true one, none twice."""
    codes, items = everything
    true = dots(codes, values)
    rows = [row for row, item in enumerate(items) if admits(item)]
    row_of = {item["id"]: row for row, item in enumerate(items)}
    best = np.sort(true[rows])[::-1][:k]
    np.testing.assert_allclose([r["similarity"] for r in found], best, atol=1e-4)
    assert len({r["id"] for r in found}) == len(found)
    for result in found:
        row = row_of[result["id"]]
        item = items[row]
        assert admits(item)
        assert result["similarity"] == pytest.approx(true[row], abs=1e-4)
        assert result["distance"] == np.sum(np.unpackbits(codes[row]) != (values >= 0))
        assert result["modality"] == item["modality"]
        assert result.get("path") == item["path"]
        assert result.get("text") == item["text"]
        assert result["tags"] == item["tags"]


def signs(code):
    return 2.0 * np.unpackbits(code) - 1


class TestSearch:
    @pytest.mark.parametrize("find", [None, *PARTS])
    def test_text(self, search, everything, encoders, find):
        text = everything[1][-1]["text"]
        flags = [f"--find={find}"] if find else []
        outcome = search(f"--text={text}", "--json", "--top=7", *flags)
        assert outcome.code == 0, outcome.err
        (found,) = json.loads(outcome.out)
        assert found["query"] == {"text": text}
        check_results(found["results"], everything, encoders["text"].encode_values([text])[0], 7,
                      lambda item: find in (None, item["modality"]))  # fmt: skip

    @pytest.mark.parametrize("find", PARTS)
    def test_image(self, search, everything, encoders, find):
        path = everything[1][7]["path"]
        outcome = search(f"--image={path}", "--json", f"--find={find}")
        values = encoders["image"].encode_values([Path(path).read_bytes()])[0]
        (found,) = json.loads(outcome.out)
        check_results(found["results"], everything, values, 10, lambda i: i["modality"] == find)

    def test_by_hamming_distance(self, search, everything, encoders):
        text = everything[1][-1]["text"]
        outcome = search(f"--text={text}", "--json", "--rank=hamming")
        assert outcome.code == 0, outcome.err
        code = encoders["text"].encode([text])[0]
        check_results(json.loads(outcome.out)[0]["results"], everything, signs(code), 10)

    @pytest.mark.parametrize("rank", ["asymmetric", "hamming"])
    def test_pages(self, search, everything, rank):
        """An offset passes over what was shown before; the rest follows in the same order."""
        flags = (f"--text={everything[1][-1]['text']}", f"--like={everything[1][3]['id']}",
                 "--json", f"--rank={rank}")  # fmt: skip
        whole = json.loads(search(*flags, "--top=300").out)
        page = json.loads(search(*flags, "--top=20", "--offset=15").out)
        for one, other in zip(page, whole):
            assert one["results"] == other["results"][15:35]
        count = len(everything[1])
        assert [len(each["results"]) for each in whole] == [count, count - 1]
        beyond = search(*flags[:1], "--offset=500")
        assert (beyond.code, "no results" in beyond.out) == (0, True)

    def test_queries_together(self, search, everything, encoders):
        items = everything[1]
        text, path = items[-1]["text"], items[7]["path"]
        flags = (f"--text={text}", f"--image={path}", f"--like={items[2]['id']}")
        outcome = search(*flags, "--together", "--json")
        assert outcome.code == 0, outcome.err
        (found,) = json.loads(outcome.out)
        assert found["query"] == {"together": [
            {"text": text}, {"image": path}, {"like": str(items[2]["id"])},
        ]}  # fmt: skip
        values = (encoders["text"].encode_values([text])[0] + signs(everything[0][2])
                  + encoders["image"].encode_values([Path(path).read_bytes()])[0])  # fmt: skip
        check_results(found["results"], everything, values, 10,
                      lambda item: item["id"] != items[2]["id"])  # fmt: skip
        table = search(*flags, "--together").out
        assert table.startswith(f"text: {text} + image: {path} + like: {items[2]['id']}\n")
        assert table.count("\n\n") == 1
        outcome = search(*flags, "--text=xyzzy", "--together")
        assert outcome.code == 3
        assert "no query could be answered: 'xyzzy' has no word" in outcome.err

    def test_more_and_less(self, search, everything, encoders, tmp_path):
        codes, items = everything
        text = items[-1]["text"]
        more, less = [items[4]["id"], items[8]["id"]], items[-9]["id"]
        flags = (f"--more={more[0]},{more[1]}", f"--less={less}")
        outcome = search(f"--text={text}", *flags, "--json", f"--show={tmp_path}/sheet.png")
        assert outcome.code == 0, outcome.err
        (found,) = json.loads(outcome.out)
        assert found["query"] == {"text": text, "more": list(map(str, more)), "less": [str(less)]}
        moved = 0.75 * (signs(codes[4]) + signs(codes[8])) / 2 - 0.15 * signs(codes[-9])
        values = encoders["text"].encode_values([text])[0] + moved

        def admits(item):
            return item["id"] not in (*more, less)

        check_results(found["results"], everything, values, 10, admits)
        assert (tmp_path / "sheet.png").exists()
        (found,) = json.loads(search(*flags, "--json").out)
        check_results(found["results"], everything, moved, 10, admits)

    def test_an_export_of_codes_alone(self, search, everything, encoders, monkeypatch):
        init = Encoder.__init__

        def codes_only(self, *arguments):
            init(self, *arguments)
            self.has_values = False

        monkeypatch.setattr(Encoder, "__init__", codes_only)
        text = everything[1][-1]["text"]
        outcome = search(f"--text={text}", "--json")
        assert outcome.err.count("gives codes alone: ranked by Hamming distance") == 1
        code = encoders["text"].encode([text])[0]
        check_results(json.loads(outcome.out)[0]["results"], everything, signs(code), 10)
        assert "codes alone" not in search(f"--text={text}", "--rank=hamming").err

    def test_like_an_item_without_encoders(self, program, collection, everything):
        item = everything[1][9]
        outcome = program("search", f"--index={collection}/index", f"--like={item['id']}", "--json")
        assert outcome.code == 0, outcome.err
        (found,) = json.loads(outcome.out)
        check_results(found["results"], everything, signs(everything[0][9]), 10,
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

        check_results(found["results"], everything, signs(codes[0]), 10, admits)
        assert found["results"]

    @pytest.mark.parametrize("flags", ["all", "any", "no", "together"])
    def test_several_tags(self, search, everything, flags):
        """As on the page: all of --tag, one of --any_tag, none of --no_tag."""
        codes, items = everything
        own = next(item["tags"] for item in items if len(item["tags"]) > 1)
        (a, b), c = own[:2], next(t for item in items for t in item["tags"] if t not in own)
        all_of = {"all": {a, b}, "together": {a}}.get(flags, set())
        any_of = {"any": {b, c}, "together": {b, "nosuchtag"}}.get(flags, set())
        none_of = {"no": {a, c, "nosuchtag"}, "together": {c}}.get(flags, set())
        outcome = search(
            f"--like={items[0]['id']}", "--json", "--top=200",
            *(f"--tag={tag}" for tag in all_of), *(f"--any_tag={tag}" for tag in any_of),
            *(f"--no_tag={tag}" for tag in none_of),
        )  # fmt: skip
        assert outcome.code == 0, outcome.err

        def admits(item):
            tags = set(item["tags"])
            there = all_of <= tags and (not any_of or tags & any_of) and not tags & none_of
            return there and item["id"] != items[0]["id"]

        (found,) = json.loads(outcome.out)
        assert found["results"]
        check_results(found["results"], everything, signs(codes[0]), 200, admits)

    def test_hybrid(self, search, everything, encoders):
        items = everything[1]
        word = max(items[-1]["text"].split(), key=len)
        outcome = search(f"--text={word}", "--hybrid", "--json", "--top=400", "--find=text")
        assert outcome.code == 0, outcome.err
        results = json.loads(outcome.out)[0]["results"]
        has = {i["id"] for i in items if i["modality"] == "text" and word in i["text"].split()}
        assert has and {r["id"] for r in results if r["found_by"] != "codes"} == has
        assert results[0]["found_by"] == "both"
        code = encoders["text"].encode([word])[0]
        check_distances = {item["id"]: bits for item, bits in zip(items, everything[0])}
        for result in results:
            own = check_distances[result["id"]]
            assert result["distance"] == np.unpackbits(own ^ code).sum()
        table = search(f"--text={word}", "--hybrid", f"--like={items[3]['id']}", "--top=2").out
        assert table.split("\n")[1].split() == ["similarity", "distance", "found", "by", "id"]
        assert "found by" not in table.split("like: ")[1]

    def test_hybrid_answers_unknown_words_by_tags(
        self, search, program, everything, exported, copy
    ):
        """A tag that the encoder does not know; and a word that nothing has."""
        index = HammingIndex.load(copy, write=True)
        item = {**everything[1][4], "tags": ["Xyzzy"]}
        index.add(everything[0][4:5], pa.Table.from_pylist([item], SCHEMA))
        index.commit()
        index._lock.release()
        flags = (f"--index={copy}", f"--export_dir={exported}", "--hybrid", "--text=xyzzy")
        outcome = program("search", *flags, "--json")
        assert outcome.code == 0
        (answer,) = json.loads(outcome.out)
        assert "problem" not in answer
        ((result,),) = [answer["results"]]
        assert (result["id"], result["found_by"], result["distance"]) == (item["id"], "words", None)
        assert "note: 'xyzzy' has no word that the encoder knows: found by the words" in outcome.err
        table = program("search", *flags, "--text=plugh", f"--show={copy}/sheet.png")
        assert "text: plugh\n  no answer: 'plugh' has no word" in table.out
        assert "note: 1 of 2 queries could not be answered" in table.err
        assert "no query could be answered" in search("--hybrid", "--text=plugh").unanswered
        assert program("search", *flags, "--find=text").unanswered

    def test_a_relative_prefix(self, search, everything, collection, monkeypatch):
        monkeypatch.chdir(collection)
        outcome = search(f"--like={everything[1][0]['id']}", "--prefix=scenes/images/", "--top=200",
                         "--json")  # fmt: skip
        assert len(json.loads(outcome.out)[0]["results"]) == 119

    def test_table(self, search, everything):
        text = everything[1][-1]["text"]
        outcome = search(f"--text={text}", f"--like={everything[1][4]['id']}", "--top=3")
        lines = outcome.out.split("\n")
        assert lines[0] == f"text: {text}"
        assert lines[1].split() == ["similarity", "distance", "id"]
        rows = [line for line in lines if line.startswith("  ") and "distance" not in line]
        assert len(rows) == 6
        ids = {str(item["id"]): item for item in everything[1]}
        for row in rows:
            similarity, distance, name, content = row.split(maxsplit=3)
            assert 0 <= float(similarity) <= 1
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

    def test_images_of_a_file_lie_beside_it(self, search, everything, collection):
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
            # Images are drawn, not only texts.
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

    def test_an_item_that_is_gone(self, search, everything, collection, tmp_path):
        images = collection / "scenes" / "images"
        like = everything[1][0]["id"]
        flags = [f"--like={like}", "--find=image", "--top=3"]
        images.rename(collection / "scenes" / "away")
        try:
            outcome = search(*flags, f"--show={tmp_path}/out.png")
            found = json.loads(search(*flags, "--json").out)[0]["results"]
        finally:
            (collection / "scenes" / "away").rename(images)
        assert outcome.code == 0, outcome.err
        assert outcome.out.count("(gone from disk)") == 3
        assert "3 results are no longer on disk: remove such items" in outcome.err
        assert all(result["gone"] for result in found)
        assert (tmp_path / "out.png").exists()


class TestRefused:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ([], "nothing to search by: give --text, --image, --like, --vector, --queries or"),
            (["--less=5"], "nothing to search by"),
            (["--text=dog", "--more=a,b"], "--more=a, expected the id of an item"),
            (["--more=5"], "no item of the index has the id 5"),
            (["--offset=-1"], "--offset=-1"),
            (["--rank=cosine"], "cosine"),
            (["--oversample=0"], "--oversample=0"),
            (["--like=photo.jpg"], "--like=photo.jpg, expected the id of an item"),
            (["--text=dog", "--tag=nosuchtag"], "no item of the index is as --tag, --any_tag"),
            (["--text=dog", "--any_tag=a", "--any_tag=b"], "no item of the index is as --tag"),
            (["--text=dog", "--together", "--hybrid"], "got --hybrid and --together, expected one"),
            (["--queries=nowhere.csv"], "nowhere.csv' cannot be read"),
            (["--queries=nowhere.txt"], "nowhere.txt' cannot be read"),
            (["--queries=nowhere.doc"], "is not a .csv, .tsv, .jsonl or .parquet file"),
            (["--top=0"], "--top=0"),
            (["--find=sound"], "sound"),
        ],
    )
    def test_flags(self, search, flags, message):
        line = search(*flags).line
        assert line.startswith("search: ")
        assert message in line

    @pytest.mark.parametrize(
        ("flag", "message"),
        [
            ("--like=5", "no item of the index has the id 5"),
            ("--image=nowhere.jpg", "image nowhere.jpg cannot be read (No such file or dir"),
            (f"--image={__file__}", "is no JPEG, PNG, GIF, BMP, WebP, TIFF, HEIC or AVIF"),
        ],
    )
    def test_the_only_query_has_no_code(self, search, flag, message):
        outcome = search(flag)
        assert outcome.unanswered.startswith("search: no query could be answered: ")
        assert message in outcome.unanswered and not outcome.out
        (entry,) = json.loads(search(flag, "--json").out)
        assert message in entry["problem"] and entry["results"] == []

    def test_others_are_answered(self, search, encoders, tmp_path):
        word = encoders["text"].vocabulary[0]
        (tmp_path / "q.txt").write_text(f"xyzzy\n{word}\nplugh\n")
        flags = (f"--queries={tmp_path}/q.txt", "--like=5", "--top=2")
        outcome = search(*flags)
        assert outcome.code == 0
        assert "note: 3 of 4 queries could not be answered" in outcome.err
        like, unknown, known, _ = outcome.out.strip().split("\n\n")
        assert like == "like: 5\n  no answer: no item of the index has the id 5"
        assert unknown.startswith("text: xyzzy\n  no answer: 'xyzzy' has no word of the vocab")
        expected = search(f"--text={word}", "--top=2").out.strip()
        assert known == expected and expected.count("\n") == 3
        answers = json.loads(search(*flags, "--json").out)
        assert [len(entry["results"]) for entry in answers] == [0, 0, 2, 0]
        assert ["problem" in entry for entry in answers] == [True, True, False, True]
        (tmp_path / "q.txt").write_text("xyzzy\nplugh\n")
        none = search(f"--queries={tmp_path}/q.txt")
        assert "none of 2 queries could be answered: 'xyzzy' has no word" in none.unanswered
        assert none.out.count("no answer") == 2

    def test_needs(self, program, collection):
        assert "needs --index=FOLDER" in program("search", "--text=dog").line
        line = program("search", f"--index={collection}/index", "--text=dog").line
        assert "needs --export_dir=FOLDER" in line

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--index=a", "--run_dir=b"], "got both --index and --run_dir"),
            (["--index=a", "--like=5", "--seed=1"], "got --seed with --index"),
            (["--index=a", "--like=5", "--data_dir=b"], "got --data_dir with --index"),
            (["--run_dir=a", "--like=5"], "got --like with --run_dir, expected only with --index"),
            (
                ["--run_dir=a", "--queries=b", "--find=text", "--any_tag=c", "--prefix=d"],
                "got --queries, --find, --any_tag, --prefix with --run_dir",
            ),
            (["--run_dir=a", "--json", "--noverify"], "got --json, --verify with --run_dir"),
            (["--run_dir=a"], "--run_dir=a needs --export_dir=FOLDER"),
        ],
    )
    def test_an_index_or_a_run(self, program, flags, message):
        assert message in program("search", *flags).line

    def test_unknown_words(self, search, encoders):
        word = next(w for w in encoders["text"].vocabulary if len(w) > 6)
        wrong = word[:3] + word[4:]
        line = search(f"--text=xyzzy {wrong}").unanswered
        assert f"'xyzzy {wrong}' has no word of the vocabulary of" in line
        assert f"unknown: xyzzy, {wrong}; near: " in line
        assert word in line.split("near: ")[1]
        assert "unknown: (empty)" in search("--text=").unanswered

    def test_unknown_words_beside_known_ones_are_noted(self, search, encoders):
        word = encoders["text"].vocabulary[0]
        outcome = search(f"--text=the {word} of xyzzy", "--json")
        assert outcome.code == 0
        assert json.loads(outcome.out)
        assert f"note: 'the {word} of xyzzy': unknown: xyzzy" in outcome.err
        outcome = search(f"--text=“{word.upper()}”,XYZZY’s", "--json")
        assert (outcome.code, outcome.err.split("unknown: ")[1]) == (0, "xyzzy\n")

    def test_a_broken_row_of_queries(self, search, tmp_path):
        (tmp_path / "q.csv").write_text("text,image\nred,a.jpg\n")
        line = search(f"--queries={tmp_path}/q.csv").line
        assert "q.csv row 2: expected one of text, image and like, found text and image" in line
        (tmp_path / "q.csv").write_text("like\n5\nphoto.jpg\n")
        line = search(f"--queries={tmp_path}/q.csv").line
        assert "q.csv row 3: like is 'photo.jpg', expected the id of an item" in line
        (tmp_path / "q.csv").write_text("words\nred\n")
        line = search(f"--queries={tmp_path}/q.csv").line
        assert "has no column text (it has words); or image or like" in line

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
        index.add(random_codes(3, 32), image_items(3))
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
        assert f"{copy} is empty: add codes with `dsprh index add`" in line
        checked = program("index", "check", f"--index={copy}")
        assert "is in order: 0 items, checksums right" in checked.out


class TestRun:
    """What test_end_to_end.py leaves: flags of a run's search."""

    def test_top_and_sheet(self, program, trained, exported, scenes_dir, tmp_path):
        flags = [f"--run_dir={trained[0]}", f"--export_dir={exported}", "--top=3"]
        outcome = program("search", *flags, "--seed=5", f"--show={tmp_path}/sheet.png")
        assert outcome.code == 0, outcome.err
        assert len(re.findall(r"^ +(\d+)  \S", outcome.out, re.M)) == 6 * 3
        assert re.search(r"^ +\d+  \S+ +\* ", outcome.out, re.M)  # some are relevant
        other = program("search", *flags, "--seed=6", f"--show={tmp_path}/sheet.png")
        assert other.out != outcome.out
        assert not (trained[0] / "queries.png").exists()

    def test_moved(self, program, trained, exported, scenes_dir, tmp_path):
        """The run folder and its data are elsewhere now; the sheet goes into the run folder."""
        shutil.copytree(trained[0], tmp_path / "run")
        shutil.copytree(scenes_dir, tmp_path / "data")
        outcome = program(
            "search", f"--run_dir={tmp_path}/run", f"--export_dir={exported}",
            f"--data_dir={tmp_path}/data", "--text=red",
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        assert f"contact sheet: {tmp_path}/run/queries.png" in outcome.out
        assert (tmp_path / "run" / "queries.png").stat().st_size > 1000
        # A query of the user has no labels.
        assert not re.search(r"^ +\d+  \S+ +\* ", outcome.out, re.M)

    def test_encoders_of_two_models(self, program, trained, exported, tmp_path):
        shutil.copytree(exported, tmp_path / "export")
        (path,) = (tmp_path / "export" / "text_encoder").glob("*/assets.extra/encoder.json")
        path.write_text(path.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
        line = program("search", f"--run_dir={trained[0]}", f"--export_dir={tmp_path}/export").line
        assert f"the encoders in {tmp_path}/export are of different models" in line


def test_like_needs_no_tensorflow(collection, everything):
    code = (
        "import sys; from dsprh_tf.cli.program import load; "
        f"code = load('search').run('search', ['--index={collection}/index', "
        f"'--like={everything[1][0]['id']}'], 'search'); "
        "load('index'); load('serve_demo'); load('encode'); "
        "sys.exit(code or ('tensorflow' in sys.modules and 'TensorFlow was imported'))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
