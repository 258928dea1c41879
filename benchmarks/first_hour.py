"""What a newcomer's words find, and what it takes: some images with one caption each, no flags.

    python benchmarks/first_hour.py --data_dir=COCO --pairs=200,400,800,1600 --draws=3

For each number of pairs and each draw: draws images of a COCO folder with their first caption as a
manifest, and runs README's programs: `train manifest.csv` (all pairs train), `export`,
`encode` of the images that were not drawn, `index build`, and `search` for 14 words that people
type, some of them plurals, some rare. P@10 is the share of the first 10 images that have what a
word means by COCO's labels, 0 for a word that is not known; of the rarest there are fewer than 10
images, so "at best" says what P@10 could be. Time and memory are of each program as a process.
Prints a line for each draw as soon as it is known, then means and standard deviations over draws.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from absl import flags  # noqa: E402
from measured import measured, program, size_of  # noqa: E402
from own_images import captions, frozen, write_manifest  # noqa: E402

from dsprh_tf.cli.program import Program  # noqa: E402

FLAGS = flags.FlagValues()
_DATA_DIR = flags.DEFINE_string("data_dir", None, "COCO folder.", flag_values=FLAGS)
_PAIRS = flags.DEFINE_list("pairs", ["800"], "Numbers of images to train on.", flag_values=FLAGS)
_DRAWS = flags.DEFINE_integer("draws", 3, "Draws and trainings of each.", 1, flag_values=FLAGS)
_WORDS = flags.DEFINE_boolean("words", False, "Print each word's P@10, too.", flag_values=FLAGS)
_WEIGHTS = flags.DEFINE_string(
    "backbone_weights", None, "MobileNetV2's weights; default as `dsprh train`.", flag_values=FLAGS
)

# What is typed -> the label that it means.
WORDS = {
    "bus": "bus", "surfing": "surfboard", "skis": "skis", "tennis": "tennis racket",
    "horse": "horse", "pizza": "pizza", "train": "train", "elephant": "elephant", "dog": "dog",
    "cake": "cake", "buses": "bus", "trains": "train", "toilet": "toilet", "giraffe": "giraffe",
}  # fmt: skip
TOP = 10


def try_words(images: pd.DataFrame, pairs: int, seed: int, folder: Path) -> tuple[dict, dict]:
    """Numbers of one draw, and P@10 of each word."""
    order = np.random.default_rng(seed).permutation(len(images))
    write_manifest(images, order[:pairs], folder / "own.csv")
    write_manifest(images, order[pairs:], folder / "others.csv", ["image", "id"])
    exported, index = f"--export_dir={folder}/encoders", f"--index={folder}/index"
    train = measured(program(
        "train", folder / "own.csv", "--queries=0", f"--seed={seed}", f"--run_dir={folder}/run",
        f"--cache_dir={folder}/cache", *frozen(_WEIGHTS.value),
    ))  # fmt: skip
    disk = size_of(folder)
    export = measured(program("export", f"--run_dir={folder}/run", exported))
    codes = f"{folder}/codes"
    encode = measured(
        program("encode", exported, f"--images={folder}/others.csv", f"--out={codes}")
    )
    build = measured(program("index", "build", f"--codes={codes}", index))
    texts = [f"--text={word}" for word in WORDS]
    search = measured(program("search", index, exported, f"--top={TOP}", "--json", *texts))
    answers, _ = json.JSONDecoder().raw_decode(search.said[search.said.index("[\n") :])
    others = images.iloc[order[pairs:]]
    labels_of = dict(zip(others["image"], others["labels"]))
    found, best = {}, []
    for answer, (word, label) in zip(answers, WORDS.items()):
        has = [label in labels_of[result["path"]] for result in answer["results"]]
        found[word] = sum(has) / TOP
        best.append(min(TOP, sum(label in labels for labels in labels_of.values())) / TOP)
    rate = float(re.search(r"encoded .* s: ([\d.,]+) per second", encode.said)[1].replace(",", ""))
    row = {
        "P@10": np.mean(list(found.values())),
        "at best": np.mean(best),
        "known": np.mean(["problem" not in answer for answer in answers]),
        "words": int(re.search(r"; ([\d,]+) words", train.said)[1].replace(",", "")),
        "train min": train.seconds / 60,
        "train MB": train.memory / 2**20,
        "disk MB": disk / 2**20,
        "export s": export.seconds,
        "encode/s": rate,
        "encode s": encode.seconds,
        "encode MB": encode.memory / 2**20,
        "index s": build.seconds,
        "search s": search.seconds,
        "search MB": search.memory / 2**20,
    }
    return row, found


def as_text(row: dict) -> str:
    """Numbers in their columns."""
    return "".join(
        f"{_rounded(name, value):>{max(len(name), 6) + 2}}" for name, value in row.items()
    )


def _rounded(name: str, value: float) -> str:
    return f"{value:.3f}" if value <= 1 and "s" not in name.split() else f"{value:.1f}"


def main() -> None:
    """Prints the table."""
    images = captions(_DATA_DIR.value)
    rows: dict[int, list[dict]] = {}
    for pairs in map(int, _PAIRS.value):
        for seed in range(_DRAWS.value):
            with tempfile.TemporaryDirectory(prefix="dsprh_first_hour_") as folder:
                row, found = try_words(images, pairs, seed, Path(folder))
            if not rows:
                print("pairs draw" + "".join(f"{name:>{max(len(name), 6) + 2}}" for name in row))
            rows.setdefault(pairs, []).append(row)
            print(f"{pairs:5} {seed:4}{as_text(row)}", flush=True)
            if _WORDS.value:
                print(" ", ", ".join(f"{word} {share:.1f}" for word, share in found.items()))
    for pairs, draws in rows.items():
        table = pd.DataFrame(draws)
        print(f"{pairs:5} mean{as_text(table.mean().to_dict())}")
        if len(draws) > 1:
            print(f"{pairs:5}  +/-{as_text(table.std().to_dict())}")


if __name__ == "__main__":
    sys.exit(Program(__doc__, main, FLAGS).run("first_hour", sys.argv[1:], f"python {sys.argv[0]}"))
