"""The trials of an experiment: one trained and evaluated run each, kept in a folder of its own.

A trial runs as a process of its own, so that one which fails does not take the others along. What
determines its result stands in its name, so that experiments share trials and a change of any
setting makes a new one. Folders:

| file of OUT/trials/NAME | content |
|---|---|
| trial.json | which program, which settings |
| log.txt | what the program printed |
| results.json | its metrics: the trial is finished |
| seconds.json | how long it took, interruptions left out |
| failed.json | why it failed, until it is tried again |
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams
from tqdm import tqdm

from dsprh_tf.data.files import Lock, read_json, write_json
from dsprh_tf.evaluation.results import read_results
from dsprh_tf.evaluation.retrieval import CROSS_MODAL
from dsprh_tf.experiments.estimate import estimate
from dsprh_tf.settings import as_text
from dsprh_tf.training.curve_notes import result_note

PROGRAMS = (sys.executable, "-m", "dsprh_tf.cli")
"""The command that runs a program by its name."""

# The settings that TensorBoard shows of every trial, beside those that are not a default.
_SHOWN = ("alpha", "beta", "gamma", "optimizer", "lr_image", "lr_text", "epochs", "batch_size")
_PATIENCE = 20  # seconds that an interrupted program has to end by itself


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of an experiment.

    Attributes:
        program: which program makes it, "train" or "baseline".
        method: name of the method or baseline.
        bits: code length.
        seed: seed of split and training.
        settings: everything that determines the result, JSON types.
        flags: the program's flags beside method, bits, seed and folder.
        changed: names of settings to show in TensorBoard: those that are not a default.
        pairs: how many it trains on, and how many it encodes; 0 where that is not known.
    """

    program: str
    method: str
    bits: int
    seed: int
    settings: dict = dataclasses.field(hash=False)
    flags: dict = dataclasses.field(hash=False)
    changed: tuple[str, ...] = ()
    pairs: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """METHOD-BITS-SEED-HASH, the same for the same result."""
        text = json.dumps([self.program, _plain(self.settings)], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.method}-{self.bits}-{self.seed}-{digest}"

    def folder(self, out: str | os.PathLike) -> Path:
        """Its folder below an output folder."""
        return Path(out) / "trials" / self.name

    def record(self, out: str | os.PathLike) -> dict | None:
        """Its results, or None where it is not finished (never run, half-written, other settings).

        Raises:
            ValueError: results of another version of the project.
        """
        folder = self.folder(out)
        if _read(folder / "trial.json") != self._content():
            return None
        if not isinstance(_read(folder / "results.json"), dict):
            return None
        return read_results(folder / "results.json")

    def failure(self, out: str | os.PathLike) -> str | None:
        """The reason of its failure when it was last tried; None where it did not fail."""
        content = _read(self.folder(out) / "failed.json")
        reason = content.get("reason") if isinstance(content, dict) else None
        return reason if isinstance(reason, str) else None

    def seconds(self, out: str | os.PathLike) -> float:
        """Time that it has run so far, interruptions left out; 0 where that is not known."""
        content = _read(self.folder(out) / "seconds.json")
        seconds = content.get("seconds") if isinstance(content, dict) else None
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            return 0.0
        return float(seconds) if 0 <= seconds < math.inf else 0.0

    def command(self, out: str | os.PathLike) -> list[str]:
        """The command line that runs it, in the `environment`.

        Args:
            out: the output folder.
        """
        kind = "method" if self.program == "train" else "baseline"
        flags = {**self.flags, kind: self.method, "bits": self.bits, "seed": self.seed}
        flags["run_dir"] = self.folder(out)
        given = [f"--{name}={as_text(v)}" for name, v in flags.items() if v is not None]
        return [*PROGRAMS, self.program, *given]

    def prepare(self, out: str | os.PathLike) -> float:
        """Makes the folder ready: what can be gone on with stays, all else is emptied.

        Returns:
            Seconds already spent on what stays.

        Raises:
            ValueError: another process works on the folder.
        """
        folder = self.folder(out)
        folder.mkdir(parents=True, exist_ok=True)
        # The program takes the lock next; another one may still be at work since a killed parent.
        with Lock(folder / ".lock", f"{folder} is in use by another process"):
            if not self._resumable(folder):
                for child in folder.iterdir():
                    if child.name != ".lock":
                        shutil.rmtree(child) if child.is_dir() else child.unlink()
            for name in ("failed.json", "results.json"):
                (folder / name).unlink(missing_ok=True)
            write_json(folder / "trial.json", self._content())
        return self.seconds(out)

    def _content(self) -> dict:
        return {"program": self.program, "settings": _plain(self.settings)}

    def _resumable(self, folder: Path) -> bool:
        """Whether the program can go on with what the folder holds."""
        if _read(folder / "trial.json") != self._content():
            return False
        if not any((folder / "checkpoints").glob("*.index")):
            return True
        flags, wanted = _read(folder / "flags.json"), _plain(self.settings)
        return isinstance(flags, dict) and all(
            _plain(flags[name]) == value for name, value in wanted.items() if name in flags
        )


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


def _plain(value):
    """JSON types in one form: numbers as float, sequences as list; 1 and 1.0 mean the same."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _read(path: Path):
    """The JSON content of a file, None where it is missing or half-written."""
    try:
        return read_json(path, "")
    except ValueError:
        return None


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
