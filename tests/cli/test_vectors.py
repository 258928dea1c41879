"""Embeddings of any model from arrays to search: README's example, `encode` and `search`."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from helpers import call_program
from index_helpers import dots
from page_helpers import blocks, commands, page_text, program_of, run_command, within

import dsprh_tf
from dsprh_tf.evaluation.results import read_results
from dsprh_tf.index.code_folder import CodeFolder
from dsprh_tf.index.items import stable_id
from dsprh_tf.serving.encoder import Encoder

COUNT, WIDTH = 90, 512
QUICK = {"train": ["--epochs=2", "--batch_size=32", "--queries=20"], "baseline": ["--queries=20"]}


SECTION = page_text("README.md", "### From embeddings to search")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """The folder in which README's commands were run on drawn arrays, and what each said."""
    folder = tmp_path_factory.mktemp("embeddings")
    (folder / "clip").mkdir()
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(6, WIDTH))[np.arange(COUNT) % 6]
    vectors = {
        side: (hidden + rng.normal(0, 0.8, (COUNT, WIDTH)) + shift).astype(np.float32)
        for side, shift in (("images", 0.2), ("texts", -0.2))
    }
    for side, values in vectors.items():
        np.save(folder / "clip" / f"{side}.npy", values)
    lines = [f"{1000 + i},photos/{i}.jpg,caption {i},group{i % 6};all" for i in range(COUNT)]
    (folder / "ids.csv").write_text("\n".join(["id,image,text,tags", *lines]))
    np.save(folder / "q.npy", vectors["texts"][:3])
    (block,) = blocks(SECTION, "bash")
    said = {}
    with within(folder):
        for line in commands(block):
            outcome = run_command(line, QUICK)
            assert outcome.code == 0, (line, outcome.err[-2000:])
            said.setdefault(program_of(line)[0], []).append(outcome)
    return folder, said


@pytest.fixture
def flags(embedded):
    folder, _ = embedded
    return [f"--export_dir={folder}/savedmodels/clip", f"--features={folder}/clip/images.npy",
            "--side=image"]  # fmt: skip


def search(embedded, *arguments):
    folder, _ = embedded
    return call_program(
        "search", f"--index={folder}/indexes/clip", f"--export_dir={folder}/savedmodels/clip",
        *arguments,
    )  # fmt: skip


class TestReadme:
    def test_from_arrays_to_answers(self, embedded):
        folder, said = embedded
        codes = CodeFolder(folder / "codes/clip")
        images = np.load(folder / "clip/images.npy")
        encoder = Encoder(folder / "savedmodels/clip", "image")
        np.testing.assert_array_equal(codes.codes, encoder.encode(images, 1024))
        assert codes.codes.shape == (COUNT, 8) and codes.modality == "image"
        assert codes.fingerprint == encoder.info["fingerprint"]
        row = codes.items().to_pylist()[7]
        assert (row["id"], row["modality"], row["text"], row["tags"]) == (
            1007, "image", "caption 7", ["group1", "all"],
        )  # fmt: skip
        assert row["path"] == str(folder / "photos/7.jpg")
        (answer,) = said["search"]
        assert answer.out.count("vector: q.npy row ") == 3
        assert "caption " in answer.out and f"{folder}/photos/" in answer.out
        assert "(gone from disk)" in answer.out  # the paths are those of no file
        assert f"encoded {COUNT} vectors in" in said["encode"][0].out
        assert f"source: {COUNT} vectors of images" in said["encode"][0].out

    def test_baselines_stand_beside_it(self, embedded):
        folder, said = embedded
        assert len(said["baseline"]) == 2
        for name, bits in (("sign", 512), ("cca_itq", 64)):
            record = read_results(folder / f"runs/{name}-features-{bits}-0/results.json")
            assert (record["method"], record["bits"], record["queries"]) == (name, bits, 20)
        assert read_results(folder / "runs/clip/results.json")["queries"] == 20

    def test_the_lines_of_python(self, embedded):
        folder, _ = embedded
        (block,) = blocks(SECTION, "python")
        values = {"dsprh_tf": dsprh_tf}
        with within(folder):
            exec(block, values)  # noqa: S102 - README's own
        images, query = (np.load(folder / f) >= 0 for f in ("clip/images.npy", "q.npy"))
        expected = np.sort((query[:, None] != images).sum(axis=2), axis=1)[:, :10]
        np.testing.assert_array_equal(values["found"].distances, expected)
        (name,) = values["index"].items_of(values["found"].ids[:1, 0])["text"].to_pylist()
        row = int(name.removeprefix("photo "))
        assert (query[0] != images[row]).sum() == expected[0, 0]


class TestEncode:
    def test_row_numbers_and_other_files_of_the_same_vectors(self, embedded, flags, tmp_path):
        """A float64 array of an .npz beside others, chosen by its name; ids are the rows."""
        images = np.load(embedded[0] / "clip/images.npy")
        np.savez(tmp_path / "a.npz", image=images.astype(float), text=images, labels=images)
        flags[1] = f"--features={tmp_path}/a.npz"
        outcome = call_program("encode", *flags, f"--out={tmp_path}/codes")
        assert outcome.code == 0, outcome.err
        assert f"ids are the row numbers, 0 to {COUNT - 1}" in outcome.out
        codes = CodeFolder(tmp_path / "codes")
        np.testing.assert_array_equal(codes.codes, CodeFolder(embedded[0] / "codes/clip").codes)
        rows = codes.items().to_pylist()
        assert [row["id"] for row in rows] == list(range(COUNT))
        assert {row["path"] for row in rows} == {row["text"] for row in rows} == {None}
        assert call_program("index", "build", f"--codes={tmp_path}/codes",
                            f"--index={tmp_path}/index").code == 0  # fmt: skip
        outcome = call_program("search", f"--index={tmp_path}/index", "--like=7",
                               f"--show={tmp_path}/a.png", "--top=3")  # fmt: skip
        assert outcome.code == 0 and (tmp_path / "a.png").exists()
        assert re.search(r"^ +[.\d]+ +\d+ +\d+ *$", outcome.out, re.MULTILINE)
        outcome = call_program("index", "remove", "--gone", f"--index={tmp_path}/index")
        assert "0 removed" in outcome.out

    def test_only_what_is_new_or_changed(self, embedded, flags, tmp_path):
        images = np.load(embedded[0] / "clip/images.npy")
        flags[1] = f"--features={tmp_path}/v.npy"
        ids = tmp_path / "ids.csv"
        out = [*flags, f"--ids={ids}", f"--out={tmp_path}/codes"]
        np.save(tmp_path / "v.npy", images[:40])
        ids.write_text("id,caption\n" + "\n".join(f"x{i},c{i}" for i in range(40)))
        assert call_program("encode", *out).code == 0
        before = CodeFolder(tmp_path / "codes").codes
        said = call_program("encode", *out).out
        assert "40 were done before" in said and "encoded" not in said
        # One vector, one caption, one more at the front: the others keep their codes.
        changed = np.concatenate([images[50:51], images[:40]])
        changed[3] += 1
        np.save(tmp_path / "v.npy", changed)
        names = [f"x{i},{'new' if i == 9 else f'c{i}'}" for i in (77, *range(40))]
        ids.write_text("id,caption\n" + "\n".join(names))
        said = call_program("encode", *out).out
        assert "encoded 3 vectors" in said and "38 were done before" in said
        codes = CodeFolder(tmp_path / "codes")
        rows = {row["id"]: at for at, row in enumerate(codes.items().to_pylist())}
        encoder = Encoder(embedded[0] / "savedmodels/clip", "image")
        at = [rows[stable_id("image", f"x{i}")] for i in (77, *range(40))]
        np.testing.assert_array_equal(codes.codes[at], encoder.encode(changed))
        assert codes.items().to_pylist()[at[10]]["text"] == "new"
        assert (codes.codes[at][[1, 4]] == before[[0, 3]]).all()

    def test_what_cannot_be_encoded_is_one_line(self, embedded, flags, tmp_path):
        folder, _ = embedded
        images = np.load(folder / "clip/images.npy")
        images[[5, 8], 3] = np.nan, np.inf
        np.save(tmp_path / "bad.npy", images)
        np.save(tmp_path / "flat.npy", images[0])
        np.save(tmp_path / "wide.npy", images[:, :511])
        (tmp_path / "two.csv").write_text("id\n" + "1\n2\n" * (COUNT // 2))
        (tmp_path / "few.csv").write_text("id\n1\n2\n")
        out = f"--out={tmp_path}/codes"
        for changed, message in (
            ([f"--features={tmp_path}/bad.npy"], "bad.npy row 5 (counted from 0) holds NaN, inf"),
            ([f"--features={tmp_path}/flat.npy"], "shape [512] and type float32, expected a num"),
            ([f"--features={tmp_path}/wide.npy"], "is 90 x 511, expected image vectors of 512"),
            ([f"--features={tmp_path}/none.npy"], "none.npy does not exist"),
            ([f"--ids={tmp_path}/two.csv"], "two.csv row 4: its id 1 is that of row 2 already"),
            ([f"--ids={tmp_path}/few.csv"], "few.csv has 2 rows and"),
            (["--images=photos"], "either --images=FOLDER or --texts=MANIFEST or --features=ARR"),
            (["--on_bad_text=error"], "got --on_bad_text with --features"),
        ):
            line = call_program("encode", *flags, out, *changed).line
            assert line.startswith("encode: ") and message in line, line
        line = call_program("encode", *flags[:2], out).line
        assert "--features needs --side=image or --side=text" in line
        assert "got --ids without" in call_program("encode", "--images=a", out, "--ids=b").line
        assert not (tmp_path / "codes").exists()

    def test_encoders_that_take_vectors_alone(self, embedded, tmp_path):
        folder, _ = embedded
        flags = [f"--export_dir={folder}/savedmodels/clip", f"--out={tmp_path}/codes"]
        line = call_program("encode", *flags, f"--texts={folder}/ids.csv").line
        assert "takes precomputed features, not texts: give vectors (encode: --features" in line


class TestSearch:
    def test_answers_are_those_of_the_values(self, embedded):
        folder, _ = embedded
        query = folder / "q.npy"
        flags = [f"--vector={query}", "--side=text", "--json", "--top=5", "--tag=group2"]
        answers = json.loads(search(embedded, *flags).out)
        assert [a["query"] for a in answers] == [{"vector": f"{query} row {i}"} for i in range(3)]
        values = Encoder(folder / "savedmodels/clip", "text").encode_values(np.load(query))
        index = dsprh_tf.HammingIndex.load(folder / "indexes/clip")
        for answer, one in zip(answers, values):
            results = answer["results"]
            near = [r["similarity"] for r in results]
            assert near == sorted(near, reverse=True)
            similarities = dots(index.codes_of([r["id"] for r in results]), one)
            np.testing.assert_allclose(near, similarities, atol=1e-4)
            for r in results:
                (own,) = np.unpackbits(index.codes_of([r["id"]]), axis=1)
                assert r["distance"] == np.sum(own != (one >= 0))
                assert r["caption"] == f"caption {r['id'] - 1000}" and "group2" in r["tags"]

    def test_one_vector_and_what_else_there_is(self, embedded, tmp_path):
        vector = np.load(embedded[0] / "clip/images.npy")[4]
        np.save(tmp_path / "one.npy", vector.astype(float))
        outcome = search(embedded, f"--vector={tmp_path}/one.npy", "--side=image", "--like=1004")
        assert outcome.code == 0, outcome.err
        assert f"\nvector: {tmp_path}/one.npy\n" in outcome.out and "like: 1004\n" in outcome.out
        outcome = search(embedded, f"--vector={tmp_path}/one.npy", "--side=image", "--json")
        first = json.loads(outcome.out)[0]["results"][0]
        assert first["distance"] == 0
        sheet = search(embedded, f"--vector={tmp_path}/one.npy", "--side=image",
                       f"--show={tmp_path}/a.png")  # fmt: skip
        assert sheet.code == 0 and (tmp_path / "a.png").exists()

    def test_a_vector_that_is_not_finite_says_so_in_its_place(self, embedded, tmp_path):
        vectors = np.load(embedded[0] / "q.npy")
        vectors[1, 7] = np.nan
        np.save(tmp_path / "q.npy", vectors)
        outcome = search(embedded, f"--vector={tmp_path}/q.npy", "--side=text")
        assert outcome.code == 0
        assert "q.npy row 1\n  no answer: the vector holds NaN" in outcome.out
        assert "1 of 3 queries could not be answered" in outcome.err
        np.save(tmp_path / "q.npy", vectors[1])
        outcome = search(embedded, f"--vector={tmp_path}/q.npy", "--side=text")
        assert "no query could be answered: the vector holds NaN" in outcome.unanswered

    def test_what_cannot_be_searched_by_is_one_line(self, embedded, tmp_path):
        np.save(tmp_path / "q.npy", np.ones((2, 300)))
        query = f"--vector={tmp_path}/q.npy"
        for flags, message in (
            ([query, "--side=text"], "q.npy is 2 x 300, expected text vectors of 512"),
            ([query], "--vector and --side=image or --side=text go together"),
            (["--side=text", "--like=1004"], "go together"),
            (["--text=a dog"], "takes precomputed features, not texts"),
        ):
            assert message in search(embedded, *flags).line
        shutil.copytree(embedded[0] / "savedmodels/clip", tmp_path / "other")
        (path,) = (tmp_path / "other/text_encoder").glob("*/assets.extra/encoder.json")
        path.write_text(path.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
        line = search(embedded, f"--vector={embedded[0]}/q.npy", "--side=text",
                      f"--export_dir={tmp_path}/other").line  # fmt: skip
        assert "is of other encoders than the index" in line
