"""How far copies of images lie from the originals, and other images: the radius of `duplicates`.

    python benchmarks/duplicates_radius.py --export_dir=DIR --images=FOLDER --count=1000

For each radius in bits: the share of copies whose code is within it of that of the original, by how
they were made (saved again as JPEG of quality 50; at half the size; both, and cut by 5 % at every
side), and the share of images that have another image within it. Images of FOLDER that are copies
of each other count among the latter.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from dsprh_tf import codes as binary  # noqa: E402

BATCH = 64


def saved(image: Image.Image, quality: int) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return content.getvalue()


def half(image: Image.Image) -> Image.Image:
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.LANCZOS)


def cut(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 20, height // 20, width - width // 20, height - height // 20))


COPIES = {
    "saved again": lambda image: saved(image, 50),
    "half size": lambda image: saved(half(image), 90),
    "all, cut": lambda image: saved(half(cut(image)), 50),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--export_dir", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--count", type=int, default=1000)
    args = parser.parse_args()
    from dsprh_tf.serving.encoder import Encoder

    encoder = Encoder(args.export_dir, "image")
    paths = sorted(Path(args.images).rglob("*.jpg"))
    paths = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))[: args.count]]
    own, copies = [], {name: [] for name in COPIES}
    for start in range(0, len(paths), BATCH):
        part = paths[start : start + BATCH]
        own.append(encoder.encode([path.read_bytes() for path in part]))
        images = [Image.open(path).convert("RGB") for path in part]
        for name, copy in COPIES.items():
            copies[name].append(encoder.encode([copy(image) for image in images]))
    codes = np.concatenate(own)
    far = {
        name: np.unpackbits(codes ^ np.concatenate(made), axis=1).sum(axis=1)
        for name, made in copies.items()
    }
    between = binary.hamming_distance(codes, codes).astype(int)
    np.fill_diagonal(between, encoder.bits + 1)
    print(f"{len(codes):,} images, {encoder.bits} bits; shares within each radius")
    print(f"{'radius':>6}" + "".join(f"{name:>13}" for name in (*far, "other images")))
    for radius in range(encoder.bits // 8 + 1):
        shares = [(values <= radius).mean() for values in (*far.values(), between.min(axis=1))]
        print(f"{radius:>6}" + "".join(f"{share:>13.3f}" for share in shares))


if __name__ == "__main__":
    main()
