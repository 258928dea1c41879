"""How long trials will take: pairs times epochs, at the speed of the trials that have finished."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dsprh_tf.experiments.trial import Trial
from dsprh_tf.settings import is_frozen

# Pairs per second of training steps on 2 cores by benchmarks/trial_speed.py: of a backbone that is
# trained, and of the networks on what a frozen one has computed.
TRAINED = {"alexnet": 47.0, "resnet34": 18.0, "mobilenetv2": 57.0}
FROZEN = {"alexnet": 135.0, "resnet34": 390.0, "mobilenetv2": 285.0}
_TRAINED, _FROZEN = min(TRAINED.values()), min(FROZEN.values())  # others, and precomputed features
_FORWARD = 3.0  # times as fast as a training step a backbone encodes
_START = 20.0  # seconds until the first step, and for metrics
BASELINE = 30.0
"""Seconds of a baseline on features that are cached."""


class Estimate(NamedTuple):
    """How long trials will take.

    Attributes:
        seconds: all of them together.
        measured: how many are estimated from finished trials.
        trials: how many they are.
    """

    seconds: float
    measured: int
    trials: int

    @property
    def basis(self) -> str:
        """What it rests on, a line for the screen."""
        parts = []
        if self.measured:
            parts.append(f"{self.measured} trials from the finished ones that are most like them")
        if self.trials > self.measured:
            parts.append(
                f"{self.trials - self.measured} from pairs x epochs at speeds measured on 2 CPU "
                "cores (the first trial to finish corrects this)"
            )
        return f"times: {'; '.join(parts)}" if parts else "times: nothing is left to run"


def guess(trial: Trial) -> float:
    """Seconds of a trial on 2 CPU cores, from its settings and the size of its data alone."""
    if trial.program == "baseline":
        return BASELINE
    training, encoded = trial.pairs
    backbone, frozen = _backbone(trial)
    if frozen:
        return _START + trial.settings.get("epochs", 1) * training / FROZEN.get(backbone, _FROZEN)
    rate = TRAINED.get(backbone, _TRAINED)
    return _START + (trial.settings.get("epochs", 1) * training + encoded / _FORWARD) / rate


def estimate(left: Sequence[Trial], trials: Sequence[Trial], out: str | os.PathLike) -> Estimate:
    """How long trials will take.

    Finished trials tell how much slower or faster than guessed this machine is; those that are
    most like a trial count, by their median: of the same method, backbone and code length, else of
    the same method and backbone, else of the same backbone, else of the same program. What the
    backbone computes once for all is added where no trial with it has finished.

    Args:
        left: the trials that are to run.
        trials: all of the plan.
        out: the output folder.
    """
    done = [t for t in trials if t.record(out) is not None and t.seconds(out)]
    ratios = [(t, t.seconds(out) / guess(t)) for t in done]
    seconds, measured = 0.0, 0
    for trial in left:
        ratio = _ratio(trial, ratios)
        seconds += guess(trial) * (1.0 if ratio is None else ratio)
        measured += ratio is not None
    known = {_backbone(t)[0] for t in done}
    caches = {_backbone(t)[0]: t.pairs[1] for t in left if _backbone(t)[0] not in known}
    for backbone, encoded in caches.items():
        if backbone:
            seconds += encoded / (_FORWARD * TRAINED.get(backbone, _TRAINED))
    return Estimate(seconds, measured, len(left))


def _backbone(trial: Trial) -> tuple[str, bool]:
    """Name of a trial's backbone, "" for features, and whether it is frozen."""
    s = trial.settings
    name = str(s.get("backbone", "")) if s.get("dataset") != "features" else ""
    frozen = is_frozen({"freeze_backbone": True, "dataset": "", **s})
    return name.lower().replace("_", ""), frozen or trial.program == "baseline"


_LIKE: tuple[Callable[[Trial], tuple], ...] = (
    lambda t: (t.program, *_backbone(t), t.method, t.bits),
    lambda t: (t.program, *_backbone(t), t.method),
    lambda t: (t.program, *_backbone(t)),
    lambda t: (t.program,),
)


def _ratio(trial: Trial, ratios: Sequence[tuple[Trial, float]]) -> float | None:
    """Times longer than guessed that the finished trials most like this one took."""
    for kind in _LIKE:
        like = [ratio for t, ratio in ratios if kind(t) == kind(trial)]
        if like:
            return statistics.median(like)
    return None
