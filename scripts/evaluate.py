"""Evaluates a trained run on its test queries, in all directions.

    python scripts/evaluate.py --run_dir=runs/NAME

Also `dsprh evaluate` where the package is installed; `--help` lists every flag.
"""

import _checkout  # noqa: F401 - the package, without an installation

from dsprh_tf.cli.program import start

if __name__ == "__main__":
    start("evaluate")
