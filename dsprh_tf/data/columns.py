"""The columns of a manifest: which names stand for an image, a text, labels, an id."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# Names by priority; blanks, hyphens, underscores and case do not matter. The first is the name
# that the documentation uses: where a column has it, no other is looked for.
IMAGE = (
    "image", "image_path", "img_path", "file_path", "path", "image_file_name", "image_file",
    "image_name", "img_name", "file_name", "img", "file", "picture", "photo",
)  # fmt: skip
TEXT = (
    "text", "texts", "caption", "captions", "sentence", "sentences", "raw", "comment", "comments",
    "description", "descriptions", "title", "prompt", "alt_text", "tags", "keywords",
)  # fmt: skip
LABELS = (
    "labels", "label", "label_names", "label_name", "categories", "category", "category_names",
    "category_name", "classes", "class", "class_names", "class_name", "tags", "keywords",
    "category_ids", "category_id", "label_ids", "label_id", "class_ids", "class_id",
)  # fmt: skip
IMAGE_ID = ("id", "image_id", "img_id", "item_id", "uid")
TEXT_ID = ("id", "text_id", "caption_id", "sentence_id", "sent_id", "item_id", "uid")
SPLIT = ("split",)
TAGS = ("tags",)
LIKE = ("like",)

_KNOWN = {re.sub(r"[\W_]+", "", name) for name in (*IMAGE, *TEXT, *LABELS, *IMAGE_ID, *TEXT_ID)}
_KNOWN |= {"split", "like"}
# caption_0, caption_1, ...: several texts of one row.
_NUMBERED = re.compile(r"(text|caption|sentence|comment|description)s?\d+")
# label_dog, label_cat, ...: columns of 0 and 1.
_ONE_HOT = re.compile(r"(?:labels?|class|category|tag)[_:.\- ]+(.+)")
_NO_LABELS = ("ids?", "names?", "index", "idx", "count", "source", "text", "type", "score")
_SHOWN = 12


class Columns(NamedTuple):
    """Columns by what they stand for.

    Attributes:
        of: the names of a role's columns in the file; several are texts of one row, or labels
            with a column each.
        notes: printable lines on columns with other names than the documentation's, and on those
            that are not read.
    """

    of: dict[str, tuple[str, ...]]
    notes: list[str]


def squeezed(name: str) -> str:
    """A column's name without case, blanks, hyphens and underscores."""
    return re.sub(r"[\W_]+", "", name.casefold())


def known(names: Sequence[str]) -> int:
    """How many of the names stand for something."""
    return sum(
        squeezed(name) in _KNOWN or bool(_NUMBERED.fullmatch(squeezed(name))) for name in names
    )


def find_columns(path: Path, names: Sequence[str], wanted: Mapping[str, Sequence[str]]) -> Columns:
    """What the columns of a manifest stand for.

    Args:
        path: the manifest, for errors.
        names: its columns, as they stand in the file.
        wanted: role -> names by priority; a column that fits two roles belongs to the first.

    Raises:
        ValueError: two columns have the same name but for case and blanks at the ends, or are
            spellings of the same name and no other is before them.
    """
    _check_repeated(path, names)
    of: dict[str, tuple[str, ...]] = {}
    said: list[str] = []
    for role, candidates in wanted.items():
        taken = {name for columns in of.values() for name in columns}
        left = [name for name in names if name.strip() and name not in taken]
        found = _best(path, left, candidates)
        if not found and role == "text":
            found = tuple(name for name in left if _NUMBERED.fullmatch(squeezed(name)))
        if not found and role == "labels":
            found = one_hot(left) if len(one_hot(left)) > 1 else ()
        if found:
            of[role] = tuple(found)
        if found and found[0].strip().lower() != role:
            said.append(f"{role} from the column {listed(found)}")
    notes = [", ".join(said)] if said else []
    taken = {name for columns in of.values() for name in columns}
    unread = [name for name in names if name not in taken and not _without_meaning(name)]
    if unread:
        notes.append(f"not read: the column {listed(unread)}")
    return Columns(of, notes)


def one_hot(names: Sequence[str]) -> tuple[str, ...]:
    """The columns that look like one label each, such as label_dog."""
    found = []
    for name in names:
        match = _ONE_HOT.fullmatch(name.strip().lower())
        if match and not any(re.fullmatch(word, match[1]) for word in _NO_LABELS):
            found.append(name)
    return tuple(found)


def label_of(name: str) -> str:
    """The label of a column of 0 and 1: dog of label_dog."""
    match = _ONE_HOT.fullmatch(name.strip().lower())
    return name.strip()[match.start(1) :] if match else name.strip()


def _check_repeated(path: Path, names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        plain = name.strip().lower()
        if plain and plain in seen:
            raise ValueError(
                f"{path} has the columns {seen[plain]!r} and {name!r}, expected different names; "
                "rename or remove one"
            )
        seen[plain] = name


def _best(path: Path, names: Sequence[str], candidates: Sequence[str]) -> tuple[str, ...]:
    for candidate in candidates:
        exact = [name for name in names if name.strip().lower() == candidate]
        same = [name for name in names if squeezed(name) == squeezed(candidate)]
        if len(same) > 1 and not (exact and candidate == candidates[0]):
            raise ValueError(
                f"{path} has the columns {same[0]!r} and {same[1]!r}, which stand for the same; "
                f"rename the right one to {candidates[0]}"
            )
        if same:
            return tuple(exact or same)
    return ()


def _without_meaning(name: str) -> bool:
    """Whether a column is an index that pandas wrote, or one that another program reads."""
    plain = squeezed(name)
    return not plain or plain.startswith(("unnamed", "indexlevel")) or plain in ("split", "index")


def listed(names: Sequence[str]) -> str:
    """Column names for a line, not too many and without line breaks."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    shown = ", ".join(" ".join(name.split())[:40] for name in names[:_SHOWN]) + more
    return shown.encode("utf-8", "backslashreplace").decode()  # JSON can spell half a character
