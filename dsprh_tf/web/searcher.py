"""Answers of an index and its encoders to the page, as plain data."""

from __future__ import annotations

import collections
import io
import re
from typing import NamedTuple

import numpy as np
from PIL import Image

from dsprh_tf.index.answers import answer, as_result
from dsprh_tf.index.interface import Index, Where
from dsprh_tf.index.items import is_id
from dsprh_tf.index.location import check_encoders
from dsprh_tf.index.queries import encode_image

LISTED = 200_000  # most items of a collection whose tags are listed and whose items are browsed
_TAGS = 500  # on the list, the most frequent ones
_MAX_PIXELS = 64_000_000  # of an image to search by: some 400 MB while it is encoded
_UPLOAD = "the picture"  # its name in errors, which the page shows


class Question(NamedTuple):
    """A query of the page.

    Attributes:
        kind: "text", "like" (an item's id) or "code" (hexadecimal digits).
        value: value of that kind.
        where: which items count.
        top: number of results.
    """

    kind: str
    value: str
    where: Where
    top: int


class Searcher:
    """An index and the encoders that it was built with.

    It must be used from one thread at a time, since not all engines of an index allow several.

    Args:
        index: an index with at least one item.
        text_encoder: an `Encoder` of texts.
        image_encoder: an `Encoder` of images.
        name: name of the collection, for the screen.

    Raises:
        ValueError: the index is empty, or was built with other encoders.
    """

    def __init__(self, index: Index, text_encoder, image_encoder, name: str):
        if not len(index):
            raise ValueError(f"{name} is empty: add codes with `dsprh index add`")
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

        The tags of more than 200,000 items are not listed, but can be searched for.
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
            {"query": {"kind", "code", for "like" also "item"} or None, "unknown": words that are
            not in the vocabulary, each as {"word", "near": known words like it}, "message": why
            there are no results or None, "results": as `answers.answer`, each with its "code"
            and its id as a string}. Codes are hexadecimal digits.

        Raises:
            LookupError: no item has the id.
            ValueError: the code is not of the index's length, or as `Index.search`.
        """
        query: dict = {"kind": question.kind}
        unknown, own = [], None
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

    def encode_image(self, content: bytes) -> str:
        """The code of an image, as hexadecimal digits.

        Args:
            content: content of a JPEG, PNG, GIF, BMP, WebP or TIFF file.

        Raises:
            ValueError: it is empty, truncated, not an image, or has more than 64 million pixels.
        """
        return encode_image(self._image, content, _UPLOAD, _MAX_PIXELS).tobytes().hex()

    def image_of(self, item: str) -> tuple[str, bytes]:
        """Path and sha256 of an indexed image.

        Raises:
            LookupError: no image has the id.
        """
        found = self._rows([_number(item)])[0]
        if found["modality"] != "image":
            raise LookupError(f"item {item} is not an image")
        return found["path"], found["sha256"]

    def warm_up(self) -> None:
        """Makes the first search as fast as later ones."""
        blank = io.BytesIO()
        Image.new("RGB", (64, 64)).save(blank, "PNG")
        self.encode_image(blank.getvalue())
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
        """Results for the page: with codes, and with ids as strings, which JavaScript needs."""
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
    if not is_id(item):
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
