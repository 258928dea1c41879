"""What `dsprh train` says that a run will take, beside what is then measured.

    python benchmarks/estimates.py --data_dir=COCO --cases=own,features,finetuned

Each run is a program of its own with all it writes in one folder. Time counts from the line that
holds the estimate to the end of the program; memory is that of the process at most; disk is what is
left, and what it was at most. The claim is a factor of 1.5.

own: images of a COCO folder with one caption each, a frozen backbone, no other flags (`--pairs`);
features: drawn vectors of 512 numbers (`--vectors`); finetuned: some of the images, AlexNet trained
from random weights for `--finetuned_epochs` epochs.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
from absl import flags  # noqa: E402
from measured import Measured, measured, program, size_of  # noqa: E402
from own_images import captions, frozen, write_manifest  # noqa: E402

from dsprh_tf.cli.program import Program  # noqa: E402

FLAGS = flags.FlagValues()
_CASES = flags.DEFINE_list("cases", ["own", "features", "finetuned"], "Runs.", flag_values=FLAGS)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "COCO folder.", flag_values=FLAGS)
_WEIGHTS = flags.DEFINE_string(
    "backbone_weights", None, "MobileNetV2's weights; default as `dsprh train`.", flag_values=FLAGS
)
_PAIRS = flags.DEFINE_list("pairs", ["800", "1924"], "Images of own.", flag_values=FLAGS)
_EPOCHS = flags.DEFINE_integer("epochs", None, "Of own and features.", 1, flag_values=FLAGS)
_VECTORS = flags.DEFINE_integer("vectors", 5000, "Pairs of features.", 100, flag_values=FLAGS)
_FINETUNED = flags.DEFINE_integer("finetuned", 160, "Images of finetuned.", 80, flag_values=FLAGS)
_FINETUNED_EPOCHS = flags.DEFINE_integer(
    "finetuned_epochs", 20, "Epochs of finetuned.", 1, flag_values=FLAGS
)

UNITS = {"s": 1, "min": 60, "h": 3600, "MB": 2**20, "GB": 2**30}
WITHIN = 1.5


def write_vectors(path: Path, count: int) -> None:
    """Pairs of vectors of 50 kinds."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 50, count)
    arrays = {
        side: rng.normal(size=(50, 512))[kinds] + rng.normal(size=(count, 512))
        for side in ("image", "text")
    }
    np.savez(path, **{side: rows.astype(np.float32) for side, rows in arrays.items()})


def cases(folder: Path):
    """(name, arguments of `train`) of each run."""
    epochs = [f"--epochs={_EPOCHS.value}"] if _EPOCHS.value else []
    images = None
    for case in _CASES.value:
        if case == "features":
            write_vectors(folder / "features.npz", _VECTORS.value)
            name = f"features, {_VECTORS.value:,} vectors"
            yield name, ["--dataset=features", f"--data_dir={folder}/features.npz", *epochs]
            continue
        if case not in ("own", "finetuned"):
            raise ValueError(f"--cases has {case!r}, expected own, features or finetuned")
        images = captions(_DATA_DIR.value) if images is None else images
        counts = map(int, _PAIRS.value) if case == "own" else [_FINETUNED.value]
        for count in counts:
            path = folder / f"{case}-{count}.csv"
            write_manifest(images, np.random.default_rng(0).permutation(len(images))[:count], path)
            if case == "own":
                yield f"own images, {count:,}", [str(path), *frozen(_WEIGHTS.value), *epochs]
            else:
                trained = ["--backbone=alexnet", f"--epochs={_FINETUNED_EPOCHS.value}"]
                yield f"fine-tuning, {count:,} images", [str(path), *trained]


def bytes_or_seconds(text: str) -> float:
    """Of "1.2 GB" or "3 min"."""
    number, unit = text.split()
    return float(number) * UNITS[unit]


def said(run: Measured) -> tuple[float, dict[str, float]]:
    """When the estimate was said, and its numbers."""
    quantity = r"([\d.]+ [a-zA-Z]+)"
    pattern = rf"this run takes about (?:{quantity} .*?\), )?{quantity} of memory, {quantity} of disk(?: \({quantity} until)?"  # noqa: E501 - one pattern
    for when, line in run.lines:
        if found := re.search(pattern, line):
            seconds, memory, disk, largest = found.groups()
            values = {"seconds": seconds, "memory": memory, "disk": disk}
            values["disk at most"] = largest or disk
            return when, {k: bytes_or_seconds(v) for k, v in values.items() if v}
    sys.exit(f"the run said no estimate: {run.said[-2000:]}")


def main() -> None:
    """Prints a table, a line for each run as soon as it is known."""
    worst = 1.0
    with tempfile.TemporaryDirectory(prefix="dsprh_estimates_") as top:
        for name, arguments in cases(Path(top)):
            with tempfile.TemporaryDirectory(dir=top) as work:
                own = [f"--run_dir={work}/run", f"--cache_dir={work}/cache"]
                run = measured(program("train", *arguments, *own), work)
                when, estimate = said(run)
                found = {
                    "seconds": run.seconds - when,
                    "memory": run.memory,
                    "disk": size_of(work),
                    "disk at most": run.disk,
                }
            print(f"{name}: {run.seconds:.0f} s in all, the estimate after {when:.0f} s")
            for what, value in estimate.items():
                unit, scale = ("s", 1) if what == "seconds" else ("MB", 2**20)
                ratio = value / found[what]
                worst = max(worst, ratio, 1 / ratio)
                print(
                    f"  {what:<14} said {value / scale:8.0f} {unit}, measured "
                    f"{found[what] / scale:8.0f} {unit}: {ratio:.2f}",
                    flush=True,
                )
    print(f"largest factor between said and measured: {worst:.2f} (claimed: {WITHIN})")


if __name__ == "__main__":
    sys.exit(Program(__doc__, main, FLAGS).run("estimates", sys.argv[1:], f"python {sys.argv[0]}"))
