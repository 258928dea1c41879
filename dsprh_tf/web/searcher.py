"""Answers of an index and its encoders to the page, as plain data."""

from __future__ import annotations

import io
import re
from typing import NamedTuple

import numpy as np
from PIL import Image

from dsprh_tf import codes as binary
from dsprh_tf.index import asymmetric
from dsprh_tf.index.answers import as_result
from dsprh_tf.index.combined import moved
from dsprh_tf.index.interface import Index, Where
from dsprh_tf.index.items import is_id
from dsprh_tf.index.known_files import paths_of
from dsprh_tf.index.location import check_encoders
from dsprh_tf.index.queries import encode_image, item_values
from dsprh_tf.web import values as in_address
from dsprh_tf.web.collection import Collection, interleaved

_TAGS = 50  # that the page knows from the start, the most frequent ones
_MAX_PIXELS = 64_000_000  # of an image to search by: some 400 MB while it is encoded
_UPLOAD = "the picture"  # its name in errors, which the page shows


class Question(NamedTuple):
    """A query of the page: what is given of text, like, code and values is summed.

    Attributes:
        where: which items count.
        top: number of results.
        text: words.
        like: an item's id.
        code: a code as hexadecimal digits, of addresses of before.
        values: values of a picture, see `web.values`.
        less: ids of items to move away from.
        offset: number of better results that are left out, since they are there already.
    """

    where: Where
    top: int
    text: str = ""
    like: str = ""
    code: str = ""
    values: str = ""
    less: tuple[str, ...] = ()
    offset: int = 0

    @property
    def asks(self) -> bool:
        """Whether anything is searched by."""
        return any((self.text, self.like, self.code, self.values))


class Searcher:
    """An index and the encoders that it was built with.

    It must be used from one thread at a time, since not all engines of an index allow several;
    `collection` may be read from any.

    Results of images and texts together come in turn, the best image, the best text, the second
    best image and so on: a text is more like other texts than like any image, so that the order of
    the similarities would put most texts before any image.

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
        """The best items, by the values of the query.

        Returns:
            {"query": {"kind": "text", "like", "code", "values", or "together" if it is several,
            "code", for "like" also "item", with `less` also "less": items} or None, "unknown":
            words that are not in the vocabulary, each as {"word", "near": known words like it},
            "message": why there are no results or None, "results": as `answers.answer`, each with
            its "code" and its id as a string, "total": number of results on all pages, "offset":
            place of the first result, "seed": of `browse`, "generation", "notice"}. Codes are
            hexadecimal digits.

        Raises:
            LookupError: no item has an id.
            ValueError: the code or the values are not of the index's length, or as
                `asymmetric.rank`.
        """
        parts: dict[str, np.ndarray] = {}
        query: dict = {}
        unknown, own = [], []
        if question.text:
            words = self._text.unknown_words(question.text)
            unknown = [{"word": word, "near": near} for word, near in words.items()]
            if self._text.known_words([question.text])[0]:
                found = self._text.encode_values([question.text], unknown="allow")  # checked above
                parts["text"] = found[0]
        if question.like:
            own = self._rows([_number(question.like)])
            query["item"] = self._with_codes([as_result(own[0])])[0]
            parts["like"] = item_values(self._index, [own[0]["id"]])[0]
        if question.code:
            parts["code"] = binary.unpack(self._code(question.code))[0].astype(np.float32)
        if question.values:
            parts["values"] = in_address.from_text(question.values, self._index.bits)
        if not parts:
            return self._reply(unknown=unknown, message="No word of this is known.")
        less = self._rows([_number(item) for item in dict.fromkeys(question.less)])
        if less:
            query["less"] = self._with_codes([as_result(item) for item in less])
        away = item_values(self._index, [item["id"] for item in less])
        values = moved(np.sum(list(parts.values()), axis=0), away[:0], away)
        query["kind"] = next(iter(parts)) if len(parts) == 1 else "together"
        query["code"] = binary.pack(values[np.newaxis]).tobytes().hex()
        results, total = self._best(values, question, own + less)
        message = None if results else self._nothing(question.where)
        shown = self._with_codes(results)
        return self._reply(shown, query, unknown, message, total, question.offset)

    def _best(
        self, values: np.ndarray, question: Question, own: list[dict]
    ) -> tuple[list[dict], int]:
        """One page of results, and the number of all; `own` items are left out."""
        parts = self._parts(question.where)
        out = [{item["id"] for item in own if _admits(where, item)} for where in parts]
        sizes = [self.collection.number_of(where) - len(ids) for where, ids in zip(parts, out)]
        places = interleaved(sizes, question.offset, question.top)
        found: dict[tuple[int, int], tuple[int, int, float]] = {}
        for part, (where, without) in enumerate(zip(parts, out)):
            ranks = [rank for at, rank in places if at == part]
            if ranks:
                # A search for more results finds those of a search for fewer, and others.
                count = ranks[-1] + 1 + len(without)
                ranking = asymmetric.rank(self._index, values[np.newaxis], count, where)
                best = ranking.of(0, without)
                found.update(((part, rank), best[rank]) for rank in ranks if rank < len(best))
        # An approximate search may find fewer than there are.
        there = [found[place] for place in places if place in found]
        items = self._rows([name for name, *_ in there])
        return [
            as_result(item, distance, similarity=similarity)
            for item, (_, distance, similarity) in zip(items, there)
        ], sum(sizes)

    def _parts(self, where: Where) -> list[Where]:
        """The filters whose items take turns."""
        if where.modality or not self.collection.both:
            return [where]
        return [Where(where.tag, where.prefix, kind, where.tags, where.without)
                for kind in ("image", "text")]  # fmt: skip

    def encode_image(self, content: bytes) -> dict[str, str]:
        """{"code": of an image, as hexadecimal digits, "values": see `web.values`}.

        Args:
            content: content of a JPEG, PNG, GIF, BMP, WebP or TIFF file.

        Raises:
            ValueError: it is empty, truncated, not an image, or has more than 64 million pixels.
        """
        values = encode_image(self._image, content, _UPLOAD, _MAX_PIXELS)
        return {
            "code": binary.pack(values).tobytes().hex(),
            "values": in_address.as_text(values[0]),
        }

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
        self._text.encode_values([text], unknown="allow")
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
