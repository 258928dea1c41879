"""Holds the two readers of images together on damaged files: `load_image` and the exported graph.

    python tests/fuzz/pixels.py --count=10000 --seed=0

Changes headers of JPEG, PNG, GIF, BMP and WebP files, and now and then their data, and prints a
table of how often the readers agree. A file that the graph refuses may be read by `load_image`:
programs hand the graph its pixels as a PNG. The exit code is 1 where the graph reads a file that
`load_image` refuses, or reads other pixels; such files are saved under --out.
"""

from __future__ import annotations

# ruff: noqa: E402
import argparse
import collections
import hashlib
import io
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import dsprh_tf  # noqa: F401 - quietens TensorFlow before its import

# isort: split
import numpy as np
import tensorflow as tf
from image_files import encoded, exif, join_jpeg, join_png, jpeg_segments, picture, png_chunks
from PIL import Image

from dsprh_tf.data import image_reader
from dsprh_tf.data.decoder_lines import DecoderLines
from dsprh_tf.data.image_structure import image_size
from dsprh_tf.data.preprocess import decode_image

FAULTS = ("graph alone", "other pixels")
_MOST = 2**21  # pixels: larger ones are only announced, and would take seconds
_GRAPH = tf.function(decode_image, input_signature=[tf.TensorSpec([], tf.string)])


def _seeds() -> dict[str, list[bytes]]:
    rgb, grey = picture(), picture().convert("L")
    alpha, palette = picture().convert("RGBA"), picture().quantize(9)
    alpha.putalpha(Image.linear_gradient("L").resize(rgb.size))
    deep = Image.fromarray(np.random.default_rng(1).integers(0, 65536, (9, 7)).astype(np.uint16))
    turned = rgb.rotate(180)
    png = png_chunks(encoded(rgb, "PNG"))
    return {
        "JPEG": [
            encoded(rgb, "JPEG", quality=90),
            encoded(rgb, "JPEG", progressive=True),
            encoded(rgb, "JPEG", subsampling=0, exif=exif(6)),
            encoded(rgb, "JPEG", subsampling=1, exif=exif(3), icc_profile=bytes(300)),
            encoded(rgb, "JPEG", restart_marker_blocks=2, comment=b"Exif\0\0II*\0"),
            encoded(grey, "JPEG", exif=exif(5)),
            encoded(rgb.convert("CMYK"), "JPEG"),
        ],
        "PNG": [
            *(encoded(image, "PNG") for image in (rgb, alpha, grey, deep, rgb.convert("1"))),
            encoded(alpha.convert("LA"), "PNG", exif=exif(8)),
            encoded(palette, "PNG", transparency=3),
            join_png([*png[:-1], (b"eXIf", exif(6).tobytes()[6:]), png[-1]]),
            encoded(rgb, "PNG", save_all=True, append_images=[turned]),
        ],
        "GIF": [
            encoded(rgb, "GIF"),
            encoded(grey, "GIF", interlace=0),
            encoded(palette, "GIF", transparency=2, comment=bytes(700)),
            encoded(palette, "GIF", save_all=True, append_images=[turned.quantize(9)]),
        ],
        "BMP": [encoded(image, "BMP") for image in (rgb, alpha, grey, palette)],
        "WEBP": [
            encoded(rgb, "WEBP"),
            encoded(rgb, "WEBP", lossless=True),
            encoded(alpha, "WEBP"),
            encoded(rgb, "WEBP", exif=exif(6)),
            encoded(rgb, "WEBP", exif=exif(3), icc_profile=b"abc", xmp=b"<x/>"),
            encoded(rgb, "WEBP", save_all=True, append_images=[turned]),
        ],
    }


_CHUNKS = (
    b"tRNS", b"gAMA", b"sBIT", b"bKGD", b"cHRM", b"sRGB", b"iCCP", b"PLTE", b"hIST", b"pHYs",
    b"tEXt", b"zTXt", b"iTXt", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"IDAT", b"IEND", b"IHDR",
    b"ABCD", b"abCD", b"cICP", b"CgBI",
)  # fmt: skip
_MARKERS = (0xE0, 0xE1, 0xE2, 0xEE, 0xFE, 0xDD, 0xDB, 0xC4, 0xC0, 0xC2, 0xDA, 0xDC, 0x01)
_PAYLOADS = (
    b"JFIF\0\1\2\0\0\1\0\1\0\0", b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\1", b"Adobe\0",
    b"Adobe\0d\0\0\0\0\2", b"ICC_PROFILE\0\1\1xx", b"\0\4", b"\0\0", b"hello\xff\xd9\xff\xda",
    exif(3).tobytes(), exif(9).tobytes(), b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\1",
)  # fmt: skip
_BYTES = (0, 1, 2, 3, 4, 8, 12, 0x11, 0x21, 0x12, 0x22, 0x41, 0x14, 127, 128, 255)


def _changed_bytes(rng: random.Random, content: bytes, limit: int) -> bytes:
    """Bytes before a limit, mostly, that are flipped, replaced, removed, inserted or repeated."""
    data, way = bytearray(content), rng.randrange(6)
    limit = min(len(data), limit if rng.random() < 0.8 else len(data))
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(2, max(3, min(limit, len(data))))
        if way == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            data[at] = rng.randrange(256)
        elif way == 2:
            data[at] = rng.choice(_BYTES)
        elif way == 3:
            del data[at : at + rng.randint(1, 4)]
        elif way == 4:
            data[at:at] = rng.randbytes(rng.randint(1, 4))
        else:
            other = rng.randrange(2, max(3, limit))
            data[at:at] = data[other : other + rng.randint(1, 20)]
    return bytes(data)


def _changed_parts(rng: random.Random, parts: list, names: tuple, payloads: Callable) -> list:
    """Segments or chunks that are added, repeated, moved, renamed, cut, lengthened or changed."""
    parts = list(parts)
    for _ in range(rng.randint(1, 3)):
        at, way = rng.randrange(len(parts)), rng.randrange(9)
        name, data = parts[at]
        if way <= 1:
            parts.insert(rng.randrange(len(parts)), (rng.choice(names), payloads()))
        elif way == 2:
            parts.insert(rng.randrange(len(parts)), parts[at])
        elif way == 3:
            other = rng.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        elif way == 4:
            parts[at] = (rng.choice(names), data)
        elif way == 5:
            parts[at] = (name, data[: rng.randrange(len(data) + 1)])
        elif way == 6:
            parts[at] = (name, data + rng.randbytes(rng.randint(1, 20)))
        elif data:
            changed = bytearray(data)
            changed[rng.randrange(min(len(data), 64))] = rng.choice(_BYTES)
            parts[at] = (name, bytes(changed))
    return parts


def _changed_jpeg(rng: random.Random, content: bytes) -> bytes:
    segments, rest = jpeg_segments(content)
    if rng.random() < 0.4:
        return _changed_bytes(rng, content, len(content) - len(rest))

    def payload():
        return rng.choice(_PAYLOADS) if rng.random() < 0.7 else rng.randbytes(rng.randrange(30))

    if rng.random() < 0.1:
        rest = _changed_bytes(rng, rest, len(rest))
    return join_jpeg(_changed_parts(rng, segments, _MARKERS, payload), rest)


def _changed_png(rng: random.Random, content: bytes) -> bytes:
    def payload():
        return rng.randbytes(rng.choice((0, 1, 2, 3, 4, 6, 7, 8, 9, 13, 20, 26, 256, 768)))

    if rng.random() < 0.7:
        return join_png(_changed_parts(rng, png_chunks(content), _CHUNKS, payload))
    changed = _changed_bytes(rng, content, 60)
    return join_png(png_chunks(changed)) if rng.random() < 0.5 else changed


def changed(rng: random.Random, kind: str, content: bytes) -> bytes:
    """A damaged file."""
    if kind == "JPEG":
        content = _changed_jpeg(rng, content)
    elif kind == "PNG":
        content = _changed_png(rng, content)
    else:
        content = _changed_bytes(rng, content, rng.choice((30, 900)) if kind == "GIF" else 60)
    chance = rng.random()
    if chance < 0.08:
        return content[: -rng.randint(1, 40)]
    if chance < 0.1:
        return content[: rng.randrange(len(content))]
    if chance < 0.12:
        cut = rng.randint(1, 40)
        return content[:-cut] + rng.choice((b"\0", b"\xff", b"\xff\0")) * rng.randint(1, cut + 9)
    return content + rng.randbytes(rng.randint(1, 40)) if chance < 0.14 else content


def inputs(seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(kind, damaged file), without an end."""
    rng, seeds = random.Random(seed), _seeds()
    while True:
        kind = rng.choice(list(seeds))
        yield kind, changed(rng, kind, rng.choice(seeds[kind]))


def verdict(content: bytes) -> str | None:
    """How the readers agree, or None for a file that announces a large image.

    "equal", "equal but for rounding" (CMYK), "both refuse", "converted" (the graph refuses what
    `load_image` reads), or one of `FAULTS`.
    """
    size = image_size(io.BytesIO(content))
    if size is not None and size[0] * size[1] > _MOST:
        return None
    try:
        served = _GRAPH(content).numpy().astype(int)
    except tf.errors.OpError:
        served = None
    try:
        image_reader.require_content(io.BytesIO(content))
        read = image_reader.read(io.BytesIO(content)).pixels
    except Exception:
        return "both refuse" if served is None else "graph alone"
    if served is None:
        return "converted"
    if served.shape != read.shape:
        return "other pixels"
    apart = np.abs(served - read).max()
    if apart > 1 or (apart and not _is_cmyk(content)):
        return "other pixels"
    return "equal but for rounding" if apart else "equal"


def _is_cmyk(content: bytes) -> bool:
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        return image.mode == "CMYK"


def campaign(count: int, seed: int) -> tuple[dict[str, collections.Counter], list[bytes]]:
    """Verdicts on `count` damaged files, by kind, and the files that are faults."""
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    faults, left = [], count
    with DecoderLines(live=True):
        for kind, content in inputs(seed):
            found = verdict(content)
            if found is None:
                continue
            counts[kind][found] += 1
            if found in FAULTS:
                faults.append(content)
            left -= 1
            if not left:
                break
    return counts, faults


def main() -> int:
    """Runs a campaign and prints its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz/pixels"))
    options = parser.parse_args()
    counts, faults = campaign(options.count, options.seed)
    names = sorted({name for count in counts.values() for name in count})
    print(" ".join(f"{title:>22}" for title in ("kind", *names)))
    for kind, count in sorted(counts.items()):
        row = (kind, *(count[name] for name in names))
        print(" ".join(f"{cell!s:>22}" for cell in row))
    for content in faults:
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / hashlib.sha256(content).hexdigest()[:12]
        path.write_bytes(content)
        print(f"{verdict(content)}: {path}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
