"""Builds and changes an index of codes.

    python scripts/index.py build --codes=codes/photos --index=indexes/photos

Also `dsprh index` where the package is installed; `--help` lists every flag.
"""

import _checkout  # noqa: F401 - the package, without an installation

from dsprh_tf.cli.program import start

if __name__ == "__main__":
    start("index")
