"""From pictures and words to results, exported encoders and answers, by the programs alone."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT, read_notes
from PIL import Image

from dsprh_tf import codes
from dsprh_tf.data.pairs import load_pairs
from dsprh_tf.evaluation.encode_pairs import PairEncoder
from dsprh_tf.evaluation.retrieval import DIRECTIONS
from dsprh_tf.methods import DSPRH
from dsprh_tf.run import Run
from dsprh_tf.serving.encoder import Encoder


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_all_pairs_may_train_and_the_manifest_may_stand_alone(
    program, small_flags, scenes_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("DSPRH_HOME", str(tmp_path))
    own = ("--data_dir", "--queries", "--train_pairs", "--cache_dir")
    flags = [flag for flag in small_flags if not flag.startswith(own)]
    manifest = str(scenes_dir / "manifest.csv")
    outcome = program(
        "train", manifest, *flags, "--queries=0", "--epochs=1", "--fusion_weights=0,0,1"
    )
    assert outcome.code == 0, outcome.err
    assert "results: none, all pairs were trained on" in outcome.out
    run_dir = tmp_path / "runs" / "dsprh-pairs-16-0"
    split = json.loads((run_dir / "split.json").read_text())
    assert (len(split["query"]), len(split["train"]), len(split["validation"])) == (0, 112, 8)
    assert (tmp_path / "cache").is_dir()
    outcome = program("evaluate", f"--run_dir={run_dir}")
    assert outcome.code == 2 and "has no test queries (--queries=0" in outcome.err
    outcome = program("train", manifest, manifest)
    assert outcome.code == 2 and "expected only --flag=value" in outcome.err


class TestResults:
    def test_record_holds_what_was_promised(self, trained):
        record = json.loads((trained[0] / "results.json").read_text())
        assert {k: record[k] for k in ("method", "bits", "seed", "queries", "database")} == {
            "method": "dsprh", "bits": 16, "seed": 0, "queries": 20, "database": 100,
        }  # fmt: skip
        assert record["dataset"] == "pairs"
        assert 0 < record["chance"] < 1
        assert 0 < record["validation_map"] <= 1
        for direction in ("image_to_text", "text_to_image"):
            for name in ("map", "map@50", "map@50_min_r"):
                assert 0 < record[direction][name] <= 1

    def test_table_and_plots(self, trained):
        run_dir, said = trained
        rows = read_csv(run_dir / "results.csv")
        ways = [(row["searched"], row["direction"]) for row in rows]
        assert ways == [(way, name) for way in ("", "asymmetric") for name in DIRECTIONS]
        record = json.loads((run_dir / "results.json").read_text())
        assert float(rows[0]["map@50"]) == pytest.approx(record["image_to_text"]["map@50"])
        with Image.open(run_dir / "curves.png") as plot:
            assert plot.format == "PNG"
            assert min(plot.size) > 200
        assert f"chance {record['chance']:.4f}" in said.out
        assert f"{record['image_to_text']['map@50']:.4f}" in said.out

    def test_run_folder(self, trained):
        names = {path.name for path in trained[0].iterdir()}
        assert {"flags.json", "split.json", "vocabulary.json", "versions.json", "checkpoints",
                "best", "tensorboard", "results.json"} <= names  # fmt: skip
        flags = json.loads((trained[0] / "flags.json").read_text())
        assert flags["bits"] == 16
        # The backbone is frozen, and nothing else was given: the recipe.
        assert flags["fusion_weights"] == list(DSPRH.recipes["frozen"]["fusion_weights"])

    def test_progress_is_one_bar_with_the_terms(self, trained):
        terms = r"epoch 2: +100%\|.*L_F .* L_R .* L_W .* L_2 .* L_3 .* loss"
        assert re.search(terms, trained[1].err)

    def test_evaluating_again_elsewhere_gives_the_same(
        self, program, trained, scenes_dir, tmp_path
    ):
        """The run folder and the data are both moved."""
        run_dir = tmp_path / "run"
        shutil.copytree(trained[0], run_dir)
        shutil.copytree(scenes_dir, tmp_path / "data")
        for name in ("results.json", "results.csv", "curves.png"):
            (run_dir / name).unlink()
        outcome = program("evaluate", f"--run_dir={run_dir}", f"--data_dir={tmp_path / 'data'}")
        assert outcome.code == 0, outcome.err
        for name in ("results.json", "results.csv"):
            assert (run_dir / name).read_bytes() == (trained[0] / name).read_bytes()
        assert (run_dir / "curves.png").exists()

    def test_other_data_are_refused(self, program, trained, scenes_dir, tmp_path):
        folder = tmp_path / "data"
        shutil.copytree(scenes_dir, folder)
        manifest = folder / "manifest.csv"
        manifest.write_text(manifest.read_text().replace(" ", "  the ", 1))
        outcome = program("evaluate", f"--run_dir={trained[0]}", f"--data_dir={folder}")
        assert "was made for other data" in outcome.line

    def test_tie_averaging(self, program, trained, tmp_path):
        run_dir = tmp_path / "run"
        shutil.copytree(trained[0], run_dir)
        outcome = program("evaluate", f"--run_dir={run_dir}", "--ties=average")
        assert outcome.code == 0, outcome.err
        assert "ties averaged" in outcome.out and "results-average.json" in outcome.out
        # What reports read stays as it is.
        results = (trained[0] / "results.json").read_bytes()
        assert (run_dir / "results.json").read_bytes() == results
        average = json.loads((run_dir / "results-average.json").read_text())["text_to_image"]
        stable = json.loads(results)["text_to_image"]
        assert stable["map"] != average["map"]
        assert stable["map"] == pytest.approx(average["map"], abs=0.1)


class TestTensorBoard:
    def test_every_tag_in_every_epoch(self, trained, events):
        found = events(trained[0])
        tags = [f"loss/{name}" for name in (*DSPRH.terms, "total")]
        for side in ("image", "text"):
            tags += [f"training/learning_rate_{side}", f"codes/balance_{side}"]
            tags += [f"codes/bit_correlation_{side}"]
            tags.append(f"training/gradient_norm_{side}")
        tags += ["training/alpha", "training/images_per_second", "weighted/L_2"]
        tags += ["validation/map@50_image_to_text", "validation/map@50_text_to_image"]
        assert all(found[f"training/gradient_norm_{side}"][-1][1] > 0 for side in ("image", "text"))
        assert any(tag.startswith("per_class/") for tag in found)
        for side in ("image", "text"):
            assert [step for step, _ in found[f"codes/values_{side}"]] == [1, 2]
        for tag in tags:
            assert [step for step, _ in found[tag]] == [1, 2], tag
            assert np.isfinite([value for _, value in found[tag]]).all(), tag
        np.testing.assert_allclose([v for _, v in found["training/alpha"]], [1, 2**0.5], rtol=1e-6)
        first = {name: found[f"loss/{name}"][0][1] for name in (*DSPRH.terms, "total")}
        flags = json.loads((trained[0] / "flags.json").read_text())
        total = first["L_F"] + first["L_R"] + first["L_W"]
        total += flags["beta"] * first["L_2"] + flags["gamma"] * first["L_3"]
        assert first["total"] == pytest.approx(total, rel=1e-5)

    def test_every_tag_says_what_good_looks_like(self, trained, events):
        notes = read_notes(trained[0] / "tensorboard")
        others = {tag for tag in events(trained[0]) if tag.startswith("_hparams_")}
        assert others
        assert notes.keys() == events(trained[0]).keys() - {"settings", "curves", *others}
        assert all("**Good:**" in note or "training/" in tag for tag, note in notes.items())
        assert notes["loss/L_W"].startswith(DSPRH.terms["L_W"])
        ((_, page),) = events(trained[0])["curves"]  # as text too, for the tab without notes
        assert all(f"`{tag}`" in page.decode() for tag in notes)

    def test_steps_of_the_first_epoch_may_be_profiled(self, program, small_flags, tmp_path):
        flags = [*small_flags, f"--run_dir={tmp_path / 'run'}", "--epochs=1"]
        refused = program("train", *flags, "--profile=3,9")
        assert refused.code == 2
        assert "--profile is '3,9', expected START,STOP" in refused.err
        outcome = program("train", *flags, "--profile=1,3")
        assert outcome.code == 0, outcome.err[-2000:]
        assert list((tmp_path / "run" / "tensorboard").rglob("*.xplane.pb"))

    @pytest.mark.parametrize("tag", ["validation/precision_recall", "validation/retrieval"])
    def test_pictures(self, trained, events, tag):
        found = events(trained[0])[tag]
        assert [step for step, _ in found] == [1, 2]
        pixels = tf.io.decode_png(found[-1][1]).numpy()
        assert min(pixels.shape[:2]) > 100
        assert pixels.std() > 5


def test_finished_run_neither_trains_nor_changes(program, small_flags, trained, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(trained[0], run_dir)
    kept = [p for p in run_dir.rglob("*") if p.is_file() and p.name != "curves.png"]
    kept = [p for p in kept if p.name != ".lock"]
    before = {path: path.read_bytes() for path in kept}
    outcome = program("train", *small_flags, f"--run_dir={run_dir}")
    assert outcome.code == 0, outcome.err
    assert f"resuming {run_dir}" in outcome.out
    assert "epoch" not in outcome.err
    assert {path: path.read_bytes() for path in kept} == before


class TestExport:
    def test_codes_are_those_of_the_model(self, program, trained, exported, scenes_dir):
        """The encoders against the run's own model, on files and texts of the data."""
        record = load_pairs(scenes_dir)
        items = np.arange(0, 120, 3)
        image, text = (Encoder(exported, kind) for kind in ("image", "text"))
        found = (
            image.encode([Path(record.image_paths[i]).read_bytes() for i in items]),
            text.encode([str(record.texts[i]) for i in items]),
        )
        expected = model_codes(trained[0], items)
        for a, b in zip(found, expected):
            np.testing.assert_array_equal(a, b)
        assert len(np.unique(np.concatenate(found), axis=0)) > 4  # no constant code

    def test_layout(self, exported):
        for kind in ("image", "text"):
            version = exported / f"{kind}_encoder" / "1"
            assert (version / "saved_model.pb").exists()
            assert (version / "assets.extra" / "tf_serving_warmup_requests").stat().st_size > 0
        assert "image_encoder" in (exported / "models.config").read_text()

    def test_exporting_again_publishes_a_second_version(self, program, trained, exported, tmp_path):
        folder = tmp_path / "again"
        shutil.copytree(exported, folder)
        outcome = program("export", f"--run_dir={trained[0]}", f"--export_dir={folder}")
        assert outcome.code == 0, outcome.err
        assert outcome.out.count("_encoder/2") == 2
        infos = [
            json.loads((folder / f"image_encoder/{v}/assets.extra/encoder.json").read_text())[
                "fingerprint"
            ]
            for v in (1, 2)
        ]
        assert infos[0] == infos[1]


def model_codes(run_dir, items):
    """Codes by the run's model in this process, from images and not from the cache."""
    run = Run(run_dir)
    encoded = PairEncoder(run.restore(), run.data.source)(items)
    return encoded.image_codes, encoded.text_codes


class TestSearch:
    def test_words_find_pictures_and_a_picture_finds_words(
        self, program, trained, exported, scenes_dir, tmp_path
    ):
        sheet = tmp_path / "sheet.png"
        record = load_pairs(scenes_dir)
        outcome = program(
            "search",
            f"--run_dir={trained[0]}",
            f"--export_dir={exported}",
            f"--text={record.texts[0]}",
            f"--image={record.image_paths[1]}",
            f"--show={sheet}",
        )
        assert outcome.code == 0, outcome.err
        words, picture = outcome.out.split("image -> texts: ")
        assert f"text -> images: {record.texts[0]}" in words
        for part in (words, picture):
            distances = [int(d) for d in re.findall(r"^ +(\d+)  \S", part, re.M)]
            assert len(distances) == 8
            assert distances == sorted(distances)
        with Image.open(sheet) as image:
            assert image.size[0] > image.size[1] > 200

    def test_queries_of_the_split_by_default(self, program, trained, exported, tmp_path):
        sheet = tmp_path / "sheet.png"
        flags = [f"--run_dir={trained[0]}", f"--export_dir={exported}", f"--show={sheet}"]
        outcome = program("search", *flags)
        assert outcome.code == 0, outcome.err
        assert outcome.out.count("text -> images") == 3
        assert outcome.out.count("image -> texts") == 3
        assert sheet.exists()
        assert f"contact sheet: {sheet}" in outcome.out

    def test_unknown_words(self, program, trained, exported):
        flags = [f"--run_dir={trained[0]}", f"--export_dir={exported}"]
        line = program("search", *flags, "--text=xylophone quux").line
        assert "no word of the vocabulary" in line
        assert "unknown: xylophone, quux" in line

    def test_broken_picture(self, program, trained, exported, tmp_path):
        path = tmp_path / "broken.jpg"
        path.write_bytes(b"no picture")
        flags = [f"--run_dir={trained[0]}", f"--export_dir={exported}"]
        line = program("search", *flags, f"--image={path}").line
        assert "broken.jpg is no JPEG, PNG" in line


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Precomputed features of 60 pairs of three classes."""
    rng = np.random.default_rng(3)
    classes = np.arange(60) % 3
    image = np.abs(rng.normal(0, 0.3, (60, 10)) + 2 * np.eye(3, 10)[classes])
    text = np.abs(rng.normal(0, 0.3, (60, 6)) + 2 * np.eye(3, 6)[classes])
    path = tmp_path_factory.mktemp("features") / "vectors.npz"
    np.savez(path, image=image, text=text, labels=np.eye(3, dtype=np.uint8)[classes])
    return path


def vector_flags(path, run_dir, *changes):
    return [
        "--dataset=features", f"--data_dir={path}", "--queries=12", "--train_pairs=40",
        "--bits=16", "--text_hidden=16", "--epochs=2", "--batch_size=16", f"--run_dir={run_dir}",
        *changes,
    ]  # fmt: skip


def test_features_end_to_end(program, vectors, tmp_path):
    run_dir, folder = tmp_path / "run", tmp_path / "export"
    changes = ["--epochs=15", "--lr_text=.05", "--monitor_every=15"]
    outcome = program("train", *vector_flags(vectors, run_dir, *changes))
    assert outcome.code == 0, outcome.err
    record = json.loads((run_dir / "results.json").read_text())
    assert record["image_to_text"]["map"] > 1.5 * record["chance"]
    assert program("export", f"--run_dir={run_dir}", f"--export_dir={folder}").code == 0
    arrays = np.load(vectors)
    items = np.arange(20)
    for kind, expected in zip(("image", "text"), model_codes(run_dir, items)):
        found = Encoder(folder, kind).encode(arrays[kind][items].astype(np.float32))
        np.testing.assert_array_equal(found, expected)
        assert codes.unpack(found).shape == (20, 16)
    line = program("search", f"--run_dir={run_dir}", f"--export_dir={folder}").line
    assert "there is nothing to show" in line


@pytest.mark.parametrize(
    "changes",
    [
        ["--related=neighbours", "--pairwise_target=neighbours", "--optimizer=adamw",
         "--decoder_input=sign", "--select=last"],
        ["--related=labels", "--pairwise_target=labels", "--optimizer=lamb",
         "--similarity_source=fused", "--precision=mixed_bfloat16", "--validation=0"],
    ],
    ids=["neighbours", "labels"],
)  # fmt: skip
def test_variants_train_and_are_evaluated_alike_later(program, vectors, tmp_path, changes):
    run_dir = tmp_path / "run"
    outcome = program("train", *vector_flags(vectors, run_dir, "--method=dsprh", *changes))
    assert outcome.code == 0, outcome.err
    assert ("a diagnostic, no result of its own" in outcome.out) == ("--related=labels" in changes)
    assert "weights of epoch 2" in outcome.out  # the last one: nothing selects
    before = (run_dir / "results.json").read_bytes()
    outcome = program("evaluate", f"--run_dir={run_dir}")
    assert outcome.code == 0, outcome.err
    assert (run_dir / "results.json").read_bytes() == before


def test_pairs_without_labels_are_evaluated_by_their_own_texts(
    program, small_flags, scenes_dir, tmp_path
):
    rows = read_csv(scenes_dir / "manifest.csv")
    manifest = scenes_dir / "unlabelled.csv"  # image paths are relative to the manifest
    with open(manifest, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image", "text"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows[:60])
    changes = [
        f"--data_dir={manifest}", "--queries=10", "--train_pairs=40", "--epochs=1",
        "--fusion_weights=0,0,1", f"--run_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    outcome = program("train", *small_flags, *changes)
    assert outcome.code == 0, outcome.err
    assert "no labels: recall and median rank of each query's own text" in outcome.out
    written = (tmp_path / "run" / "results.json").read_bytes()
    record = json.loads(written)
    assert 0 < record["image_to_text"]["recall@10"] <= 1 and 0 < record["neighbour_map"] <= 1
    notes = read_notes(tmp_path / "run" / "tensorboard")
    assert "first k" in notes["validation/recall@10_image_to_text"]
    assert all(notes.values())
    assert program("evaluate", f"--run_dir={tmp_path / 'run'}").code == 0
    assert (tmp_path / "run" / "results.json").read_bytes() == written


class TestHelp:
    def test_train_as_a_process_is_silent_on_stderr_and_grouped(self, tmp_path):
        found = subprocess.run(
            [sys.executable, ROOT / "scripts" / "train.py", "--help"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert found.returncode == 0
        assert found.stderr == ""
        titles = re.findall(r"^(\w[^:\n]*):$", found.stdout, re.M)
        named = [
            "data", "networks", "training", "run", "settings of dsprh_plus",
            "settings of other methods, with their defaults",
        ]  # fmt: skip
        assert titles == named
        assert re.search(r"python \S*scripts/train.py --flagfile=mir.flags", found.stdout)
        assert "--bits " in found.stdout

    @pytest.mark.parametrize("name", ["train", "evaluate", "export", "search"])
    def test_every_program(self, program, name):
        outcome = program(name, "--help")
        assert outcome.code == 0
        assert outcome.err == ""
        assert f"dsprh {name} --" in outcome.out
        for flag in re.findall(r"^  --(\w+)", outcome.out, re.M):
            assert re.search(rf"^  --{flag} +\S", outcome.out, re.M), f"{flag} is not explained"
        assert "--run_dir" in outcome.out
