"""The split into queries, database, training and validation: drawn once, saved, reused."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.files import LARGE_JSON, read_json, write_json

PARTS = ("query", "database", "train", "validation")


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
    """

    query: np.ndarray
    database: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    seed: int
    fingerprint: str


def make_split(
    dataset: PairDataset,
    queries: int = 2000,
    train: int = 5000,
    validation: float = 0.05,
    seed: int = 0,
) -> Split:
    """A split of the data: the one that it comes with, or one drawn with a seed.

    With labels, queries are drawn class by class as in DJSRH: on MIRFlickr 160 of the first
    class, then 80 of each next one that are not drawn yet, topped up at random to 2,000; training
    pairs likewise (400 / 200, 5,000) from the rest. Other numbers scale: the first class gives
    twice what the others give. Unlabelled pairs are drawn uniformly.

    Args:
        dataset: the pairs. Its `given_split` is used as it stands, then `queries` and `train` are
            ignored.
        queries: the number of queries.
        train: the number of training pairs, those for validation included; at most the database.
        validation: the fraction of the training pairs to take out for validation, or their
            number if 1 or more; 0 for none.
        seed: the same seed and data give the same split.

    Raises:
        ValueError: fewer pairs than queries, or no training pair left beside validation.
    """
    rng = np.random.default_rng(seed)
    given = dataset.given_split
    if given is not None:
        query, database = np.sort(given["query"]), np.sort(given["database"])
        drawn = np.sort(given.get("train", database))
    else:
        if queries < 1 or train < 1:
            raise ValueError(f"{queries} queries and {train} training pairs, expected 1 or more")
        if len(dataset) <= queries:
            raise ValueError(
                f"{dataset.name} has {len(dataset):,} pairs but {queries:,} queries were asked "
                "for, expected more pairs than queries; lower the number of queries"
            )
        query = _draw(dataset.labels, np.arange(len(dataset)), queries, rng)
        database = np.setdiff1d(np.arange(len(dataset)), query)
        drawn = _draw(dataset.labels, database, min(train, len(database)), rng)
    held_out = _validation_count(validation, len(drawn))
    validation_part = np.sort(rng.permutation(drawn)[:held_out])
    return Split(
        query=query,
        database=database,
        train=np.setdiff1d(drawn, validation_part),
        validation=validation_part,
        seed=seed,
        fingerprint=dataset.fingerprint(),
    )


def save_split(path: str | os.PathLike, split: Split, ids: np.ndarray) -> None:
    """Writes a split as JSON lists of ids, atomically, so that it survives a reordering of files.

    Args:
        path: the file.
        split: the split.
        ids: [N] `PairDataset.ids` of the data that was split.
    """
    content: dict[str, Any] = {"seed": split.seed, "fingerprint": split.fingerprint}
    content.update({part: ids[getattr(split, part)].tolist() for part in PARTS})
    write_json(path, content)


def load_split(path: str | os.PathLike, dataset: PairDataset) -> Split:
    """The split that `save_split` wrote, for the same data.

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
    indices = {
        part: np.sort(np.array([position[name] for name in content[part]], np.int64))
        for part in PARTS
    }
    split = Split(**indices, seed=content["seed"], fingerprint=content["fingerprint"])
    _check_parts(path, split, fix)
    return split


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
    for part in ("query", "database", "train"):
        if not len(getattr(split, part)):
            raise ValueError(f"{path}: {part} is empty, it was altered; {fix}")


def _draw(
    labels: np.ndarray | None, candidates: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """`count` of the candidates (indices), balanced over classes where there are labels."""
    free = rng.permutation(candidates)
    drawn = []
    if labels is not None:
        share = count // (labels.shape[1] + 1)
        for column in range(labels.shape[1]):
            of_class = free[labels[free, column] > 0][: 2 * share if column == 0 else share]
            drawn.append(of_class)
            free = free[~np.isin(free, of_class)]
    missing = count - sum(map(len, drawn))
    return np.sort(np.concatenate([*drawn, free[:missing]])).astype(np.int64)


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
