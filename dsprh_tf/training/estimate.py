"""What a run will take, said before its first step: time, memory and disk.

What differs from machine to machine is tried on the spot: some batches of the frozen backbone,
which the run needs anyway, one step of training, and the figures of one epoch. The rest follows
from shapes. Nothing of it changes the run: its weights are, bit for bit, what they are without.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from dsprh_tf import compat
from dsprh_tf.training.checkpoints import model_parts

_FIRST, _TIMED = 32, 96  # images that the backbone is tried on: the first batch compiles
_FEWEST_STEPS = 60  # with fewer, the time is not estimated: a try would take as long as some
_TRIES = 20
_SCALARS = 2_000  # bytes that an epoch's numbers take in an event file


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        seconds: what is to be done -> seconds; empty if they are not known.
        memory: bytes of the process at most.
        places: what lies there -> (folder, bytes once the run is finished).
        while_training: bytes on disk at most, before the last checkpoint is made small.
    """

    seconds: Mapping[str, float]
    memory: int
    places: Mapping[str, tuple[Path, int]]
    while_training: int

    @property
    def disk(self) -> int:
        """Bytes on disk once the run is finished."""
        return sum(size for _, size in self.places.values())

    def describe(self) -> str:
        """The lines that a run prints."""
        size = f"{_size(self.memory)} of memory, {_size(self.disk)} of disk"
        if self.while_training > 1.1 * self.disk:
            size += f" ({_size(self.while_training)} until it is finished)"
        time_needed = ""
        if self.seconds:
            parts = ", ".join(f"{what} {_time(s)}" for what, s in self.seconds.items() if s >= 0.5)
            time_needed = f"{_time(sum(self.seconds.values()))} ({parts}), "
        places = "; ".join(f"{w} {p} ({_size(n)})" for w, (p, n) in self.places.items())
        return f"this run takes about {time_needed}{size}\nit writes: {places}"


def estimate_run(
    settings,
    batch_size: int,
    folder: Path,
    split,
    searched,
    source,
    cache,
    model,
    checkpoints,
    monitor,
    add_rows: Callable,
    jit: bool = False,
) -> Estimate:
    """What the rest of a run will take.

    Args:
        settings: values of `RunSettings`, as attributes.
        batch_size: pairs per step.
        folder: the run folder.
        split: the items of each part.
        searched: the items that test queries search.
        source: the `PairSource` that training reads.
        cache: its `FeatureCache`, or None; some rows are filled in.
        model: compiled.
        checkpoints: of the model, in the folder.
        monitor: the `Monitor` of the run.
        add_rows: adds the rows of `Method.prepare` to the source, for some of the training items.
        jit: whether XLA compiles the step, which takes memory as well.
    """
    train, every = split.train, settings.monitor_every
    used = np.concatenate([train, split.validation])
    tested = np.union1d(split.query, searched) if len(split.query) else split.query
    first, steps = checkpoints.finished_epochs, len(train) // batch_size
    epochs = settings.epochs - first
    looks = settings.epochs // every - first // every + bool(settings.epochs % every)
    image = missing = 0.0
    if cache is not None:
        image = _try_backbone(cache, used)
        missing = len(cache.missing(used))
    seconds, figure_bytes = {}, 0
    strategy = model.distribute_strategy or tf.distribute.get_strategy()
    if epochs * steps >= _FEWEST_STEPS and strategy.num_replicas_in_sync == 1:
        sample = train[: max(_FIRST, batch_size)]
        if cache is not None:
            cache.ensure(sample, bar=False)
        with contextlib.redirect_stdout(None):  # what is said of the whole data follows
            add_rows(sample)
        start, step, pair = _try_step(model, source, sample[:batch_size], jit)
        figures, figure_bytes = monitor.try_figures()
        training = start + epochs * steps * step + looks * (monitor.pairs * pair + figures)
        seconds = {
            f"features of {missing:,} more images": missing * image,
            f"{epochs:,} epochs": training,
            "evaluation": len(tested) * pair,
        }
        if cache is not None:
            seconds["evaluation"] += image * len(np.setdiff1d(cache.missing(tested), used))
    weights, whole = checkpoints.sizes()
    rows = used
    if cache is not None and settings.freeze_backbone:
        every_row = np.union1d(used, tested)
        if cache.size_of(len(every_row)) <= settings.cache_limit_gb * 2**30:
            rows = every_row
    cached = 0 if cache is None else cache.size_of(len(rows))
    kept = settings.max_to_keep
    files = sum(path.stat().st_size for path in Path(folder).iterdir() if path.is_file())
    events = looks * figure_bytes + epochs * _SCALARS
    places = {
        "run folder": (folder, weights + files if kept == 1 else weights + files + kept * whole),
        "event files": (folder / "tensorboard", events),
    }
    if cache is not None:
        places["cache"] = (cache.folder, cached)
    # A new checkpoint, and the best weights, are written before the last ones are removed.
    largest = files + events + cached + (kept + 1) * whole + weights
    copies = 8 * len(train) * model.feature_size  # float32, for a graph
    copies += 2 * weights if settings.average_from < 1 else 0  # the mean, and what it stands in for
    memory = peak_memory() + cached + 2 * weights + copies
    return Estimate({k: s for k, s in seconds.items() if s}, memory, places, largest)


def _try_backbone(cache, items: np.ndarray) -> float:
    """Fills a part of the cache; returns seconds for an image, 0 if few were missing."""
    cache.ensure(items[:_FIRST], bar=False)
    missing = cache.missing(items)[:_TIMED]
    if len(missing) < _FIRST:
        return 0.0
    began = time.perf_counter()
    cache.ensure(missing, bar=False)
    return (time.perf_counter() - began) / len(missing)


def _try_step(model, source, items: np.ndarray, jit: bool) -> tuple[float, float, float]:
    """Seconds of compiling, of a training step on some items, and of encoding one of them.

    What the step changes is brought back. The optimizers are tried on a variable of their own,
    since copies of their states take memory.
    """
    batch = next(iter(source.training_batches(items, len(items), 0, range(1))))
    variables = tf.nest.flatten(model_parts(model))
    before = [variable.numpy() for variable in variables]
    inputs = dict(batch)
    bow = inputs.pop("bow")
    try:
        # Functions of their own: those of training have constants of the whole data.
        compiling, step = _first_and_fastest(
            tf.function(model.local_gradients, jit_compile=jit or None), batch
        )
        encoding = [
            _first_and_fastest(tf.function(model.encode_image), inputs),
            _first_and_fastest(tf.function(model.encode_text), bow),
        ]
    finally:
        for variable, value in zip(variables, before):
            variable.assign(value)
    for optimizer, own in (
        (model.optimizer, model.image_variables),
        (model.text_optimizer, model.text_variables),
    ):
        step += _try_optimizer(optimizer, sum(math.prod(v.shape) for v in own))
    first, pair = map(sum, zip(*encoding))
    return compiling + first, step, pair / len(items)


def _try_optimizer(optimizer, numbers: int, most: int = 2**21) -> float:
    """Seconds of an update of so many numbers."""
    own = type(optimizer).from_config(optimizer.get_config())
    tried = max(1, min(numbers, most))
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="tried")
    layer.build((None, tried))
    compat.build_optimizer(own, layer.trainable_variables)
    gradients = [(tf.ones([tried, 1]), layer.trainable_variables[0])]
    _, seconds = _first_and_fastest(own.apply_gradients, gradients)
    return seconds * numbers / tried


def _first_and_fastest(call: Callable, *arguments) -> tuple[float, float]:
    """Seconds of the first call, and of the fastest of those that take half a second together."""
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds[1:]) < 0.5 and len(seconds) < _TRIES):
        began = time.perf_counter()
        call(*arguments)
        seconds.append(time.perf_counter() - began)
    return seconds[0], min(seconds[1:])


def peak_memory() -> int:
    """Bytes of this process at most, until now."""
    try:
        # The other number is, after an `exec`, that of the program that was there before.
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


def _time(seconds: float) -> str:
    for unit, limit in (("s", 1), ("min", 60)):
        if seconds < 99.5 * limit:
            return f"{seconds / limit:.{unit == 'min' and seconds < 9.95 * limit:d}f} {unit}"
    return f"{seconds / 3600:.1f} h"


def _size(size: int) -> str:
    for unit, limit in (("MB", 2**20), ("GB", 2**30)):
        if size < 999.5 * limit:
            return f"{size / limit:.{1 if size < 9.95 * limit else 0}f} {unit}"
    return f"{size / 2**40:.1f} TB"
