"""Training that resumes: the loop of a run."""

from __future__ import annotations

import contextlib
import time

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dsprh_tf.training.averaging import WeightAverage
from dsprh_tf.training.checkpoints import Checkpoints, model_parts
from dsprh_tf.training.devices import shard_of

_TOGETHER = 0.2  # seconds of steps that run without a word from the device


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
    jit: bool = False,
    profile: tuple[int, int, str] | None = None,
    single_texts: float = 0.0,
    average: WeightAverage | None = None,
) -> int:
    """Trains a compiled model up to `epochs`, going on from the last checkpoint.

    `keras.Model.fit` would do on one machine. This loop also runs on several under Keras 3, and
    asks the device for losses a few times a second instead of after every step.

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
        monitor: a callback whose `on_epoch_end` may add "selection_score" to the logs.
        jit: compile the step with XLA; for one replica.
        profile: (first step, last step, folder) of the first epoch, for TensorBoard's profiler.
        single_texts: of `PairSource.training_batches`.
        average: of the weights, the one that `checkpoints` has; the monitor sees its mean.

    Returns:
        The epoch that training began with: 0, or that of the checkpoint.

    Raises:
        ValueError: a loss that is not finite, a checkpoint that cannot be written.
    """
    first = checkpoints.resume(epochs)
    if first >= epochs:
        return first
    strategy = model.distribute_strategy or tf.distribute.get_strategy()
    together = batch_size * strategy.num_replicas_in_sync
    shard = shard_of(strategy)

    def dataset(_=None):
        return source.training_batches(
            train, together, seed, range(first, epochs), augmented, shard, batch_size, single_texts
        )

    if shard[1] > 1:
        batches = iter(strategy.distribute_datasets_from_function(dataset))
    else:
        batches = iter(strategy.experimental_distribute_dataset(dataset()))
    run_steps = _steps(model, strategy, batches, jit)
    steps = len(train) // together
    some = None
    if average is not None:
        # Of one order, whatever the epoch that training went on from; workers see all of them.
        some = source.training_batches(train, together, seed, range(1), augmented)
    start, stop, log_dir = profile or (-1, -1, "")
    if monitor is not None:
        monitor.set_model(model)
        monitor.set_params({"epochs": epochs})
        monitor.on_train_begin()
    count = 1  # the first call traces
    with tqdm(total=epochs * steps, initial=first * steps, desc="training", unit="step") as bar:
        for epoch in range(first, epochs):
            bar.set_description(f"epoch {epoch + 1}")
            model.begin_epoch(epoch)
            started = time.monotonic()
            done = 0
            while done < steps:
                if epoch == first and done == start:
                    tf.profiler.experimental.start(log_dir)
                began = time.monotonic()
                edges = (edge - done for edge in (start, stop) if epoch == first and edge > done)
                count = min([count, steps - done, *edges])
                try:
                    run_steps(tf.constant(count))
                except tf.errors.UnavailableError as error:
                    reason = " ".join(str(error).split())[:200]
                    raise ValueError(
                        f"another worker cannot be reached any more ({reason}): start all workers "
                        "again, they go on from the last checkpoint"
                    ) from error
                done += count
                if epoch == first and done == stop:
                    tf.profiler.experimental.stop()
                _stop_if_not_finite(model, checkpoints, epoch)
                bar.update(count)
                bar.set_postfix_str(
                    " ".join(f"{name} {value:.3g}" for name, value in model.means().items())
                )
                count = max(1, int(_TOGETHER * count / (time.monotonic() - began)))
            logs = {**model.means(), "images/s": steps * together / (time.monotonic() - started)}
            _stop_if_not_finite(model, checkpoints, epoch, weights=True)
            if average is not None:
                average.add(epoch, some)
            if monitor is not None:
                with contextlib.nullcontext() if average is None else average.in_model():
                    monitor.on_epoch_end(epoch, logs)
            checkpoints.save(epoch, logs.get("selection_score"), epoch + 1 == epochs)
    return first


def _steps(model, strategy, batches, jit: bool):
    """A function that trains on a number of batches (int32 []), without leaving the graph."""
    step = tf.function(model.train_step, jit_compile=True) if jit else model.train_step

    @tf.function
    def run_steps(count):
        for _ in tf.range(count):
            strategy.run(step, args=(next(batches),))

    return run_steps


def _stop_if_not_finite(model, checkpoints, epoch: int, weights: bool = False) -> None:
    """Raises a `ValueError` if a loss, or a weight, is not a number."""
    what, found = None, model.first_not_finite()
    if found:
        what = "{} became infinite or NaN in step {}".format(*found)
    elif weights:  # the last step's update is in no loss yet
        for part, variables in model_parts(model).items():
            if not all(np.isfinite(v.numpy()).all() for v in tf.nest.flatten(variables)):
                what = f"weights of {part} became infinite or NaN in the last step"
                break
    if what:
        raise ValueError(
            f"{what} of epoch {epoch + 1}: lower the learning rate; the last good checkpoint is "
            f"{checkpoints.latest or 'none yet'}"
        )
