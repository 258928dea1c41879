"""A run as an object: the same as the program, its folder, and what earlier versions wrote."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from helpers import call_program, read_events, read_weights

import dsprh_tf
from dsprh_tf.compat import KERAS_3
from dsprh_tf.data.files import Lock
from dsprh_tf.run import Run
from dsprh_tf.serving.encoder import Encoder


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Settings of a run of seconds on 90 vectors of 4 classes."""
    rng = np.random.default_rng(0)
    classes = np.arange(90) % 4
    path = tmp_path_factory.mktemp("features") / "features.npz"
    np.savez(
        path,
        image=np.float32(rng.normal(size=(4, 16))[classes] + 0.5 * rng.normal(size=(90, 16))),
        text=np.float32(rng.random((90, 12)) < 0.1 + 0.6 * np.eye(4).repeat(3, axis=1)[classes]),
        labels=np.eye(4, dtype=np.uint8)[classes],
    )
    return {
        "dataset": "features", "data_dir": str(path), "queries": 20, "train_pairs": 64,
        "validation": 8.0, "bits": 16, "text_hidden": 8, "epochs": 2, "batch_size": 16,
    }  # fmt: skip


def as_flags(settings):
    return [f"--{name}={value}" for name, value in settings.items()]


@pytest.fixture(scope="module")
def trained(features, tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("runs") / "mine", method="dsprh_plus", **features)
    run.train()
    run.evaluate()
    return run


@pytest.mark.parametrize("method", ["djsrh", "dsprh", "dsprh_plus"])
def test_python_and_the_program_give_the_same_weights_bit_for_bit(features, tmp_path, method):
    features = {**features, "max_to_keep": 2}  # a finished run keeps all of the last epoch, too
    run = Run(tmp_path / "python", method=method, **features)
    run.train()
    record = run.evaluate()
    outcome = call_program(
        "train", f"--method={method}", *as_flags(features), f"--run_dir={tmp_path / 'program'}"
    )
    assert outcome.code == 0, outcome.err[-2000:]
    ours, theirs = read_weights(tmp_path / "python"), read_weights(tmp_path / "program")
    assert set(ours) == set(theirs) and len(ours) > 10
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    assert json.loads((tmp_path / "program" / "results.json").read_text()) == record
    assert str(record) in outcome.out


def test_a_run_says_and_records_its_settings(features, tmp_path, capsys):
    Run(tmp_path / "run", method="dsprh_plus", neighbours=5, **features).train()
    said = capsys.readouterr().out
    assert "settings, recipe of dsprh_plus, frozen backbone: optimizer adamw" in said
    assert "neighbours 5" in said.split("settings, given: ")[1].split("\n")[0]
    recorded = json.loads((tmp_path / "run" / "flags.json").read_text())
    assert (recorded["neighbours"], recorded["optimizer"], recorded["margin"]) == (5, "adamw", 0.3)
    assert "heads" not in recorded
    ((_, text),) = read_events(tmp_path / "run")["settings"]
    assert "| neighbours | 5 | given |" in text.decode()


def test_results_print_as_a_table_and_are_a_dict(trained):
    record = trained.evaluate()
    assert record["image_to_text"]["map"] == record.copy()["image_to_text"]["map"]
    assert str(record).startswith("dsprh_plus on features, 16 bits, seed 0: 20 queries")


def test_a_folder_alone_is_its_run(trained, capsys):
    again = Run(trained.folder.path)
    assert vars(again.settings) == vars(trained.settings)
    np.testing.assert_array_equal(again.split.query, trained.split.query)
    again.train()
    assert "resuming" in capsys.readouterr().out
    assert again.evaluate() == trained.evaluate()


def test_a_run_on_a_finished_folder_evaluates_without_training(trained, features):
    again = Run(trained.folder.path, method="dsprh_plus", **features)
    assert again.evaluate() == trained.evaluate()
    other = Run(trained.folder.path, method="dsprh_plus", **{**features, "epochs": 3})
    with pytest.raises(ValueError, match="--epochs: was 2, is 3"):
        other.evaluate()
    with pytest.raises(ValueError, match="--epochs: was 2, is 3.*only the weights.*--overwrite"):
        other.train()
    fewer = Run(trained.folder.path, method="dsprh_plus", **{**features, "epochs": 1})
    with pytest.raises(ValueError, match="other flags .--epochs: was 2, is 1"):
        fewer.train()


def test_a_run_that_goes_on_to_more_epochs_is_one_that_had_them_from_the_beginning(
    features, tmp_path, capsys
):
    def train(name, epochs):
        settings = {**features, "method": "dsprh_plus", "max_to_keep": 2, "epochs": epochs}
        run = Run(tmp_path / name, **settings, average_from=1.0)
        run.train()
        run.evaluate()

    train("whole", 3)
    train("parts", 1)
    train("parts", 3)
    assert "resuming" in capsys.readouterr().out
    whole, parts = (tmp_path / name for name in ("whole", "parts"))
    assert json.loads((parts / "flags.json").read_text())["epochs"] == 3
    assert (parts / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    weights, again = read_weights(whole), read_weights(parts)
    assert set(weights) == set(again)
    for name, array in weights.items():
        np.testing.assert_array_equal(array, again[name], err_msg=name)


def test_a_mean_of_weights_that_would_be_another_one_keeps_a_run_from_going_on(features, tmp_path):
    settings = {**features, "method": "dsprh_plus", "max_to_keep": 2}
    Run(tmp_path / "run", **{**settings, "epochs": 2}).train()
    with pytest.raises(ValueError, match="some of its epochs would no longer be in the mean"):
        Run(tmp_path / "run", **{**settings, "epochs": 4}).train()


def test_looking_at_data_writes_nothing(features, tmp_path):
    run = Run(tmp_path / "run", **features)
    assert len(run.split.query) == 20 and len(run.dataset) == 90
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="is not a run folder"):
        run.evaluate()
    with pytest.raises(ValueError, match="is not a run folder"):
        Run(tmp_path / "run")


def test_the_folder_is_free_again_after_training(trained, features, tmp_path):
    Lock(trained.folder / ".lock", "taken").release()
    held = Lock(trained.folder / ".lock", "taken")
    with pytest.raises(ValueError, match="in use by another process"):
        Run(trained.folder.path, method="dsprh_plus", **features).train()
    held.release()


def test_precision_is_the_runs_own(features, tmp_path):
    import keras

    run = Run(tmp_path / "run", method="djsrh", precision="mixed_bfloat16", **features)
    assert run.build().image_network.compute_dtype == "bfloat16"
    assert keras.mixed_precision.global_policy().name == "float32"


def test_the_default_folder_is_named_by_what_the_run_is():
    assert str(Run(dataset="coco", bits=32, seed=3).folder.path) == "runs/dsprh-coco-32-3"


def test_public_names_are_loaded_when_asked_for():
    assert dsprh_tf.Run is Run and dsprh_tf.Encoder is Encoder
    assert "dsah" in dsprh_tf.METHODS and dsprh_tf.HammingIndex(16).bits == 16
    assert {"Run", "METHODS", "Encoder", "HammingIndex"} <= set(dir(dsprh_tf))
    with pytest.raises(AttributeError, match="has no attribute 'Runn'"):
        _ = dsprh_tf.Runn


# What version 0.1 wrote, before the library had runs as objects: run folders (two epochs of small
# data), exports, codes and an index, made by the programs of that version on this stack.


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    folder = tmp_path_factory.mktemp("version_0_1")
    stack = 3 if KERAS_3 else 2
    with tarfile.open(Path(__file__).parent / f"fixtures/version_0_1_keras{stack}.tar.xz") as file:
        file.extractall(folder)
    return folder


def load(before, name):
    weights = next(before.glob("mobilenet_sparse*"))
    data = {"features": "features.npz", "images": "manifest.csv"}.get(name, "features.npz")
    run = Run.load(before / "runs" / name, before / data, weights if name == "images" else None)
    run.settings.cache_dir = str(before / "cache")
    return run


@pytest.mark.parametrize("name", ["features", "images", "djsrh", "dsah"])
def test_runs_of_version_0_1_evaluate_as_before(before, name, tmp_path):
    expected = json.loads((before / "runs" / name / "results.json").read_text())
    found = load(before, name).evaluate()
    assert {key: found[key] for key in expected} == expected


def test_runs_of_version_0_1_export_as_before(before, tmp_path):
    load(before, "images").export(tmp_path / "images")
    images = [path.read_bytes() for path in sorted((before / "images").iterdir())]
    texts = ["red dog", "green boat", "blue tree", "tree"]
    for kind, items in (("image", images), ("text", texts)):
        old, new = (Encoder(root / "images", kind) for root in (before / "export", tmp_path))
        assert old.info["fingerprint"] == new.info["fingerprint"]
        np.testing.assert_array_equal(old.encode(items), new.encode(items))


def test_an_export_of_version_0_1_splits_words_as_before(before):
    text = Encoder(before / "export" / "images", "text")
    np.testing.assert_array_equal(text.known_words(["red,dog", "Red dog!", "Ｒed"]), [0, 2, 0])
    assert list(text.unknown_words("red,dog Red Zebra!")) == ["red,dog", "Zebra!"]


def test_a_run_of_version_0_1_goes_on(before, tmp_path, capsys):
    shutil.copytree(before / "runs" / "features", tmp_path / "run")
    recorded = json.loads((tmp_path / "run" / "flags.json").read_text())
    recorded["epochs"] = 3  # as if it had been stopped after two
    recorded["data_dir"] = str(before / "features.npz")
    (tmp_path / "run" / "flags.json").write_text(json.dumps(recorded))
    Run(tmp_path / "run").train()
    assert "resuming" in capsys.readouterr().out
    assert read_weights(tmp_path / "run")["epoch/.ATTRIBUTES/VARIABLE_VALUE"] == 3


def test_codes_and_index_of_version_0_1_are_searched_as_before(before, tmp_path):
    encoder = Encoder(before / "export" / "images", "image")
    codes = np.load(before / "codes" / "images" / "codes.npy")
    images = [(before / "images" / f"{i:02}.jpg").read_bytes() for i in range(len(codes))]
    np.testing.assert_array_equal(encoder.encode(images), codes)
    expected = json.loads((before / "found.json").read_text())
    outcome = call_program(
        "search", f"--index={before / 'index'}", f"--export_dir={before / 'export/images'}",
        "--text=red dog", f"--image={before / 'images/03.jpg'}", "--json", "--top=5",
        "--rank=hamming",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    for old, new in zip(expected, found):
        pairs = [(r["distance"], r["id"]) for r in new["results"]]
        assert [r["distance"] for r in old["results"]] == [distance for distance, _ in pairs]
        # Ties are in the order of all ids now; which of them were found was up to the engine.
        assert pairs == sorted(pairs) and pairs[0] == min(pairs)
        nearer = [p for p in pairs if p[0] < pairs[-1][0]]
        assert nearer == [(r["distance"], r["id"]) for r in old["results"][: len(nearer)]]
    outcome = call_program("index", "check", f"--index={before / 'index'}")
    assert outcome.code == 0 and "is in order: 45 items" in outcome.out
    build = ("index", "build", f"--codes={before / 'codes/texts'}", f"--index={tmp_path / 'index'}")
    assert call_program(*build).code == 0
