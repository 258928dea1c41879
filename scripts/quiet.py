"""TensorFlow, imported without the lines that it writes meanwhile."""

from __future__ import annotations

import os

import program  # noqa: F401 - makes the package importable, before TensorFlow

# TensorFlow 2.21 writes its first lines before it reads any setting: the import has no stderr.
_stderr = os.dup(2)
with open(os.devnull, "wb") as _nowhere:
    os.dup2(_nowhere.fileno(), 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(_stderr, 2)
        os.close(_stderr)
