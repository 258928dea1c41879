"""Searches an index, or the database of a run, by text, by image, or by one of its items.

    python scripts/search.py --index=indexes/photos --export_dir=savedmodels/NAME --text="a dog"

Also `dsprh search` where the package is installed; `--help` lists every flag.
"""

import _checkout  # noqa: F401 - the package, without an installation

from dsprh_tf.cli.program import start

if __name__ == "__main__":
    start("search")
