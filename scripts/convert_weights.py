"""Converts PyTorch weights, without PyTorch and without running pickled code.

    python scripts/convert_weights.py --input=alexnet.pth --output=weights/alexnet.npz

Also `dsprh convert_weights` where the package is installed; `--help` lists every flag.
"""

import _checkout  # noqa: F401 - the package, without an installation

from dsprh_tf.cli.program import start

if __name__ == "__main__":
    start("convert_weights")
