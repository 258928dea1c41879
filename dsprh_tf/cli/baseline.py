"""Evaluates a classic reference on the same data, split and features as scripts/train.py.

    python scripts/reference.py --reference=cca_itq --flagfile=coco.flags --data_dir=DATA
    python scripts/reference.py --reference=lsh --shared_space --dataset=features \\
        --data_dir=clip.npz --bits=128

lsh      signs of a random rotation: what hashing without training gives
cca_itq  canonical directions of the training pairs, rotated to fit their signs
float    cosine of the un-hashed features: what hashing gives up
         (between the modalities in at most as many canonical dimensions as --bits)

Images are the pretrained backbone's features, never fine-tuned; texts are bags of words. The
training pairs are those of scripts/train.py with the same flags, validation pairs left out, and
neither labels nor queries enter the fit. Flag files of scripts/train.py may be given: what says
how to train is read and changes nothing. results.json, results.csv and curves.png go into the run
folder; the same command on a finished one prints them again.
"""

from __future__ import annotations

import common
import program
import train_flags

# isort: split
import numpy as np
from absl import flags

from dsprh_tf import evaluation, methods, run_folder
from dsprh_tf.methods import baselines

GROUPS = {
    "reference": ["reference", "shared_space", "bits"],
    "data": [name for name in train_flags.GROUPS["data"] if name != "on_missing_labels"],
    "features": ["backbone", "backbone_weights", "image_size", "resize", "precision"],
    "run": ["seed", "run_dir", "overwrite", "cache_dir"],
}

if __name__ == "__main__":
    flags.DEFINE_enum("reference", None, sorted(baselines.REFERENCES), "See above.")
    flags.DEFINE_boolean(
        "shared_space",
        False,
        "Image and text features share a space already (CLIP): no CCA; cca_itq is then PCA + ITQ.",
    )


def is_finished(folder: run_folder.RunFolder, settings: dict) -> bool:
    """Whether the folder holds results of these settings.

    Raises:
        ValueError: it holds results of other settings, or of another version.
    """
    if settings["overwrite"] or not (folder / "results.json").exists():
        return False
    evaluation.read_results(folder / "results.json")
    old = folder.settings()
    # Where data and cache lie does not count, which weights does: nothing else would tell here.
    names = [n for n in settings if n not in run_folder.NEUTRAL - {"backbone_weights"}]
    changed = [f"--{n}: was {old.get(n)}" for n in names if old.get(n) != settings[n]]
    if changed:
        raise ValueError(
            f"{folder.path} holds results of other flags ({', '.join(changed)}): give another "
            "--run_dir, or --overwrite to replace them"
        )
    return True


def evaluate_reference(run: common.Run, name: str, shared_space: bool) -> None:
    """Fits the reference on the training pairs and writes the results of the queries."""
    s, split = run.settings, run.split
    if run.dataset.labels is None:
        raise ValueError(f"{s.dataset} data has no labels: they say which results are relevant")
    parts = {part: getattr(split, part) for part in ("train", "query", "database")}
    images = run.image_features(np.concatenate(list(parts.values())))
    pairs = {part: (images[rows], run.source.text_features(rows)) for part, rows in parts.items()}
    reference = baselines.fit(name, *pairs["train"], s.bits, s.seed, shared_space)
    results = evaluation.evaluate_directions(
        *(reference.encoded(*pairs[p], run.dataset.labels[parts[p]]) for p in ("query", "database"))
    )
    record = evaluation.results_record(name, s.bits, s.dataset, s.seed, results)
    evaluation.write_results(run.folder.path, record)


def main() -> None:
    name, shared_space = flags.FLAGS.reference, flags.FLAGS.shared_space
    if name is None:
        raise ValueError(f"needs --reference, one of {', '.join(sorted(baselines.REFERENCES))}")
    settings = train_flags.settings()
    # Whatever method a flag file is for: a reference takes all pairs and needs no labels to fit.
    settings["method"] = methods.PAPER
    default = "runs/{}-{dataset}-{bits}-{seed}".format(name, **settings)
    settings["run_dir"] = settings["run_dir"] or default
    relevant = {n: settings[n] for names in GROUPS.values() for n in names if n in settings}
    relevant.update(reference=name, shared_space=shared_space)
    folder = run_folder.RunFolder(settings["run_dir"])
    if not is_finished(folder, relevant):
        folder.open(relevant, settings["overwrite"])
        evaluate_reference(common.Run(settings, folder), name, shared_space)
    print(evaluation.format_table(evaluation.read_results(folder / "results.json")))
    print(f"results: {folder.path}/results.json, results.csv, curves.png")


if __name__ == "__main__":
    program.run(main, GROUPS)
