"""Evaluates a trained run on its test queries, in all directions.

    dsprh evaluate --run_dir=runs/dsprh-coco-64-0

Prints the table and writes results.json, results.csv and curves.png into the run folder; with
--ties=average results-average.json and so on beside them, which no report reads.
"""

from __future__ import annotations

from absl import flags

from dsprh_tf.cli.program import Program
from dsprh_tf.evaluation.results import results_files
from dsprh_tf.run import Run

FLAGS = flags.FlagValues()
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Run folder of `dsprh train`.", flag_values=FLAGS)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where the data lies now, if it was moved.", flag_values=FLAGS
)
_WEIGHTS = flags.DEFINE_string(
    "backbone_weights", None, "Likewise for the backbone's weights.", flag_values=FLAGS
)
_TIES = flags.DEFINE_enum(
    "ties",
    "stable",
    ["stable", "average"],
    "Tied distances: database order, or expectation.",
    flag_values=FLAGS,
)


def main() -> None:
    """Evaluates, and says where the results are."""
    if not _RUN_DIR.value:
        raise ValueError("needs --run_dir=FOLDER, a run folder of `dsprh train`")
    run = Run.load(_RUN_DIR.value, _DATA_DIR.value, _WEIGHTS.value)
    print(run.evaluate(_TIES.value))
    print(f"results: {run.folder.path}/{', '.join(results_files(_TIES.value))}")


PROGRAM = Program(__doc__, main, FLAGS)
