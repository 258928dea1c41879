"""A trial of an experiment: one trained and evaluated run, kept in a folder of its own.

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

import dataclasses
import hashlib
import json
import math
import os
import shutil
import sys
from pathlib import Path

from dsprh_tf.data.files import Lock, read_json, write_json
from dsprh_tf.evaluation.results import read_results
from dsprh_tf.settings import as_text

PROGRAMS = (sys.executable, "-m", "dsprh_tf.cli")
"""The command that runs a program by its name."""


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
