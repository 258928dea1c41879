"""Trains all trials of tables and figures of the DSPRH paper, and writes reports.

    python scripts/reproduce.py --experiment=table2 --flagfile=mir.flags

Also `dsprh reproduce` where the package is installed; `--help` lists every flag.
"""

import _checkout  # noqa: F401 - the package, without an installation

from dsprh_tf.cli.program import start

if __name__ == "__main__":
    start("reproduce")
