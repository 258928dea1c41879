"""Trains a cross-modal hashing model and evaluates its test queries once at the end.

    python scripts/train.py --flagfile=mir.flags

Also `dsprh train` where the package is installed; `--help` lists every flag.
"""

import _checkout  # noqa: F401 - the package, without an installation

from dsprh_tf.cli.program import start

if __name__ == "__main__":
    start("train")
