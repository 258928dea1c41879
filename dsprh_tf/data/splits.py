"""The split into queries, database, training and validation: drawn once, saved, reused."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.files import LARGE_JSON, read_json, write_json

PARTS = ("query", "database", "train", "validation")
_BY_IMAGE = "by_image"  # of a saved split: no image is on two sides


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The parts of a data set as int64 index arrays, ascending.

    Attributes:
        query: test queries, seen neither in training nor in validation.
        database: what is searched: all pairs but the queries, unless the source says otherwise.
        train: training pairs, all of them in the database.
        validation: pairs taken out of the drawn training pairs, disjoint from `train`.
        seed: the seed that it was drawn with.
        fingerprint: `PairDataset.fingerprint()` of the data.
        notes: printable lines on images that occur more than once; they are not saved.
    """

    query: np.ndarray
    database: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    seed: int
    fingerprint: str
    notes: tuple[str, ...] = ()


def make_split(
    dataset: PairDataset,
    queries: int = 2000,
    train: int = 5000,
    validation: float = 0.05,
    seed: int = 0,
    unseen: bool = False,
) -> Split:
    """A split of the data: the one that it comes with, or one drawn with a seed.

    With labels, queries are drawn class by class as in DJSRH: on MIRFlickr 160 of the first
    class, then 80 of each next one that are not drawn yet, topped up at random to 2,000; training
    pairs likewise (400 / 200, 5,000) from the rest. Other numbers scale: the first class gives
    twice what the others give. Unlabelled pairs are drawn uniformly.

    Pairs with the same image (`PairDataset.image_groups`) stand on one side: they are drawn
    together, with the labels of all, and count as that many pairs. Those that would be too many
    are passed over, so that a part has fewer pairs than asked for only if none fit; a part has
    more only if no image occurs so seldom. Without such pairs the split is the same as if nobody
    had looked for them.

    Args:
        dataset: the pairs. With a `given_split`, `queries` and `train` are ignored; what has the
            image of a query is left out of its database and training pairs.
        queries: the number of queries; 0 for none.
        train: the number of training pairs, those for validation included; at most the database.
        validation: the fraction of the training pairs to take out for validation, or their
            number if 1 or more; 0 for none.
        seed: the same seed and data give the same split.
        unseen: draw `train` of the training pairs of a `given_split`, too, so that others are left
            in its database.

    Raises:
        ValueError: fewer pairs than queries, no training pair left beside validation, or no image
            that is not a query's; an image cannot be read.
    """
    rng = np.random.default_rng(seed)
    given, groups = dataset.given_split, dataset.image_groups()
    notes = _repeat_notes(groups)
    if given is not None:
        query = np.sort(given["query"])
        database, drawn, left_out = _without_images_of(query, given, groups, dataset.name)
        notes += left_out
        if unseen:
            drawn = _draw(dataset.labels, drawn, min(train, len(drawn)), rng, groups)
    else:
        if queries < 0 or train < 1:
            raise ValueError(
                f"{queries} queries and {train} training pairs, expected 0 or more and 1 or more"
            )
        if len(dataset) <= queries:
            raise ValueError(
                f"{dataset.name} has {len(dataset):,} pairs but {queries:,} queries were asked "
                "for, expected more pairs than queries; lower the number of queries"
            )
        query = _draw(dataset.labels, np.arange(len(dataset)), queries, rng, groups)
        database = np.setdiff1d(np.arange(len(dataset)), query)
        if not len(database):
            raise ValueError(
                f"{dataset.name}: all {len(dataset):,} pairs have the same image, expected other "
                "images for the database; check how images are named"
            )
        drawn = _draw(dataset.labels, database, min(train, len(database)), rng, groups)
    held_out = _validation_count(validation, len(drawn))
    validation_part = _draw(None, drawn, held_out, rng, groups)
    if len(validation_part) == len(drawn):  # one image: it is trained on
        validation_part = validation_part[:0]
    return Split(
        query=query,
        database=database,
        train=np.setdiff1d(drawn, validation_part),
        validation=validation_part,
        seed=seed,
        fingerprint=dataset.fingerprint(),
        notes=tuple(notes),
    )


def save_split(path: str | os.PathLike, split: Split, ids: np.ndarray) -> None:
    """Writes a split as JSON lists of ids, atomically, so that it survives a reordering of files.

    Args:
        path: the file.
        split: the split.
        ids: [N] `PairDataset.ids` of the data that was split.
    """
    content: dict[str, Any] = {
        "seed": split.seed,
        "fingerprint": split.fingerprint,
        _BY_IMAGE: True,
    }
    content.update({part: ids[getattr(split, part)].tolist() for part in PARTS})
    write_json(path, content)


def load_split(path: str | os.PathLike, dataset: PairDataset) -> Split:
    """The split that `save_split` wrote, for the same data.

    It is used as it stands. One of an earlier version may have an image on two sides: its notes
    then say so.

    Raises:
        ValueError: the file is broken or altered, or the data are not those that were split.
    """
    fix = "use the data of that run, or start a new run folder"
    content = read_json(path, fix, LARGE_JSON)
    if not isinstance(content, dict) or not {"seed", "fingerprint", *PARTS} <= set(content):
        raise ValueError(f"{path} is not a saved split (keys {', '.join(PARTS)}); {fix}")
    if type(content["seed"]) is not int or not isinstance(content["fingerprint"], str):
        raise ValueError(f"{path} has no seed or no fingerprint, it was altered; {fix}")
    position = {name: index for index, name in enumerate(dataset.ids.tolist())}
    for part in PARTS:
        names = content[part]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{path}: {part} is not a list of ids, it was altered; {fix}")
        if len(set(names)) != len(names):
            raise ValueError(f"{path}: {part} names an id twice, it was altered; {fix}")
        missing = [name for name in content[part] if name not in position]
        if missing:
            raise ValueError(
                f"{path}: {len(missing):,} {part} ids are not in {dataset.name}, first "
                f"{missing[0]!r}; {fix}"
            )
    if content["fingerprint"] != dataset.fingerprint():
        raise ValueError(
            f"{path} was made for other data: its fingerprint is {content['fingerprint'][:12]}, "
            f"that of {dataset.name} is {dataset.fingerprint()[:12]} (ids, texts, labels or files "
            f"changed); {fix}"
        )
    indices: dict[str, Any] = {
        part: np.sort(np.array([position[name] for name in content[part]], np.int64))
        for part in PARTS
    }
    split = Split(**indices, seed=content["seed"], fingerprint=content["fingerprint"])
    _check_parts(path, split, fix)
    if content.get(_BY_IMAGE) is True:
        return split
    return dataclasses.replace(split, notes=tuple(_two_sides(path, split, dataset.image_groups())))


def _check_parts(path: str | os.PathLike, split: Split, fix: str) -> None:
    """Refuses a saved split whose parts do not stand to each other as drawn ones do."""
    wrong = {
        "a query is in the database": np.intersect1d(split.query, split.database),
        "a pair is in training and in validation": np.intersect1d(split.train, split.validation),
        "a training pair is not in the database": np.setdiff1d(split.train, split.database),
    }
    for problem, indices in wrong.items():
        if len(indices):
            raise ValueError(f"{path}: {problem}, it was altered; {fix}")
    for part in ("database", "train"):
        if not len(getattr(split, part)):
            raise ValueError(f"{path}: {part} is empty, it was altered; {fix}")


def _draw(
    labels: np.ndarray | None,
    candidates: np.ndarray,
    count: int,
    rng: np.random.Generator,
    groups: np.ndarray,
) -> np.ndarray:
    """`count` of the candidates (indices), balanced over classes where there are labels.

    Candidates of one group are drawn together.
    """
    free = rng.permutation(candidates)
    sizes = np.bincount(groups[candidates], minlength=len(groups))
    if sizes.max(initial=0) > 1:
        # The first of a group stands for it, in the order in which single ones would be drawn.
        _, first = np.unique(groups[free], return_index=True)
        free = free[np.sort(first)]
        labels = None if labels is None else _labels_of_groups(labels, groups)
    sizes = sizes[groups]
    drawn = []
    if labels is not None:
        share = count // (labels.shape[1] + 1)
        for column in range(labels.shape[1]):
            of_class = free[labels[free, column] > 0]
            of_class = _filling(of_class, 2 * share if column == 0 else share, sizes)
            drawn.append(of_class)
            free = free[~np.isin(free, of_class)]
    missing = count - sum(int(sizes[rows].sum()) for rows in drawn)
    drawn.append(_filling(free, missing, sizes))
    found = np.concatenate(drawn)
    if count and len(free) and not len(found):
        found = free[[sizes[free].argmin()]]  # every image occurs more often: the rarest
    return np.sort(candidates[np.isin(groups[candidates], groups[found])]).astype(np.int64)


def _filling(rows: np.ndarray, count: int, sizes: np.ndarray) -> np.ndarray:
    """The first rows whose groups have `count` pairs together; what is too large is passed over."""
    before = np.cumsum(sizes[rows]) - sizes[rows]
    if sizes[rows].max(initial=1) == 1:
        return rows[before < count]
    taken = []
    for row in rows:
        if count <= 0:
            break
        if sizes[row] <= count:
            taken.append(row)
            count -= sizes[row]
    return np.array(taken, np.int64)


def _labels_of_groups(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """For each pair the labels of all pairs with its image, which shows what any of them says."""
    union = labels.copy()
    repeated = np.flatnonzero(groups != np.arange(len(groups)))
    np.maximum.at(union, groups[repeated], labels[repeated])
    return union[groups]


def _repeat_notes(groups: np.ndarray) -> list[str]:
    sizes = np.bincount(groups)
    sizes = sizes[sizes > 1]
    if not len(sizes):
        return []
    images = "1 image occurs" if len(sizes) == 1 else f"{len(sizes):,} images occur"
    return [f"{images} more than once ({sizes.sum():,} items); each stands on one side"]


def _without_images_of(
    query: np.ndarray, given: dict[str, np.ndarray], groups: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Database and training pairs of a given split without the queries' images, and a note."""
    whole = np.sort(given["database"])
    training = np.sort(given.get("train", whole))
    database, drawn = (part[~np.isin(groups[part], groups[query])] for part in (whole, training))
    for part, rows in (("database", database), ("training", drawn)):
        if not len(rows):
            raise ValueError(
                f"{name}: every {part} pair of the given split has the image of a query, expected "
                "images of its own; give another split, or none"
            )
    gone = len(whole) - len(database)
    note = (
        f"left out of the given split: {gone:,} of {len(whole):,} database pairs that have the "
        f"image of a query, {len(training) - len(drawn):,} of them for training"
    )
    return database, drawn, [note] if gone else []


def _two_sides(path: str | os.PathLike, split: Split, groups: np.ndarray) -> list[str]:
    """A warning of a split that has an image on two sides."""
    query, database, train, validation = (groups[getattr(split, part)] for part in PARTS)
    in_database, in_train = np.isin(query, database), np.isin(query, train)
    both = np.isin(validation, train)
    if not in_database.any() and not both.any():
        return []
    return [
        f"warning: {path} is of an earlier version, and {in_database.sum():,} of {len(query):,} "
        f"queries have the image of a database pair, {in_train.sum():,} of a training pair, and "
        f"{both.sum():,} of {len(validation):,} validation pairs of a training pair: results look "
        "better than they are; a new run folder gets a split without this"
    ]


def _validation_count(validation: float, drawn: int) -> int:
    if validation < 0:
        raise ValueError(f"validation is {validation}, expected a fraction, a number or 0")
    count = int(validation) if validation >= 1 else round(validation * drawn)
    if count >= drawn:
        raise ValueError(
            f"validation {validation:g} would take {count:,} of {drawn:,} training pairs, expected "
            "fewer; lower it"
        )
    return count
