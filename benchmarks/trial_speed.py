"""Pairs per second of training steps, from which `reproduce --dry_run` estimates its trials.

    python benchmarks/trial_speed.py --backbones alexnet resnet34 MobileNetV2 --cores 2

The paper's method at 64 bits on pixels and bags of words in memory, batches of 32: with a backbone
that is trained, and on the outputs of a frozen one. Beside the pairs per second of the clock are
those of the processor time, which hold on a busy machine as well: the time of all threads divided
by the number of cores. `dsprh_tf/experiments/estimate.py` has the numbers.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dsprh_tf  # noqa: F401 - before TensorFlow

# isort: split
import numpy as np
import tensorflow as tf

from dsprh_tf.backbones.architectures import build_backbone, hold_statistics
from dsprh_tf.methods import METHODS, PAPER
from dsprh_tf.model import CrossModalHashing
from dsprh_tf.training.optimizers import make_optimizer

BATCH, WORDS = 32, 1386


def measure(name: str, trained: bool, steps: int) -> tuple[float, float]:
    """Seconds of a step by the clock, and of the processor in all threads."""
    rng = np.random.default_rng(0)
    backbone = build_backbone(name, dropout=0.5 if trained and name == "alexnet" else 0.0)
    backbone.trainable = trained
    hold_statistics(backbone)
    shapes = {n: tuple(map(int, o.shape[1:])) for n, o in backbone.output.items()}
    sizes = {"bow": WORDS, **shapes, "feature": shapes["feature"][0]}
    model = CrossModalHashing(METHODS[PAPER](64), sizes, backbone, 224)
    model.compile(make_optimizer("sgd", 0.005), make_optimizer("sgd", 0.005), 5e-4)
    batch = {"bow": (rng.random((BATCH, WORDS)) < 0.01).astype(np.float32)}
    if trained:
        batch["pixels"] = rng.integers(0, 256, (BATCH, 224, 224, 3)).astype(np.float32)
        batch["target_feature"] = rng.random((BATCH, sizes["feature"]), np.float32)
    else:
        batch.update({n: rng.random((BATCH, *shape), np.float32) for n, shape in shapes.items()})
    batch = {n: tf.constant(value) for n, value in batch.items()}
    step = tf.function(model.train_step)
    float(step(batch)["loss"])  # traces the graph
    clock, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        float(step(batch)["loss"])
    return (time.perf_counter() - clock) / steps, (time.process_time() - processor) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=["alexnet", "resnet34", "MobileNetV2"])
    parser.add_argument("--steps", type=int, default=10, help="steps timed")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="cores that it may use")
    arguments = parser.parse_args()
    print(f"{arguments.cores} cores, TensorFlow {tf.__version__}, batches of {BATCH}")
    print(f"{'backbone':<14}{'backbone is':<14}{'pairs/s':>9}{'by processor time':>20}")
    for name in arguments.backbones:
        for trained in (True, False):
            clock, processor = measure(name, trained, arguments.steps)
            rates = BATCH / clock, BATCH / processor * arguments.cores
            state = "trained" if trained else "frozen"
            print(f"{name:<14}{state:<14}{rates[0]:>9.1f}{rates[1]:>20.1f}", flush=True)


if __name__ == "__main__":
    main()
