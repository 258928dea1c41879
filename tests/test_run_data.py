"""The data of a run: one image on one side of its split, and data that look wrong."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from data_helpers import refuses
from helpers import call_program
from PIL import Image

from dsprh_tf.data.splits import PARTS
from dsprh_tf.run import Run
from dsprh_tf.run_data import RunData


def rows_of(scenes_dir):
    with open(scenes_dir / "manifest.csv", encoding="utf-8") as file:
        return [{n: v for n, v in row.items() if n != "id"} for row in csv.DictReader(file)]


def write_manifest(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def run_of(folder, run_dir, **changed):
    settings = {
        "dataset": "pairs", "data_dir": str(folder), "queries": 30, "train_pairs": 60,
        "validation": 10.0, "min_word_pairs": 1, "image_size": 64, "resize": 72,
    }  # fmt: skip
    return Run(run_dir, **{**settings, **changed})


def parts_of(run):
    split = run.split
    return {part: getattr(split, part) for part in PARTS}


def images_of(run):
    """Part -> the bytes of its image files."""
    paths = run.dataset.image_paths
    found = {}
    for part, rows in parts_of(run).items():
        found[part] = set()
        for row in rows:
            with open(paths[row], "rb") as file:
                found[part].add(file.read())
    return found


def assert_one_side(run):
    images = images_of(run)
    assert not images["query"] & images["database"]
    assert not images["train"] & images["validation"]
    assert images["train"] | images["validation"] <= images["database"]


def five_rows(scenes_dir):
    return [
        {**row, "image": str(scenes_dir / row["image"]), "id": f"{number}-{caption}",
         "text": f"{row['text']} word{caption}"}
        for number, row in enumerate(rows_of(scenes_dir)[:44]) for caption in range(5)
    ]  # fmt: skip


def copies(scenes_dir, folder):
    """Each of 40 images under two names; the text of a copy differs."""
    rows = []
    for number, row in enumerate(rows_of(scenes_dir)[:40]):
        for copy in "ab":
            path = folder / "images" / copy / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(scenes_dir / row["image"], path)
            text = f"{row['text']} copy{copy}"
            rows.append({**row, "image": str(path), "text": text})
    return rows


@pytest.mark.parametrize("make", [five_rows, "copies"], ids=["five captions", "copies"])
def test_a_drawn_split(scenes_dir, tmp_path, capsys, make):
    rows = copies(scenes_dir, tmp_path) if make == "copies" else make(scenes_dir)
    run = run_of(write_manifest(tmp_path / "data", rows), tmp_path / "run")
    assert len(run.dataset) == len(rows)
    assert_one_side(run)
    each = 2 if make == "copies" else 5
    said = f"data: {len(rows) // each} images occur more than once ({len(rows)} items); each "
    assert said + "stands on one side\n" in capsys.readouterr().out
    assert len(run.split.query) == 30 and len(run.split.train) + len(run.split.validation) == (
        50 if make == "copies" else 60
    )


def test_a_given_split(scenes_dir, tmp_path, capsys):
    rows = copies(scenes_dir, tmp_path)
    for number, row in enumerate(rows):
        row["split"] = ("query", "train", "database", "train")[number % 4]
    rows += [
        {**row, "image": str(scenes_dir / row["image"]), "split": "train"}
        for row in rows_of(scenes_dir)[60:100]
    ]
    run = run_of(write_manifest(tmp_path / "data", rows), tmp_path / "run")
    assert_one_side(run)
    assert len(run.split.query) == 20
    said = capsys.readouterr().out
    assert (
        "data: left out of the given split: 20 of 100 database pairs that have the image of a "
        "query, 20 of them for training\n"
    ) in said
    assert "data: 40 images occur more than once (80 items)" in said


def test_copies_that_were_saved_again_are_warned_of_once(scenes_dir, tmp_path, capsys):
    rows = [
        {**row, "image": str(scenes_dir / row["image"]), "split": "train"}
        for row in rows_of(scenes_dir)[:40]
    ]
    for number in range(5):
        path = tmp_path / f"{number}.jpg"
        image = Image.open(rows[number]["image"])
        image.resize((160, 144)).save(path, quality=60)
        rows.append({**rows[number], "image": str(path), "split": "query"})
    folder = write_manifest(tmp_path / "data", rows)
    run = run_of(folder, tmp_path / "run", accept_odd_data=True)
    before = parts_of(run)  # nothing is kept yet
    assert not (tmp_path / "run").exists()
    said = capsys.readouterr().out
    assert "data: warning: 5 of 5 query images look like one in the database" in said
    data = run.data.kept_in(run.folder)
    kept = data.split
    assert "look like" not in capsys.readouterr().out
    again = RunData(run.settings, run.folder, keep=True).split
    assert "look like" not in capsys.readouterr().out
    for part, rows in before.items():
        np.testing.assert_array_equal(rows, getattr(kept, part))
        np.testing.assert_array_equal(rows, getattr(again, part))


def test_the_split_of_an_earlier_version(scenes_dir, tmp_path, capsys):
    run = run_of(write_manifest(tmp_path / "data", five_rows(scenes_dir)), tmp_path / "run")
    _ = run.data.kept_in(run.folder).split
    path = tmp_path / "run" / "split.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["by_image"]
    content["query"][0], content["train"][0] = content["train"][0], content["query"][0]
    content["database"].remove(content["query"][0])
    content["database"].append(content["train"][0])
    path.write_text(json.dumps(content), encoding="utf-8")
    before = path.read_bytes()
    capsys.readouterr()
    split = RunData(run.settings, run.folder, keep=True).split
    said = capsys.readouterr().out
    assert f"data: warning: {path} is of an earlier version, and 5 of 30 queries" in said
    assert set(run.dataset.ids[split.query]) == set(content["query"])
    assert path.read_bytes() == before


# Data that look wrong


def vectors(path, n=60, **arrays):
    rng = np.random.default_rng(0)
    classes = np.arange(n) % 3
    sound = {
        "image": np.float32(rng.normal(size=(3, 8))[classes] + 0.3 * rng.normal(size=(n, 8))),
        "text": np.float32(rng.normal(size=(3, 6))[classes] + 0.3 * rng.normal(size=(n, 6))),
        "labels": np.eye(3)[classes],
    }
    np.savez(path, **{**sound, **arrays})
    return path


ALL_RELEVANT = {"labels": np.tile([1, 1, 0], (60, 1))}
SMALL = (
    "--dataset=features", "--queries=15", "--train_pairs=40", "--bits=8",
)  # fmt: skip
TRAINING = ("--method=djsrh", "--epochs=1", "--batch_size=16", "--text_hidden=8")
BASELINE = ("--baseline=lsh",)


@pytest.mark.parametrize("name", ["train", "baseline", "reproduce"])
def test_programs_refuse_data_that_look_wrong(tmp_path, name):
    own = {"train": TRAINING, "baseline": BASELINE, "reproduce": ("--experiment=table2",)}[name]
    folder = f"--{'out' if name == 'reproduce' else 'run_dir'}={tmp_path / 'run'}"
    flags = [*own, *SMALL, folder] if name != "reproduce" else [*own, SMALL[0], folder]
    path = vectors(tmp_path / "v.npz", **ALL_RELEVANT)
    line = call_program(name, *flags, f"--data_dir={path}").line
    assert f"{path}: features data look wrong: two random pairs are relevant" in line
    assert "with chance 1" in line and line.endswith("; or go on with --accept_odd_data")
    assert not list((tmp_path / "run").glob("**/split.json"))
    if name != "train":
        extra = ["--dry_run"] if name == "reproduce" else []
        outcome = call_program(name, *flags, f"--data_dir={path}", "--accept_odd_data", *extra)
        assert outcome.code == 0, outcome.err[-2000:]
        assert "data: warning: two random pairs are relevant to each other" in outcome.out


def test_a_run_with_odd_data_is_evaluated_and_one_of_an_earlier_version_too(tmp_path):
    path, run_dir = vectors(tmp_path / "v.npz", **ALL_RELEVANT), tmp_path / "run"
    flags = [*TRAINING, *SMALL, f"--data_dir={path}", f"--run_dir={run_dir}"]
    assert call_program("train", *flags).code == 2
    outcome = call_program("train", *flags, "--accept_odd_data")  # the refused one left no run
    assert outcome.code == 0, outcome.err[-2000:]
    settings = json.loads((run_dir / "flags.json").read_text(encoding="utf-8"))
    assert settings.pop("accept_odd_data") is True
    for record in (settings, {**settings, "accept_odd_data": True}):
        (run_dir / "flags.json").write_text(json.dumps(record), encoding="utf-8")
        outcome = call_program("evaluate", f"--run_dir={run_dir}")
        assert outcome.code == 0, outcome.err[-2000:]
        assert "data: warning: a query and a pair of the database are relevant" in outcome.out
    (run_dir / "flags.json").write_text(json.dumps({**settings, "accept_odd_data": False}))
    assert "--accept_odd_data" in call_program("evaluate", f"--run_dir={run_dir}").line
    shutil.rmtree(run_dir)


def test_small_and_sound_vectors_are_not_refused(tmp_path, capsys):
    run = Run(tmp_path / "run", dataset="features", data_dir=str(vectors(tmp_path / "v.npz")),
              queries=15, train_pairs=40)  # fmt: skip
    assert len(run.split.query) == 15
    said = capsys.readouterr().out
    assert "labels per pair; two random pairs are relevant to each other with chance 0.3" in said
    assert "15 queries, 45 pairs in the database, relevant to each other with chance 0.3" in said
    assert "warning" not in said


def test_equal_vectors_stand_on_one_side(tmp_path, capsys):
    image = np.random.default_rng(0).normal(size=(20, 8)).repeat(3, axis=0)
    path = vectors(tmp_path / "v.npz", image=image)
    run = Run(tmp_path / "run", dataset="features", data_dir=str(path), queries=15, train_pairs=40)
    split = run.split
    groups = np.arange(60) // 3
    assert len(split.query) == 15
    assert not np.isin(groups[split.query], groups[split.database]).any()
    assert "data: 20 images occur more than once (60 items)" in capsys.readouterr().out


def test_texts_that_are_all_the_same(scenes_dir, tmp_path):
    rows = [
        {**row, "image": str(scenes_dir / row["image"]), "text": "no caption"}
        for row in rows_of(scenes_dir)[:30]
    ]
    folder = write_manifest(tmp_path / "data", rows)
    refuses("data: pairs data look wrong: 30 of 30 texts are the same, 'no caption'",
            lambda: run_of(folder, tmp_path / "run").dataset)  # fmt: skip


def test_the_most_frequent_of_a_list_of_tags_are_kept(scenes_dir, tmp_path, capsys):
    run = run_of(scenes_dir, tmp_path / "run", max_words=3)
    texts = [str(text).lower().split() for text in run.dataset.texts]
    tags = sorted({word for words in texts for word in words if word.isalpha()})[:10]
    vars(run.data)["dataset"] = dataclasses.replace(run.dataset, vocabulary=tuple(tags))
    counts = [sum(tag in texts[row] for row in run.data._drawn.train) for tag in tags]
    kept = sorted(range(len(tags)), key=lambda column: (-counts[column], column))[:3]
    assert run.data.words.vocabulary == tuple(tags[column] for column in sorted(kept))
    assert (
        "3 of 10 tags are kept, the most frequent in 50 training texts" in capsys.readouterr().out
    )
