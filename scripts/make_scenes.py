"""Draws the data set of the demo.

    python scripts/make_scenes.py --out=data/scenes --count=2000

Also `dsprh make_scenes` where the package is installed; `--help` lists every flag.
"""

import _checkout  # noqa: F401 - the package, without an installation

from dsprh_tf.cli.program import start

if __name__ == "__main__":
    start("make_scenes")
