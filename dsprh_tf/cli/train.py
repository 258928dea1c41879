"""Trains a cross-modal hashing model and evaluates its test queries once at the end.

    dsprh train my_images/manifest.csv
    dsprh train --flagfile=mir.flags
    dsprh train --flagfile=coco.flags --data_dir=DATA --bits=32

Your own images need no flags: DSPRH+ on a MobileNetV2 with ImageNet weights, which stays as it is;
a tenth of the pairs are test queries. The same command on an unfinished run folder resumes.
Settings that are not given come from the method's recipes for every run, for a frozen backbone and
for the data set; the run prints which settings differ from the method's defaults and why, and
records all of them. Values in brackets are those that a run has with the flags given beside --help,
such as `dsprh train --method=sdeh --help`.
"""

from __future__ import annotations

from absl import flags

from dsprh_tf.cli.program import Program
from dsprh_tf.cli.settings import define_settings, given_settings, settings_help
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
    folder = run.folder.path
    if len(run.split.query):
        print(run.evaluate())
        print(f"results: {folder}/{', '.join(results_files())}")
    else:
        print("results: none, all pairs were trained on (--queries)")
    print(f"run folder: {folder}   (tensorboard --logdir {folder.parent})")
    print(f"next: dsprh export --run_dir={folder} --export_dir=savedmodels/{folder.name}")


PROGRAM = Program(
    __doc__, main, FLAGS, GROUPS, positional="data_dir", about=lambda: settings_help(FLAGS)
)
