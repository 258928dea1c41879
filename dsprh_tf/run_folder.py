"""The run folder: what a training run was asked for and what it made."""

from __future__ import annotations

import platform
import shutil
from importlib import metadata
from pathlib import Path

from dsprh_tf.data.files import Lock, read_json, write_json
from dsprh_tf.evaluation.results import results_files
from dsprh_tf.settings import NEUTRAL, UNRECORDED
from dsprh_tf.training.averaging import first_averaged
from dsprh_tf.training.checkpoints import can_go_on, finished_epochs

# What a run writes before its first checkpoint.
LEFT_OUT = "left_out.csv"
_BEGINNING = (
    "flags.json", "versions.json", "split.json", "vocabulary.json", "backbone.json",
    "execution.json", LEFT_OUT,
)  # fmt: skip
_PREVIOUS = ".previous"
_MOVING = ".moving"  # a run on its way into .previous or back
_PACKAGES = ("tensorflow", "keras", "tensorflow-addons", "numpy", "pandas", "pillow")


class RunFolder:
    """Paths and settings of one run.

    | file | content |
    |---|---|
    | flags.json | every setting of the run and its method |
    | split.json, vocabulary.json | which items, which words |
    | left_out.csv | pairs that are left out, if any: their texts have no known word |
    | versions.json | packages and Python |
    | execution.json | number of devices, pairs per step, XLA, determinism |
    | checkpoints/, best/ | weights and optimizer states; the best epoch on validation pairs |
    | tensorboard/ | event files |
    | results.json, results.csv, curves.png | metrics of the test queries |
    | .previous/ | the run that --overwrite replaces, until the new one has a checkpoint |

    Args:
        path: the folder.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._lock: Lock | None = None

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def open(self, settings: dict, overwrite: bool = False) -> bool:
        """Makes the folder, or checks that an existing one belongs to the same settings.

        A run that stopped before its first checkpoint starts anew, whatever its settings were:
        a typing error in them shall not occupy the folder. One with checkpoints may go on to more
        epochs than it was begun with, and ends as if it had had them from the beginning.

        Args:
            settings: name -> value, JSON types only.
            overwrite: start anew, whatever the folder holds. What it held comes back if the new
                run ends, in whatever way, before it has something to keep: a checkpoint or results.

        Returns:
            Whether a run with these settings is there to go on with.

        Raises:
            ValueError: another process works on the folder, its settings differ (each is named),
                it has come to its end and cannot go on, or it holds something else.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()
        known = self / "flags.json"
        self._recover()
        if overwrite:
            self._move_aside()
        if any((self / "checkpoints").glob("*.index")):
            if not known.exists():
                raise ValueError(
                    f"{self.path} holds checkpoints but no flags.json, so they cannot be resumed: "
                    "give --overwrite to start anew, or another --run_dir"
                )
            self._go_on(self.settings(), settings)
            return True
        for name in _BEGINNING:
            if (self / name).is_dir():
                raise ValueError(
                    f"{self / name} is a folder, expected a file of a run: move it away, or give "
                    "another --run_dir"
                )
        for name in _BEGINNING:
            (self / name).unlink(missing_ok=True)
        write_json(
            self / "versions.json",
            {"python": platform.python_version(), **dict(_versions())},
        )
        write_json(known, settings)
        return False

    def close(self) -> None:
        """Lets other processes work on the folder again; see `open` for --overwrite."""
        if self._lock is not None:
            self._recover()
            self._lock.release()
            self._lock = None

    def drop_previous(self) -> None:
        """Removes the run that --overwrite replaces: the new one has a checkpoint."""
        shutil.rmtree(self / _PREVIOUS, ignore_errors=True)

    def check(self, settings: dict) -> None:
        """Refuses settings other than those of the run in the folder.

        Raises:
            ValueError: the folder holds no run, or one with other settings.
        """
        self._compare(self.settings(), settings)

    def settings(self) -> dict:
        """The settings of the run.

        Raises:
            ValueError: the folder holds no run, or its flags.json is damaged.
        """
        if self._lock is None and ((self / _PREVIOUS).exists() or (self / _MOVING).exists()):
            with self._locked():
                self._recover()
        if not (self / "flags.json").is_file():
            raise ValueError(
                f"{self.path} is not a run folder (no flags.json in it): train one with "
                "`dsprh train`, or check --run_dir"
            )
        fix = "the run cannot be read; train it again"
        settings = read_json(self / "flags.json", fix)
        if not isinstance(settings, dict):
            raise ValueError(f"{self / 'flags.json'} holds no settings (no JSON object); {fix}")
        return settings

    def _locked(self) -> Lock:
        return Lock(
            self / ".lock",
            f"{self.path} is in use by another process: wait for it or give another --run_dir",
        )

    def _move_aside(self) -> None:
        """Moves what the folder holds into .previous, which appears once everything is in it."""
        moving = self / _MOVING
        moving.mkdir()
        for child in self._children():
            child.rename(moving / child.name)
        moving.rename(self / _PREVIOUS)

    def _recover(self) -> None:
        """Brings back a run that was moved aside if no other has taken its place.

        A kill at any point of this or of `_move_aside` leaves what the next call completes.
        """
        previous, moving = self / _PREVIOUS, self / _MOVING
        if previous.exists():
            if has_something_to_keep(self.path):
                shutil.rmtree(previous)
                return
            for child in self._children():
                shutil.rmtree(child) if child.is_dir() else child.unlink()
            previous.rename(moving)
        if moving.exists():
            for child in moving.iterdir():
                child.rename(self / child.name)
            moving.rmdir()

    def _children(self) -> list[Path]:
        ours = (".lock", _PREVIOUS, _MOVING)
        return [child for child in self.path.iterdir() if child.name not in ours]

    def _go_on(self, old: dict, new: dict) -> None:
        """Refuses other settings, but takes over more epochs if the rest stays as it was.

        Results of before are removed then, as the weights will no longer be theirs.
        """
        before, after = old.get("epochs"), new.get("epochs")
        if before is None or after is None or after <= before:
            self._compare(old, new)
            return
        self._compare({**old, "epochs": after}, new)
        every = old.get("monitor_every", 1)
        ended = (self / "checkpoints" / f"ckpt-{before}.index").exists()
        if new["lr_schedule"] != "constant":
            why = (
                f"with --lr_schedule={new['lr_schedule']} the rates depend on the number of epochs"
            )
        elif not can_go_on(self.path):
            why = (
                "it is finished, and only the weights that count were kept, without the states of "
                "the optimizers (--max_to_keep=2 keeps them)"
            )
        elif ended and new["select"] == "validation" and before % every:
            why = f"its last epoch was looked at out of turn (--monitor_every={every})"
        elif _averaged(self.path, old, new):
            why = "some of its epochs would no longer be in the mean of the weights that it has"
        else:
            for name in (*results_files(), *results_files("average")):
                (self / name).unlink(missing_ok=True)
            write_json(self / "flags.json", {**old, "epochs": after})
            return
        raise ValueError(
            f"{self.path} belongs to a run that cannot go on (--epochs: was {before}, is {after}): "
            f"{why}. Give --overwrite to train all {after} epochs anew, or another --run_dir"
        )

    def _compare(self, old: dict, new: dict) -> None:
        old = {**UNRECORDED, **old}
        names = [
            name
            for name in sorted(new)  # earlier versions recorded the settings of all methods
            if name not in NEUTRAL and old.get(name) != new.get(name)
        ]
        if names:
            changes = ", ".join(
                f"--{n}: was {_said(old.get(n))}, is {_said(new.get(n))}" for n in names
            )
            raise ValueError(
                f"{self.path} belongs to a run with other flags ({changes}): give the same flags "
                "to resume it, another --run_dir, or --overwrite to start anew"
            )


def _averaged(path: Path, old: dict, new: dict) -> bool:
    """Whether a run has a mean of weights that more epochs would make another one."""
    share, finished = old.get("average_from", 1.0), finished_epochs(path)
    before, after = (first_averaged(share, settings["epochs"]) for settings in (old, new))
    if before is None or after is None:
        return False
    return finished > before and (new["select"] == "validation" or finished > after)


def has_something_to_keep(path: Path) -> bool:
    """Whether a run folder has a checkpoint, or results of a baseline."""
    return any((path / "checkpoints").glob("*.index")) or (path / "results.json").exists()


def _said(value):
    return "not given" if value is None else value


def _versions():
    for name in _PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
