"""Exact search by `HammingIndex` beside FAISS itself, load time, and bytes per item, in one run.

    python benchmarks/index_speed.py --items=1000000 --bits=128

Random codes; `index_repeats.py` has harder ones. Both search the same codes in turn, round by
round, so that a busy machine slows both; the figure that counts is the ratio, the median over
rounds. Targets: at most 1.10 times FAISS's time, a load of 10^6 items within 1 s with all checksums
compared, and at most 64 bytes per item for ids and items tables, beside paths and codes.
--approximate=50000 adds the approximate kinds on 50,000 of the codes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import faiss  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402

from dsprh_tf.index import faiss_kinds  # noqa: E402
from dsprh_tf.index.hamming import HammingIndex  # noqa: E402
from dsprh_tf.index.items import SCHEMA, stable_id  # noqa: E402

TOP = 10


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def image_items(rng: np.random.Generator, count: int) -> pa.Table:
    """Items as in an encoded folder of photographs, with noise for sha256."""
    paths = [f"/photos/{i // 10000:04}/{i // 1000:06}/IMG_{i:08}.jpg" for i in range(count)]
    digests = rng.bytes(32 * count)
    return pa.table(
        {
            "id": [stable_id("image", path) for path in paths],
            "modality": ["image"] * count,
            "path": paths,
            "text": [None] * count,
            "size": rng.integers(20_000, 8_000_000, count),
            "sha256": [digests[at : at + 32] for at in range(0, 32 * count, 32)],
            "tags": [[]] * count,
        },
        SCHEMA,
    )


def size_of(folder: Path, *kinds: str) -> int:
    return sum(p.stat().st_size for kind in kinds for p in folder.glob(f"{kind}-*"))


def compare_kinds(codes: np.ndarray, folder: Path) -> None:
    """Build time, search time, bytes and recall@10 of the approximate kinds."""
    query = np.array(codes[:200])
    limit = faiss_kinds.search_exact(codes, query, TOP)[0][:, -1:]
    print(f"{len(codes):,} of them{'':<10}{'build':>9}{'query':>12}{'bytes':>8}{'recall@10':>11}")
    for kind in faiss_kinds.KINDS[1:]:
        built = []
        building = seconds(lambda k=kind, b=built: b.append(faiss_kinds.build(k, codes)))
        if built[0] is None:
            sys.exit(f"--approximate={len(codes)}, expected at least {faiss_kinds.SMALLEST}")
        searching = seconds(lambda e=built[0]: faiss_kinds.search(e, query, TOP)) / len(query)
        distances, rows = faiss_kinds.search(built[0], query, TOP)
        recall = ((rows >= 0) & (distances <= limit)).mean()
        faiss_kinds.write(built[0], folder / kind)
        size = (folder / kind).stat().st_size / len(codes)
        each = 1e3 * searching
        print(f"  {kind:<18}{building:>8.1f} s{each:>9.3f} ms{size:>8.0f}{recall:>11.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--bits", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--approximate", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (args.items, args.bits // 8), np.uint8)
    items = image_items(rng, args.items)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        index = HammingIndex(args.bits)
        index.add(codes, items)
        saving = seconds(lambda: index.save(folder / "index"))
        bare = HammingIndex(args.bits)
        nothing = pa.nulls(args.items, pa.large_string())
        bare.add(codes, items.set_column(2, "path", nothing))
        bare.save(folder / "bare")
        loads = {
            "load, checksums compared": lambda: HammingIndex.load(folder / "index"),
            "load, sizes compared": lambda: HammingIndex.load(folder / "index", verify=False),
        }
        times = {name: np.median([seconds(load) for _ in range(args.rounds)])
                 for name, load in loads.items()}  # fmt: skip
        index = HammingIndex.load(folder / "index")
        plain = faiss.IndexBinaryFlat(args.bits)
        plain.add(codes)
        print(f"{args.items:,} codes of {args.bits} bits, top {TOP}, "
              f"{faiss.omp_get_max_threads()} threads, FAISS {faiss.__version__}")  # fmt: skip
        print(f"{'exact search':<28}{'FAISS':>12}{'HammingIndex':>14}{'ratio':>8}")
        for batch in (1, 1000):
            query = rng.integers(0, 256, (batch, args.bits // 8), np.uint8)
            repeats = max(1, 200 // batch)
            jobs = (lambda q=query: plain.search(q, TOP), lambda q=query: index.search(q, TOP))
            distances = jobs[0]()[0], jobs[1]().distances
            if not np.array_equal(*distances):
                sys.exit("the distances that FAISS and HammingIndex find differ")
            both = np.array([
                [np.median([seconds(job) for _ in range(repeats)]) for job in jobs]
                for _ in range(args.rounds)
            ])  # fmt: skip
            ms = 1e3 * np.median(both, axis=0)
            ratio = np.median(both[:, 1] / both[:, 0])
            print(f"{f'  batch of {batch:,}':<28}{ms[0]:>9.2f} ms{ms[1]:>11.2f} ms{ratio:>8.3f}")
        for name, value in times.items():
            print(f"{name:<28}{1e3 * value:>9.1f} ms")
        print(f"{'save':<28}{1e3 * saving:>9.1f} ms")
        beside = size_of(folder / "bare", "ids", "items") / args.items
        paths = size_of(folder / "index", "items") - size_of(folder / "bare", "items")
        print(f"{'ids and items, no paths':<28}{beside:>9.1f} bytes per item")
        print(f"{'paths':<28}{paths / args.items:>9.1f} bytes per item")
        if args.approximate:
            compare_kinds(codes[: args.approximate], folder)


if __name__ == "__main__":
    main()
