"""Runs the trials of an experiment one by one, and shows them in TensorBoard."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams
from tqdm import tqdm

from dsprh_tf.data.files import write_json
from dsprh_tf.evaluation.retrieval import CROSS_MODAL
from dsprh_tf.experiments.estimate import estimate
from dsprh_tf.experiments.trial import Trial
from dsprh_tf.settings import as_text
from dsprh_tf.training.curve_notes import result_note

# The settings that TensorBoard shows of every trial, beside those that are not a default.
_SHOWN = ("alpha", "beta", "gamma", "optimizer", "lr_image", "lr_text", "epochs", "batch_size")
_PATIENCE = 20  # seconds that an interrupted program has to end by itself


def environment() -> dict[str, str]:
    """The environment of trials: they find this package, and their log ends with their error."""
    package = Path(__file__).resolve().parents[2]  # the folder that holds it
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def run_trial(trial: Trial, out: str | os.PathLike) -> str | None:
    """Runs one trial to its end.

    Args:
        trial: the trial.
        out: the output folder.

    Returns:
        None, or the reason of its failure, which then also stands in failed.json.
    """
    folder = trial.folder(out)
    try:
        spent = trial.prepare(out)
    except ValueError as error:
        write_json(folder / "failed.json", {"reason": str(error)})
        return str(error)
    begun = time.monotonic()
    with open(folder / "log.txt", "ab") as log:
        start = log.tell()
        child = subprocess.Popen(
            trial.command(out),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(),
        )
        try:
            code = child.wait()
        finally:
            _stop(child)
            write_json(folder / "seconds.json", {"seconds": spent + time.monotonic() - begun})
    if code == 0 and trial.record(out) is not None:
        return None
    reason = _reason(code, (folder / "log.txt").read_bytes()[start:])
    write_json(folder / "failed.json", {"reason": reason, "exit_code": code})
    return reason


def _leave_gpus() -> None:
    """Keeps this process from the GPUs, which are for the trials, if TensorFlow has not started."""
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")


def run_trials(trials: Sequence[Trial], out: str | os.PathLike) -> dict[str, str]:
    """Runs the trials that are not finished, under a bar that names the trial and the time left.

    Args:
        trials: the trials of a plan, finished ones included: they tell how long others take.
        out: the output folder.

    Returns:
        Name -> reason of the trials that failed.
    """
    _leave_gpus()
    failed = {}
    left = [trial for trial in trials if trial.record(out) is None]
    for trial in trials:
        write_hparams(trial, out)  # also of those that ended after their sweep had been killed
    shown = "{desc}{bar:20} {n_fmt} of {total_fmt} trials [{elapsed}{postfix}]"
    with tqdm(total=len(left), bar_format=shown, disable=not left) as bar:
        for number, trial in enumerate(left):
            bar.set_description(trial.name, refresh=False)
            time_left = duration(estimate(left[number:], trials, out).seconds)
            bar.set_postfix_str(f"about {time_left} left")
            reason = run_trial(trial, out)
            if reason:
                failed[trial.name] = reason
                bar.write(f"{trial.name} failed: {reason}", file=sys.stderr)
            bar.update()
            write_hparams(trial, out)
    return failed


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes, or seconds: "1 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def write_hparams(trial: Trial, out: str | os.PathLike) -> None:
    """The entry of a finished trial in TensorBoard's HParams tab, below OUT/tensorboard.

    Settings that are no default, the weights of the loss and the optimizer, against the numbers
    of both cross-modal directions. An entry that is there already stays as it is; a trial that
    is not finished gets none.
    """
    folder = Path(out) / "tensorboard" / trial.name
    if any(folder.glob("events*")) or (record := trial.record(out)) is None:
        return
    shown = {"method": trial.method, "bits": trial.bits, "seed": trial.seed}
    for name in sorted({*_SHOWN, *trial.changed} & set(trial.settings) - set(shown)):
        value = trial.settings[name]
        shown[name] = value if isinstance(value, (bool, int, float)) else as_text(value)
    with tf.summary.create_file_writer(str(folder)).as_default():
        hparams.hparams(shown, trial_id=trial.name)
        for direction in CROSS_MODAL:
            for name, value in record[direction].items():
                if isinstance(value, float):
                    note = result_note(direction, name)
                    tf.summary.scalar(f"{direction}/{name}", value, step=0, description=note)


def _stop(child: subprocess.Popen) -> None:
    """Ends a program that still runs; its checkpoints are whole at any moment."""
    if child.poll() is None:
        child.terminate()  # SIGINT would not do: what a shell starts with & ignores it
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _reason(code: int, log: bytes) -> str:
    """The last line that a failed program printed, or the signal that ended it."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (", perhaps out of memory" if name == "SIGKILL" else "")
    lines = log.decode("utf-8", "replace").replace("\r", "\n").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return last if code else f"no results were written; last line: {last}"
