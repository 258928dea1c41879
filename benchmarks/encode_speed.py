"""The program `encode` beside the exported encoder that it uses, and its memory, in one run.

    python benchmarks/encode_speed.py --images=1000 --rounds=3
    python benchmarks/encode_speed.py --rounds=0 --memory=1000,100000

Speed: AlexNet with random weights, JPEG files of 341 x 256. The encoder has all files in memory and
encodes them in batches of 32; `encode` walks, reads, hashes, encodes and writes. The two take
turns; the figure that counts is the ratio, the median over rounds. Target: 80 %.

Memory: peak of `encode` with a small MobileNet, over folders of small images. Target: the largest
within 10 % of the smallest.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import dsprh_tf  # noqa: E402, F401 - quietens TensorFlow before its import

# isort: split
import numpy as np  # noqa: E402
from encoding_speed import photo_like  # noqa: E402
from PIL import Image  # noqa: E402

from dsprh_tf.backbones.architectures import build_backbone  # noqa: E402
from dsprh_tf.data.text import BagOfWords  # noqa: E402
from dsprh_tf.methods.dsprh import DSPRH  # noqa: E402
from dsprh_tf.model import CrossModalHashing  # noqa: E402
from dsprh_tf.serving.encoder import Encoder  # noqa: E402
from dsprh_tf.serving.export import export_encoders  # noqa: E402

BATCH, DISTINCT = 32, 200


def export(folder: Path, backbone: str, size: int) -> Path:
    """An export with random weights."""
    trunk = build_backbone(backbone, image_size=size)
    shapes = {name: tuple(map(int, x.shape[1:])) for name, x in trunk.output.items()}
    sizes = {"bow": 100, "feature": shapes["feature"][0], "conv_map": shapes["conv_map"]}
    model = CrossModalHashing(DSPRH(64, cov_channels=32), sizes, trunk, size)
    words = BagOfWords([f"word{i}" for i in range(100)])
    export_encoders(model, folder, words, resize=size + size // 8)
    return folder


def write_images(folder: Path, count: int, contents: list[bytes]) -> Path:
    """A folder of `count` names of a few files, as hard links."""
    folder.mkdir()
    for i in range(count):
        path = folder / f"{i // 1000:04}" / f"{i:07}.jpg"
        path.parent.mkdir(exist_ok=True)
        if i < len(contents):
            path.write_bytes(contents[i])
        else:
            source = i % len(contents)
            os.link(folder / f"{source // 1000:04}" / f"{source:07}.jpg", path)
    return folder


def encode(exported: Path, images: Path, out: Path) -> tuple[float, int]:
    """One run of `encode`: images per second, and peak memory in bytes."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, str(ROOT / "scripts/encode.py"), f"--export_dir={exported}",
               f"--images={images}", f"--out={out}", f"--batch_size={BATCH}"]  # fmt: skip
    with open(out.with_suffix(".log"), "w+") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        said = log.read()
    if child.returncode:
        sys.exit(f"encode failed: {said[-1000:]}")
    rate = float(re.search(r"encoded .* s: ([\d.]+) per second", said)[1])
    return rate, usage.ru_maxrss * 1024


def own_rate(encoder: Encoder, contents: list[bytes]) -> float:
    start = time.perf_counter()
    encoder.encode(contents, BATCH)
    return len(contents) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds; 0 for none")
    parser.add_argument("--memory", default="", help="numbers of images, as 1000,100000")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if args.rounds:
            files = [photo_like(rng, (341, 256)) for _ in range(min(DISTINCT, args.images))]
            exported = export(folder / "alexnet", "alexnet", 224)
            images = write_images(folder / "photos", args.images, files)
            contents = [path.read_bytes() for path in sorted(images.rglob("*.jpg"))]
            encoder = Encoder(exported, "image")
            own_rate(encoder, contents[: 2 * BATCH])  # the first call compiles
            rates = np.array([
                (own_rate(encoder, contents), encode(exported, images, folder / "codes")[0])
                for _ in range(args.rounds)
            ])  # fmt: skip
            own, script = np.median(rates, axis=0)
            print(f"{args.images:,} images of 341 x 256, AlexNet, batches of {BATCH}")
            print(f"exported encoder alone  {own:8.1f} images/s")
            print(f"the program encode      {script:8.1f} images/s, "
                  f"{np.median(rates[:, 1] / rates[:, 0]):.1%}")  # fmt: skip
        counts = [int(count) for count in args.memory.split(",") if count]
        if counts:
            exported = export(folder / "mobilenet", "MobileNet", 32)
            files = []
            for _ in range(DISTINCT):
                buffer = io.BytesIO()
                pixels = rng.integers(0, 256, (48, 48, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(buffer, "JPEG")
                files.append(buffer.getvalue())
            peaks = []
            for count in counts:
                images = write_images(folder / f"small-{count}", count, files)
                rate, peak = encode(exported, images, folder / "codes")
                peaks.append(peak)
                print(f"{count:>10,} images: peak {peak / 2**20:7.1f} MiB, "
                      f"{peak / peaks[0]:.3f} of the first, {rate:.0f} images/s")  # fmt: skip


if __name__ == "__main__":
    main()
