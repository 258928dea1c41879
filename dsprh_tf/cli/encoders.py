"""The exported encoders that several programs load."""

from __future__ import annotations

import sys
from pathlib import Path

import quiet  # noqa: F401 - TensorFlow without its first lines

# isort: split
import numpy as np

from dsprh_tf.index.encode_collection import encode_picture
from dsprh_tf.index.location import check_encoders
from dsprh_tf.serving.encoder import Encoder
from dsprh_tf.serving.suggestions import describe


def load_encoder(export_dir: str | None, kind: str) -> Encoder:
    """An exported encoder of pictures or of words.

    Raises:
        ValueError: there is none, or it takes precomputed features.
    """
    if not export_dir:
        raise ValueError("needs --export_dir=FOLDER, written by scripts/export.py")
    encoder = Encoder(export_dir, kind)
    needed = "image_size" if kind == "image" else "vocabulary_size"
    if encoder.info[needed] is None:
        raise ValueError(
            f"the {kind} encoder in {export_dir} takes precomputed features, not "
            f"{'pictures' if kind == 'image' else 'words'}: export a run on pictures and words"
        )
    return encoder


def encode_queries(export_dir: str | None, index, kind: str, queries: list[str]) -> np.ndarray:
    """Codes of words or picture files that an index is asked about, uint8 [n, bits / 8].

    Words that are unknown beside known ones are noted on stderr.

    Args:
        export_dir: the encoders that the index was built with.
        index: the index.
        kind: "text" or "image".
        queries: texts, or paths.

    Raises:
        ValueError: other encoders, a text without a known word, or a broken picture.
    """
    encoder = load_encoder(export_dir, kind)
    name = f"the {kind} encoder in {export_dir}"
    check_encoders(name, index, encoder.bits, encoder.info["fingerprint"])
    if kind == "image":
        return np.concatenate([_picture_code(encoder, path) for path in queries])
    encoder.check_words(queries)
    for text in queries:
        if unknown := encoder.unknown_words(text):
            print(f"note: {text!r}: {describe(unknown)}", file=sys.stderr)
    return encoder.encode(queries)


def _picture_code(encoder: Encoder, path: str) -> np.ndarray:
    name = f"image {path}"
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(
            f"{name} cannot be read ({error.strerror}); choose another picture"
        ) from error
    return encode_picture(encoder, content, name)
