"""Asymmetric ranking beside Hamming distance: time of a query, and recall by number of candidates.

    python benchmarks/asymmetric_speed.py --items=1000000 --bits=128 --approximate=100000

Codes as trained encoders make them: the signs of hash values around centres, so that bits differ
most where a value is near 0; queries are further values around the same centres. Recall is that of
the 10 best of all items by their values (`codes.asymmetric_similarity`). Both rankings answer the
same queries in turn, one at a time, so that a busy machine slows both; the figure that counts is
the ratio, the median over queries. Targets: a recall of at least .99 with the default --oversample,
and at most twice the time of Hamming distance.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import faiss  # noqa: E402
import numpy as np  # noqa: E402

from dsprh_tf import codes  # noqa: E402
from dsprh_tf.index import asymmetric, faiss_kinds  # noqa: E402
from dsprh_tf.index.hamming import HammingIndex  # noqa: E402

TOP, SPREAD = 10, 0.4  # results; noise around a centre in units of the centres' own
FACTORS = (1, 2, 4, 8, 12, 16, 24, 32)
_CHUNK = 2**16


class Clusters:
    """Hash values around random centres.

    Args:
        rng: draws everything.
        count: number of centres.
        bits: length of a code.
    """

    def __init__(self, rng: np.random.Generator, count: int, bits: int):
        self._rng = rng
        self._centres = rng.standard_normal((count, bits), np.float32)

    def draw(self, rows: int) -> np.ndarray:
        """Hash values float32 [rows, bits]."""
        near = self._centres[self._rng.integers(0, len(self._centres), rows)]
        return near + np.float32(SPREAD) * self._rng.standard_normal(near.shape, np.float32)

    def codes(self, rows: int) -> np.ndarray:
        """Packed codes, a part at a time."""
        parts = range(0, rows, _CHUNK)
        return np.concatenate([codes.pack(self.draw(min(_CHUNK, rows - at))) for at in parts])


def milliseconds(function) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def limits(stored: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Similarity of the tenth best of all items for each query."""
    rows = [np.partition(codes.asymmetric_similarity(one[None], stored)[0], -TOP) for one in values]
    return np.array([row[-TOP] for row in rows])


def compare(name: str, index: HammingIndex, values: np.ndarray, limit: np.ndarray, factors) -> None:
    """Prints the time of both rankings and the recall, by number of candidates."""
    packed = codes.pack(values)
    index.search(packed[:1], TOP)
    asymmetric.rank(index, values[:1], TOP)
    for factor in factors:
        times, hits = [], 0
        for row in range(len(values)):
            found = []

            def rank(row=row, found=found, factor=factor):
                one = values[row : row + 1]
                found.append(asymmetric.rank(index, one, TOP, oversample=factor))

            hamming = milliseconds(lambda row=row: index.search(packed[row : row + 1], TOP))
            times.append((hamming, milliseconds(rank)))
            hits += (found[0].similarities[0] >= limit[row]).sum()
        pairs = np.array(times)
        mark = " (default)" if factor == asymmetric.OVERSAMPLE else ""
        plain, ranked = np.median(pairs, axis=0)
        ratio = np.median(pairs[:, 1] / pairs[:, 0])
        print(f"  {name:<26}{factor:>6}{hits / (TOP * len(values)):>9.3f}{plain:>9.2f} ms"
              f"{ranked:>9.2f} ms{ratio:>8.2f}{mark}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--bits", type=int, default=128)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--cluster", type=int, nargs="*", default=[50, 1000, 10_000])
    parser.add_argument("--approximate", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"codes of {args.bits} bits, top {TOP}, {args.queries} queries one at a time, "
          f"{faiss.omp_get_max_threads()} threads, FAISS {faiss.__version__}")  # fmt: skip
    print(f"  {'':<26}{'factor':>6}{'recall':>9}{'Hamming':>12}{'asymmetric':>12}{'ratio':>8}")
    for size in args.cluster:
        drawn = Clusters(rng, max(1, args.items // size), args.bits)
        stored, values = drawn.codes(args.items), codes.soften(drawn.draw(args.queries))
        print(f"{args.items:,} items in clusters of {size:,}")
        index = HammingIndex(args.bits)
        index.add(stored)
        limit = limits(stored, values)
        compare("flat", index, values, limit, FACTORS)
        if not args.approximate:
            continue
        some = stored[: args.approximate]
        print(f"{len(some):,} of them")
        limit = limits(some, values)
        for kind in faiss_kinds.KINDS:
            index = HammingIndex(args.bits, kind)
            index.add(some)
            compare(kind, index, values, limit, [asymmetric.OVERSAMPLE])
    drawn = Clusters(rng, 20, args.bits)
    stored, values = drawn.codes(asymmetric.EXACT), codes.soften(drawn.draw(args.queries))
    print(f"{len(stored):,} items, the most that are all compared")
    index = HammingIndex(args.bits)
    index.add(stored)
    compare("flat", index, values, limits(stored, values), [asymmetric.OVERSAMPLE])


if __name__ == "__main__":
    main()
