"""Known words that look like unknown ones."""

from __future__ import annotations

import difflib
import functools

_REMEMBERED = 1000  # words with their suggestions


def suggestions(vocabulary: tuple[str, ...]):
    """A function from a word to up to 3 of a vocabulary that look like it; it remembers them."""

    @functools.lru_cache(_REMEMBERED)
    def near(word: str) -> tuple[str, ...]:
        return tuple(difflib.get_close_matches(word, vocabulary))

    return near


def describe(unknown: dict[str, list[str]]) -> str:
    """The result of `Encoder.unknown_words` as one line for the screen."""
    near = list(dict.fromkeys(word for words in unknown.values() for word in words))
    line = f"unknown: {', '.join(unknown) or '(empty)'}"
    return f"{line}; near: {', '.join(near)}" if near else line
