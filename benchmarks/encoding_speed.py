"""Speed of the exported image encoder on JPEG files, against the bare backbone on ready pixels.

    python benchmarks/encoding_speed.py --rounds=7

AlexNet with random weights, 128 covariance channels, 64 bits, batches of 32. The three are timed
in turn, round by round, so that a busy machine slows all of them; the figure that counts is the
ratio, the median over rounds. Target: 55 %.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import dsprh_tf  # noqa: E402, F401 - quietens TensorFlow before its import

# isort: split
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from PIL import Image, ImageFilter  # noqa: E402

from dsprh_tf.backbones.architectures import build_backbone  # noqa: E402
from dsprh_tf.data.text import BagOfWords  # noqa: E402
from dsprh_tf.methods.dsprh import DSPRH  # noqa: E402
from dsprh_tf.model import CrossModalHashing  # noqa: E402
from dsprh_tf.serving.encoder import Encoder  # noqa: E402
from dsprh_tf.serving.export import export_encoders  # noqa: E402

BATCH = 32
SIZES = {"JPEG 500 x 375": (500, 375), "JPEG 341 x 256": (341, 256)}


def photo_like(rng: np.random.Generator, size: tuple[int, int]) -> bytes:
    """JPEG with structure at all scales, of the bytes per pixel that photographs have."""
    pixels = np.zeros((size[1], size[0], 3), np.float32)
    for cells, strength in ((4, 90), (16, 45), (64, 22), (160, 8)):
        coarse = rng.normal(0, strength, (cells, cells, 3))
        layers = [Image.fromarray(coarse[..., i].astype(np.float32)) for i in range(3)]
        pixels += np.stack([np.asarray(x.resize(size, Image.BICUBIC)) for x in layers], -1)
    image = Image.fromarray(np.clip(pixels + 128, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.filter(ImageFilter.SHARPEN).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds")
    rounds = parser.parse_args().rounds
    backbone = build_backbone("alexnet")
    sizes = {"bow": 1000, "feature": 4096, "conv_map": (13, 13, 256)}
    model = CrossModalHashing(DSPRH(64, cov_channels=128), sizes, backbone, 224)
    rng = np.random.default_rng(0)
    files = {name: [photo_like(rng, size) for _ in range(BATCH)] for name, size in SIZES.items()}
    pixels = tf.constant(rng.uniform(0, 255, (BATCH, 224, 224, 3)), tf.float32)
    bare = tf.function(lambda x: backbone(x, training=False))
    with tempfile.TemporaryDirectory() as folder:
        export_encoders(model, folder, BagOfWords([f"word{i}" for i in range(1000)]))
        encoder = Encoder(folder, "image")
        jobs = {"bare backbone, ready pixels": lambda: bare(pixels)["feature"].numpy()}
        for name, contents in files.items():
            jobs[f"exported encoder, {name}"] = lambda x=contents: encoder.encode(x, BATCH)
        for job in jobs.values():  # the first call compiles
            job()
            job()
        times = np.array([[seconds(job) for job in jobs.values()] for _ in range(rounds)])
    sizes = {name: np.mean([len(x) for x in contents]) / 1e3 for name, contents in files.items()}
    print(", ".join(f"{name}: {size:.0f} kB per file" for name, size in sizes.items()))
    print(f"{'':<36}{'images/s':>10}{'of bare':>9}")
    for name, column in zip(jobs, times.T):
        ratio = np.median(times[:, 0] / column)
        print(f"{name:<36}{BATCH / np.median(column):>10.1f}{ratio:>9.1%}")


if __name__ == "__main__":
    main()
