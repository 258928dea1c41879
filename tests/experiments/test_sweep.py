"""Trials: what names them, what counts as finished, resuming, failures, time left, TensorBoard.

A few lines of Python stand for the training program, so that every way to end takes no time.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import read_notes

import dsprh_tf
from dsprh_tf.data.files import Lock
from dsprh_tf.evaluation.results import results_record
from dsprh_tf.evaluation.retrieval import Encoded, evaluate_directions
from dsprh_tf.experiments import sweep
from dsprh_tf.experiments.trial import Trial

# Writes what the training program writes; --alpha says how to end.
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
flags = dict(argument[2:].split("=", 1) for argument in sys.argv[2:])
assert sys.argv[1] == "train"
run = Path(flags["run_dir"])
with open(Path(__file__).parent / "started.txt", "a") as file:
    print(run.name, len(list(run.glob("checkpoints/*"))), file=file)
print("working", flush=True)
if flags["alpha"] == "2.0":
    print("train: the data\\nhave a hole", file=sys.stderr)
    sys.exit(2)
if flags["alpha"] == "3.0":
    os.kill(os.getpid(), signal.SIGKILL)
if flags["alpha"] == "4.0":
    (run / "checkpoints").mkdir()
    (run / "checkpoints/epoch-1.index").touch()
    (run / "flags.json").write_text('{"alpha": 4.0}')
    (run / "pid").write_text(str(os.getpid()))
    time.sleep(60)
if flags["alpha"] == "5.0":
    sys.exit(0)
record = json.loads((Path(__file__).parent / "record.json").read_text())
(run / "results.json").write_text(json.dumps(record))
"""


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Path:
    """The folder of the program that stands for all, and of what it notes."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "program.py").write_text(PROGRAM)
    monkeypatch.setattr(
        "dsprh_tf.experiments.trial.PROGRAMS", (sys.executable, str(folder / "program.py"))
    )
    rng = np.random.default_rng(0)
    items = Encoded(
        rng.integers(0, 256, (30, 2), np.uint8),
        rng.integers(0, 256, (30, 2), np.uint8),
        rng.integers(0, 2, (30, 3), np.uint8),
    )
    results = evaluate_directions(items, items)
    record = results_record("m", 16, "pairs", 0, results)
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def make(alpha: float = 1.0, seed: int = 0, method: str = "m", bits: int = 16) -> Trial:
    settings = {"alpha": alpha, "weights": [0.25, 0.75], "seed": seed, "bits": bits}
    return Trial("train", method, bits, seed, settings, {"alpha": alpha}, ("alpha",))


def started(programs) -> list:
    path = programs / "started.txt"
    return path.read_text().splitlines() if path.exists() else []


def test_the_name_is_the_same_for_the_same_settings_only():
    trial = make()
    assert trial.name.startswith("m-16-0-")
    assert dataclasses.replace(trial, flags={"alpha": 1.0, "cache_dir": "x"}).name == trial.name
    same = {"bits": 16.0, "seed": 0.0, "weights": (0.25, 0.75), "alpha": 1}
    assert dataclasses.replace(trial, settings=same).name == trial.name
    assert make(alpha=1.5).name != trial.name
    assert dataclasses.replace(trial, program="baseline").name != trial.name


def test_the_command_line(tmp_path):
    flags = {"freeze": True, "augment": False, "words": None, "weights": [0.25, 0.75], "x": 1e-05}
    trial = dataclasses.replace(make(), flags=flags)
    command = trial.command(tmp_path)
    assert command[:4] == [sys.executable, "-m", "dsprh_tf.cli", "train"]
    assert command[4:] == [
        "--freeze=true", "--augment=false", "--weights=0.25,0.75", "--x=1e-05", "--method=m",
        "--bits=16", "--seed=0", f"--run_dir={trial.folder(tmp_path)}",
    ]  # fmt: skip
    command = dataclasses.replace(trial, program="baseline").command(tmp_path)
    assert command[3] == "baseline"
    assert "--baseline=m" in command
    assert not [word for word in command if word.startswith("--method")]


@pytest.mark.parametrize("others", [None, "/one:/two"])
def test_programs_find_this_package_from_any_folder(tmp_path, monkeypatch, others):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if others:
        monkeypatch.setenv("PYTHONPATH", others)
    found = sweep.environment()
    first, *rest = found["PYTHONPATH"].split(os.pathsep)
    assert rest == (others.split(":") if others else [])
    assert found["PATH"] == os.environ["PATH"]
    show = "import importlib.util; print(importlib.util.find_spec('dsprh_tf').origin)"
    command = [sys.executable, "-c", show]
    outcome = subprocess.run(command, env=found, cwd=tmp_path, capture_output=True, text=True)
    assert outcome.stdout.strip() == str(Path(dsprh_tf.__file__).resolve())


def test_finished_trials_are_not_run_again(programs, tmp_path):
    plan = [make(seed=s) for s in range(2)]
    assert sweep.run_trials(plan, tmp_path) == {}
    assert all(trial.record(tmp_path)["bits"] == 16 for trial in plan)
    assert "working" in (plan[0].folder(tmp_path) / "log.txt").read_text()
    assert sweep.run_trials([*plan, make(seed=2)], tmp_path) == {}
    assert [line.split("-")[2] for line in started(programs)] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("alpha", "reason"),
    [
        (2.0, "have a hole"),
        (3.0, "ended by SIGKILL, perhaps out of memory"),
        (5.0, "no results were written; last line: working"),
    ],
)
def test_a_failed_trial_is_kept_as_failed_and_tried_again(
    programs, tmp_path, capsys, alpha, reason
):
    plan = [make(alpha), make()]
    assert sweep.run_trials(plan, tmp_path) == {plan[0].name: reason}
    assert f"{plan[0].name} failed: {reason}" in capsys.readouterr().err
    assert plan[0].record(tmp_path) is None
    assert plan[0].failure(tmp_path) == reason
    assert plan[1].record(tmp_path), "the others run all the same"
    source = (programs / "program.py").read_text().replace(f'"{alpha}"', '"mended"')
    (programs / "program.py").write_text(source)
    assert sweep.run_trials(plan, tmp_path) == {}
    assert plan[0].failure(tmp_path) is None


def _no_results(folder):
    (folder / "results.json").unlink()


def _half_results(folder):
    (folder / "results.json").write_text('{"format": 1, "meth')


def _results_of_nothing(folder):
    (folder / "results.json").write_text("null")


def _no_trial(folder):
    (folder / "trial.json").unlink()


def _half_trial(folder):
    (folder / "trial.json").write_text("{")


def _other_trial(folder):
    (folder / "trial.json").write_text('{"program": "train", "settings": {"alpha": 7.0}}')


def _no_flags(folder):
    _no_results(folder)
    (folder / "flags.json").unlink()


def _other_flags(folder):
    _no_results(folder)
    (folder / "flags.json").write_text('{"alpha": 7}')


@pytest.mark.parametrize(
    ("harm", "kept"),
    [
        (_no_results, True),
        (_half_results, True),
        (_results_of_nothing, True),
        (_no_trial, False),
        (_half_trial, False),
        (_other_trial, False),
        (_no_flags, False),
        (_other_flags, False),
    ],
)
def test_a_half_written_folder_is_redone(programs, tmp_path, harm, kept):
    trial = make()
    sweep.run_trials([trial], tmp_path)
    folder = trial.folder(tmp_path)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/epoch-1.index").touch()
    (folder / "flags.json").write_text('{"alpha": 1, "bits": 16, "more": 3}')
    assert trial.record(tmp_path)
    harm(folder)
    assert trial.record(tmp_path) is None
    assert sweep.run_trials([trial], tmp_path) == {}
    assert trial.record(tmp_path)
    assert [line.split()[1] for line in started(programs)] == ["0", "1" if kept else "0"]


def test_results_of_another_version_are_refused_by_name(programs, tmp_path):
    trial = make()
    sweep.run_trials([trial], tmp_path)
    path = trial.folder(tmp_path) / "results.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(ValueError, match=rf"{path} .*version.*99"):
        sweep.run_trials([trial], tmp_path)
    assert json.loads(path.read_text())["format"] == 99, "nothing of it is touched"


def test_a_folder_in_use_is_left_alone(programs, tmp_path):
    trial = make()
    folder = trial.folder(tmp_path)
    folder.mkdir(parents=True)
    with Lock(folder / ".lock", "held"):
        (reason,) = sweep.run_trials([trial], tmp_path).values()
    assert reason == trial.failure(tmp_path) == f"{folder} is in use by another process"
    assert not started(programs)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_ends_the_trial_and_leaves_it_resumable(programs, tmp_path, interruption):
    def interrupt(*_):
        raise interruption

    trial = make(4.0)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(interruption):
            sweep.run_trials([trial], tmp_path)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # The program has ended, what it left stays, and its time counts.
    with pytest.raises(ProcessLookupError):
        os.kill(int((trial.folder(tmp_path) / "pid").read_text()), 0)
    assert trial.failure(tmp_path) is None
    spent = json.loads((trial.folder(tmp_path) / "seconds.json").read_text())["seconds"]
    assert trial.prepare(tmp_path) == spent > 0
    source = (programs / "program.py").read_text().replace('"4.0"', '"mended"')
    (programs / "program.py").write_text(source)
    assert sweep.run_trials([trial], tmp_path) == {}
    assert [line.split()[1] for line in started(programs)] == ["0", "1"]
    assert json.loads((trial.folder(tmp_path) / "seconds.json").read_text())["seconds"] > spent


def test_durations_are_readable():
    shown = [sweep.duration(s) for s in (0, 59.4, 60, 3599, 3900, 90000)]
    assert shown == ["0 s", "59 s", "1 min", "1 h 00 min", "1 h 05 min", "25 h 00 min"]


def test_every_finished_trial_is_an_entry_of_tensorboards_hparams(programs, tmp_path):
    import tensorflow as tf
    from tensorboard.plugins.hparams import plugin_data_pb2
    from tensorflow.core.util import event_pb2

    trial = dataclasses.replace(make(), changed=("weights",))
    sweep.run_trials([trial], tmp_path)
    sweep.write_hparams(trial, tmp_path)  # again: no second entry
    sweep.write_hparams(make(seed=9), tmp_path)  # not finished: none
    folder = tmp_path / "tensorboard" / trial.name
    (path,) = folder.iterdir()
    assert [p.name for p in (tmp_path / "tensorboard").iterdir()] == [trial.name]
    shutil.rmtree(folder)
    sweep.run_trials([trial], tmp_path)  # as after a sweep that was killed
    (path,) = folder.iterdir()
    shown, numbers = {}, {}
    for event in tf.data.TFRecordDataset(str(path)):
        for value in event_pb2.Event.FromString(event.numpy()).summary.value:
            if value.metadata.plugin_data.plugin_name != "hparams":
                numbers[value.tag] = float(tf.make_ndarray(value.tensor))
                continue
            data = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
            for name, entry in data.session_start_info.hparams.items():
                shown[name] = getattr(entry, entry.WhichOneof("kind"))
    assert shown == {"method": "m", "bits": 16, "seed": 0, "alpha": 1.0, "weights": "0.25,0.75"}
    record, notes = trial.record(tmp_path), read_notes(folder)
    assert notes.keys() == numbers.keys()
    for direction in ("image_to_text", "text_to_image"):
        for metric in ("map", "map@50", "ndcg@50"):
            assert f"`{metric}`" in notes[f"{direction}/{metric}"]
            assert numbers[f"{direction}/{metric}"] == pytest.approx(record[direction][metric])
