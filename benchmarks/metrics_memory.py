"""Peak memory of `metrics.evaluate` at NUS-WIDE's size, with random codes.

    python benchmarks/metrics_memory.py --queries=2000 --database=184577 --bits=128

Evaluates image->text and text->image and prints how long each took and the most memory that the
process has held so far, codes and labels included; then the same for cosines of float embeddings
with as many dimensions. Stops with an error above `--limit_gib`.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np  # noqa: E402

from dsprh_tf import codes, metrics  # noqa: E402


def peak_gib() -> float:
    """The most memory that the process has held, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--database", type=int, default=184577)
    parser.add_argument("--bits", type=int, default=128)
    parser.add_argument("--labels", type=int, default=10)
    parser.add_argument("--limit_gib", type=float, default=4.0)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    labels, values = [], []
    for rows in (args.queries, args.database):
        labels.append((rng.random((rows, args.labels)) < 0.15).astype(np.uint8))
        values.append([rng.standard_normal((rows, args.bits), np.float32) for _ in range(2)])
    print(f"{args.queries:,} queries x {args.database:,} items x {args.bits} bits")
    print(f"{'':<34}{'seconds':>9}{'peak GiB':>10}")
    print(f"{'data in memory':<34}{'':>9}{peak_gib():>10.2f}")
    for title, function, encode in (
        ("metrics.evaluate", metrics.evaluate, codes.pack),
        ("metrics.evaluate_cosine", metrics.evaluate_cosine, np.asarray),
    ):
        query, database = ([encode(side) for side in sides] for sides in values)
        for direction, pair in (
            ("image -> text", (query[0], database[1])),
            ("text -> image", (query[1], database[0])),
        ):
            start = time.perf_counter()
            function(*pair, *labels)
            seconds, peak = time.perf_counter() - start, peak_gib()
            print(f"{title + ', ' + direction:<38}{seconds:>5.0f}{peak:>10.2f}", flush=True)
            if peak > args.limit_gib:
                sys.exit(f"more than {args.limit_gib:g} GiB")


if __name__ == "__main__":
    main()
