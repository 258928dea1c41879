"""`dsprh reproduce`: a miniature sweep from plan to report, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT

from dsprh_tf import methods, settings
from dsprh_tf.cli import reproduce as reproduce_program
from dsprh_tf.cli import train as train_program
from dsprh_tf.cli.settings import given_settings
from dsprh_tf.data.files import Lock
from dsprh_tf.experiments.paper import NAMES
from dsprh_tf.experiments.plan import SINGLE

WANT_IMAGES = {n: m.title for n, m in methods.METHODS.items() if not m.takes_features}


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    """60 pairs of vectors with labels."""
    rng = np.random.default_rng(3)
    labels = np.eye(3, dtype=np.uint8)[rng.integers(0, 3, 60)]
    image, text = (labels @ rng.normal(size=(3, d)) + rng.normal(size=(60, d)) for d in (20, 12))
    path = tmp_path_factory.mktemp("features") / "data.npz"
    np.savez(path, image=image, text=text, labels=labels)
    np.savez(path.with_name("unlabelled.npz"), image=image, text=text)
    return path


@pytest.fixture
def reproduce(program, features, tmp_path):
    """`reproduce(*flags)`: table2 on vectors, planned only where nothing else is asked for."""
    common = [
        "--experiment=table2", "--dataset=features", f"--data_dir={features}", "--queries=10",
        "--bits=16", "--seeds=0", f"--out={tmp_path / 'out'}", "--dry_run",
    ]  # fmt: skip
    return lambda *flags: program("reproduce", *common, *flags)


@pytest.fixture(scope="module")
def flags(small_flags) -> list:
    """Flags of trials of seconds, of methods without the covariance's setting too."""
    return [f for f in small_flags if not f.startswith(("--cov_channels", "--method"))]


def counts(outcome) -> dict:
    """Experiment -> (trials, done, failed before, to run) as the plan shows them."""
    lines = [line.split() for line in outcome.out.splitlines()]
    return {
        line[0]: tuple(map(int, line[1:5]))
        for line in lines
        if line and line[0].startswith(("table", "figure", "ablation"))
    }


def test_a_miniature_from_plan_to_report(program, flags, tmp_path):
    out = tmp_path / "out"
    command = [
        "reproduce", "--experiment=table2,figure6", *flags, f"--out={out}",
        "--methods=lsh,dsah,lsh", "--seeds=0,0", "--bits=16,16",  # named twice: counts once
    ]  # fmt: skip
    outcome = program(*command, "--dry_run")
    assert outcome.code == 0, outcome.err[-2000:]
    assert counts(outcome) == {"table2": (2, 0, 0, 2), "figure6": (2, 0, 0, 0)}
    assert "note: DSAH runs with other settings:" in outcome.out
    assert not out.exists(), "a dry run writes nothing"

    outcome = program(*command)
    assert outcome.code == 0, outcome.err[-2000:]
    assert "2 of 2 trials to run, about " in outcome.out
    last = outcome.out.splitlines()[-1]
    for name in ("table2", "figure6"):
        assert str(out / name / "report.html") in last
    folders = sorted((out / "trials").iterdir())
    assert [folder.name.rsplit("-", 1)[0] for folder in folders] == ["dsah-16-0", "lsh-16-0"]
    with open(out / "table2/summary.csv", newline="") as file:
        assert {row["done"] for row in csv.DictReader(file)} == {"1"}
    markdown = (out / "table2/report.md").read_text()
    for folder in folders:
        record = json.loads((folder / "results.json").read_text())
        assert f"{record['image_to_text']['map']:.3f}" in markdown
        assert (out / "tensorboard" / folder.name).is_dir()
    assert (out / "figure6/curves-16.png").exists()
    assert "120 rows in manifest.csv" in markdown
    assert "--text_hidden=32" in markdown
    assert "tensorflow" in markdown

    # Finished trials stay as they are; one without results goes on from its checkpoints.
    before = {path: path.stat().st_mtime_ns for path in (out / "trials").rglob("results.json")}
    weights = next(folders[0].glob("checkpoints/*.index")).stat().st_mtime_ns
    assert counts(program(*command)) == {"table2": (2, 2, 0, 0), "figure6": (2, 2, 0, 0)}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    results = (folders[0] / "results.json").read_text()
    (folders[0] / "results.json").write_text(results[:100])
    with Lock(folders[0] / ".lock", "held"):
        outcome = program(*command)
    assert outcome.code == 1
    assert f"failed: {folders[0].name}" in outcome.out
    assert f"{folders[0]} is in use by another process" in (out / "table2/report.html").read_text()
    outcome = program(*command)
    assert outcome.code == 0
    assert counts(outcome)["table2"] == (2, 1, 1, 1)
    assert (folders[0] / "results.json").read_text() == results
    assert next(folders[0].glob("checkpoints/*.index")).stat().st_mtime_ns == weights

    (folders[0] / "results.json").write_text(results.replace('"format": 1', '"format": 99'))
    line = program(*command).line
    assert str(folders[0] / "results.json") in line
    assert "version" in line


def test_a_flag_file_of_a_single_run_makes_the_whole_table(reproduce, program, features, tmp_path):
    path = tmp_path / "run.flags"
    path.write_text(
        f"--dataset=features\n--data_dir={features}\n--queries=10\n--bits=64\n--seed=7\n"
        "--method=dsah\n--run_dir=somewhere\n--epochs=2\n"
    )
    command = ["reproduce", "--experiment=table3", f"--flagfile={path}", "--dry_run"]
    with open(path, "a") as file:
        file.write("--overwrite\n--cov_channels=8\n")
    rows = len(NAMES) + 1 - len(WANT_IMAGES)  # the paper's method has two
    assert counts(program(*command)) == {"table3": (rows * 4 * 3, 0, 0, rows * 4 * 3)}
    outcome = program(*command, "--bits=16,32", "--seeds=1")
    assert counts(outcome) == {"table3": (rows * 2, 0, 0, rows * 2)}
    assert outcome.out.splitlines()[-1].endswith("in runs/reproduce/features")
    (line,) = (line for line in outcome.out.splitlines() if "--cov_channels" in line)
    assert line == (
        "note: settings go to the methods that have them: --cov_channels not to DJSRH, DSAH"
    )


@pytest.mark.parametrize("frozen", [(), ("--freeze_backbone",)])
@pytest.mark.parametrize("name", ["mir", "nus", "coco"])
def test_a_flag_file_means_the_same_to_train_and_to_reproduce(monkeypatch, name, frozen):
    monkeypatch.setattr(settings, "check_backbone", lambda *arguments: None)  # nor its weights
    words = [f"--flagfile={ROOT / name}.flags", *frozen]
    reproduce_program.FLAGS.unparse_flags()
    reproduce_program.FLAGS(["reproduce", "--experiment=table2", *words])
    request = reproduce_program.request_of_flags()
    reproduce_program.FLAGS.unparse_flags()
    for method in methods.METHODS:
        train_program.FLAGS.unparse_flags()
        train_program.FLAGS(["train", *words, f"--method={method}", "--bits=16", "--seed=1"])
        effective = settings.effective_settings(given_settings(train_program.FLAGS)).values
        train_program.FLAGS.unparse_flags()
        expected = {n: value for n, value in effective.items() if n not in settings.NEUTRAL}
        assert request.trial(method, 16, 1).settings == expected


def test_help_lists_no_flag_of_a_single_run(program):
    outcome = program("reproduce", "--help")
    assert (outcome.code, outcome.err) == (0, "")
    listed = re.findall(r"^  --(\w+) +\S", outcome.out, re.M)
    assert {"experiment", "bits", "epochs", "heads"} <= set(listed)
    assert not set(listed) & (set(SINGLE) - {"bits"})
    assert len(listed) == len(set(listed))


def test_experiments_of_vectors(reproduce):
    names = "table2,table3,table4,figure5,figure6"
    assert set(counts(reproduce(f"--experiment={names}"))) == set(names.split(","))
    for name in ("figure4", "ablation_parts", "ablation_hsidhn"):
        line = reproduce(f"--experiment={name}").line
        assert line.startswith(f"reproduce: {name} is about networks that read images")
        assert "vectors only" in line


def test_vectors_leave_out_what_needs_images_and_say_so_once(reproduce):
    outcome = reproduce("--experiment=table2,figure6")
    lines = [line for line in outcome.out.splitlines() if "images" in line]
    assert lines == [f"note: without {', '.join(WANT_IMAGES.values())}: images are needed, and "
                     "features data has vectors only"]  # fmt: skip
    assert "images" not in reproduce("--experiment=table4").out


@pytest.mark.parametrize("name", sorted(WANT_IMAGES))
def test_a_method_that_needs_images_is_refused_on_vectors(reproduce, name, tmp_path):
    line = reproduce("--nodry_run", f"--methods=lsh,{name}").line
    assert line.startswith(f"reproduce: {name} cannot be compared on features data")
    assert "leave it out of --methods" in line
    assert not (tmp_path / "out").exists(), "nothing is begun"


def test_the_ablation_of_a_supervised_method_shares_its_base(program, flags, tmp_path):
    command = [
        "reproduce", "--experiment=table2,ablation_hsidhn", *flags, "--methods=dsah,hsidhn",
        f"--out={tmp_path / 'out'}", "--dry_run", "--bits=64",
    ]  # fmt: skip
    planned = counts(program(*command))
    assert planned == {"table2": (6, 0, 0, 6), "ablation_hsidhn": (5 * 3, 0, 0, 4 * 3)}
    planned = counts(program(*command, "--nointeraction", "--soft_weight=0"))
    assert planned["ablation_hsidhn"] == (3 * 3, 0, 0, 2 * 3), "rows that change nothing are none"


def test_a_second_process_stops(reproduce, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with Lock(out / ".lock", "held"):
        line = reproduce("--nodry_run").line
    assert f"{out} is in use by another process" in line
    assert not (out / "trials").exists()


def test_what_is_named_twice_counts_once(reproduce):
    outcome = reproduce("--methods=lsh,lsh", "--seeds=0,1,0", "--bits=16,16")
    assert outcome.code == 0, outcome.err
    assert counts(outcome) == {"table2": (2, 0, 0, 2)}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--experiment=table9"], "unknown experiment 'table9', expected some of table2"),
        (["--experiment="], "unknown experiment '', expected"),
        (["--methods=dsprh,dch"], "unknown method 'dch', expected some of lsh"),
        (["--methods="], "unknown method '', expected"),
        (["--seeds="], "no seeds, expected at least one"),
        (["--seeds=a"], "--seeds is a, expected whole numbers"),
        (["--seeds=0,-1"], "--seeds has -1, expected whole numbers from 0"),
        (["--bits=20"], "20"),
        (["--bits=16,x"], "--bits is 16,x, expected whole numbers"),
        (["--seed=3"], "--seed is of a single run"),
        (["--run_dir=x"], "--run_dir is of a single run"),
        (["--method=dsah"], "--method is of a single run"),
        (["--overwrite"], "--overwrite is of a single run"),
        (["--heads=2", "--methods=dsah"], "--heads belongs to sdeh; planned are dsah"),
        (["--lr_image=nan"], "--lr_image is nan"),
        (["--dataset=scenes"], "scenes are drawn anew for each seed"),
        (["--data_dir=nowhere.npz"], "nowhere.npz"),
        (["--nonsense=3"], "nonsense"),
    ],
)
def test_bad_input_is_one_line(reproduce, tmp_path, flags, said):
    assert said in reproduce("--nodry_run", *flags).line
    assert not (tmp_path / "out").exists(), "nothing is begun"


def test_data_without_labels_are_refused_before_anything_runs(reproduce, features, tmp_path):
    path = features.with_name("unlabelled.npz")
    line = reproduce("--nodry_run", f"--data_dir={path}").line
    assert "features data has no labels" in line
    assert not (tmp_path / "out").exists()
