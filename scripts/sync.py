"""Brings an index up to date with a folder of images.

    python scripts/sync.py photos --index=indexes/photos --export_dir=savedmodels/NAME

Also `dsprh sync` where the package is installed; `--help` lists every flag.
"""

import _checkout  # noqa: F401 - the package, without an installation

from dsprh_tf.cli.program import start

if __name__ == "__main__":
    start("sync")
