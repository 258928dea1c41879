"""Evaluates a classic baseline on the data, split and features of `dsprh train`.

    dsprh baseline --baseline=cca_itq --flagfile=coco.flags --data_dir=DATA
    dsprh baseline --baseline=lsh --shared_space --dataset=features --data_dir=clip.npz --bits=128
    dsprh baseline --baseline=sign --shared_space --dataset=features --data_dir=clip.npz --bits=512

lsh      signs of a random rotation: what hashing without training gives
cca_itq  canonical directions of the training pairs, rotated to fit their signs
float    cosine of the features that are not hashed: what hashing gives up
         (between the modalities in at most as many canonical dimensions as --bits)
sign     signs of embeddings that share a space (--shared_space), as they are: --bits is their
         width; for other lengths there is lsh, which rotates and centres them first

Images are the pretrained backbone's features, never fine-tuned; texts are bags of words. The
training pairs are those of `dsprh train` with the same flags, validation pairs left out, and
neither labels nor queries enter the fit. Flag files of `dsprh train` may be given: their training
flags are ignored. results.json, results.csv and curves.png go into the run folder;
the same command on a finished one prints them again.
"""

from __future__ import annotations

from absl import flags

from dsprh_tf.baseline_run import SETTINGS, BaselineRun
from dsprh_tf.cli.program import Program
from dsprh_tf.cli.settings import define_settings, given_settings
from dsprh_tf.evaluation.results import results_files
from dsprh_tf.methods.baselines import BASELINES

FLAGS = flags.FlagValues()
_BASELINE = flags.DEFINE_enum(
    "baseline", None, sorted(BASELINES), "Which baseline; see above.", flag_values=FLAGS
)
_SHARED_SPACE = flags.DEFINE_boolean(
    "shared_space",
    False,
    "Image and text features share a space already (CLIP): no CCA; cca_itq is then PCA + ITQ.",
    flag_values=FLAGS,
)
_RUN = define_settings(FLAGS)
GROUPS = {
    "baseline": ["baseline", "shared_space", "bits"],
    "data": [name for name in _RUN["data"] if name in SETTINGS],
    "features": ["backbone", "backbone_weights", "image_size", "resize", "precision"],
    "run": ["seed", "run_dir", "overwrite", "cache_dir"],
}


def main() -> None:
    """Evaluates, or reads what a finished run folder holds, and shows it."""
    if _BASELINE.value is None:
        raise ValueError(f"needs --baseline, one of {', '.join(sorted(BASELINES))}")
    given = {name: value for name, value in given_settings(FLAGS).items() if name in SETTINGS}
    run = BaselineRun(_BASELINE.value, shared_space=_SHARED_SPACE.value, **given)
    print(run.evaluate())
    print(f"results: {run.folder.path}/{', '.join(results_files())}")


_TRAINING = [name for names in _RUN.values() for name in names if name not in SETTINGS]

PROGRAM = Program(__doc__, main, FLAGS, GROUPS, hidden=_TRAINING)
