"""What a newcomer's words find: some images with one caption each, no flags, single-word queries.

    python benchmarks/first_hour.py --data_dir=COCO --pairs=800 --seeds=0,1,2

Draws `pairs` images of a COCO folder with their first caption as a manifest, trains as
`dsprh train manifest.csv` does, and searches the images that it did not see for 14 words that
people type, some of them plurals, some rare. Prints for each word the share of the first 10 images
that have it by COCO's labels, 0 for a word that is not known, and the mean.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from absl import flags  # noqa: E402

from dsprh_tf import Run  # noqa: E402
from dsprh_tf.cli.program import Program  # noqa: E402
from dsprh_tf.codes import pack  # noqa: E402
from dsprh_tf.data.coco import load_coco  # noqa: E402
from dsprh_tf.evaluation.encode_pairs import PairEncoder  # noqa: E402
from dsprh_tf.index.hamming import HammingIndex  # noqa: E402

FLAGS = flags.FlagValues()
_DATA_DIR = flags.DEFINE_string("data_dir", None, "COCO folder.", flag_values=FLAGS)
_PAIRS = flags.DEFINE_integer("pairs", 800, "Images to train on.", 20, flag_values=FLAGS)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Draws and trainings.", flag_values=FLAGS)
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
_TEST = 100  # of the images that are not seen, those that the run itself evaluates


def write_manifest(coco, order: np.ndarray, path: Path) -> None:
    """The first caption of each image, those of the training pairs first in `order`."""
    texts = coco.texts if coco.text_lists is None else [texts[0] for texts in coco.text_lists]
    rest = len(order) - _PAIRS.value - _TEST
    splits = ["train"] * _PAIRS.value + ["query"] * _TEST + ["database"] * rest
    rows = [
        {"image": coco.image_paths[i], "text": texts[i], "split": split, "id": coco.ids[i]}
        for i, split in zip(order, splits)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)


def precisions(coco, seed: int, folder: Path) -> dict[str, float]:
    """P@10 of each word for one draw."""
    write_manifest(coco, np.random.default_rng(seed).permutation(len(coco)), folder / "own.csv")
    weights = {}
    if _WEIGHTS.value:
        weights = {
            "backbone": "MobileNetV2", "backbone_weights": _WEIGHTS.value, "freeze_backbone": True,
        }  # fmt: skip
    run = Run(
        folder / f"run{seed}", data_dir=folder / "own.csv", seed=seed,
        cache_dir=folder / "cache", **weights,
    )  # fmt: skip
    run.train()
    model, data = run.restore(), run.data
    unseen = np.setdiff1d(np.concatenate([run.split.query, run.split.database]), run.split.train)
    data.source.cache = data.cache(model.image_network.reads)
    data.source.cache.ensure(unseen)
    found = PairEncoder(model, data.source)(unseen, "encoding images")
    index = HammingIndex(run.settings.bits)
    index.add(found.image_codes)
    known = data.words.known(list(WORDS))
    codes = pack(np.asarray(model.encode_text(data.words(list(WORDS)))))
    labels = pd.DataFrame(coco.labels, index=coco.ids, columns=list(coco.label_names))
    labels = labels.loc[data.dataset.ids[unseen]]
    rows = index.search(codes, k=TOP).ids
    return {
        word: float(labels[label].to_numpy()[row].mean()) if is_known else 0.0
        for (word, label), row, is_known in zip(WORDS.items(), rows, known)
    }


def main() -> None:
    if not _DATA_DIR.value:
        raise ValueError("needs --data_dir=FOLDER with COCO's images and captions")
    coco = load_coco(_DATA_DIR.value)
    with tempfile.TemporaryDirectory(prefix="dsprh_first_hour_") as folder:
        table = pd.DataFrame(
            {f"seed {seed}": precisions(coco, int(seed), Path(folder)) for seed in _SEEDS.value}
        )
    table.loc["mean"] = table.mean()
    print(table.round(3).to_string())
    means = table.loc["mean"]
    spread = f" ± {means.std():.3f}" if len(means) > 1 else ""
    print(f"mean P@{TOP} of {len(WORDS)} words: {means.mean():.3f}{spread} over {len(means)} draws")


if __name__ == "__main__":
    sys.exit(Program(__doc__, main, FLAGS).run("first_hour", sys.argv[1:], f"python {sys.argv[0]}"))
