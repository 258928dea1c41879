"""Speed of `metrics.evaluate` beside a plain per-query NumPy loop, in one run.

    python benchmarks/metrics_speed.py --queries=2000 --database=18015 --bits=128

Both rank image->text and text->image with random codes. `evaluate` gives every metric; the loop
gives only MAP and MAP@50, and the program stops if they differ.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np  # noqa: E402

from dsprh_tf import codes, metrics  # noqa: E402


def loop(query_codes, database_codes, query_labels, database_labels, at=50):
    """MAP and MAP@R, one query at a time, as evaluation scripts of the field do it."""
    query, database = codes.unpack(query_codes), codes.unpack(database_codes).astype(np.float32)
    full, cut = [], []
    for signs, labels in zip(query, query_labels):
        distance = (query.shape[1] - database @ signs.astype(np.float32)) / 2
        relevant = (database_labels @ labels) > 0
        relevant = relevant[np.argsort(distance, kind="stable")]
        for ranking, results in ((relevant, full), (relevant[:at], cut)):
            ranks = np.flatnonzero(ranking) + 1
            hits = np.arange(1, len(ranks) + 1)
            results.append((hits / ranks).mean() if len(ranks) else 0.0)
    return {"map": float(np.mean(full)), f"map@{at}": float(np.mean(cut))}


def fastest(function, problems, repeats):
    """Least (wall, CPU) seconds of several runs over both directions, and the last results."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        results = [function(*problem) for problem in problems]
        seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return min(seconds), results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--database", type=int, default=18015)
    parser.add_argument("--bits", type=int, default=128)
    parser.add_argument("--labels", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many runs counts")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    sides = []
    for rows in (args.queries, args.database):
        image, text = (codes.pack(rng.standard_normal((rows, args.bits))) for _ in range(2))
        sides.append((image, text, (rng.random((rows, args.labels)) < 0.15).astype(np.uint8)))
    (query_image, query_text, query_labels), (image, text, labels) = sides
    problems = [
        (query_image, text, query_labels, labels),
        (query_text, image, query_labels, labels),
    ]

    loop_seconds, expected = fastest(loop, problems, args.repeats)
    stable_seconds, actual = fastest(metrics.evaluate, problems, args.repeats)
    average_seconds, _ = fastest(
        lambda *problem: metrics.evaluate(*problem, ties="average"), problems, args.repeats
    )
    for ours, theirs in zip(actual, expected):
        for name, value in theirs.items():
            if abs(ours[name] - value) > 1e-9:
                sys.exit(f"{name} differs: {ours[name]} by evaluate, {value} by the loop")
    print(f"{args.queries:,} queries x {args.database:,} items x {args.bits} bits, both directions")
    print(f"{'':<46}{'seconds':>8}{'CPU s':>8}{'ratio':>8}")
    for name, (wall, cpu) in (
        ("NumPy loop: MAP, MAP@50", loop_seconds),
        ("metrics.evaluate: all metrics", stable_seconds),
        ("metrics.evaluate, ties averaged: all metrics", average_seconds),
    ):
        print(f"{name:<46}{wall:>8.2f}{cpu:>8.2f}{loop_seconds[0] / wall:>7.1f}x")
    print("MAP and MAP@50 agree to 1e-9")


if __name__ == "__main__":
    main()
