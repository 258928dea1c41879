"""Items by the words of their texts and tags, for searches that combine words and codes.

An index in a folder has its words in `words.sqlite`, a table of SQLite's FTS5 that is made from the
items when it is first asked for, and again when they have changed; words.json beside it says of
which items it is, with its checksum. Databases search their own texts (`Index.by_words` of each).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from dsprh_tf.data.files import file_sha256, read_json, replacing, write_json
from dsprh_tf.index.hamming import HammingIndex
from dsprh_tf.index.interface import EVERYTHING, Index, Where


@contextlib.contextmanager
def _own_library() -> Iterator[None]:
    """Binds an extension module to the library that it was built with.

    TensorFlow 2.21 has an SQLite without FTS5 in it, which comes first where TensorFlow does.
    """
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | getattr(os, "RTLD_DEEPBIND", 0))
    try:
        yield
    finally:
        sys.setdlopenflags(flags)


with _own_library():
    import sqlite3

FORMAT = 1
_FILE, _ABOUT = "words.sqlite", "words.json"
_TABLE = (
    "CREATE VIRTUAL TABLE words USING fts5("
    "text, tags, content='', tokenize='unicode61 remove_diacritics 2')"
)
_ROWS = 8192  # items that are read at a time
_MOST_WORDS = 64  # of a query


def words_of(text: str, most: int | None = _MOST_WORDS) -> list[str]:
    """The words of a query, each once, in lower case: letters and digits.

    Nothing else of what was typed reaches an engine, so that no syntax of its queries can.

    Args:
        text: the query, or another text.
        most: number of words that count; None for all.
    """
    found = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).lower())
    return list(dict.fromkeys(found))[:most]


def weights(counts: Mapping[str, int], total: int) -> dict[str, float]:
    """Weights of the words of a query that tell items apart: rarer ones count more, as in BM25.

    Words that more than half of the items have are left out, unless there are no others.

    Args:
        counts: word -> number of items that have it.
        total: number of items that have words at all.
    """
    there = {word: count for word, count in counts.items() if count}
    rare = {word: count for word, count in there.items() if 2 * count <= total} or there
    return {
        word: math.log(1 + max(0.0, total - count + 0.5) / (count + 0.5))
        for word, count in rare.items()
    }


def tags_with(word: str, words: Sequence[str]) -> list[str]:
    """Tags that a word of a query may mean: itself and runs of up to three words with it.

    Each as typed in lower case, in upper case, and with capitals, for engines that compare tags as
    they are.
    """
    at = words.index(word)
    runs = [
        words[start:end]
        for start in range(max(0, at - 2), at + 1)
        for end in range(at + 1, min(len(words), start + 3) + 1)
    ]
    joined = [" ".join(run) for run in runs]
    spelled = [s for tag in joined for s in (tag, tag.upper(), tag.capitalize(), tag.title())]
    return list(dict.fromkeys(spelled))


class FolderWords:
    """The words of an index in a folder, or in memory.

    Args:
        index: the index as it was loaded; its folder need not be writable.

    Raises:
        ValueError: the SQLite at hand has no FTS5.
    """

    def __init__(self, index: HammingIndex):
        self._index = index
        try:
            self._database = self._opened()
            self.total = self._database.execute("SELECT count(*) FROM words").fetchone()[0]
        except sqlite3.Error as error:
            raise ValueError(
                f"words cannot be searched for ({error}): it needs a Python whose SQLite has FTS5; "
                "a program of yours must import dsprh_tf.index.words or sqlite3 before TensorFlow"
            ) from error

    def by_words(self, words: Sequence[str], k: int = 10, where: Where = EVERYTHING) -> np.ndarray:
        """As `Database.by_words`, ranked by BM25."""
        counts = {word: self._ask("SELECT count(*)", [word])[0][0] for word in words}
        chosen = list(weights(counts, self.total))
        if not chosen:
            return np.zeros(0, np.int64)
        limit = "" if where else f" LIMIT {int(k)}"
        rows = self._ask("SELECT rowid", chosen, f" ORDER BY rank, rowid{limit}")
        ids = np.array([row[0] for row in rows], np.int64)
        if where:
            ids = ids[np.isin(ids, self._index.ids_where(where))]
        return ids[:k]

    def _ask(self, what: str, words: Sequence[str], order: str = "") -> list[tuple]:
        query = " OR ".join('"' + word.replace('"', '""') + '"' for word in words)
        text = f"{what} FROM words WHERE words MATCH ?{order}"
        return self._database.execute(text, (query,)).fetchall()

    def _opened(self) -> sqlite3.Connection:
        """The table in the folder; made there, or in memory where that cannot be."""
        place = self._index.committed()
        if place is None:
            return self._made(":memory:")
        folder, files = place
        state = {
            kind: files[kind]["sha256"] for kind in ("items", "ids", "removed") if kind in files
        }
        of = hashlib.sha256(json.dumps([FORMAT, state], sort_keys=True).encode()).hexdigest()
        path = folder / _FILE
        if not _is_of(path, of):
            try:
                with replacing(path) as temporary:
                    self._made(temporary).close()
                about = {"of": of, "size": path.stat().st_size, "sha256": file_sha256(path)}
                write_json(folder / _ABOUT, about)
            except (OSError, sqlite3.OperationalError):  # it may only be read, or is full
                return self._made(":memory:")
        address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        database = sqlite3.connect(address, uri=True)
        database.execute("PRAGMA trusted_schema = OFF")
        return database

    def _made(self, path: str) -> sqlite3.Connection:
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN")
        database.execute(_TABLE)
        ids = self._index.ids_where()
        for start in range(0, len(ids), _ROWS):
            items = self._index.items_of(ids[start : start + _ROWS])
            rows = zip(*(items[name].to_pylist() for name in ("id", "text", "tags")))
            database.executemany(
                "INSERT INTO words (rowid, text, tags) VALUES (?, ?, ?)",
                ((name, text or "", " ".join(tags or ())) for name, text, tags in rows
                 if text or tags),
            )  # fmt: skip
        database.execute("COMMIT")
        return database


def word_search(index: Index):
    """What has the method `by_words` of an index: itself, or its table of words."""
    return FolderWords(index) if isinstance(index, HammingIndex) else index


def _is_of(path: Path, of: str) -> bool:
    """Whether a table of words is whole, and of the items that are there now."""
    try:
        about = read_json(path.with_name(_ABOUT), "make it again")
        same = about["of"] == of and about["size"] == path.stat().st_size
        return same and about["sha256"] == file_sha256(path)
    except (ValueError, OSError, KeyError, TypeError):
        return False
