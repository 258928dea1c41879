"""Cross-modal hashing in TensorFlow: images and texts as short binary codes.

    import dsprh_tf
    run = dsprh_tf.Run("runs/mine", method="dsprh_plus", dataset="pairs", data_dir="manifest.csv")
    run.train()

`Run`, `METHODS`, `Encoder` and `HammingIndex` are loaded when they are first asked for; everything
else is imported from its module (`from dsprh_tf import metrics`).
"""

from __future__ import annotations

import importlib
import os

# Must be set before TensorFlow is imported for the first time; a value set by the user wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# A program takes of a GPU what it needs, and leaves the rest to others.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

__version__ = "0.1.0"
__all__ = ["METHODS", "Encoder", "HammingIndex", "Run", "__version__"]

_HOMES = {
    "Run": "dsprh_tf.run",
    "METHODS": "dsprh_tf.methods",
    "Encoder": "dsprh_tf.serving.encoder",
    "HammingIndex": "dsprh_tf.index.hamming",
}


def __getattr__(name: str):
    """Loads a public name."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return sorted([*globals(), *_HOMES])
