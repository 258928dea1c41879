"""Supervised methods through the programs: training, resuming, export, and labels that miss."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from dsprh_tf.serving.encoder import Encoder

METHODS = ["hsidhn", "sdeh"]
SMALL = ["--width=16", "--heads=2", "--optimizer=adamw", "--lr_image=0.003", "--lr_text=0.003"]


def manifest_without(scenes_dir, name: str, rows: int):
    """A manifest beside the drawn pictures whose first rows have no label; returns its path."""
    with open(scenes_dir / "manifest.csv", newline="", encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    for entry in entries[:rows]:
        entry["labels"] = ""
    path = scenes_dir / name
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image", "text", "labels"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(entries)
    return path


@pytest.mark.parametrize("method", METHODS)
def test_train_resume_export_and_encode(
    program, small_flags, scenes_dir, tmp_path, method, weights, events
):
    run_dir, folder = tmp_path / "run", tmp_path / "export"
    flags = [*small_flags, *SMALL, f"--method={method}", "--hash_dropout=0.2"]
    outcome = program("train", *flags, "--epochs=8", f"--run_dir={run_dir}")
    assert outcome.code == 0, outcome.err[-2000:]
    record = json.loads((run_dir / "results.json").read_text())
    assert record["image_to_text"]["map"] > 1.2 * record["chance"]
    assert 0 < record["text_to_image"]["ndcg@50"] <= 1
    tags = events(run_dir)
    assert "validation/map" in tags and "loss/L_Q" in tags and "loss/L_F" not in tags
    # Stopped after half the epochs and resumed: the same, masks of the dropout included. In one
    # process sums differ in their last digits by where arrays lie in memory; other masks would
    # move every weight by a hundred times more.
    other = tmp_path / "other"
    for epochs in (4, 8):
        again = program("train", *flags, f"--epochs={epochs}", f"--run_dir={other}")
        assert again.code == 0, again.err[-2000:]
        settings = (other / "flags.json").read_text()
        (other / "flags.json").write_text(settings.replace('"epochs": 4', '"epochs": 8'))
    expected, found = weights(run_dir), weights(other)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert np.abs(found[name] - value).mean() < 2e-5, name
    # Each encoder takes one modality alone.
    assert program("export", f"--run_dir={run_dir}", f"--export_dir={folder}").code == 0
    with open(scenes_dir / "manifest.csv", newline="", encoding="utf-8") as file:
        entries = list(csv.DictReader(file))[:4]
    images = [(scenes_dir / entry["image"]).read_bytes() for entry in entries]
    codes = Encoder(folder, "image").encode(images)
    assert codes.shape == (4, 2) and len(np.unique(codes, axis=0)) > 1
    np.testing.assert_array_equal(Encoder(folder, "image").encode(images[1:2]), codes[1:2])
    texts = [entry["text"] for entry in entries]
    codes = Encoder(folder, "text").encode(texts)
    assert codes.shape == (4, 2)
    np.testing.assert_array_equal(Encoder(folder, "text").encode(texts[1:2]), codes[1:2])


def test_a_trained_backbone_learns_through_its_stages(program, small_flags, tmp_path):
    flags = [*small_flags, *SMALL, "--method=hsidhn", "--nofreeze_backbone", "--epochs=1"]
    outcome = program("train", *flags, "--train_pairs=40", f"--run_dir={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.err[-2000:]
    assert (tmp_path / "run" / "results.json").exists()


def test_training_pairs_without_a_label_are_refused_or_left_out(
    program, small_flags, scenes_dir, tmp_path
):
    path = manifest_without(scenes_dir, "partly.csv", 30)
    flags = [*small_flags, *SMALL, "--method=hsidhn", f"--data_dir={path}", "--epochs=1"]
    line = program("train", *flags, f"--run_dir={tmp_path / 'refused'}").line
    assert "of 72 training pairs have no label, the first is item" in line
    assert "leave them out with --on_missing_labels=skip" in line
    run_dir = tmp_path / "skipped"
    outcome = program("train", *flags, "--on_missing_labels=skip", f"--run_dir={run_dir}")
    assert outcome.code == 0, outcome.err[-2000:]
    (note,) = [x for x in outcome.out.splitlines() if "left out of training" in x]
    left_out = int(note.split()[1])
    assert 0 < left_out <= 30
    assert f"{72 - left_out} train" in outcome.out
    # An unsupervised method trains on all of them.
    outcome = program(
        "train", *small_flags, f"--data_dir={path}", "--epochs=1", f"--run_dir={tmp_path / 'all'}"
    )
    assert outcome.code == 0 and "72 train" in outcome.out


def test_data_without_labels_are_refused(program, small_flags, scenes_dir, tmp_path):
    with open(scenes_dir / "manifest.csv", newline="", encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    path = scenes_dir / "nolabels.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image", "text"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(entries)
    flags = [*small_flags, f"--data_dir={path}", f"--run_dir={tmp_path / 'run'}"]
    line = program("train", *flags, "--method=sdeh").line
    assert "sdeh is supervised and pairs data has no labels: add a labels column" in line
    assert "djsrh, dsah, dsprh, dsprh_plus" in line
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_vectors_are_refused(program, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "vectors.npz"
    np.savez(path, image=rng.random((60, 5)), text=rng.random((60, 4)), labels=np.eye(3)[:1].repeat(60, 0).astype(np.uint8))  # noqa: E501
    line = program(
        "train", "--dataset=features", f"--data_dir={path}", "--queries=12", "--train_pairs=40",
        "--bits=16", "--method=hsidhn", f"--run_dir={tmp_path / 'run'}",
    ).line  # fmt: skip
    assert "hsidhn reads maps of a backbone and features data has vectors only" in line


def test_a_width_that_heads_do_not_divide_is_refused(program, small_flags, tmp_path):
    flags = [*small_flags, "--method=sdeh", "--width=30", f"--run_dir={tmp_path / 'run'}"]
    assert "width is 30, expected a multiple of the 4 heads" in program("train", *flags).line
