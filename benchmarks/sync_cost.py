"""A sync that finds nothing to do, beside a plain walk over the same files, in one run.

    python benchmarks/sync_cost.py --files=10000,100000 --rounds=3

Makes small JPEG files and an index of them; codes are drawn, not encoded, and a first `sync` takes
note of the files. Then `sync` runs as the program that it is, and takes turns with a new Python
that calls `os.walk` and `os.stat`. Prints medians over rounds: time by the clock and of the CPU,
the CPU time for a file above what the program costs with 100 files, and peak memory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measured import ROOT, Measured, measured, program

FEW = 100  # files, for what starting costs
WALK = """
import os, sys
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        os.stat(os.path.join(folder, name))
"""


def write(photos: str, index_path: str, count: int) -> None:
    """Writes images and an index of drawn codes; in a process of its own, for the memory."""
    import hashlib
    import io

    import numpy as np
    import pyarrow as pa
    from PIL import Image

    from dsprh_tf.index.hamming import HammingIndex
    from dsprh_tf.index.items import SCHEMA
    from dsprh_tf.index.sources import Source

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", comment=b"%08d" % 0)
    before, after = buffer.getvalue().split(b"%08d" % 0)
    for i in range(count):
        path = Path(photos, f"{i // 1000:04}", f"{i:07}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(before + b"%08d" % i + after)
    rows = []
    for item in Source(photos, "image").items:
        content = Path(item.content).read_bytes()
        row = {"id": item.id, "modality": "image", "path": item.content, "size": len(content)}
        rows.append({**row, "sha256": hashlib.sha256(content).digest(), "tags": []})
    index = HammingIndex.create(index_path, 64, "drawn")
    codes = np.random.default_rng(0).integers(0, 256, (count, 8)).astype(np.uint8)
    index.add(codes, pa.Table.from_pylist(rows, SCHEMA))
    index.commit()


def median(runs: list[Measured]) -> list[float]:
    """Of seconds, CPU seconds and memory in MiB."""
    return [
        statistics.median(numbers)
        for numbers in zip(*((run.seconds, run.cpu, run.memory / 2**20) for run in runs))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", default="10000,100000", help="numbers of files")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    start = walk_start = 0.0
    with tempfile.TemporaryDirectory(prefix="dsprh_sync_cost_") as folder:
        for count in [FEW, *map(int, args.files.split(","))]:
            photos, index = f"{folder}/photos-{count}", f"{folder}/index-{count}"
            call = f"import sync_cost; sync_cost.write({photos!r}, {index!r}, {count})"
            paths = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}"}
            subprocess.run([sys.executable, "-c", call], check=True, env=paths)
            sync = program("sync", photos, f"--index={index}")
            learned = measured(sync).seconds
            runs, walks = [], []
            for _ in range(args.rounds):
                runs.append(measured(sync))
                walks.append(measured([sys.executable, "-c", WALK, photos]))
            if f"{count:,} as before" not in runs[-1].said:
                sys.exit(f"the sync was not one without changes: {runs[-1].said}")
            (seconds, cpu, memory), (walk, walk_cpu, _) = median(runs), median(walks)
            print(
                f"{count:>9,} files: sync {seconds:6.2f} s (CPU {cpu:.2f} s), {memory:5.0f} MiB; "
                f"walk and stat {walk:6.2f} s (CPU {walk_cpu:.2f} s); the first sync, which reads "
                f"the files, {learned:.2f} s",
                flush=True,
            )
            if count == FEW:
                start, walk_start = cpu, walk_cpu
                continue
            each, plain = (cpu - start) / count, (walk_cpu - walk_start) / count
            print(
                f"{'':>9}  a file, above what the program costs with {FEW}: {each * 1e6:.0f} us of "
                f"CPU, {each / plain:.1f} x walk and stat ({plain * 1e6:.0f} us)",
                flush=True,
            )


if __name__ == "__main__":
    main()
