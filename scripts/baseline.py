"""Evaluates a classic baseline on the data, split and features of a training run.

    python scripts/baseline.py --baseline=cca_itq --flagfile=coco.flags --data_dir=DATA

Also `dsprh baseline` where the package is installed; `--help` lists every flag.
"""

import _checkout  # noqa: F401 - the package, without an installation

from dsprh_tf.cli.program import start

if __name__ == "__main__":
    start("baseline")
