"""Images that look alike on two sides of a split: copies that were resized or saved again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from dsprh_tf import codes
from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.images import load_small
from dsprh_tf.data.splits import Split
from dsprh_tf.data.threads import by_threads

# An image is seen as 16 rows of 17 grey values. Its code says of each but the last whether its
# right neighbour is brighter: 256 bits. Two images look alike when both values below hold. Of
# copies of COCO images (JPEG of quality 30 to 95, PNG, 0.25 to 2 times the size, squeezed to
# squares) 9 in 10 differ in less than 20 bits, and 99 in 100 look alike; of the 1.8 million pairs
# of 1,924 different COCO images, and of the 2 million of drawn scenes, none does.
RADIUS = 32  # bits
CORRELATION = 0.97  # of the grey values
FLAT = 4  # grey levels of standard deviation: below, an image shows too little to be told apart

LIMIT = 25_000
"""Images that are compared at most: decoding takes half a millisecond to several each."""

_WIDTH, _HEIGHT = 17, 16
_BITS = _HEIGHT * (_WIDTH - 1)
_SIDE = 32  # pixels that an image is reduced to first: JPEG decoders do that at little cost
_BLOCK = 512  # queries whose distances are in memory at once


def near_notes(dataset: PairDataset, split: Split, limit: int = LIMIT) -> list[str]:
    """Warnings of images that look alike although they are not equal, on two sides of a split.

    Compared are queries with the database, and validation pairs with training pairs. Of more than
    `limit` images a sample is compared, always the same for a seed of the split.

    Args:
        dataset: the pairs; features have no images to look at.
        split: the split.
        limit: images to look at.

    Returns:
        A line for each two sides where there are such images, and one that tells of a sample.
    """
    if dataset.image_paths is None:
        return []
    query, database, sample = _sampled(split, limit)
    looked_at = np.union1d(query, database)
    grey = np.zeros((len(dataset), _HEIGHT * _WIDTH), np.uint8)
    grey[looked_at] = grey_grids(dataset.image_paths[looked_at])
    groups = dataset.image_groups()
    notes = []
    sides = (
        (query, database, "query", "the database", "the results will look better than they are"),
        (
            np.intersect1d(split.validation, database),
            np.intersect1d(split.train, database),
            "validation",
            "training",
            "validation will look better than it is",
        ),
    )
    for left, right, name, where, effect in sides:
        found, first = near_rows(grey[left], grey[right], groups[left], groups[right])
        if len(found):
            one, other = (dataset.ids[rows[i]] for rows, i in zip((left, right), first))
            notes.append(
                f"warning: {len(found):,} of {len(left):,} {name} images look like one in {where} "
                f"(resized or saved again?), the first are {one} and {other}: {effect}"
            )
    return notes + sample if notes else sample


def grey_grids(paths: Sequence[str]) -> np.ndarray:
    """Each image as a few grey values: uint8 [N, 272], 0 where it cannot be read."""

    def grids_of(block: Sequence[str]) -> list[np.ndarray]:
        return [_grey_grid(path) for path in block]

    found = by_threads(grids_of, paths, "looking for copies", "image")
    return np.array(found, np.uint8).reshape(len(paths), _HEIGHT * _WIDTH)


def _grey_grid(path: str) -> np.ndarray:
    try:
        small = Image.fromarray(load_small(path, _SIDE)).convert("L")
    except ValueError:  # training and encoding name it
        return np.zeros(_HEIGHT * _WIDTH, np.uint8)
    return np.asarray(small.resize((_WIDTH, _HEIGHT), Image.Resampling.BILINEAR)).ravel()


def near_rows(
    left: np.ndarray, right: np.ndarray, left_groups: np.ndarray, right_groups: np.ndarray
) -> tuple[np.ndarray, tuple[int, int]]:
    """The images of one side that look like one of another, without those that are equal to it.

    Args:
        left: uint8 [N, 272] of `grey_grids`.
        right: uint8 [M, 272], the same of the other side.
        left_groups: int64 [N], the same number for equal images.
        right_groups: int64 [M].

    Returns:
        Rows of `left`, and the first pair of a row of `left` and one of `right`.
    """
    found: list[int] = []
    first = (0, 0)
    left_codes, right_codes, left, right = (
        _codes(left),
        _codes(right),
        _centred(left),
        _centred(right),
    )
    for start in range(0, len(left), _BLOCK):
        block = slice(start, start + _BLOCK)
        near = left[block] @ right.T >= CORRELATION
        near &= codes.hamming_distance(left_codes[block], right_codes) <= RADIUS
        near &= left_groups[block, None] != right_groups
        rows, columns = np.nonzero(near)
        if len(rows) and not found:
            first = start + int(rows[0]), int(columns[0])
        found += np.unique(start + rows).tolist()
    return np.array(found, np.int64), first


def _codes(grey: np.ndarray) -> np.ndarray:
    """uint8 [N, 32]: whether grey values rise from left to right."""
    grid = grey.reshape(-1, _HEIGHT, _WIDTH)
    return np.packbits((grid[:, :, 1:] > grid[:, :, :-1]).reshape(len(grid), _BITS), axis=1)


def _centred(grey: np.ndarray) -> np.ndarray:
    """float32 [N, 272] whose products are correlations; 0 for a flat image."""
    values = grey.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    return values * (norm >= FLAT * values.shape[1] ** 0.5) / np.maximum(norm, 1)


def _sampled(split: Split, limit: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Queries and database to compare, all or a sample, and a line that tells of it."""
    query, database = split.query, split.database
    if len(query) + len(database) <= limit:
        return query, database, []
    rng = np.random.default_rng(split.seed)
    query = np.sort(rng.permutation(query)[: max(limit // 2, limit - len(database))])
    database = np.sort(rng.permutation(database)[: limit - len(query)])
    return query, database, [
        f"looked for copies among {len(query):,} of {len(split.query):,} queries and "
        f"{len(database):,} of {len(split.database):,} database pairs"
    ]  # fmt: skip
