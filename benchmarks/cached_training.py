"""Seconds of a training epoch with the frozen backbone computed, cached, and not needed.

    python benchmarks/cached_training.py

Three ways over the same images and the same heads, interleaved in one run: images through the
frozen backbone each time; the backbone's outputs from the cache on disk; ready float32
tensors in memory, the floor. Ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dsprh_tf  # noqa: F401 - before TensorFlow

# isort: split
import numpy as np
import tensorflow as tf

from dsprh_tf.backbones.architectures import build_backbone
from dsprh_tf.backbones.feature_cache import FeatureCache
from dsprh_tf.data.pairs import load_pairs
from dsprh_tf.data.pipeline import PairSource
from dsprh_tf.data.scenes.draw import write_scenes
from dsprh_tf.data.text import BagOfWords
from dsprh_tf.methods import METHODS, PAPER
from dsprh_tf.model import CrossModalHashing
from dsprh_tf.training.optimizers import make_optimizer

BATCH = 32


def epoch_seconds(model, batches, steps: int) -> float:
    """Seconds of so many steps, fetching their batches included."""
    start = time.perf_counter()
    for _ in range(steps):
        terms = model.benchmark_step(next(batches))
        float(terms["loss"])
    return time.perf_counter() - start


def measure(name: str, dataset, words, folder: str, rounds: int) -> list[dict]:
    """Rows of the table for one backbone."""
    backbone = build_backbone(name)
    backbone.trainable = False
    outputs = backbone.output
    sizes = {
        "bow": words.size,
        "feature": int(outputs["feature"].shape[-1]),
        "conv_map": tuple(map(int, outputs["conv_map"].shape[1:])),
    }
    model = CrossModalHashing(METHODS[PAPER](64), sizes, backbone, 224)
    model.compile(make_optimizer("sgd", 1e-4), make_optimizer("sgd", 1e-4))
    model.benchmark_step = tf.function(model.train_step, reduce_retracing=False)
    indices = np.arange(len(dataset) // BATCH * BATCH)
    plain = PairSource(dataset, words)
    cache = FeatureCache(folder, plain, backbone)
    started = time.perf_counter()
    cache.ensure(indices)
    filling = time.perf_counter() - started
    cached = PairSource(dataset, words, cache=cache)
    for source in (plain, cached):
        source.keep_texts(indices)
    steps = len(indices) // BATCH
    ready = list(cached.training_batches(indices, BATCH, 0, range(1)))
    # One iterator for all epochs, as training has it.
    ways = {
        "uncached": iter(plain.training_batches(indices, BATCH, 0, range(rounds + 1))),
        "cached": iter(cached.training_batches(indices, BATCH, 0, range(rounds + 1))),
        "in memory": itertools.cycle(ready),
    }
    seconds = {way: [] for way in ways}
    for epoch in range(rounds + 1):
        for way, batches in ways.items():
            taken = epoch_seconds(model, batches, steps)
            if epoch:  # The first one traces the way's graph.
                seconds[way].append(taken)
    floor = np.median(seconds["in memory"])
    return [
        {"backbone": name, "way": way, "seconds": np.median(s), "ratio": np.median(s) / floor}
        for way, s in seconds.items()
    ] + [{"backbone": name, "way": "(filling the cache once)", "seconds": filling, "ratio": None}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256, help="images per epoch")
    parser.add_argument("--rounds", type=int, default=5, help="epochs timed per way")
    parser.add_argument("--backbones", nargs="+", default=["alexnet", "MobileNetV2"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_scenes(Path(folder) / "scenes", arguments.images, 0, (256, 256))
        dataset = load_pairs(manifest)
        words = BagOfWords.fit(dataset.texts)
        print(f"{os.cpu_count()} cores, TensorFlow {tf.__version__}, {arguments.images} images")
        print(f"{'backbone':<14}{'epoch from':<28}{'seconds':>9}{'x in memory':>13}")
        for name in arguments.backbones:
            for row in measure(name, dataset, words, folder, arguments.rounds):
                ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
                print(f"{name:<14}{row['way']:<28}{row['seconds']:>9.2f}{ratio:>13}")


if __name__ == "__main__":
    main()
