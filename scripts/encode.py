"""Encodes a folder of images, the rows of a manifest, or vectors, with an exported encoder.

    python scripts/encode.py --export_dir=savedmodels/NAME --images=photos --out=codes/photos

Also `dsprh encode` where the package is installed; `--help` lists every flag.
"""

import _checkout  # noqa: F401 - the package, without an installation

from dsprh_tf.cli.program import start

if __name__ == "__main__":
    start("encode")
