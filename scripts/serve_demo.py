"""Serves a web page that searches an index.

    python scripts/serve_demo.py --index=indexes/photos --export_dir=savedmodels/NAME

Also `dsprh serve_demo` where the package is installed; `--help` lists every flag.
"""

import _checkout  # noqa: F401 - the package, without an installation

from dsprh_tf.cli.program import start

if __name__ == "__main__":
    start("serve_demo")
