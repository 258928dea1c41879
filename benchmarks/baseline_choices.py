"""Chooses the ridge and the power of the baselines' canonical space.

    python benchmarks/baseline_choices.py --run_dir=runs/NAME

Splits the training pairs of a run of scripts/train.py (its data, split, words and frozen backbone)
into folds, fits on the others and looks for each held-out item's own partner among all held-out
ones: mean reciprocal rank of both directions, by cosine and by ITQ codes. Neither labels nor test
queries are used. Prints a table and writes benchmarks/results/baseline_choices.csv.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from dsprh_tf import codes, metrics  # noqa: E402
from dsprh_tf.methods import baselines  # noqa: E402
from dsprh_tf.run import Run  # noqa: E402
from dsprh_tf.similarity import unit_rows  # noqa: E402


def reciprocal_rank(image: np.ndarray, text: np.ndarray) -> float:
    """Mean reciprocal rank of each row's partner by cosine, both directions."""
    cosine = unit_rows(image) @ unit_rows(text).T
    own = np.diagonal(cosine)
    ranks = [(cosine >= own[:, None]).sum(axis=1), (cosine >= own).sum(axis=0)]
    return float((1 / np.concatenate(ranks)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run_dir", required=True)
    parser.add_argument("--bits", type=int, nargs="+", default=[64])
    parser.add_argument("--ridges", type=float, nargs="+", default=[0.1, 0.3, 1, 3, 10])
    parser.add_argument("--powers", type=float, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--folds", type=int, default=3)
    results = Path(__file__).parent / "results" / "baseline_choices.csv"
    parser.add_argument("--out", default=str(results))
    args = parser.parse_args()
    data = Run.load(args.run_dir).data
    train = np.random.default_rng(0).permutation(data.split.train)
    images, texts = data.image_features(train)[train], data.source.text_features(train)
    folds = np.array_split(np.arange(len(train)), args.folds)
    print(f"{len(train):,} training pairs in {args.folds} folds")
    print(f"{'bits':>6}{'ridge':>7}{'power':>7}{'cosine':>9}{'ITQ codes':>11}")
    rows = []
    for bits, ridge, power in itertools.product(args.bits, args.ridges, args.powers):
        scores = []
        for held in folds:
            fit = np.setdiff1d(np.arange(len(train)), held)
            space = baselines.canonical_space(images[fit], texts[fit], bits, ridge, power)
            seen = [unit_rows(p(x[fit])) for p, x in zip(space, (images, texts))]
            rotation = baselines.itq_rotation(np.concatenate(seen), seed=0)
            image, text = (p(x[held]) for p, x in zip(space, (images, texts)))
            packed = codes.pack(image @ rotation), codes.pack(text @ rotation)
            scores.append((reciprocal_rank(image, text), metrics.pair_reciprocal_rank(*packed)))
        cosine, itq = np.mean(scores, axis=0)
        rows.append([bits, ridge, power, cosine, itq])
        print(f"{bits:>6}{ridge:>7g}{power:>7g}{cosine:>9.3f}{itq:>11.3f}", flush=True)
    table = pd.DataFrame(rows, columns=["bits", "ridge", "power", "cosine", "itq"])
    table.to_csv(args.out, index=False, float_format="%.4f")


if __name__ == "__main__":
    main()
