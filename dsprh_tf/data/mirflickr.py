"""MIRFlickr-25K in the layout of its official archives."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.files import first_existing, read_lines, require_folder

# The 24 labels of the field; the 14 stricter "_r1" annotations are left out.
LABELS = (
    "animals", "baby", "bird", "car", "clouds", "dog", "female", "flower", "food", "indoor",
    "lake", "male", "night", "people", "plant_life", "portrait", "river", "sea", "sky",
    "structures", "sunset", "transport", "tree", "water",
)  # fmt: skip

# Tags of at least 20 images: 1,386 of them, the D_T of every paper on this data set.
MIN_TAG_COUNT = 20

_DOWNLOAD = (
    "download mirflickr25k.zip and mirflickr25k_annotations_v080.zip from "
    "press.liacs.nl/mirflickr and unpack both there, so that mirflickr/im1.jpg, "
    "mirflickr/meta/tags/tags1.txt, mirflickr/doc/common_tags.txt and "
    "mirflickr25k_annotations_v080/animals.txt exist"
)


def load_mirflickr25k(data_dir: str | os.PathLike, on_bad_image: str = "error") -> PairDataset:
    """MIRFlickr-25K: photographs with their Flickr tags and 24 labels.

    Kept are images with at least one common tag and one label: 20,015 of the 25,000.

    Args:
        data_dir: where the two archives are unpacked; the images may lie in it or in
            `mirflickr/` or `mirflickr25k/`, the annotations in `annotations/`,
            `mirflickr25k_annotations_v080/` or beside them.
        on_bad_image: "error" or "skip".

    Raises:
        ValueError: files are missing or broken; the line says what to download, and where to.
    """
    folder = require_folder(data_dir, _DOWNLOAD)
    roots = [folder, folder / "mirflickr", folder / "mirflickr25k"]
    roots.append(folder / "mirflickr25k" / "mirflickr")
    tag_dir = _find(folder, "meta/tags", [root / "meta" / "tags" for root in roots])
    common_file = _find(
        folder, "doc/common_tags.txt", [root / "doc" / "common_tags.txt" for root in roots]
    )
    places = ("annotations", "mirflickr25k_annotations_v080", "")
    annotations = _find(
        folder,
        "annotations (animals.txt, ...)",
        [root / place / "animals.txt" for root in roots for place in places],
    ).parent
    root = tag_dir.parents[1]

    vocabulary = _common_tags(common_file)
    common = set(vocabulary)
    numbers = sorted(
        int(path.stem[4:]) for path in tag_dir.glob("tags*.txt") if _is_number(path.stem[4:])
    )
    if not numbers:
        raise ValueError(f"{tag_dir} has no tags1.txt, tags2.txt, ...; {_DOWNLOAD}")
    pictures = sum(_is_number(path.stem[2:]) for path in root.glob("im*.jpg"))
    if not pictures:
        raise ValueError(f"{root} has no im1.jpg, im2.jpg, ...; {_DOWNLOAD}")

    tags = [_tags(tag_dir / f"tags{number}.txt") for number in numbers]
    labels, strangers = _read_labels(annotations, numbers)
    tagged = np.array([not common.isdisjoint(words) for words in tags])
    labelled = labels.any(axis=1)
    kept = np.flatnonzero(tagged & labelled)
    notes = [
        f"{pictures:,} images in {root.name}/, {len(numbers):,} tag files, "
        f"{len(vocabulary):,} common tags, {len(LABELS)} labels from {annotations.name}/",
        f"dropped {np.sum(~tagged):,} images without a common tag",
        f"dropped {np.sum(tagged & ~labelled):,} further images without a label",
        f"{len(kept):,} pairs",
    ]
    if strangers:
        notes.insert(1, f"ignored {strangers:,} annotations of images that have no tag file")
    if not len(kept):
        raise ValueError(f"{folder}: no image has both a common tag and a label; {_DOWNLOAD}")
    dataset = PairDataset(
        name="mirflickr25k",
        ids=np.array([f"im{numbers[i]}" for i in kept]),
        image_paths=np.array([str(root / f"im{numbers[i]}.jpg") for i in kept], object),
        texts=np.array([" ".join(tags[i]) for i in kept], object),
        labels=labels[kept],
        label_names=LABELS,
        vocabulary=vocabulary,
        notes=tuple(notes),
    )
    return dataset.drop_bad_images(on_bad_image)


def _find(folder: Path, what: str, candidates: list[Path]) -> Path:
    found = first_existing(candidates)
    if found is None:
        raise ValueError(f"{folder} has no {what}; {_DOWNLOAD}")
    return found


def _is_number(text: str) -> bool:
    # Python reads neither "²", which is a digit, nor numbers of thousands of digits.
    return text.isascii() and text.isdecimal() and len(text) < 10


def _tag(text: str) -> str:
    """A tag as one lower-case word: a space inside it would make two words of it."""
    return "".join(text.lower().split())


def _tags(path: Path) -> list[str]:
    return [tag for tag in map(_tag, read_lines(path)) if tag]


def _common_tags(path: Path) -> tuple[str, ...]:
    """The tags of `common_tags.txt` (lines "tag count") that are on enough images."""
    tags: dict[str, None] = {}
    for row, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        tag, _, count = line.strip().rpartition(" ")
        if not tag.strip() or not _is_number(count):
            raise ValueError(
                f"{path} row {row} is {line.strip()[:80]!r}, expected a tag, a space and a count; "
                "unpack mirflickr25k.zip again"
            )
        if int(count) >= MIN_TAG_COUNT:
            tags[_tag(tag)] = None
    if not tags:
        raise ValueError(
            f"{path} names no tag of {MIN_TAG_COUNT} or more images; unpack mirflickr25k.zip again"
        )
    return tuple(tags)


def _read_labels(folder: Path, numbers: list[int]) -> tuple[np.ndarray, int]:
    """uint8 [N, 24], and how many annotated image numbers are not among `numbers`."""
    missing = [name for name in LABELS if not (folder / f"{name}.txt").exists()]
    if missing:
        raise ValueError(
            f"{folder} lacks {', '.join(f'{name}.txt' for name in missing)} of the 24 annotation "
            "files; unpack mirflickr25k_annotations_v080.zip again"
        )
    row_of = {number: row for row, number in enumerate(numbers)}
    labels = np.zeros((len(numbers), len(LABELS)), np.uint8)
    strangers = 0
    for column, name in enumerate(LABELS):
        path = folder / f"{name}.txt"
        for line, text in enumerate(read_lines(path), 1):
            if not text.strip():
                continue
            if not _is_number(text.strip()):
                raise ValueError(
                    f"{path} row {line} is {text.strip()[:80]!r}, expected an image number; unpack "
                    "mirflickr25k_annotations_v080.zip again"
                )
            row = row_of.get(int(text))
            if row is None:
                strangers += 1
            else:
                labels[row, column] = 1
    return labels, strangers
