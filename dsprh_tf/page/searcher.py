"""What the page asks of an index and its encoders, as plain data."""

from __future__ import annotations

import collections
import io
import re
from typing import NamedTuple

import numpy as np
from PIL import Image

from dsprh_tf.index.answers import answer, as_result
from dsprh_tf.index.encoding import encode_picture
from dsprh_tf.index.interface import Index, Where
from dsprh_tf.index.location import check_encoders

LISTED = 200_000  # items up to which all are looked through: for the list of tags, and to browse
_TAGS = 500  # on the list, the most frequent ones
_MAX_PIXELS = 64_000_000  # of a picture to search by: some 400 MB while it is encoded
_UPLOAD = "the picture"  # what errors call it


class Question(NamedTuple):
    """What is searched by, and among which items.

    Attributes:
        kind: "text", "like" (an item's id) or "code" (hexadecimal digits).
        value: of that kind.
        where: which items count.
        top: results.
    """

    kind: str
    value: str
    where: Where
    top: int


class Searcher:
    """An index and the encoders that it was built with.

    It is not made for several threads at once: neither are TensorFlow's functions cheap to run side
    by side, nor do all engines of an index allow it.

    Args:
        index: with at least one item.
        text_encoder: an `Encoder` of words.
        image_encoder: an `Encoder` of pictures.
        name: of the collection, for the screen.

    Raises:
        ValueError: the index is empty, or was built with other encoders.
    """

    def __init__(self, index: Index, text_encoder, image_encoder, name: str):
        if not len(index):
            raise ValueError(f"{name} is empty: add codes with scripts/index.py add")
        for encoder in (text_encoder, image_encoder):
            subject = f"the {encoder.kind} encoder"
            check_encoders(subject, index, encoder.bits, encoder.info["fingerprint"])
        self._index, self._text, self._image = index, text_encoder, image_encoder
        self._name = name
        self._ids = index.ids_where() if len(index) <= LISTED else None
        self._tags = self._count_tags()
        self._random = np.random.default_rng()

    def about(self) -> dict:
        """The collection: its name, number of items of each kind, bits, and tags with counts.

        The tags of more than 200,000 items are not listed; all can be searched for nevertheless.
        """
        stats = self._index.stats()
        return {
            "name": self._name,
            "items": len(self._index),
            "images": stats.get("images"),
            "texts": stats.get("texts"),
            "bits": self._index.bits,
            "tags": self._tags,
        }

    def browse(self, where: Where, top: int) -> dict:
        """Some items at random, as an answer without a query."""
        if self._ids is None:
            return _reply(message="Type words or choose a picture to search.")
        ids = self._index.ids_where(where) if where else self._ids
        if not len(ids):
            return _reply(message=_nothing(where))
        ids = self._random.choice(ids, min(top, len(ids)), replace=False)
        return _reply(self._items(ids))

    def search(self, question: Question) -> dict:
        """The nearest items.

        Returns:
            {"query": {"kind", "code", of a known item also "item"} or None, "unknown": words that
            are not in the vocabulary, each as {"word", "near": known ones like it}, "message":
            why there are no results or None, "results": as `answers.answer`, ids as strings,
            each with its "code"}. Codes are hexadecimal digits.

        Raises:
            LookupError: no item has the id.
            ValueError: the code is none of this index, or as the index.
        """
        query, unknown, own = {"kind": question.kind}, [], None
        if question.kind == "text":
            words = self._text.unknown_words(question.value)
            unknown = [{"word": word, "near": near} for word, near in words.items()]
            if not self._text.known_words([question.value])[0]:
                return _reply(unknown=unknown, message="No word of this is known.")
            code = self._text.encode([question.value])
        elif question.kind == "like":
            own = _number(question.value)
            query["item"] = self._items([own])[0]
            code = self._index.codes_of([own])
        else:
            code = self._code(question.value)
        query["code"] = code.tobytes().hex()
        results = answer(self._index, code, question.top, question.where, [own])[0]
        shown = self._with_codes(results)
        return _reply(shown, query, unknown, None if shown else _nothing(question.where))

    def encode_picture(self, content: bytes) -> str:
        """The code of a picture, as hexadecimal digits.

        Args:
            content: of a JPEG, PNG, GIF, BMP, WebP or TIFF file.

        Raises:
            ValueError: it is empty, truncated, no image, or has more than 64 million pixels.
        """
        return encode_picture(self._image, content, _UPLOAD, _MAX_PIXELS).tobytes().hex()

    def picture_of(self, item: str) -> tuple[str, bytes]:
        """Path and sha256 of an indexed picture.

        Raises:
            LookupError: no picture has the id.
        """
        found = self._rows([_number(item)])[0]
        if found["modality"] != "image":
            raise LookupError(f"item {item} is no picture")
        return found["path"], found["sha256"]

    def warm_up(self) -> None:
        """Makes the first search as fast as later ones."""
        blank = io.BytesIO()
        Image.new("RGB", (64, 64)).save(blank, "PNG")
        self.encode_picture(blank.getvalue())
        text = next(iter(self._text.vocabulary), "a")
        self._text.unknown_words(text)
        self._text.encode([text])
        self.browse(Where(), 1)

    def _count_tags(self) -> list[dict]:
        if self._ids is None:
            return []
        tags = self._index.items_of(self._ids)["tags"].to_pylist()
        counts = collections.Counter(tag for some in tags for tag in some or ())
        return [{"tag": tag, "count": count} for tag, count in counts.most_common(_TAGS)]

    def _rows(self, ids) -> list[dict]:
        try:
            return self._index.items_of(ids).to_pylist()
        except ValueError as error:
            raise LookupError(str(error)) from error

    def _items(self, ids) -> list[dict]:
        return self._with_codes([as_result(row) for row in self._rows(ids)])

    def _with_codes(self, results: list[dict]) -> list[dict]:
        """Results as the page takes them: ids as strings, which JavaScript needs, and codes."""
        codes = self._index.codes_of([result["id"] for result in results])
        return [
            {**result, "id": str(result["id"]), "code": code.tobytes().hex()}
            for result, code in zip(results, codes)
        ]

    def _code(self, digits: str) -> np.ndarray:
        if not re.fullmatch(rf"[0-9a-f]{{{self._index.bits // 4}}}", digits):
            raise ValueError(
                f"the code is {digits[:64]!r}, expected {self._index.bits // 4} hexadecimal digits"
            )
        return np.frombuffer(bytes.fromhex(digits), np.uint8)[np.newaxis]


def _number(item: str) -> int:
    if not item.isascii() or not item.isdecimal() or len(item) > 19 or int(item) >= 2**63:
        raise LookupError(f"no item has the id {item[:40]!r}, expected a whole number")
    return int(item)


def _reply(results=(), query=None, unknown=(), message=None) -> dict:
    return {
        "query": query,
        "unknown": list(unknown),
        "message": message,
        "results": list(results),
    }


def _nothing(where: Where) -> str:
    return f"No item has the tag {where.tag}." if where.tag else "There are no such items."
