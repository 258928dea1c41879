"""Cross-modal hashing in TensorFlow: pictures and words as short binary codes.

Importing the package only keeps TensorFlow's start-up log off the screen; import the module
that you need (`from dsprh_tf import metrics`).
"""

import os

# Must be set before TensorFlow is imported for the first time; a value set by the user wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.1.0"
