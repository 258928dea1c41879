"""Training that resumes, around `keras.Model.fit`."""

from __future__ import annotations

import time

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dsprh_tf.training.checkpoints import Checkpoints, model_parts
from dsprh_tf.training.devices import shard_of


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
    """One bar for the whole run, with time left, pairs per second and the terms."""

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
    def __init__(self, checkpoints: Checkpoints, epochs: int):
        super().__init__()
        self._checkpoints, self._epochs = checkpoints, epochs

    def on_epoch_end(self, epoch, logs=None):
        last = epoch + 1 == self._epochs
        self._checkpoints.save(epoch, logs.get("selection_score"), last)


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
        batch_size: pairs per replica and step; a step uses this times the number of replicas.
        seed: of order and augmentation.
        augmented: random flip and crop.
        monitor: a callback that may add "selection_score" to an epoch's logs.

    Returns:
        The epoch that training began with: 0, or that of the checkpoint.

    Raises:
        ValueError: a loss that is not finite, a checkpoint that cannot be written.
    """
    first = checkpoints.resume(epochs)
    if first >= epochs:
        return first
    strategy = (
        tf.distribute.get_strategy()
        if model.distribute_strategy is None
        else (model.distribute_strategy)
    )
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
    callbacks = [_StopOnNonFinite(checkpoints), progress]
    callbacks += [monitor] if monitor is not None else []
    callbacks.append(_SaveEpoch(checkpoints, epochs))
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
