"""Trains a cross-modal hashing model and evaluates its test queries once at the end.

    dsprh train --flagfile=mir.flags
    dsprh train --flagfile=coco.flags --data_dir=DATA --bits=32
    dsprh train --dataset=pairs --data_dir=my_images/manifest.csv \\
        --backbone=MobileNetV2 --backbone_weights=imagenet --freeze_backbone

The same command on an unfinished run folder resumes after its last epoch. Settings that are not
given come from the method's recipes for every run, for a frozen backbone and for the data set; the
run prints which settings differ from the method's defaults and why, and records all of them.
"""

from __future__ import annotations

from absl import flags

from dsprh_tf.cli.program import Program
from dsprh_tf.cli.settings import define_settings, given_settings
from dsprh_tf.evaluation.results import results_files
from dsprh_tf.run import Run

FLAGS = flags.FlagValues()
GROUPS = define_settings(FLAGS)


def main() -> None:
    """Trains, evaluates, and says where everything is."""
    run = Run(**given_settings(FLAGS))
    run.train()
    if not run.is_chief:
        return
    print(run.evaluate())
    print(f"results: {run.folder.path}/{', '.join(results_files())}")
    folder = run.folder.path
    print(f"run folder: {folder}   (tensorboard --logdir {folder.parent})")


PROGRAM = Program(__doc__, main, FLAGS, GROUPS)
