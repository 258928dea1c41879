"""Exports both encoders of a run as SavedModels for TensorFlow Serving.

    python scripts/export.py --run_dir=runs/NAME --export_dir=savedmodels/NAME

Also `dsprh export` where the package is installed; `--help` lists every flag.
"""

import _checkout  # noqa: F401 - the package, without an installation

from dsprh_tf.cli.program import start

if __name__ == "__main__":
    start("export")
