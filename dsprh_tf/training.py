"""Training: devices, optimizers, checkpoints and resuming around `keras.Model.fit`."""

from __future__ import annotations

import math
import os
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dsprh_tf import compat

OPTIMIZERS = ("sgd", "adamw", "lamb")


def make_strategy(devices: str = "auto") -> tf.distribute.Strategy:
    """Chooses where training runs. Call it before any tensor is made.

    Args:
        devices: "auto" for all visible GPUs (or the one CPU), "cpu:N" for N logical CPUs, which
            shows on any machine what N GPUs would do.

    Returns:
        `MirroredStrategy`, the default strategy for one device, or
        `MultiWorkerMirroredStrategy` where the TF_CONFIG environment variable is set.

    Raises:
        ValueError: an unknown value; TF_CONFIG under Keras 3.
    """
    kind, _, count = devices.partition(":")
    if devices != "auto" and not (kind == "cpu" and count.isdigit() and int(count) > 0):
        raise ValueError(f"--devices is {devices!r}, expected auto or cpu:N with N of 1 or more")
    if os.environ.get("TF_CONFIG"):
        if compat.KERAS_3:
            raise ValueError(
                f"TF_CONFIG is set, and Keras {keras.__version__} cannot train on several machines:"
                " install requirements-tfa.txt, or unset TF_CONFIG to train on this one"
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if devices == "auto":
        if len(tf.config.list_physical_devices("GPU")) > 1:
            return tf.distribute.MirroredStrategy()
        return tf.distribute.get_strategy()
    if int(count) == 1:
        return tf.distribute.get_strategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * int(count)
        )
    except RuntimeError as error:
        raise ValueError(f"--devices={devices} must be set before TensorFlow starts") from error
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(int(count))])


def shard_of(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """(worker, workers) of this process."""
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None or not os.environ.get("TF_CONFIG"):
        return 0, 1
    return resolver.task_id, len(resolver.cluster_spec().as_dict()["worker"])


def make_optimizer(
    name: str,
    learning_rate: float,
    momentum: float = 0.7,
    weight_decay: float = 0.0,
    cosine_steps: int = 0,
    nesterov: bool = True,
):
    """An optimizer of one modality.

    Args:
        name: "sgd", "adamw" or "lamb".
        learning_rate: step size.
        momentum: of SGD.
        weight_decay: decoupled, for adamw and lamb. SGD's is a gradient term of the model
            (`CrossModalHashing.compile`), as in the parents' recipes.
        cosine_steps: the learning rate falls to 0 along half a cosine over so many steps; 0
            keeps it constant.
        nesterov: of SGD.
    """
    if cosine_steps:
        learning_rate = keras.optimizers.schedules.CosineDecay(learning_rate, cosine_steps)
    if name == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=momentum, nesterov=nesterov)
    if name == "adamw":
        return keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)
    if name == "lamb":
        return compat.lamb(learning_rate, weight_decay)
    raise ValueError(f"optimizer is {name!r}, expected one of {', '.join(OPTIMIZERS)}")


class Checkpoints:
    """Everything that a run needs to go on, saved each epoch; the best epoch kept apart.

    A frozen backbone is left out: it is made again from the run's settings.

    Args:
        model: compiled `CrossModalHashing`.
        run_dir: the run folder, of the chief for all workers of a cluster.
        max_to_keep: how many epochs to keep.
        chief: False for the other workers of a cluster: they must take part in saving, into a
            temporary folder, and resume from the chief's.
    """

    def __init__(self, model, run_dir, max_to_keep: int = 3, chief: bool = True):
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.best_score = tf.Variable(-math.inf, dtype=tf.float64, trainable=False)
        self.best_epoch = tf.Variable(-1, dtype=tf.int64, trainable=False)
        parts = model_parts(model)
        if getattr(model, "optimizer", None) is not None:
            compat.build_optimizer(model.optimizer, model.image_variables)
            compat.build_optimizer(model.text_optimizer, model.text_variables)
            parts["image_optimizer"] = model.optimizer
            parts["text_optimizer"] = model.text_optimizer
        self._checkpoint = tf.train.Checkpoint(
            **parts, epoch=self.epoch, best_score=self.best_score, best_epoch=self.best_epoch
        )
        folder = Path(run_dir)
        if not chief:
            self._temporary = tempfile.TemporaryDirectory(prefix="dsprh_worker_")
            folder = Path(self._temporary.name)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(folder / "checkpoints"), max_to_keep
        )
        self._best = tf.train.CheckpointManager(self._checkpoint, str(folder / "best"), 1)
        self._read_from = Path(run_dir)

    @property
    def latest(self) -> str | None:
        """Path of the last whole checkpoint."""
        return tf.train.latest_checkpoint(str(self._read_from / "checkpoints"))

    def resume(self) -> int:
        """Restores the last checkpoint, if any; returns the epoch to go on with."""
        if self.latest:
            self._restore(self.latest)
        return int(self.epoch.numpy())

    def restore_selected(self) -> int:
        """Restores the best epoch, or the last where none was selected; returns its number.

        Raises:
            ValueError: there is no checkpoint.
        """
        path = tf.train.latest_checkpoint(str(self._read_from / "best")) or self.latest
        if not path:
            raise ValueError(f"{self._read_from} holds no checkpoint: train the run first")
        self._restore(path)
        return int(self.epoch.numpy())

    def _restore(self, path: str) -> None:
        try:
            # All of the model must be found; a model that only encodes needs no optimizer states.
            self._checkpoint.restore(path).expect_partial().assert_existing_objects_matched()
        except (AssertionError, IndexError, ValueError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the checkpoint {path} is damaged or of another model ({reason}): restore the "
                "file, or train again with --overwrite"
            ) from error

    def save(self, finished_epoch: int, score: float | None) -> None:
        """Saves after an epoch (from 0); with a score that beats all before, as best too.

        Raises:
            ValueError: the disk is full or not writable; what was saved before is intact.
        """
        self.epoch.assign(finished_epoch + 1)
        best = score is not None and score > float(self.best_score.numpy())
        if best:
            self.best_score.assign(score)
            self.best_epoch.assign(finished_epoch)
        last = self.latest or "none"
        try:
            # Best first: a kill between the two repeats the epoch and saves it once more.
            if best:
                self._best.save(checkpoint_number=finished_epoch + 1)
            self._manager.save(checkpoint_number=finished_epoch + 1)
        except (tf.errors.OpError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the checkpoint of epoch {finished_epoch + 1} could not be written ({reason}): "
                f"free some disk space and start again to resume; the last good one is {last}"
            ) from error


def model_parts(model) -> dict:
    """The variables of what training changes, by part, as a checkpoint holds them."""
    parts = model.parts
    if model.backbone is not None and model.backbone.trainable:
        parts["backbone"] = model.backbone
    variables = {name: compat.checkpoint_variables(part) for name, part in parts.items()}
    return {**variables, "alpha_epoch": model.epoch_variable}


class _EpochStart(keras.callbacks.Callback):
    """Hardens the codes: tells the model which epoch it is in (alpha_e)."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.epoch_variable.assign(float(epoch))


class _StopOnNonFinite(keras.callbacks.Callback):
    """Stops at the first step whose loss is not a number, before anything is saved."""

    def __init__(self, checkpoints: Checkpoints):
        super().__init__()
        self._checkpoints = checkpoints
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        bad = [name for name in self.model.terms if not np.isfinite(logs[name])]
        if bad:
            self._stop(f"{bad[0]} became {float(logs[bad[0]])} in step {batch + 1}")

    def on_epoch_end(self, epoch, logs=None):
        # The last step's update is in no loss yet.
        for part, variables in model_parts(self.model).items():
            if not all(np.isfinite(v.numpy()).all() for v in tf.nest.flatten(variables)):
                self._stop(f"weights of {part} became infinite or NaN in the last step")

    def _stop(self, what: str) -> None:
        last = self._checkpoints.latest or "none yet"
        raise ValueError(
            f"{what} of epoch {self._epoch + 1}: lower the learning rate; the last good checkpoint "
            f"is {last}"
        )


class _ProgressBar(keras.callbacks.Callback):
    """One bar for the whole run, with time left, pairs a second and the terms."""

    def __init__(self, epochs: int, steps: int, first: int, batch_size: int):
        super().__init__()
        self._steps, self._batch_size = steps, batch_size
        self._bar = tqdm(total=epochs * steps, initial=first * steps, desc="training", unit="step")
        self._started = time.monotonic()
        self._last_shown = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._bar.set_description(f"epoch {epoch + 1}")
        self._started = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        self._bar.update(1)
        now = time.monotonic()
        if now - self._last_shown > 0.5:
            self._last_shown = now
            terms = (f"{name} {float(logs[name]):.3g}" for name in self.model.terms)
            self._bar.set_postfix_str(" ".join(terms))

    def on_epoch_end(self, epoch, logs=None):
        # Before monitoring, which takes time of its own.
        seconds = time.monotonic() - self._started
        logs["images/s"] = self._steps * self._batch_size / seconds

    def close(self):
        self._bar.close()


class _SaveEpoch(keras.callbacks.Callback):
    def __init__(self, checkpoints: Checkpoints):
        super().__init__()
        self._checkpoints = checkpoints

    def on_epoch_end(self, epoch, logs=None):
        self._checkpoints.save(epoch, logs.get("selection_score"))


def fit(
    model,
    source,
    train: np.ndarray,
    checkpoints: Checkpoints,
    epochs: int,
    batch_size: int,
    seed: int,
    augmented: bool = False,
    monitor: keras.callbacks.Callback | None = None,
) -> int:
    """Trains a compiled model up to `epochs`, going on from the last checkpoint.

    On CPU the final weights are those of an uninterrupted run, bit for bit, if operations are
    deterministic (`tf.config.experimental.enable_op_determinism`): order and crops depend on
    seed and epoch alone, and everything else is in the checkpoint.

    Args:
        model: compiled `CrossModalHashing`, made within the strategy's scope.
        source: a `PairSource`.
        train: indices of the training pairs.
        checkpoints: of the same model.
        epochs: passes in total, resumed ones included.
        batch_size: pairs a replica and step; the step uses this times the replicas.
        seed: of order and augmentation.
        augmented: random flip and crop.
        monitor: a callback that may add "selection_score" to an epoch's logs.

    Returns:
        The epoch that training began with: 0, or that of the checkpoint.

    Raises:
        ValueError: a loss that is not finite, a checkpoint that cannot be written.
    """
    first = checkpoints.resume()
    if first >= epochs:
        return first
    strategy = tf.distribute.get_strategy() if model.distribute_strategy is None else (
        model.distribute_strategy
    )
    compat.keep_metric_means(model)
    together = batch_size * strategy.num_replicas_in_sync
    shard = shard_of(strategy)

    def dataset(_=None):
        return source.training_batches(
            train, together, seed, range(first, epochs), augmented, shard
        )

    batches = dataset()
    if shard[1] > 1:
        batches = strategy.distribute_datasets_from_function(dataset)
    steps = len(train) // together
    progress = _ProgressBar(epochs, steps, first, together)
    callbacks = [_EpochStart(), _StopOnNonFinite(checkpoints), progress]
    callbacks += [monitor] if monitor is not None else []
    callbacks.append(_SaveEpoch(checkpoints))
    try:
        model.fit(
            batches,
            steps_per_epoch=steps,
            initial_epoch=first,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
    finally:
        progress.close()
    return first
