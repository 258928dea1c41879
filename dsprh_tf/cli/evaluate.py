"""Evaluates a trained run on its test queries, in all directions.

    dsprh evaluate --run_dir=runs/dsprh-coco-64-0

Prints the table and writes results.json, results.csv and curves.png into the run folder; with
--ties=average results-average.json and so on beside them, which no report reads.
"""

from __future__ import annotations

from absl import flags

from dsprh_tf.cli.program import Program
from dsprh_tf.cli.settings import define_run, load_run
from dsprh_tf.evaluation.results import results_files

FLAGS = flags.FlagValues()
define_run(FLAGS)
_TIES = flags.DEFINE_enum(
    "ties",
    "stable",
    ["stable", "average"],
    "Tied distances: database order, or expectation.",
    flag_values=FLAGS,
)


def main() -> None:
    """Evaluates, and says where the results are."""
    run = load_run(FLAGS)
    print(run.evaluate(_TIES.value))
    print(f"results: {run.folder.path}/{', '.join(results_files(_TIES.value))}")


PROGRAM = Program(__doc__, main, FLAGS)
