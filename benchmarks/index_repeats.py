"""Codes that approximate indexes find hard: equal ones, near-equal ones, learned ones of few bits.

    python benchmarks/index_repeats.py
    python benchmarks/index_repeats.py --codes=codes/photos --kinds=hnsw

For every kind of codes and of search: time to build and bytes per item (engine and table of codes,
what a search holds in memory) of `HammingIndex`, whose engine has each code once, beside an
engine of all items; items found by their own code, by both; recall@10 of distinct codes, each
counted once, of the ten that lie farthest from others, and of queries two bits beside the hard
items ("beside": those that are in no cluster, or else any).
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import faiss  # noqa: E402
import numpy as np  # noqa: E402

from dsprh_tf.index import faiss_kinds  # noqa: E402
from dsprh_tf.index.code_folder import CodeFolder  # noqa: E402
from dsprh_tf.index.hamming import HammingIndex  # noqa: E402
from dsprh_tf.index.recall import LONELY, RECALL  # noqa: E402

PROBES = 500  # hard items that are searched for
HEADER = (
    "codes", "bits", "items", "distinct", "kind", "search",
    "build s", "of all items", "bytes per item", "of all items", "own code %", "of all items",
    RECALL, LONELY, "beside", "ms per query",
)  # fmt: skip


def random(rng, rows: int, bits: int) -> np.ndarray:
    return rng.integers(0, 256, (rows, bits // 8), np.uint8)


def clustered(rng, rows: int, bits: int) -> np.ndarray:
    """Around centres of 50 codes each, each bit of which is another one in 12 of 100 codes."""
    centres = rng.integers(0, 2, (rows // 50 + 1, bits), np.uint8)
    flips = rng.random((rows, bits)) < 0.08
    return np.packbits(centres[rng.integers(0, len(centres), rows)] ^ flips, axis=1)


def near(rng, rows: int, bits: int, most: int) -> np.ndarray:
    """Within `most` bits of one code, at most distances equally often."""
    order = np.argsort(rng.random((rows, bits)), axis=1)
    return np.packbits(order < rng.integers(0, most + 1, (rows, 1)), axis=1)


def learned(rng, rows: int, bits: int) -> np.ndarray:
    """Signs of few features, of unequally frequent topics, as collapsed encoders give them."""
    topics = rng.normal(size=(200, 8)) * 2
    which = np.minimum(rng.geometric(0.03, rows), 200) - 1
    features = topics[which] + rng.normal(size=(rows, 8)) * 0.6
    return np.packbits(features @ rng.normal(size=(8, bits)) > 0, axis=1)


def cases(rows: int, bits: int, rng) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Codes by name, and the hard ones among them; in random order, as items come."""
    few = random(rng, rows // 20, bits)
    common = random(rng, 20, bits)
    made = {
        "random": (random(rng, rows, bits), None),
        "clustered": (clustered(rng, rows, bits), None),
        "20 codes, others": (np.concatenate([common[rng.integers(0, 20, rows)], few]), few),
        **{f"within {most} bits, others": (np.concatenate([near(rng, rows, bits, most), few]), few)
           for most in (3, 6, 10)},
        "learned": (learned(rng, rows, bits), None),
    }  # fmt: skip
    return {
        name: (codes[rng.permutation(len(codes))], codes if hard is None else hard)
        for name, (codes, hard) in made.items()
    }


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def size_of(path: Path, *kinds: str) -> int:
    return sum(p.stat().st_size for kind in kinds for p in path.glob(f"{kind}-*"))


def measure(codes: np.ndarray, hard: np.ndarray, kind: str, folder: Path, rng) -> list:
    """The columns of a kind of search after its name."""
    bits = codes.shape[1] * 8
    hard = hard[rng.permutation(len(hard))[:PROBES]]
    index = HammingIndex(bits, kind)
    index.add(codes)
    seconds, _ = timed(lambda: index.search(codes[:1], 1))
    index.save(folder / "index")
    stats = index.stats()
    own = (index.search(hard, 10).distances[:, 0] == 0).mean()
    flipped = np.unpackbits(hard, axis=1)
    np.put_along_axis(flipped, at := np.argsort(rng.random(flipped.shape), axis=1)[:, :2],
                      1 - np.take_along_axis(flipped, at, 1), 1)  # fmt: skip
    query = np.packbits(flipped, axis=1)
    limit = faiss_kinds.search_exact(codes, query, 10)[0][:, -1:]
    found = index.search(query, 10)
    beside = ((found.ids >= 0) & (found.distances <= limit)).mean()
    each = [timed(lambda q=one: index.search(q[None], 10))[0] for one in query[:200]]
    all_seconds, engine = timed(lambda: faiss_kinds.build(kind, codes))
    faiss_kinds.write(engine, folder / "rows")
    all_own = (faiss_kinds.search(engine, hard, 10)[0][:, 0] == 0).mean()
    rows, approximate = len(codes), stats["search"] == "approximate"
    return [
        stats["search"],
        f"{seconds:.1f}",
        f"{all_seconds:.1f}",
        f"{size_of(folder / 'index', 'engine', 'distinct') / rows:.0f}",
        f"{(folder / 'rows').stat().st_size / rows:.0f}",
        f"{100 * own:.1f}",
        f"{100 * all_own:.1f}",
        *((f"{stats[name]:.3f}" for name in (RECALL, LONELY)) if approximate else ("1.000",) * 2),
        f"{beside:.3f}",
        f"{1e3 * np.median(each):.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--kinds", nargs="+", default=["hnsw", "ivf", "hash"])
    parser.add_argument("--codes", help="a folder of codes, instead of those that are made up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=str(ROOT / "benchmarks/results/index_repeats.csv"))
    arguments = parser.parse_args()
    print(f"{faiss.omp_get_max_threads()} threads, FAISS {faiss.__version__}")
    with open(arguments.out, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for bits in arguments.bits[:1] if arguments.codes else arguments.bits:
            rng = np.random.default_rng(arguments.seed)
            if arguments.codes:
                codes = np.array(CodeFolder(arguments.codes).codes)
                made = {Path(arguments.codes).name: (codes, codes)}
            else:
                made = cases(arguments.items, bits, rng)
            for name, (codes, hard) in made.items():
                for kind in arguments.kinds:
                    with tempfile.TemporaryDirectory() as folder:
                        values = measure(codes, hard, kind, Path(folder), rng)
                    distinct = len(np.unique(codes, axis=0))
                    row = [name, codes.shape[1] * 8, len(codes), distinct, kind, *values]
                    writer.writerow(row)
                    file.flush()
                    print(" | ".join(map(str, row)), flush=True)
    print(f"one row per kind: {arguments.out}")


if __name__ == "__main__":
    main()
