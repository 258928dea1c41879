"""Values of a picture in an address: a byte for each bit, as base64 that an address can hold.

An address has to stand for its results on its own, so the values of an uploaded picture travel in
it. 127 steps are far finer than what ranking can tell apart, and none of them is 0: the signs, and
so the code, stay what they were.
"""

from __future__ import annotations

import base64
import re

import numpy as np

_STEPS = 127


def as_text(values: np.ndarray) -> str:
    """Values float [bits] from -1 to 1 as text of 4 characters for 3 bits."""
    steps = np.clip(np.rint(np.abs(values) * _STEPS), 1, _STEPS)
    signed = np.where(values >= 0, steps, -steps).astype(np.int8)
    return base64.urlsafe_b64encode(signed.tobytes()).decode().rstrip("=")


def from_text(text: str, bits: int) -> np.ndarray:
    """The values of `as_text`, float32 [bits], but for rounding.

    Raises:
        ValueError: the text is something else, or of another number of bits.
    """
    length = -(-bits * 4 // 3)
    if not re.fullmatch(rf"[A-Za-z0-9_-]{{{length}}}", text):
        raise ValueError(
            f"values are {text[:64]!r}, expected {length} characters of the base64 of addresses"
        )
    content = base64.urlsafe_b64decode(text + "=" * (-length % 4))
    return np.frombuffer(content, np.int8).astype(np.float32) / _STEPS
