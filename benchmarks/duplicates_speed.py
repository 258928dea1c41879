"""Time and memory of grouping near-duplicates, `dsprh index duplicates` in a folder.

    python benchmarks/duplicates_speed.py --items=100000 --bits 64 128

Codes as in index_repeats.py, and the worst case: all items have one code. A tenth of the items are
copies of others, two bits beside them. For each kind of codes and each radius: how the codes are
compared (parts: multi-index hashing; all: with all), seconds, the largest memory that it took
beside what was there before, and what was found. --check compares with a plain loop over all pairs.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import faiss  # noqa: E402
import numpy as np  # noqa: E402
from index_repeats import clustered, learned, near, random  # noqa: E402

from dsprh_tf import codes as binary  # noqa: E402
from dsprh_tf.index import duplicates  # noqa: E402

CASES = {
    "random": random,
    "clustered": clustered,
    "learned": learned,
    "within 3 bits": lambda rng, rows, bits: near(rng, rows, bits, 3),
    "one code": lambda rng, rows, bits: np.repeat(random(rng, 1, bits), rows, axis=0),
}
HEADER = ("codes", "bits", "radius", "compared", "s", "MiB", "distinct", "groups", "items in them")


def case(name: str, rows: int, bits: int, seed: int = 0) -> np.ndarray:
    """Codes, the last tenth of which are copies of others, two bits beside them."""
    rng = np.random.default_rng(seed)
    codes = CASES[name](rng, rows - rows // 10, bits)
    if name == "one code":
        return np.resize(codes, (rows, bits // 8))
    copies = np.unpackbits(codes[rng.permutation(len(codes))[: rows // 10]], axis=1)
    flipped = np.argsort(rng.random(copies.shape), axis=1)[:, :2]
    np.put_along_axis(copies, flipped, 1 - np.take_along_axis(copies, flipped, 1), 1)
    return np.concatenate([codes, np.packbits(copies, axis=1)])


def check(codes: np.ndarray, ids: np.ndarray, groups: list, radius: int) -> None:
    """Ends the program unless the groups are what they should be."""
    row_of = {name: row for row, name in enumerate(ids.tolist())}
    members = [[row_of[name] for name in group.ids.tolist()] for group in groups]
    left = np.ones(len(codes), bool)
    for rows in members:
        far = binary.hamming_distance(codes[rows[:1]], codes[rows])[0]
        left[rows[1:]] = False
        if (far > radius).any():
            sys.exit("a member is beyond the radius")
    kept = np.flatnonzero(left)
    for start in range(0, len(kept), 500):
        part = kept[start : start + 500]
        close = binary.hamming_distance(codes[part], codes[kept]) <= radius
        if close.sum() != len(part):
            sys.exit("two items that stay are within the radius")


def memory(reset: bool = False) -> float:
    """The largest memory of this process since it was last reset, MiB (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def measure(name: str, rows: int, bits: int, radius: int, checked: bool) -> tuple:
    """A row of the table; in a process of its own, whose peak memory is that of this case."""
    codes, ids = case(name, rows, bits), np.arange(rows) * 7
    before = memory(reset=True)
    start = time.perf_counter()
    groups = duplicates.near(codes, ids, radius)
    seconds = time.perf_counter() - start
    most = memory() - before
    distinct = np.unique(codes, axis=0)
    engine = duplicates._engine(distinct, radius) if radius and len(distinct) > 1 else None
    how = {faiss.IndexBinaryFlat: "all", faiss.IndexBinaryMultiHash: "parts"}.get(type(engine), "-")
    if checked:
        check(codes, ids, groups, radius)
    found = sum(len(group.ids) for group in groups)
    return (name, bits, radius, how, f"{seconds:.2f}", f"{most:.0f}", len(distinct),
            len(groups), found)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--bits", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--radius", type=int, nargs="+", default=[0, 2, 4, 8])
    parser.add_argument("--check", action="store_true", help="compare all pairs as well; slow")
    args = parser.parse_args()
    print(f"{args.items:,} items, {faiss.omp_get_max_threads()} threads, FAISS {faiss.__version__}")
    print(" | ".join(HEADER), flush=True)
    for bits in args.bits:
        for name in CASES:
            for radius in args.radius:
                with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                    job = pool.submit(measure, name, args.items, bits, radius, args.check)
                    row = job.result()
                print(" | ".join(map(str, row)), flush=True)


if __name__ == "__main__":
    main()
