"""Checkpoints of a run: the last epoch, and the best one."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from dsprh_tf import compat
from dsprh_tf.data.files import require_regular
from dsprh_tf.training.averaging import WeightAverage

_STATE_BYTES = 2**20  # of the file that names the last checkpoint
_LONG = 0.2  # seconds; saving that takes less is done after every epoch
_APART = 9  # times as long as saving takes, epochs are trained before the next one is saved


class Checkpoints:
    """Everything that a run needs to go on; the best epoch's weights are kept apart.

    A frozen backbone is left out: it is made again from the run's settings. The best epoch is kept
    without the states of the optimizers, which only going on needs: a third of the size with AdamW.
    Of a finished run nothing but the weights that count is kept.

    After each epoch a run is saved, but where this takes long: then so seldom that it takes a tenth
    of the time at most. Until then the best weights are kept in memory. An interrupted run repeats
    the epochs that were not saved, with the same result.

    Args:
        model: compiled `CrossModalHashing`.
        run_dir: the run folder, of the chief for all workers of a cluster.
        max_to_keep: number of epochs to keep; if it is more than one, also of a finished run.
        chief: False for the other workers of a cluster: they must take part in saving, into a
            temporary folder, and resume from the chief's.
        saved: called each time that an epoch has been saved.
        each: save after each epoch however long it takes, as the workers of a cluster must, which
            do so together.
        average: the `WeightAverage` of the model, or None. The weights that count are its mean once
            it has begun.

    Raises:
        ValueError: the folder holds checkpoints, and what says which is the last one is damaged.
    """

    def __init__(
        self,
        model,
        run_dir,
        max_to_keep: int = 1,
        chief: bool = True,
        saved: Callable[[], None] | None = None,
        each: bool = False,
        average: WeightAverage | None = None,
    ):
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.best_score = tf.Variable(-math.inf, dtype=tf.float64, trainable=False)
        self.best_epoch = tf.Variable(-1, dtype=tf.int64, trainable=False)
        counters = {
            "epoch": self.epoch, "best_score": self.best_score, "best_epoch": self.best_epoch,
        }  # fmt: skip
        parts = {**model_parts(model), **counters}
        self._weights = tf.train.Checkpoint(**parts)
        self._average = average
        means = {} if average is None else {"average": average.variables}
        self._mean = tf.train.Checkpoint(**means)
        self._counters = tf.train.Checkpoint(**counters)
        self._variables = tf.nest.flatten(parts)
        self._best_values: list | None = None  # those of the best epoch, until they are saved
        self._each, self._seconds, self._last_saved = each, 0.0, time.monotonic()
        training = getattr(model, "optimizer", None) is not None
        if training:
            compat.build_optimizer(model.optimizer, model.image_variables)
            compat.build_optimizer(model.text_optimizer, model.text_variables)
            parts["image_optimizer"] = model.optimizer
            parts["text_optimizer"] = model.text_optimizer
        self._checkpoint = tf.train.Checkpoint(**parts, **means)
        folder = Path(run_dir)
        for kind in ("checkpoints", "best"):
            newest(folder / kind)  # refuses what the managers would pass over
        if not chief:
            self._temporary = tempfile.TemporaryDirectory(prefix="dsprh_worker_")
            folder = Path(self._temporary.name)
        self._folder, self._max_to_keep = folder / "checkpoints", max_to_keep
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(self._folder), max_to_keep)
        self._best = tf.train.CheckpointManager(self._weights, str(folder / "best"), 1)
        if training:  # alone in the folder: remove what a kill in the middle of saving left
            for leftover in folder.glob("*/*_temp"):
                shutil.rmtree(leftover, ignore_errors=True)
        self._read_from = Path(run_dir)
        self._saved = saved

    @property
    def latest(self) -> str | None:
        """Path of the last whole checkpoint."""
        return newest(self._read_from / "checkpoints")

    @property
    def finished_epochs(self) -> int:
        """Number of epochs that the last whole checkpoint is of; 0 without one."""
        return finished_epochs(self._read_from)

    def sizes(self) -> tuple[int, int]:
        """Bytes of the weights alone, and of a whole checkpoint."""
        return _saved_bytes(self._weights), _saved_bytes(self._checkpoint)

    def resume(self, epochs: int | None = None) -> int:
        """Restores the last checkpoint, if any and not of the last epoch.

        Args:
            epochs: of the whole run; of one that is finished, nothing need be restored.

        Returns:
            The epoch to go on with; `epochs` for a finished run.
        """
        latest = self.latest
        if latest and epochs is not None and self.finished_epochs >= epochs:
            return epochs
        if latest:
            self._restore(self._checkpoint, latest)
        return int(self.epoch.numpy())

    def restore_selected(self) -> int:
        """Restores the best epoch, or the last where none was selected; returns its number.

        Raises:
            ValueError: there is no checkpoint.
        """
        path = newest(self._read_from / "best") or self.latest
        if not path:
            raise ValueError(f"{self._read_from} holds no checkpoint: train the run first")
        self._restore(self._weights, path)
        if self._average is not None and _holds(path, "average"):
            self._restore(self._mean, path)
            self._average.put()
        return int(self.epoch.numpy())

    @staticmethod
    def _restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
        try:
            # All of it must be found; the file may hold more, the states of the optimizers.
            checkpoint.restore(path).expect_partial().assert_existing_objects_matched()
        except (AssertionError, IndexError, ValueError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the checkpoint {path} is damaged or of another model ({reason}): restore the "
                "file, or train again with --overwrite"
            ) from error

    def save(self, finished_epoch: int, score: float | None, last: bool = False) -> None:
        """Takes note of an epoch (from 0), as the best one if its score beats all before.

        Args:
            finished_epoch: its number.
            score: of the epoch, or None where none is selected.
            last: whether the run ends with it.

        Raises:
            ValueError: the disk is full or not writable; what was saved before is intact.
        """
        self.epoch.assign(finished_epoch + 1)
        if score is not None and score > float(self.best_score.numpy()):
            self.best_score.assign(score)
            self.best_epoch.assign(finished_epoch)
            with self._that_count():
                self._best_values = [variable.numpy() for variable in self._variables]
        began = time.monotonic()
        soon = self._seconds > _LONG and began - self._last_saved < _APART * self._seconds
        if soon and not (last or self._each):
            return
        newest_before = self.latest or "none"
        try:
            # Best first: a kill between the two repeats the epoch and saves it once more.
            self._save_best()
            if last and self._max_to_keep == 1:
                kept = self._weights if self._best.latest_checkpoint is None else self._counters
                manager = tf.train.CheckpointManager(kept, str(self._folder), 1)
                with self._that_count():
                    manager.save(checkpoint_number=finished_epoch + 1)
            else:
                self._manager.save(checkpoint_number=finished_epoch + 1)
        except (tf.errors.OpError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the checkpoint of epoch {finished_epoch + 1} could not be written ({reason}): "
                "free some disk space and start again to resume; the last good one is "
                f"{newest_before}"
            ) from error
        self._last_saved = time.monotonic()
        self._seconds = self._last_saved - began
        if self._saved is not None:
            self._saved()

    def _that_count(self) -> contextlib.AbstractContextManager:
        """Context in which the model has the weights that are looked at and kept."""
        return contextlib.nullcontext() if self._average is None else self._average.in_model()

    def _save_best(self) -> None:
        """Saves the weights of the best epoch, if they are newer than those on disk."""
        if self._best_values is None:
            return
        now = [variable.numpy() for variable in self._variables]
        try:
            for variable, value in zip(self._variables, self._best_values):
                variable.assign(value)
            self._best.save(checkpoint_number=int(self.epoch.numpy()))
        finally:
            for variable, value in zip(self._variables, now):
                variable.assign(value)
        self._best_values = None


def model_parts(model) -> dict:
    """The variables of what training changes, by part, as a checkpoint holds them."""
    parts = model.parts
    if model.backbone is not None and model.backbone.trainable:
        parts["backbone"] = model.backbone
    variables = {name: compat.checkpoint_variables(part) for name, part in parts.items()}
    return {**variables, "alpha_epoch": model.epoch_variable}


def finished_epochs(run_dir) -> int:
    """Number of epochs that the last whole checkpoint of a run folder is of; 0 without one."""
    latest = newest(Path(run_dir) / "checkpoints")
    return int(latest.rsplit("-", 1)[1]) if latest else 0


def can_go_on(run_dir) -> bool:
    """Whether the last checkpoint of a run holds all that further epochs need.

    That of a finished run holds the weights that count alone, unless more than one was to be kept.

    Args:
        run_dir: the run folder.
    """
    latest = newest(Path(run_dir) / "checkpoints")
    try:
        return latest is not None and _holds(latest, "optimizer")
    except (ValueError, tf.errors.OpError):  # damaged: restoring says so
        return True


def _holds(path: str, part: str) -> bool:
    """Whether a checkpoint holds variables of a part."""
    return any(part in name for name, _ in tf.train.list_variables(path))


def _saved_bytes(checkpoint: tf.train.Checkpoint) -> int:
    """Bytes of all variables that a checkpoint holds."""
    found = tf.train.TrackableView(checkpoint).descendants()
    saved = [v for v in found if isinstance(v, tf.Variable) or hasattr(v, "_value")]
    return sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in saved)


def newest(folder: Path) -> str | None:
    """Path of the last checkpoint in a folder, None where there is none.

    TensorFlow takes a damaged `checkpoint` file for none: a run would begin at its first epoch
    again and replace what it has. A missing one is what a kill leaves during the first save.

    Raises:
        ValueError: the file `checkpoint` is damaged, or it names what is not there.
    """
    numbers = {
        int(match[1]): path.with_suffix("")
        for path in folder.glob("ckpt-*.index")
        if (match := re.fullmatch(r"ckpt-(\d+)\.index", path.name))
    }
    state = folder / "checkpoint"
    if not os.path.lexists(state):
        return str(numbers[max(numbers)]) if numbers else None
    names = [path.name for _, path in sorted(numbers.items())]
    fix = f"restore it, or remove it to go on from the newest of {', '.join(names) or 'none'}"
    try:
        require_regular(state)
        if state.stat().st_size > _STATE_BYTES:
            raise ValueError(f"{state} has more than {_STATE_BYTES:,} bytes")
    except ValueError as error:
        raise ValueError(f"{error}; {fix}") from error
    content = None
    with _quiet(), contextlib.suppress(UnicodeDecodeError):
        content = tf.train.get_checkpoint_state(str(folder))
    named = [] if content is None else [content.model_checkpoint_path]
    named += [] if content is None else content.all_model_checkpoint_paths
    # The manager removes old ones by these names.
    if not named or any(Path(path).parent != folder for path in named):
        raise ValueError(f"{state} is damaged; {fix}")
    path = Path(named[0])
    if path.name not in names:
        raise ValueError(f"{state} names {path.name}, which is not there; {fix}")
    for file in folder.glob(f"{path.name}.*"):
        require_regular(file)  # TensorFlow would wait for a pipe
    return str(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TensorFlow's remarks on a damaged file off the screen; the error names it."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("CRITICAL")
    try:
        yield
    finally:
        logger.setLevel(level)
