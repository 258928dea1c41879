"""Accuracy of coco.flags over several seeds: mean and standard deviation of the four metrics.

    python benchmarks/coco_accuracy.py --data_dir=DATA --backbone_weights=FILE

Trains one run a seed with scripts/train.py (finished runs are kept and not trained again),
prints a table and writes benchmarks/results/coco_accuracy.csv. Words after `--` go to
scripts/train.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
METRICS = [(d, m) for m in ("map@50", "map") for d in ("image_to_text", "text_to_image")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="COCO folder")
    parser.add_argument("--backbone_weights", default="imagenet")
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ...")
    parser.add_argument("--out", default=str(ROOT / "benchmarks/results/coco_accuracy.csv"))
    parser.add_argument("more", nargs="*", help="further flags of scripts/train.py, after --")
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.seeds):
        run_dir = Path("runs") / f"coco_accuracy-{arguments.bits}-{seed}"
        command = [sys.executable, str(ROOT / "scripts/train.py"), f"--flagfile={ROOT}/coco.flags"]
        command += [f"--data_dir={arguments.data_dir}", f"--bits={arguments.bits}"]
        command += [f"--backbone_weights={arguments.backbone_weights}", f"--seed={seed}"]
        command += [f"--run_dir={run_dir}", "--monitor_every=5", *arguments.more]
        subprocess.run(command, check=True)
        record = json.loads((run_dir / "results.json").read_text())
        values = {f"{d} {m}": record[d][m] for d, m in METRICS}
        rows.append({"bits": record["bits"], "seed": seed, "chance": record["chance"], **values})
    table = pd.DataFrame(rows)
    names = list(values)
    table["mean of four"] = table[names].mean(axis=1)
    Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.out, index=False, float_format="%.4f")
    summary = table[[*names, "mean of four"]].agg(["mean", "std"])
    print(f"{arguments.bits} bits, seeds 0..{arguments.seeds - 1}, chance {record['chance']:.3f}")
    print(summary.round(3).to_string())
    print(f"one row a seed: {arguments.out}")


if __name__ == "__main__":
    main()
