"""Helpers of the data sets' tests: images, text files, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def refuses(message, load, *args, **keywords):
    with pytest.raises(ValueError, match=message) as error:
        load(*args, **keywords)
    assert "\n" not in str(error.value)
