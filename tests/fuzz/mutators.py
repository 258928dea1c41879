"""Seeded changes of valid files: bytes, JSON, CSV, members of zip files, whole folders.

An input is a folder: name -> bytes, or a `Special` (no file at all, but a link, a pipe, a folder).
"""

from __future__ import annotations

import copy
import io
import json
import os
import random
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Callable, NamedTuple, Union

# Most bytes that a block is repeated to: inputs stay kilobytes, and what is large is declared.
_GROWTH = 4096
_NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 65535, 65536, 2**24, 2**31 - 1, 2**31,
            2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip


class Special(NamedTuple):
    """What stands where a file should be.

    Attributes:
        kind: "missing", "folder", "pipe", "link" (to `target`) or "sparse" (`target` zero bytes).
        target: see there.
    """

    kind: str
    target: str = ""


Content = Union[bytes, Special]
Files = dict[str, Content]

SPECIALS = (
    Special("missing"),
    Special("folder"),
    Special("pipe"),
    Special("link", "/dev/zero"),
    Special("link", "/dev/full"),
    Special("link", "/dev/null"),
    Special("link", "nowhere"),
    Special("link", "."),
    Special("link", "{name}"),  # to itself
    Special("sparse", str(3 * 2**30)),
)


def write(folder: Path, files: Files) -> None:
    """Writes an input into a folder that does not exist yet."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content.kind == "folder":
            path.mkdir(exist_ok=True)
        elif content.kind == "pipe":
            os.mkfifo(path)
        elif content.kind == "link":
            path.symlink_to(content.target.format(name=path.name))
        elif content.kind == "sparse":
            with open(path, "wb") as file:
                file.truncate(int(content.target))


def read(folder: Path) -> Files:
    """The files of a folder, to start from."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _byte_change(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    def edit(at: int, end: int, new: bytes) -> bytes:
        return content[:at] + new + content[max(at, end) :]

    size = len(content)
    at = _position(rng, content)
    length = rng.choice((1, 2, 4, 8, 16, rng.randint(1, 64), rng.randint(1, 1024)))
    length = min(size - at, length)
    block = content[at : at + length]
    kind = rng.randrange(14)
    if kind <= 2 and at < size:  # a flipped bit
        return edit(at, at + 1, bytes([content[at] ^ 1 << rng.randrange(8)]))
    if kind == 3:
        return edit(at, at + 1, bytes([rng.choice((0, 1, 0x20, 0x7F, 0x80, 0xFE, 0xFF))]))
    if kind <= 6:  # a number of some width
        width = rng.choice((1, 2, 4, 4, 8, 8))
        value = rng.choice((*_NUMBERS, size, size + 1, max(size - 1, 0), rng.getrandbits(64)))
        order = rng.choice(("little", "little", "big"))
        new = (value % 256**width).to_bytes(width, order)
        if rng.random() < 0.3 and len(block) >= width:  # near the one that stands there
            there = int.from_bytes(block[:width], order)
            new = ((there + rng.choice((-1, 1, 8, -8, there))) % 256**width).to_bytes(width, order)
        return edit(at, at + width, new)
    if kind == 7:  # truncated
        return edit(at, size, b"")
    if kind == 8:  # extended
        return edit(size, size, rng.choice((bytes(length), rng.randbytes(length), content[:1024])))
    if kind == 9:
        return edit(at, at + length, b"")
    if kind == 10:  # repeated
        return edit(at, at, block * rng.choice((1, 1, 2, max(1, _GROWTH // max(1, length)))))
    if kind == 11:  # swapped with the block after it
        return edit(at, at + 2 * length, content[at + length : at + 2 * length] + block)
    if kind == 12:  # digits become another number, as in headers of text
        found = list(re.finditer(rb"\d+", content))
        if found:
            where = rng.choice(found)
            value = rng.choice((b"0", b"-1", b"1", b"9", b"99999999999", b"9" * 19, b"9" * 400,
                                b"1e9", b"4294967296", b"0x10", b"1.5"))  # fmt: skip
            return edit(where.start(), where.end(), value)
        return edit(at, at + length, bytes(length))
    other = rng.choice(others or [rng.randbytes(64)])
    start = rng.randrange(len(other) + 1)
    return edit(at, at + length, other[start : start + length])


def _position(rng: random.Random, content: bytes) -> int:
    """Mostly anywhere; often among the first or last bytes, where headers and footers are."""
    size = len(content)
    where = rng.random()
    if where < 0.35:
        return rng.randrange(min(size, 160) + 1)
    if where < 0.45:
        return max(0, size - rng.randrange(160))
    at = rng.randrange(size + 1)
    return at - at % rng.choice((1, 4, 8))


# JSON


class Raw(str):
    """Text that stands in JSON as it is."""


_VALUES = (
    None, True, False, 0, 1, -1, 2, 255, 10**6, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308,
    Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), Raw("1e999"), Raw("9" * 5000), "", " ", "a",
    "None", "0", "1", "-1", "1.0", "nan", "é", "\u2028", "\0", "a\nb", "..", "../../x", "/dev/zero",
    "x" * 5000, Raw(r'"\ud800"'), Raw(r'"\u0000"'), [], {}, [[]], [None], [""], ["a", "a"], [1, 2],
    [-1], {"a": 1}, {"": None}, Raw("[" * 200 + "]" * 200), Raw("[" * 100_000 + "]" * 100_000),
    Raw('{"a":' * 100_000 + "1" + "}" * 100_000), Raw("{"), Raw("]"), Raw(""), Raw("'a'"),
    Raw("undefined"), Raw('{"a": 1, "a": 2}'),
)  # fmt: skip


def json_change(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """JSON with one to three nodes replaced, removed, repeated, renamed or swapped."""
    try:
        tree = [json.loads(content)]
    except (ValueError, RecursionError):
        return bytes_change(rng, content, others)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change_node(rng, tree)
    return _dumped(tree[0], rng).encode("utf-8", "surrogatepass")


def _nodes(tree, most: int = 4000):
    """(container, key) of every node, some of a long list."""
    found, todo = [], [(tree, 0)]
    while todo and len(found) < most:
        container, key = todo.pop()
        found.append((container, key))
        value = container[key]
        keys = (
            list(value)
            if isinstance(value, dict)
            else range(len(value))
            if isinstance(value, list)
            else ()
        )
        todo += [(value, key) for key in list(keys)[:20]]
    return found


def _change_node(rng: random.Random, tree: list) -> None:
    nodes = _nodes(tree)
    container, key = rng.choice(nodes)
    kind = rng.randrange(10)
    if kind <= 4 or container is tree:
        container[key] = copy.deepcopy(rng.choice(_VALUES))
    elif kind == 5:
        del container[key]
    elif kind == 6:  # a value of another place
        other, at = rng.choice(nodes)
        container[key] = copy.deepcopy(other[at]) if other is not tree else None
    elif kind == 7 and isinstance(container, dict):
        container[rng.choice((f"{key}s", "", f" {key}", str(key).upper(), "id", "\ud800"))] = (
            container.pop(key)
        )
    elif kind == 7:
        container.insert(key, container[key])
    elif kind == 8:
        value = container[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            container[key] = [value] if rng.random() < 0.5 else str(value)
        else:
            container[key] = rng.choice((-value, value + 1, value * 1000, float(value), str(value)))
    else:
        value = container[key]
        container[key] = (
            value * 2 if isinstance(value, (str, list)) else copy.deepcopy(rng.choice(_VALUES))
        )


def _dumped(value, rng: random.Random) -> str:
    """As `json.dumps`, with `Raw` as it is and now and then a key twice."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        parts = [f"{json.dumps(str(k))}: {_dumped(v, rng)}" for k, v in value.items()]
        if parts and rng.random() < 0.02:
            parts.append(rng.choice(parts))
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_dumped(v, rng) for v in value) + "]"
    return json.dumps(value, ensure_ascii=rng.random() < 0.5)


def jsonl_change(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Lines of JSON: one is changed as JSON, or lines are repeated, swapped, emptied, joined."""
    lines = content.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(8)
    if kind <= 3:
        lines[at] = json_change(rng, lines[at], others)
    elif kind == 4:
        lines.insert(other, lines[at])
    elif kind == 5:
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 6:
        lines[at] = rng.choice((b"", b" ", b"\r", b"[]", b"1", b"null", b"\xef\xbb\xbf{}", b"\0"))
    else:
        lines[at : at + 2] = [b"".join(lines[at : at + 2])]
    return b"\n".join(lines)


# CSV and lines of text

_CELLS = (
    "", " ", "None", "nan", "0", "1", "-1", "1.0", "True", "a;b", "a,b", "a|b", "['a', 'b']", '"',
    '""', '"a', 'a"', "\0", "\r", "\n", "\t", "\u2028", "\ufeff", "é", "😀", "中文字", "x" * 5000,
    "9" * 5000, "=1+1", "../..", "/dev/zero", "query", "database", "train", "[1, 0, 0]", "b'a'",
    "&amp;<br>", "1e999", "\ud83d",
)  # fmt: skip


def csv_change(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """CSV text with changed cells, rows, separators, line ends or encoding."""
    text = content.decode("utf-8", "replace")
    rows = [line.split(",") for line in text.split("\n")]
    for _ in range(rng.choice((1, 1, 2, 3))):
        row = rng.choice(rows)
        at = rng.randrange(len(row) + 1)
        kind = rng.randrange(9)
        if kind <= 3 and at < len(row):
            row[at] = rng.choice(_CELLS)
        elif kind == 4:
            row.insert(at, rng.choice(_CELLS))
        elif kind == 5 and at < len(row):
            del row[at]
        elif kind == 6:
            rows.insert(rng.randrange(len(rows) + 1), list(row))
        elif kind == 7 and len(rows) > 1:
            rows.pop(rng.randrange(len(rows)))
        elif at < len(row):  # a name of a column twice, or a cell of another row
            row[at] = rng.choice(rng.choice(rows) or [""])
    comma = rng.choice((",",) * 12 + (";", "\t", "|", ", "))
    end = rng.choice(("\n",) * 12 + ("\r\n", "\r", "\n\n", "\u2028"))
    text = end.join(comma.join(row) for row in rows)
    encoding = rng.choice(
        ("utf-8",) * 12 + ("utf-8-sig", "utf-16", "utf-16-le", "latin-1", "utf-32")
    )
    return text.encode(encoding, "surrogatepass" if encoding[:3] == "utf" else "replace")


# Archives


def zip_change(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """A zip file with one member changed and its checksum right, so that what is inside is read."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(entry, archive.read(entry)) for entry in archive.infolist()]
    except Exception:  # changed before, so that it is no zip file any more
        return bytes_change(rng, content, others)
    if not members:
        return content
    at = rng.randrange(len(members))
    entry, inside = members[at]
    kind = rng.randrange(10)
    names = [entry.filename for entry, _ in members]
    if kind <= 6:
        inside = _inside(rng, entry.filename, inside, [m for _, m in members])
        members[at] = (entry, inside)
    elif kind == 7:
        del members[at]
    elif kind == 8:
        members.append((entry, inside))  # a name twice
    else:
        name = rng.choice(
            ("../x", "/abs", "", names[at].upper(), f"{names[at]}x", rng.choice(names))
        )
        members[at] = (zipfile.ZipInfo(name or "x"), inside)
    out = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(out, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that occur twice
        for entry, inside in members:
            archive.writestr(zipfile.ZipInfo(entry.filename), inside, method)
    return out.getvalue()


def _inside(rng: random.Random, name: str, content: bytes, others: list[bytes]) -> bytes:
    known = KINDS.get(Path(name).suffix, ()) if rng.random() < 0.6 else ()
    return rng.choice(known or (bytes_change,))(rng, content, others)


def npy_header(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """A .npy file whose header says something else than its data, its length being right."""
    if content[:6] != b"\x93NUMPY" or len(content) < 12:
        return bytes_change(rng, content, others)
    wide = content[6] > 1
    size = struct.unpack("<I", content[8:12])[0] if wide else struct.unpack("<H", content[8:10])[0]
    start = 12 if wide else 10
    header, data = content[start : start + size].decode("latin-1"), content[start + size :]
    changes = (
        lambda h: h.replace("<f", ">f"),
        lambda h: re.sub(r"'descr': '[^']*'", f"'descr': {rng.choice(_DESCRIPTIONS)}", h),
        lambda h: re.sub(r"\([^)]*\)", rng.choice(_SHAPES), h),
        lambda h: h.replace("False", rng.choice(("True", "None", "0", "1.5", "'x'"))),
        lambda h: "(" * rng.choice((50, 150, 3000)) + h,
        lambda h: h.replace("{", "{" * rng.randint(2, 300)),
        lambda h: h.replace("}", ", 'x': 1}"),
        lambda h: h.replace("'shape'", "'shapes'"),
        lambda h: h.strip()[: rng.randint(0, len(h))],
        lambda h: rng.choice(
            ("", "{}", "[]", "None", "{'descr'", "\0" * 30, "#", "'''", "1\\", "é")
        ),
        lambda h: bytes_change(rng, h.encode("latin-1"), []).decode("latin-1"),
    )
    header = rng.choice(changes)(header).encode("latin-1", "replace")[:60000]
    return content[:8] + struct.pack("<I" if wide else "<H", len(header)) + header + data


_DESCRIPTIONS = ("'O'", "'|O'", "'<f8'", "'<f2'", "'|u1'", "'|b1'", "'<i8'", "'<U10'", "'|S5'",
                 "'<c16'", "'<M8[ns]'", "'|V0'", "'|V9'", "''", "'x'", "[('a', '<f4')]", "[]",
                 "None",                  "'<f16'", "('<f4', (3,))", "[('a', 'O')]",
                 "{'names': ['a']}", "'<U999999999'")  # fmt: skip
_SHAPES = ("()", "(0,)", "(0, 5)", "(5, 0)", "(-1, 4)", "(1, 1)", "(99999999999, 4)",
           "(2147483648, 2147483648)", "(10**9,)", "(1.5, 2)", "(None,)", "('a', 2)", "(True, 4)",
           "(4,)", "4", "[4, 4]", "(1, 2, 3)", "(" + "1, " * 40 + ")", "(9223372036854775807, 2)",
           "(100000, 100000)", "(600000000, 1)")  # fmt: skip


# Folders

Change = Callable[[random.Random, bytes, list[bytes]], bytes]


def bytes_change(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """One to four random changes of bytes, most of them small."""
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3, 4))):
        content = _byte_change(rng, content, others)
    return content


KINDS: dict[str, tuple[Change, ...]] = {
    ".json": (json_change,),
    ".jsonl": (jsonl_change,),
    ".csv": (csv_change,),
    ".txt": (csv_change,),
    ".flags": (csv_change,),
    ".npz": (zip_change,),
    ".keras": (zip_change,),
    ".pt": (zip_change,),
    ".npy": (npy_header,),
}
"""Ending of a name -> changes that know the format."""


def change(
    rng: random.Random,
    files: Files,
    others: list[bytes],
    kinds: dict[str, tuple[Change, ...]],
    fixed: tuple[str, ...] = (),
) -> Files:
    """An input with one or two files changed.

    Args:
        rng: decides everything.
        files: a valid input, or one that was changed before.
        others: contents to take blocks from.
        kinds: changes for some endings, before those of `KINDS`.
        fixed: endings of files that stay as they are.
    """
    files, kinds = dict(files), {**KINDS, **kinds}
    for _ in range(1 if rng.random() < 0.85 else 2):
        names = [
            name
            for name, content in files.items()
            if isinstance(content, bytes) and not (fixed and name.endswith(fixed))
        ]
        if not names:
            break
        name, where = rng.choice(names), rng.random()
        content = files[name]
        known = kinds.get(Path(name).suffix, ())
        if where < 0.03:
            files[name] = rng.choice(SPECIALS)
        elif where < 0.05:  # of another kind
            files[name] = rng.choice([*others, b"", b"\0", b"\xef\xbb\xbf", rng.randbytes(200)])
        elif where < 0.07 and len(names) > 1:
            other = rng.choice(names)
            files[name], files[other] = files[other], files[name]
        elif known and where < 0.75:
            files[name] = rng.choice(known)(rng, content, others)
        else:
            files[name] = bytes_change(rng, content, others)
    return files
