"""Client of exported encoders."""

from __future__ import annotations

import os
import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from dsprh_tf import codes
from dsprh_tf.data.files import file_sha256, read_json, require_regular
from dsprh_tf.data.text import RULES, STANDARDIZE, STOP_WORDS, as_strings, split_words
from dsprh_tf.serving.suggestions import describe, suggestions

KINDS = ("image", "text")
# Files of an exported version, below EXTRA.
INFO = "encoder.json"
WORDS = "vocabulary.json"
EXTRA = "assets.extra"
_AGAIN = "write the export again with `dsprh export`"

_SHOWN, _SHOWN_TEXT = 5, 60  # texts that an error names, and their characters
_CHECKED = 512  # texts at once: each takes the whole vocabulary in memory
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
        width: length of the vectors that an encoder of features takes; None for others.
        has_values: whether it gives the hash values before the sign as well, as every export of
            this program does.

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
        self.info = _read_info(path)
        self.bits = self.info["bits"]
        _check_files(path, self.info.get("files", {}))
        try:
            self._model = tf.saved_model.load(str(path))
            self._encode = self._model.signatures["serving_default"]
            self._input = next(iter(self._encode.structured_input_signature[1]))
            outputs = self._encode.structured_outputs
            width = outputs["code"].shape[-1]
            self.has_values = "hash" in outputs
        except Exception as error:  # TensorFlow raises many kinds, some without words
            raise ValueError(
                f"{path} is not a complete export ({type(error).__name__}): {_AGAIN}"
            ) from error
        if width not in (None, self.bits // 8):
            raise ValueError(f"{path} makes codes of {8 * width} bits, not {self.bits}: {_AGAIN}")
        takes = self._encode.structured_input_signature[1][self._input]
        self.width: int | None = takes.shape[1] if self._input == "features" else None
        self.vocabulary, self._rule = _read_words(path / EXTRA / WORDS)
        self._near = suggestions(self.vocabulary)

    def encode(self, items, batch_size: int = 32, unknown: str = "error") -> np.ndarray:
        """Packed codes of images, texts or features.

        Args:
            items: list of encoded image files (bytes), list of texts (str), or float32 [n, size]
                for an export of a features model.
            batch_size: items per step.
            unknown: what becomes of a text without a known word: "error" refuses it, "allow" gives
                it the code that all such texts share, which is near nothing that was asked for.

        Returns:
            uint8 [n, bits / 8].

        Raises:
            ValueError: an item is of the wrong type or cannot be decoded, a vector is not finite,
                or a text has no known word; says which.
        """
        empty = np.zeros([0, self.bits // 8], np.uint8)
        return np.concatenate([empty, *self._outputs("code", items, batch_size, unknown)])

    def encode_values(self, items, batch_size: int = 32, unknown: str = "error") -> np.ndarray:
        """Real values of images, texts or features, to search by (`codes.soften`).

        Their signs are the code: `codes.pack(values)` is what `encode` gives. Of an export that
        gives codes alone (`has_values`), the values are -1 and +1, which rank as the code does.

        Args:
            items: as for `encode`.
            batch_size: items per step.
            unknown: as for `encode`.

        Returns:
            float32 [n, bits] from -1 to 1.

        Raises:
            ValueError: as `encode`, or the encoder's hash values are not finite.
        """
        if not self.has_values:
            return codes.unpack(self.encode(items, batch_size, unknown)).astype(np.float32)
        empty = np.zeros([0, self.bits], np.float32)
        found = self._outputs("hash", items, batch_size, unknown)
        return codes.soften(np.concatenate([empty, *found]))

    def _outputs(self, name: str, items, batch_size: int, unknown: str) -> Iterator[np.ndarray]:
        """One output of the encoder, a batch at a time; see `encode`."""
        if unknown not in ("error", "allow"):
            raise ValueError(f"unknown is {unknown!r}, expected 'error' or 'allow'")
        items = self._checked(items)
        if unknown == "error" and self._input == "text":
            self._refuse_unknown(items)
        for start in range(0, len(items), batch_size):
            batch = items[start : start + batch_size]
            try:
                found = self._run(batch, name)
            except tf.errors.InvalidArgumentError:
                for row in range(len(batch)):
                    self._run_one(batch[row : row + 1], start + row)
                raise
            yield found

    def known_words(self, texts) -> np.ndarray:
        """Number of different words of each text that are in the vocabulary, int32 [n].

        Args:
            texts: list of str.

        Raises:
            ValueError: this encoder has no vocabulary.
        """
        if self._input != "text":
            raise ValueError(f"the {self.kind} encoder takes {self._input} and has no vocabulary")
        text = as_strings(self._checked(texts))
        return self._model.signatures["known_words"](text=text)["count"].numpy()

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """Words of a text that are not in the vocabulary, each with up to 3 that look like it.

        They are split as the encoder splits them, so that each is one that it could know.
        English function words count only where no word at all is known. Only the first 5 unknown
        words are compared with the vocabulary, and what was found for a word is remembered.

        Args:
            text: str.

        Raises:
            ValueError: as `known_words`.
        """
        plain = self._split(text)
        words = list(plain)
        unknown = [w for w, known in zip(words, self.known_words(words)) if not known]
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

    def _refuse_unknown(self, texts: list[str]) -> None:
        """Raises a `ValueError` that names the texts without a known word, if there are any."""
        rows: list[int] = []
        for start in range(0, len(texts), _CHECKED):
            known = self.known_words(texts[start : start + _CHECKED])
            rows += (start + np.flatnonzero(known == 0)).tolist()
        if not rows:
            return
        named = [f"{texts[row][:_SHOWN_TEXT]!r} (item {row})" for row in rows[:_SHOWN]]
        more = f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
        has = "has" if len(rows) == 1 else "have"
        raise ValueError(
            f"{', '.join(named)}{more} {has} no word of the vocabulary of "
            f"{self.info['vocabulary_size']:,} words "
            f"({describe(self.unknown_words(texts[rows[0]]))}): give other words or leave such "
            "texts out; unknown='allow' gives all of them the same code"
        )

    def _split(self, text: str) -> dict[str, str]:
        """Words of a text -> the same as a vocabulary has them."""
        if self._rule in RULES:
            return {word: word for word in split_words([text], self._rule)[0]}
        # Exports of earlier versions, whose graphs remove the punctuation.
        return {word: word.lower().strip(string.punctuation) for word in text.split()}

    def _checked(self, items):
        if self._input == "features":
            with np.errstate(over="ignore"):
                features = np.asarray(items, np.float32)
            if features.ndim != 2 or features.shape[1] != self.width:
                raise ValueError(
                    f"the {self.kind} encoder takes features [n, {self.width}], "
                    f"received shape {list(features.shape)}"
                )
            finite = np.isfinite(features).all(axis=1)
            if not finite.all():
                raise ValueError(
                    f"row {int(np.argmin(finite))} (counted from 0) of the features holds NaN, "
                    "infinity or a number beyond float32; drop or repair it"
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

    def _run(self, batch, name: str = "code") -> np.ndarray:
        batch = as_strings(batch) if self._input == "text" else tf.constant(batch)
        return self._encode(**{self._input: batch})[name].numpy()

    def _run_one(self, batch, row: int) -> None:
        try:
            self._run(batch)
        except tf.errors.InvalidArgumentError as error:
            # The reason stands between the stack and the node that failed.
            reason = error.message.split("[[{{node")[0].strip().splitlines()[-1]
            raise ValueError(f"item {row} cannot be encoded: {reason}") from error


def load_encoder(export_dir, kind: str, vectors: bool = False) -> Encoder:
    """Exported encoder of images or texts, or of their vectors, as a search needs it.

    Args:
        export_dir: folder written by `export_encoders`.
        kind: "image" or "text".
        vectors: whether it is to take precomputed features instead of images and texts.

    Raises:
        ValueError: no folder was given, there is no such encoder, or it takes something else.
    """
    if not export_dir:
        raise ValueError("needs --export_dir=FOLDER, written by `dsprh export`")
    encoder = Encoder(export_dir, kind)
    if vectors and encoder.width is None:
        raise ValueError(
            f"the {kind} encoder in {export_dir} takes {kind}s, not vectors: give {kind}s, or "
            "export a run with --dataset=features"
        )
    if not vectors and encoder.width is not None:
        raise ValueError(
            f"the {kind} encoder in {export_dir} takes precomputed features, not {kind}s: give "
            "vectors (encode: --features, search: --vector), or export a run on images and texts"
        )
    return encoder


def _read_info(path: Path) -> dict:
    """The content of an export's encoder.json.

    Raises:
        ValueError: it is missing or damaged.
    """
    file = path / EXTRA / INFO
    if not file.is_file():
        raise ValueError(f"{path} is not a complete export (no {EXTRA}/{INFO}): {_AGAIN}")
    info = read_json(file, _AGAIN)
    bits = info.get("bits") if isinstance(info, dict) else None
    if type(bits) is not int or bits < 8 or bits % 8:
        raise ValueError(f"{file} is damaged, bits is {str(bits)[:40]}: {_AGAIN}")
    for name in ("image_size", "vocabulary_size"):
        if type(info.get(name)) not in (int, type(None)):
            raise ValueError(f"{file} is damaged, {name} is {str(info[name])[:40]}: {_AGAIN}")
    if not isinstance(info.get("fingerprint"), str):
        raise ValueError(f"{file} is damaged, it has no fingerprint: {_AGAIN}")
    files = info.get("files", {})
    if not isinstance(files, dict) or not all(
        isinstance(entry, dict) and {"size", "sha256"} <= set(entry) for entry in files.values()
    ):
        raise ValueError(f"{file} is damaged, files is no list of checksums: {_AGAIN}")
    return info


def _check_files(path: Path, files: dict[str, dict]) -> None:
    """Compares an export's files with their checksums; exports of version 0.1 have none.

    A flipped bit in a graph is another model, and TensorFlow does not notice.
    """
    # Without checksums, only that TensorFlow will not wait for a pipe.
    for file in path.rglob("*"):
        if not file.is_dir():
            require_regular(file)
    for name, entry in files.items():
        file = path / name
        whole = file.is_file() and file.stat().st_size == entry["size"]
        if not whole or file_sha256(file) != entry["sha256"]:
            raise ValueError(f"{file} is missing or altered: {_AGAIN}")


def _read_words(file: Path) -> tuple[tuple[str, ...], str]:
    """The words of a text encoder and the rule that splits texts into them; () for others."""
    if not os.path.lexists(file):
        return (), ""
    content = read_json(file, _AGAIN)
    words = content.get("vocabulary") if isinstance(content, dict) else None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{file} is damaged, it has no vocabulary: {_AGAIN}")
    rule = content.get("standardize")
    if not isinstance(rule, str) or rule not in STANDARDIZE:
        raise ValueError(f"{file}: standardize is {rule!a}, not one of {STANDARDIZE}: {_AGAIN}")
    return tuple(words), rule


def versions(folder: Path) -> list[int]:
    """Published versions, ascending, as TensorFlow Serving sees them."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal() and p.is_dir())
