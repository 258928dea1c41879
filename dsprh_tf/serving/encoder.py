"""Client of exported encoders."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import tensorflow as tf

from dsprh_tf.data.files import read_json
from dsprh_tf.data.text import STOP_WORDS
from dsprh_tf.serving.suggestions import describe, suggestions

KINDS = ("image", "text")
# Files of an exported version, below EXTRA.
INFO = "encoder.json"
WORDS = "vocabulary.json"
EXTRA = "assets.extra"

_SUGGESTED = 5  # unknown words of a text: each costs a comparison with the whole vocabulary


class Encoder:
    """Exported encoder: image files or texts to packed codes.

    Attributes:
        bits: length of a code.
        version: the version in use, the highest one.
        info: content of the export's `encoder.json`; two encoders belong together if their
            `fingerprint` is the same.
        vocabulary: the words that a text encoder knows; () for others, and for exports that were
            written before it was part of them.

    Args:
        export_dir: folder written by `export_encoders`.
        kind: "image" or "text".

    Raises:
        ValueError: there is no such encoder under `export_dir`.
    """

    def __init__(self, export_dir, kind: str):
        if kind not in KINDS:
            raise ValueError(f"kind must be 'image' or 'text', received {kind!r}")
        folder = Path(export_dir) / f"{kind}_encoder"
        found = versions(folder)
        if not found:
            raise ValueError(
                f"no exported {kind} encoder in {folder}: write one with `dsprh export`"
            )
        self.kind, self.version = kind, found[-1]
        path = folder / str(self.version)
        try:
            self.info = json.loads((path / EXTRA / INFO).read_text(encoding="utf-8"))
            self.bits = int(self.info["bits"])
            self._model = tf.saved_model.load(str(path))
            self._encode = self._model.signatures["serving_default"]
        except (OSError, ValueError, KeyError, TypeError, tf.errors.OpError) as error:
            raise ValueError(
                f"{path} is not a complete export ({type(error).__name__}): "
                "write it again with `dsprh export`"
            ) from error
        self._input = next(iter(self._encode.structured_input_signature[1]))
        words = path / EXTRA / WORDS
        fix = "write the export again with `dsprh export`"
        self.vocabulary = tuple(read_json(words, fix)["vocabulary"]) if words.exists() else ()
        self._near = suggestions(self.vocabulary)

    def encode(self, items, batch_size: int = 32) -> np.ndarray:
        """Packed codes of images, texts or features.

        Args:
            items: list of encoded image files (bytes), list of texts (str), or float32 [n, size]
                for an export of a features model.
            batch_size: items per step.

        Returns:
            uint8 [n, bits / 8].

        Raises:
            ValueError: an item is of the wrong type or cannot be decoded; says which.
        """
        items = self._checked(items)
        parts = [np.zeros([0, self.bits // 8], np.uint8)]
        for start in range(0, len(items), batch_size):
            batch = items[start : start + batch_size]
            try:
                parts.append(self._run(batch))
            except tf.errors.InvalidArgumentError:
                for row in range(len(batch)):
                    self._run_one(batch[row : row + 1], start + row)
                raise
        return np.concatenate(parts)

    def known_words(self, texts) -> np.ndarray:
        """Number of different words of each text that are in the vocabulary, int32 [n].

        Args:
            texts: list of str.

        Raises:
            ValueError: this encoder has no vocabulary.
        """
        if self._input != "text":
            raise ValueError(f"the {self.kind} encoder takes {self._input} and has no vocabulary")
        text = tf.constant(self._checked(texts), tf.string)
        return self._model.signatures["known_words"](text=text)["count"].numpy()

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """Words of a text that are not in the vocabulary, each with up to 3 that look like it.

        English function words count only where no word at all is known. Only the first 5 unknown
        words are compared with the vocabulary, and what was found for a word is remembered.

        Args:
            text: str.

        Raises:
            ValueError: as `known_words`.
        """
        words = list(dict.fromkeys(text.split()))
        unknown = [w for w, known in zip(words, self.known_words(words)) if not known]
        plain = {w: w.lower().strip(string.punctuation) for w in unknown}
        telling = [w for w in unknown if plain[w] not in STOP_WORDS]
        unknown = telling if telling or len(unknown) < len(words) else unknown
        near = {w: list(self._near(plain[w])) for w in unknown[:_SUGGESTED]}
        return {w: near.get(w, []) for w in unknown}

    def check_words(self, texts) -> None:
        """Refuses a text without a known word: its code would be the same for any such text.

        Args:
            texts: list of str.

        Raises:
            ValueError: there is one; names its words, and known ones that look like them.
        """
        for text, known in zip(texts, self.known_words(texts)):
            if not known:
                raise ValueError(
                    f"{text!r} has no word of the vocabulary of "
                    f"{self.info['vocabulary_size']:,} words; {describe(self.unknown_words(text))}"
                )

    def _checked(self, items):
        if self._input == "features":
            size = self._encode.structured_input_signature[1]["features"].shape[1]
            features = np.asarray(items, np.float32)
            if features.ndim != 2 or features.shape[1] != size:
                raise ValueError(
                    f"the {self.kind} encoder takes features [n, {size}], "
                    f"received shape {list(features.shape)}"
                )
            return features
        wanted = bytes if self._input == "image_bytes" else str
        items = [items] if isinstance(items, (bytes, str)) else list(items)
        for row, item in enumerate(items):
            if not isinstance(item, wanted):
                raise ValueError(
                    f"the {self.kind} encoder takes {wanted.__name__}, "
                    f"item {row} is {type(item).__name__}"
                )
        return items

    def _run(self, batch) -> np.ndarray:
        return self._encode(**{self._input: tf.constant(batch)})["code"].numpy()

    def _run_one(self, batch, row: int) -> None:
        try:
            self._run(batch)
        except tf.errors.InvalidArgumentError as error:
            # The reason stands between the stack and the node that failed.
            reason = error.message.split("[[{{node")[0].strip().splitlines()[-1]
            raise ValueError(f"item {row} cannot be encoded: {reason}") from error


def load_encoder(export_dir, kind: str) -> Encoder:
    """Exported encoder of images or texts, as a search needs it.

    Args:
        export_dir: folder written by `export_encoders`.
        kind: "image" or "text".

    Raises:
        ValueError: no folder was given, there is no such encoder, or it takes precomputed features.
    """
    if not export_dir:
        raise ValueError("needs --export_dir=FOLDER, written by `dsprh export`")
    encoder = Encoder(export_dir, kind)
    if encoder.info["image_size" if kind == "image" else "vocabulary_size"] is None:
        raise ValueError(
            f"the {kind} encoder in {export_dir} takes precomputed features, not {kind}s: export a "
            "run on images and texts"
        )
    return encoder


def versions(folder: Path) -> list[int]:
    """Published versions, ascending, as TensorFlow Serving sees them."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal() and p.is_dir())
