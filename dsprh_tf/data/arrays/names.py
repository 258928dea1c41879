"""What an array is for, by its name: image, text or labels, of all pairs or a part of them.

The names are those that the field's files have: `image`, `IAll`, `I_tr`, `XTest`, `databaseL`,
`train_txt`, `flickr25k_bow_20015`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dsprh_tf.data.arrays.stored import StoredArray

ROLES = ("image", "text", "labels")
# Names that the documentation lists, in lower case; where one is there, no other is looked for.
_LISTED = {
    "image": ("image", "images", "img", "i", "image_features"),
    "text": ("text", "texts", "txt", "t", "text_features"),
    "labels": ("labels", "label", "lab", "l"),
}
_WORDS = {
    "image": "image images img imgs im pic pics picture pictures photo photos visual vision i x "
    "iall xall",
    "text": "text texts txt txts tag tags caption captions cap caps sentence sentences sent sents "
    "word words t tall yall",
    "labels": "label labels lab labs target targets class classes cat cats category categories gnd "
    "gt groundtruth l lall",
    "y": "y",  # texts, or labels where there are texts
}
_WEAK = {  # what computed an array says what of, if nothing else does
    "image": "vgg resnet alexnet cnn vit dino gist sift",
    "text": "bow bert tfidf lda word2vec doc2vec skipgram fasttext",
}
_PARTS = {
    "train": "tra trn train trains training",
    "tr": "tr",  # the database where another array is "tra"
    "query": "te tst test tests testing query queries q",
    "database": "db database retrieval ret gallery base",
    "validation": "va val valid validation dev",
}
_OTHERS = {
    "of no weight": "all feature features feat feats fea embedding embeddings embed embeds emb "
    "embs vec vecs vector vectors data set matrix mat clip siglip align blip deep raw norm normed "
    "normalized pca fc multi hot multihot onehot one full clean mirflickr flickr nus wide nuswide "
    "tc coco mscoco mir iapr wiki k xmedia pascal",
    "about the data": "id ids name names path paths file files size sizes len lens length lengths "
    "index indices idx idxs mean means std mask masks url urls count counts num nums shape shapes "
    "list lists dim dims vocab vocabulary dict dictionary weight weights bias map maps order split "
    "similarity sim",
}
_ROLE_OF = {word: role for role, words in _WORDS.items() for word in words.split()}
_WEAK_OF = {word: role for role, words in _WEAK.items() for word in words.split()}
_PART_OF = {word: part for part, words in _PARTS.items() for word in words.split()}
_BLOCKED = set(_OTHERS["about the data"].split())
_KNOWN = {*_ROLE_OF, *_WEAK_OF, *_PART_OF, *_BLOCKED, *_OTHERS["of no weight"].split()}
_SPLIT = re.compile(r"[A-Z]+(?=[A-Z][a-z])\d*|[A-Z]?[a-z]+\d*|[A-Z]+\d*|\d+")
_SHOWN = 8


class Meaning(NamedTuple):
    """What a name says.

    Attributes:
        role: "image", "text", "labels", "y", or "" where it says none or several.
        part: a part of the pairs, or "" for all.
        rank: 0 for a name of the documentation, 1 if each word is known, 2 otherwise.
        meant: whether a word of it stands for a role, so that it may be meant as data.
    """

    role: str
    part: str
    rank: int
    meant: bool


def meaning(name: str) -> Meaning:
    """What the name of an array says; of "a/b" the last place that says something counts."""
    listed = [role for role, names in _LISTED.items() if name.lower() in names]
    if listed:
        return Meaning(listed[0], "", 0, True)
    role = part = ""
    rank, meant = 1, False
    for place in reversed(name.split("/")):
        words = _words(place)
        roles = _roles(words)
        meant |= bool(roles)
        blocked = any(word in _BLOCKED for word in words)
        if not role and roles and not blocked:
            role = "labels" if "labels" in roles else next(iter(roles)) if len(roles) == 1 else ""
            rank = 1 if all(word in _KNOWN for word in words) else 2
        if blocked and not role:
            break
        part = part or next((_PART_OF[word] for word in words if word in _PART_OF), "")
    return Meaning(role, part, rank, meant)


def says_something(name: str) -> bool:
    """Whether a name has a word for a role or a part."""
    words = _words(name)
    return bool(_roles(words)) or any(word in _PART_OF for word in words)


def _words(name: str) -> list[str]:
    """The words of a name: "XTrain", "x_train" and "trainX" are two each."""
    words = []
    for piece in _SPLIT.findall(name.replace("BoW", "Bow")):
        piece = piece.lower()
        letters = piece.rstrip("0123456789")
        if piece in _KNOWN:
            words.append(piece)
        elif letters and (len(letters) > 1 or letters == piece):
            words += _glued(letters) or [letters]
    return words


_LONGEST = 60  # letters of a name that is searched for words


def _glued(piece: str) -> list[str]:
    """Known words that a piece consists of: "trainimg" is two; none where it does not."""
    if piece in _KNOWN:
        return [piece]
    if len(piece) > _LONGEST:
        return []
    for end in range(len(piece) - 1, 1, -1):
        if piece[:end] in _KNOWN and len(piece) - end > 1:
            rest = _glued(piece[end:])
            if rest:
                return [piece[:end], *rest]
    return []


def _roles(words: Sequence[str]) -> set[str]:
    """Roles of words; a single letter counts only where every other word is known."""
    sure = all(word in _KNOWN for word in words)
    strong = {_ROLE_OF[w] for w in words if w in _ROLE_OF and (sure or len(w) > 1)}
    return strong or {_WEAK_OF[word] for word in words if word in _WEAK_OF}


class Assigned(NamedTuple):
    """Arrays by what they are for.

    Attributes:
        parts: {"": {role: array}} of a file with one array for all pairs, or the parts "query",
            "database" and "train", of which the first is always there and one of the others.
        notes: printable lines.
    """

    parts: dict[str, dict[str, StoredArray]]
    notes: list[str]


def assign(path: Path, arrays: Sequence[StoredArray], layout: str) -> Assigned:
    """What each array is for.

    Args:
        path: the file or folder, for errors.
        arrays: its arrays.
        layout: ends an error line: what was expected.

    Raises:
        ValueError: image or text is missing, or two arrays are for the same.
    """
    candidates: dict[str, dict[str, list[StoredArray]]] = {}
    meanings = {array.name: meaning(array.name) for array in arrays}
    three = any("tra" in _words(name) for name in meanings)
    for array in arrays:
        role, part, _, _ = meanings[array.name]
        part = {"tr": "database" if three else "train"}.get(part, part)
        if role:
            candidates.setdefault(part, {}).setdefault(role, []).append(array)
    for found in candidates.values():
        ambiguous = found.pop("y", [])
        free = next((role for role in ("text", "labels") if role not in found), None)
        if ambiguous and free:
            found[free] = ambiguous
    complete = [part for part, found in candidates.items() if {"image", "text"} <= set(found)]
    if "" in complete:
        chosen = [""]
    elif "query" in complete and {"train", "database"} & set(complete):
        chosen = [part for part in ("query", "database", "train") if part in complete]
    else:
        chosen = [part for part in complete if part != "validation"][:1]
    if not chosen:
        raise ValueError(_missing(path, arrays, candidates, layout))
    parts = {
        part: {
            role: _best(path, role, candidates[part][role], meanings, layout)
            for role in ROLES
            if role in candidates[part]
        }
        for part in chosen
    }
    if len(parts) == 1:
        parts = {"": next(iter(parts.values()))}
    _check_labels(path, parts)
    read = [array for found in parts.values() for array in found.values()]
    notes = []
    if "" in parts and any(meanings[array.name].rank for array in read):
        said = (f"{role}: {array.name}" for role, array in parts[""].items())
        notes.append(f"read by their names as {', '.join(said)}")
    unread = [a.name for a in arrays if a not in read and meanings[a.name].meant]
    if unread:
        notes.append(f"not read: {_listed(unread)}")
    return Assigned(parts, notes)


def _best(
    path: Path, role: str, found: list[StoredArray], meanings: dict[str, Meaning], layout: str
) -> StoredArray:
    rank = min(meanings[array.name].rank for array in found)
    best = [array for array in found if meanings[array.name].rank == rank]
    if len(best) > 1:
        raise ValueError(
            f"{path} has {' and '.join(array.name for array in best[:_SHOWN])}, expected one "
            f"{role}; rename the right one to {role}, or join them; {layout}"
        )
    return best[0]


def _missing(
    path: Path, arrays: Sequence[StoredArray], candidates: dict[str, dict], layout: str
) -> str:
    roles = candidates.get("") or next(iter(candidates.values()), {})
    missing = [role for role in ("image", "text") if role not in roles]
    if not missing:  # image of one part and text of another
        missing = ["image and text of the same part"]
    problem = next((f"; {a.where} is {a.problem}" for a in arrays if a.problem), "")
    names = _listed([array.name for array in arrays]) if arrays else "none"
    return (
        f"{path} has no array {' and no array '.join(missing)} (it has {names}){problem}; {layout}"
    )


def _check_labels(path: Path, parts: dict[str, dict[str, StoredArray]]) -> None:
    """All parts have labels, or none."""
    without = [part for part, found in parts.items() if "labels" not in found]
    if without and len(without) < len(parts):
        named = next(found["labels"].name for found in parts.values() if "labels" in found)
        raise ValueError(
            f"{path} has {named} but no labels of the {without[0]} part, expected labels of all "
            "parts or of none"
        )


def _listed(names: Iterable[str]) -> str:
    names = sorted(name[:60] for name in names)
    shown = ", ".join(names[:_SHOWN]) + (
        f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else ""
    )
    return shown.encode("utf-8", "backslashreplace").decode()
