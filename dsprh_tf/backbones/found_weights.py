"""ImageNet weights of the backbone that runs on one's own images have by default."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import socket
from pathlib import Path

import keras

DEFAULT_BACKBONE = "MobileNetV2"
_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
_ADDRESS = f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/{_FILE}"
_PATTERN = "mobilenet_v2*_1.0_224_no_top.h5"
_PATIENCE = 10  # seconds that a server may be silent


@functools.lru_cache(1)
def default_weights() -> str | None:
    """Where the weights of `DEFAULT_BACKBONE` are: a file, or "imagenet" for Keras' own folder.

    Looked for in this order: a file `mobilenet_v2*_1.0_224_no_top.h5` in `weights` of the folder
    that `DSPRH_HOME` names; Keras' folder; Keras' server, which is asked once per process.

    Returns:
        A value of the setting `backbone_weights`, or None where they cannot be had.
    """
    home = os.environ.get("DSPRH_HOME")
    found = sorted(Path(home, "weights").glob(_PATTERN)) if home else []
    if found:
        return str(found[0])
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # a bar of Keras, also for no download
            keras.utils.get_file(_FILE, _ADDRESS, cache_subdir="models")
    except Exception:  # no network, no disk, a damaged file: Keras raises plain exceptions
        return None
    finally:
        socket.setdefaulttimeout(before)
    return "imagenet"
