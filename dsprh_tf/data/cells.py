"""What a cell of a manifest holds: lists as they are spelled in text, texts, ids."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator
from numbers import Number
from typing import Any

MAX_TEXT = 100_000
"""Most characters of one text: that of a long book chapter. More is a mistake, or an attack."""

_MAX_DEPTH = 50
_MAX_PATH = 4096  # characters: no file system takes more
_WHOLE = re.compile(r"(0|[1-9]\d*)\.0*")
_LARGE = re.compile(r"\d(\.\d*)?e\+\d\d")  # how Python and pandas write floats above 1e16
_EXACT = 2**53  # floats beyond leave out whole numbers


def is_null(value: Any) -> bool:
    """Whether a value is None or NaN, which stand for a missing one."""
    return value is None or (isinstance(value, float) and value != value)


def shown(value: Any) -> str:
    """A value for an error line: in quotes, and not too long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"


def key(value: Any) -> Any:
    """What tells values apart: 1, True and "1" are three, and lists can be looked up."""
    return value if isinstance(value, str) else (type(value), repr(value))


def plain_id(value: Any) -> str:
    """An id as text, "" for none; a whole number that pandas made a float is one again.

    pandas turns a column of numbers into floats where one is missing: `1.0` is `1`. "0017" stays
    a name.

    Raises:
        ValueError: the number is so large that as a float it has lost its last digits, or the
            value is none of a text and a number.
    """
    if is_null(value):
        return ""
    if isinstance(value, bytes):
        value = _decoded(value)
    if isinstance(value, bool) or not isinstance(value, (str, Number)):
        raise ValueError(f"the id {shown(value)} is neither a text nor a number")
    name = str(value).strip()
    digits = name.partition(".")[0]
    whole = _WHOLE.fullmatch(name)
    if whole and len(digits) <= len(str(_EXACT)) and int(digits) < _EXACT:
        return digits
    if whole or _LARGE.fullmatch(name):
        raise ValueError(
            f"the id {name} was a whole number that has lost its last digits as a float; write "
            "whole numbers (pandas: read the column with dtype='Int64' or str)"
        )
    return name


def image_of(value: Any) -> str | bytes:
    """The path of an image, "" for none, or its bytes.

    Both may be under bytes and path, as Hugging Face writes images.

    Raises:
        ValueError: it is an address of the web, an image in base64, or no path at all.
    """
    if isinstance(value, dict) and set(value) & {"bytes", "path"}:
        value = value.get("path") if is_null(value.get("bytes")) else value["bytes"]
    if is_null(value):
        return ""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError(f"the image is {shown(value)}, expected the path of a file")
    name = value.strip()
    if re.match(r"(https?|s3|gs|ftp)://", name, re.IGNORECASE):
        raise ValueError(f"the image is {shown(name)}, not a file; download it first")
    if name.startswith("data:") or len(name) > _MAX_PATH:
        raise ValueError(
            f"the image is {shown(name[:100])}, a text of {len(name):,} characters, expected the "
            "path of a file; write images in base64 to files first"
        )
    if "\0" in name:
        raise ValueError(f"the image is {shown(name)}, which no file can be named")
    return name


def file_name(folder: str | os.PathLike, name: str) -> str:
    """The name of a file as it is spelled, or else with Windows' backslashes as "/".

    Args:
        folder: what relative names are relative to.
        name: the name in the manifest.
    """
    if "\\" in name and not os.path.lexists(os.path.join(folder, name)):
        other = name.replace("\\", "/")
        if os.path.lexists(os.path.join(folder, other)):
            return other
    return name


def texts_of(value: Any) -> list[str]:
    """The texts of a cell, without line breaks and repeated blanks: one, several or none.

    Several are a list, a list spelled as text (Python's or JSON's), or objects with the text
    under raw, text or caption, as in the splits of Karpathy.

    Raises:
        ValueError: it is an object of other keys, no text at all, or longer than `MAX_TEXT`.
    """
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise ValueError(
                f"a text has {len(value):,} characters, expected at most {MAX_TEXT:,}; shorten it"
            )
        if value.startswith(("['", '["')) and value.rstrip().endswith("]"):
            parts = parse(value)
            if isinstance(parts, list) and all(is_null(p) or isinstance(p, str) for p in parts):
                value = parts
    if isinstance(value, str):
        text = " ".join(value.split())
        return [text] if text else []
    if is_null(value):
        return []
    if isinstance(value, bytes):
        return texts_of(_decoded(value))
    if isinstance(value, Number):
        return [str(value)]
    if isinstance(value, dict):
        found = [value[name] for name in ("raw", "text", "caption") if value.get(name)]
        if not found or not isinstance(found[0], str):
            raise ValueError(
                f"the text is an object with {', '.join(map(str, value)) or 'no key'}; expected a "
                "text, a list of texts, or objects with the key raw, text or caption"
            )
        return texts_of(found[0])
    if isinstance(value, (list, tuple)):
        if any(isinstance(part, (list, tuple)) for part in value):
            raise ValueError("the text is a list of lists, expected a text or a list of texts")
        return [text for part in value for text in texts_of(part)]
    raise ValueError(f"the text is {shown(value)}, expected a text or a list of texts")


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(value)} is no text in UTF-8") from error


def parse(text: str) -> Any:
    """A list or an object that is spelled as text; None if the text is neither.

    JSON (`["a", "b"]`), Python's repr (`['a', 'b']`, `{'a': 1}`, `('a',)`, `{'a', 'b'}`), NumPy's
    (`['a' 'b']`, `[0 1]`, `array([0, 1])`), PostgreSQL's (`{a,b}`) and bare words (`[a, b c]`).
    Tuples and sets are lists. Nothing is evaluated but single string literals.
    """
    text = text.strip()
    if len(text) > MAX_TEXT or text[-1:] not in ("]", ")", "}"):
        return None
    try:
        if _depth(text) > _MAX_DEPTH:
            return None
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            tokens = _tokens(text)
            found = _value(next(tokens), tokens)
            if next(tokens) != _END:
                return None
        except (ValueError, SyntaxError, TypeError):  # TypeError: a list as a key
            return None
    try:
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:  # an escape of half a character
        return None
    return found if isinstance(found, (list, dict)) else None


_TOKEN = re.compile(
    r"""\s*(?: (?P<string> [ub]? (?: '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" ) )
             | (?P<mark> [\[\](){},:] )
             | (?P<bare> [^\s,:'"\[\](){}] [^,:'"\[\](){}]* ) )\s*""",
    re.VERBOSE | re.DOTALL,
)
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_CONSTANTS = {"true": True, "false": False, "none": None, "null": None, "nan": None, "<na>": None}
_WRAPPERS = ("array", "set", "frozenset")  # array([0, 1], dtype=int64), set()
_END = ("end", "")


def _depth(text: str) -> int:
    depth = deepest = 0
    for mark in re.findall(r"[\[\](){}]", text):
        depth += 1 if mark in _CLOSING else -1
        deepest = max(deepest, depth)
    return deepest


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found:
            raise ValueError
        yield found.lastgroup or "", found[found.lastgroup or 0]
        position = found.end()
    while True:
        yield _END


def _value(token: tuple[str, str], tokens: Iterator[tuple[str, str]]) -> Any:
    kind, text = token
    if kind == "string":
        value = ast.literal_eval(text)
        return value.decode("utf-8") if isinstance(value, bytes) else value
    if kind == "bare":
        text = text.strip()
        if text in _WRAPPERS:
            if next(tokens) != ("mark", "("):
                raise ValueError
            inside = _collection("(", tokens)
            return inside[0] if inside and isinstance(inside[0], (list, dict)) else []
        return _scalar(text)
    if text in _CLOSING and kind == "mark":
        return _collection(text, tokens)
    raise ValueError


def _collection(opening: str, tokens: Iterator[tuple[str, str]]) -> list | dict:
    """What stands up to the closing bracket; NumPy puts no commas between values."""
    found: list[Any] = []
    names: list[Any] = []
    before = ("mark", ",")
    while (token := next(tokens)) != ("mark", _CLOSING[opening]):
        last, before = before, token
        if token == ("mark", ","):
            continue
        if {last[0], token[0]} == {"bare", "string"} and not _constants(last, token):
            raise ValueError  # ['a' is a letter]
        if token == ("mark", ":"):
            if opening != "{" or not found:
                raise ValueError
            names.append(found.pop())
            continue
        value = _value(token, tokens)
        # [0 1 0] and [0. 1.]: one bare token of several numbers.
        if isinstance(value, str) and token[0] == "bare" and " " in value:
            parts = [_scalar(part) for part in value.split()]
            if not any(isinstance(part, str) for part in parts):
                found += parts
                continue
        found.append(value)
    if not names:
        return found
    if len(names) != len(found):
        raise ValueError
    return dict(zip(names, found))


def _constants(*tokens: tuple[str, str]) -> bool:
    """Whether all bare tokens are constants or numbers, as in ['a' None]."""
    return not any(
        kind == "bare" and isinstance(_scalar(text.strip()), str) for kind, text in tokens
    )


def _scalar(text: str) -> Any:
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if re.fullmatch(r"[+-]?\d{1,18}", text) and (text == "0" or not text.startswith("0")):
        return int(text)
    if re.fullmatch(r"[+-]?(\d{1,18}\.\d*|\.\d+)([eE][+-]?\d{1,3})?", text):
        return float(text)
    return text
