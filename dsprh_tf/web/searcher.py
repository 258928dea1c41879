"""Answers of an index and its encoders to the page, as plain data."""

from __future__ import annotations

import io
import re
from typing import NamedTuple

import numpy as np
from PIL import Image

from dsprh_tf.index.answers import as_result
from dsprh_tf.index.interface import Index, Where
from dsprh_tf.index.items import is_id
from dsprh_tf.index.known_files import paths_of
from dsprh_tf.index.location import check_encoders
from dsprh_tf.index.queries import encode_image
from dsprh_tf.web.collection import Collection, interleaved

_TAGS = 50  # that the page knows from the start, the most frequent ones
_MAX_PIXELS = 64_000_000  # of an image to search by: some 400 MB while it is encoded
_UPLOAD = "the picture"  # its name in errors, which the page shows


class Question(NamedTuple):
    """A query of the page.

    Attributes:
        kind: "text", "like" (an item's id) or "code" (hexadecimal digits).
        value: value of that kind.
        where: which items count.
        top: number of results.
        offset: number of nearer results that are left out, since they are there already.
    """

    kind: str
    value: str
    where: Where
    top: int
    offset: int = 0


class Searcher:
    """An index and the encoders that it was built with.

    It must be used from one thread at a time, since not all engines of an index allow several;
    `collection` may be read from any.

    Results of images and texts together come in turn, the nearest image, the nearest text, the
    second nearest image and so on: distances between a text and images are larger than those
    between texts, so that the order of the distances would put most texts before any image.

    Attributes:
        collection: what the page shows now.
        generation: number of times that it was replaced.
        notice: one line about the collection for whoever looks at it; None if all is well.

    Args:
        index: an index with at least one item.
        text_encoder: an `Encoder` of texts.
        image_encoder: an `Encoder` of images.
        name: name of the collection, for the screen.

    Raises:
        ValueError: the index is empty, or was built with other encoders.
    """

    def __init__(self, index: Index, text_encoder, image_encoder, name: str):
        self._text, self._image = text_encoder, image_encoder
        self.generation = 0
        self.notice: str | None = None
        self.collection = self.read(index, name)

    def read(self, index: Index, name: str | None = None) -> Collection:
        """A collection that these encoders can search, from any thread but for databases.

        Raises:
            ValueError: as for the class.
        """
        collection = Collection(index, self.collection.name if name is None else name)
        for encoder in (self._text, self._image):
            subject = f"the {encoder.kind} encoder"
            check_encoders(subject, index, encoder.bits, encoder.info["fingerprint"])
        return collection

    def take_up(self, collection: Collection) -> None:
        """Replaces the collection."""
        self.collection, self.notice = collection, None
        self.generation += 1

    @property
    def _index(self) -> Index:
        return self.collection.index

    def about(self) -> dict:
        """The collection: its name, number of items of each kind, bits, and frequent tags.

        The tags of more than 200,000 items are not listed, but can be searched for.
        """
        return {
            "name": self.collection.name,
            **self.collection.counts,
            "bits": self._index.bits,
            "tags": [{"tag": t, "count": n} for t, n in self.collection.tags[:_TAGS]],
            "tag_count": len(self.collection.tags),
            "listed": self.collection.ids is not None,
            "generation": self.generation,
            "notice": self.notice,
        }

    def browse(self, where: Where, count: int, offset: int = 0, seed: int | None = None) -> dict:
        """Items in random order, as an answer without a query.

        Args:
            where: which items count.
            count: number of results.
            offset: number of items before them.
            seed: of the order; a new one if None. The answer has it, for what follows.
        """
        if self.collection.ids is None:
            return self._reply(message="Type words or choose a picture to search.")
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        lists = [self._index.ids_where(w) if w else self.collection.ids for w in self._parts(where)]
        orders = [np.random.default_rng(seed).permutation(ids) for ids in lists]
        places = interleaved([len(order) for order in orders], offset, count)
        total = sum(map(len, orders))
        message = None if total else self._nothing(where)
        rows = self._rows([orders[part][rank] for part, rank in places])
        results = self._with_codes([as_result(row) for row in rows])
        return self._reply(results, message=message, total=total, offset=offset, seed=seed)

    def search(self, question: Question) -> dict:
        """The nearest items.

        Returns:
            {"query": {"kind", "code", for "like" also "item"} or None, "unknown": words that are
            not in the vocabulary, each as {"word", "near": known words like it}, "message": why
            there are no results or None, "results": as `answers.answer`, each with its "code"
            and its id as a string, "total": number of results on all pages, "offset": place of
            the first result, "seed": of `browse`, "generation", "notice"}. Codes are hexadecimal
            digits.

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
                return self._reply(unknown=unknown, message="No word of this is known.")
            code = self._text.encode([question.value], unknown="allow")  # checked above
        elif question.kind == "like":
            own = self._rows([_number(question.value)])[0]
            query["item"] = self._with_codes([as_result(own)])[0]
            code = self._index.codes_of([own["id"]])
        else:
            code = self._code(question.value)
        query["code"] = code.tobytes().hex()
        results, total = self._nearest(code, question, own)
        message = None if results else self._nothing(question.where)
        shown = self._with_codes(results)
        return self._reply(shown, query, unknown, message, total, question.offset)

    def _nearest(
        self, code: np.ndarray, question: Question, own: dict | None
    ) -> tuple[list[dict], int]:
        """One page of results, and the number of all."""
        parts = self._parts(question.where)
        sizes = [
            self.collection.number_of(where) - (own is not None and _admits(where, own))
            for where in parts
        ]
        places = interleaved(sizes, question.offset, question.top)
        found: dict[tuple[int, int], tuple[int, int]] = {}
        for part, where in enumerate(parts):
            ranks = [rank for at, rank in places if at == part]
            if ranks:
                near = self._ranked(code, where, own, ranks[0], ranks[-1] + 1)
                found.update(((part, ranks[0] + i), pair) for i, pair in enumerate(near))
        # An approximate search may find fewer than there are.
        pairs = [found[place] for place in places if place in found]
        rows = self._rows([name for name, _ in pairs])
        return [as_result(row, near) for row, (_, near) in zip(rows, pairs)], sum(sizes)

    def _ranked(
        self, code: np.ndarray, where: Where, own: dict | None, start: int, end: int
    ) -> list[tuple[int, int]]:
        """Ids and distances of the start-th to the end-th nearest item, `own` left out.

        A search for more results finds those of a search for fewer and others. Results of one
        distance come in the order of their ids, and which of them are found first is up to the
        engine: so what the pages before have is taken away by id and not by place.
        """
        before = self._within(code, where, own, start) if start else {}
        pairs = self._within(code, where, own, end).items()
        return [pair for pair in pairs if pair[0] not in before]

    def _within(self, code: np.ndarray, where: Where, own: dict | None, k: int) -> dict[int, int]:
        """Ids and distances of the k nearest items, `own` left out, nearest first."""
        name = own["id"] if own is not None and _admits(where, own) else None
        found = self._index.search(code, k + (name is not None), where)
        if name is not None and name not in found.ids[0]:
            found = self._index.search(code, k, where)  # others have its code
        pairs = dict(zip(found.ids[0].tolist(), found.distances[0].tolist()))
        return {each: near for each, near in pairs.items() if each >= 0 and each != name}

    def _parts(self, where: Where) -> list[Where]:
        """The filters whose items take turns."""
        if where.modality or not self.collection.both:
            return [where]
        return [Where(where.tag, where.prefix, kind, where.tags, where.without)
                for kind in ("image", "text")]  # fmt: skip

    def encode_image(self, content: bytes) -> str:
        """The code of an image, as hexadecimal digits.

        Args:
            content: content of a JPEG, PNG, GIF, BMP, WebP or TIFF file.

        Raises:
            ValueError: it is empty, truncated, not an image, or has more than 64 million pixels.
        """
        return encode_image(self._image, content, _UPLOAD, _MAX_PIXELS).tobytes().hex()

    def image_of(self, item: str) -> dict:
        """The row of an indexed image, as `items.SCHEMA` has it.

        Raises:
            LookupError: no image has the id.
        """
        found = self._rows([_number(item)])[0]
        if found["modality"] != "image" or found["path"] is None:
            raise LookupError(f"item {item} is not an image")
        return found

    def rows_of(self, items: list[str]) -> list[dict]:
        """The rows of items, as `items.SCHEMA` has them.

        Raises:
            LookupError: there is none of an id.
        """
        return self._rows([_number(item) for item in dict.fromkeys(items)])

    def warm_up(self) -> None:
        """Makes the first search as fast as later ones."""
        blank = io.BytesIO()
        Image.new("RGB", (64, 64)).save(blank, "PNG")
        self.encode_image(blank.getvalue())
        text = next(iter(self._text.vocabulary), "a")
        self._text.unknown_words(text)
        self._text.encode([text], unknown="allow")
        self.browse(Where(), 1)

    def _rows(self, ids) -> list[dict]:
        try:
            return self._index.items_of(ids).to_pylist()
        except ValueError as error:
            raise LookupError(str(error)) from error

    def _with_codes(self, results: list[dict]) -> list[dict]:
        """Results for the page: with codes, and with ids as strings, which JavaScript needs."""
        ids = [result["id"] for result in results]
        codes, several = self._index.codes_of(ids), paths_of(self._index, ids)
        equal = {name: {"paths": paths} for name, paths in several.items()}
        return [
            {
                **result,
                **equal.get(result["id"], {}),
                "id": str(result["id"]),
                "code": code.tobytes().hex(),
            }
            for result, code in zip(results, codes)
        ]

    def _code(self, digits: str) -> np.ndarray:
        if not re.fullmatch(rf"[0-9a-f]{{{self._index.bits // 4}}}", digits):
            raise ValueError(
                f"the code is {digits[:64]!r}, expected {self._index.bits // 4} hexadecimal digits"
            )
        return np.frombuffer(bytes.fromhex(digits), np.uint8)[np.newaxis]

    def _reply(
        self, results=(), query=None, unknown=(), message=None, total=0, offset=0, seed=None
    ) -> dict:
        return {
            "query": query,
            "unknown": list(unknown),
            "message": message,
            "results": list(results),
            "total": total,
            "offset": offset,
            "seed": seed,
            "generation": self.generation,
            "notice": self.notice,
        }

    def _nothing(self, where: Where) -> str:
        groups = [*where.groups, *([where.without] if where.without else [])]
        if len(groups) == 1 and not where.without and len(groups[0]) == 1:
            return f"No item has the tag {groups[0][0]}."
        return "No item has these tags." if groups else "There are no such items."


def _number(item: str) -> int:
    if not is_id(item):
        raise LookupError(f"no item has the id {item[:40]!r}, expected a whole number")
    return int(item)


def _admits(where: Where, row: dict) -> bool:
    """Whether a filter of the page admits an item."""
    tags = set(row["tags"] or ())
    return (
        where.modality in (None, row["modality"])
        and all(tags.intersection(group) for group in where.groups)
        and not tags.intersection(where.without)
    )
