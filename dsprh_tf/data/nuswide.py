"""NUS-WIDE in the layout of its official archives."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.files import first_existing, read_lines, require_folder, require_regular

CONCEPTS = 10
TAGS = 1000

_BLOCK_ROWS = 4096
_LONGEST = 2**16  # bytes of a row of tags
_DOWNLOAD = (
    "download NUS-WIDE's image list (ImageList.zip), tags (NUS_WID_Tags.zip), ground truth "
    "(Groundtruth.zip) and the images (Flickr.zip) and unpack them there, so that "
    "ImageList/Imagelist.txt, NUS_WID_Tags/AllTags1k.txt, NUS_WID_Tags/TagList1k.txt, "
    "Groundtruth/AllLabels/Labels_sky.txt and Flickr/actor/ exist"
)


def load_nuswide(data_dir: str | os.PathLike, on_bad_image: str = "error") -> PairDataset:
    """NUS-WIDE: photographs with their Flickr tags and the 10 most frequent of 81 concepts.

    Kept are images with at least one of the 1,000 tags and one of the 10 concepts, about 186,577
    (rebuilt counts differ; the notes hold the one found). The text vector of the field is the
    1,000 tags. The DSPRH paper has bags of 500 words and does not say which; the only 500 columns
    of NUS-WIDE itself are a bag of SIFT words, of images. `--max_words=500` keeps the 500 tags
    that are most frequent in the training texts.

    Args:
        data_dir: where the archives are unpacked.
        on_bad_image: "error" or "skip"; copies of the images are often incomplete.

    Raises:
        ValueError: files are missing, broken or of different lengths; the line says what to
            download, and where to.
    """
    folder = require_folder(data_dir, _DOWNLOAD)
    list_file = _find(folder, "ImageList/Imagelist.txt", "ImageList/ImageList.txt", "Imagelist.txt")
    tag_file = _find(folder, "NUS_WID_Tags/AllTags1k.txt", "AllTags1k.txt")
    name_file = _find(
        folder,
        "NUS_WID_Tags/TagList1k.txt",
        "ConceptsList/TagList1k.txt",
        "Concepts/TagList1k.txt",
        "TagList1k.txt",
    )
    label_dir = _find(folder, "Groundtruth/AllLabels", "AllLabels")

    images = [line.strip().replace("\\", "/") for line in read_lines(list_file) if line.strip()]
    tag_names = ["".join(line.lower().split()) for line in read_lines(name_file) if line.strip()]
    if len(tag_names) != TAGS:
        raise ValueError(f"{name_file} names {len(tag_names):,} tags, expected 1,000; {_DOWNLOAD}")
    labels, concepts, concept_notes = _labels(label_dir, len(images))
    labelled = np.any(labels, axis=1)
    texts: list[str] = []
    for block in _tag_blocks(tag_file, images):
        texts.extend(" ".join(tag_names[i] for i in np.flatnonzero(row)) for row in block)
    tagged = np.array(texts, object) != ""
    kept = np.flatnonzero(labelled & tagged)
    if not len(kept):
        raise ValueError(f"{folder}: no image has both a tag and a label; {_DOWNLOAD}")
    locate = _picture_layout(folder, [images[i] for i in kept])
    dataset = PairDataset(
        name="nuswide",
        ids=np.array([str(PurePosixPath(images[i]).with_suffix("")) for i in kept]),
        image_paths=np.array([str(locate(images[i])) for i in kept], object),
        texts=np.array([texts[i] for i in kept], object),
        labels=labels[kept],
        label_names=concepts,
        vocabulary=tuple(dict.fromkeys(tag_names)),
        notes=(
            f"{len(images):,} images in {list_file.name}",
            *concept_notes,
            f"dropped {np.sum(~labelled):,} images in none of the {CONCEPTS} concepts",
            f"dropped {np.sum(labelled & ~tagged):,} further images without a tag",
            f"{len(kept):,} pairs",
        ),
    )
    return dataset.drop_bad_images(on_bad_image)


def _roots(folder: Path) -> tuple[Path, ...]:
    return folder, folder / "NUS-WIDE", folder / "NUS_WIDE"


def _find(folder: Path, *names: str) -> Path:
    found = first_existing(root / name for root in _roots(folder) for name in names)
    if found is None:
        arrays = next(folder.glob("*.mat"), None)
        if arrays is not None:
            raise ValueError(
                f"{folder} has no {names[0]}, but {arrays.name}: give one MATLAB file with images, "
                "YAll and LAll as --dataset=mirflickr25k_mat --data_dir=FILE, vectors as "
                "--dataset=features"
            )
        raise ValueError(f"{folder} has no {names[0]}; {_DOWNLOAD}")
    return found


def _labels(folder: Path, count: int) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """uint8 [N, 10] and the names of the most frequent concepts, by descending frequency."""
    files = sorted(folder.glob("Labels_*.txt"))
    if len(files) < CONCEPTS:
        raise ValueError(
            f"{folder} has {len(files)} files Labels_*.txt, expected 81, one for each concept; "
            f"{_DOWNLOAD}"
        )
    frequency = {}
    signed = 0
    for path in files:
        values = np.array(_read_bytes(path, 16 * count + 1024).split())
        is_signed = bool((values == b"-1").any())  # as some pass them on
        bad = np.flatnonzero((values != (b"-1" if is_signed else b"0")) & (values != b"1"))
        if len(bad):
            raise ValueError(
                f"{path} row {bad[0] + 1} is neither {-int(is_signed)} nor 1; unpack Groundtruth "
                "again"
            )
        signed += is_signed
        if len(values) != count:
            raise ValueError(
                f"{path} has {len(values):,} rows but the image list has {count:,}; they must "
                "come from the same release"
            )
        frequency[path] = values == b"1"
        if len(frequency) > CONCEPTS:
            # Only the most frequent so far stay in memory; of equals the first name stays.
            rarest = min(reversed(list(frequency)), key=lambda path: frequency[path].sum())
            del frequency[rarest]
    chosen = sorted(frequency, key=lambda path: (-frequency[path].sum(), path.name))
    names = tuple(path.stem[len("Labels_") :] for path in chosen)
    notes = [f"the {CONCEPTS} most frequent of {len(files)} concepts: {', '.join(names)}"]
    if signed:
        notes.append(f"{signed:,} files of labels have -1 and 1, of which -1 was read as 0")
    return np.stack([frequency[path] for path in chosen], 1).astype(np.uint8), names, notes


def _read_bytes(path: Path, most: int) -> bytes:
    require_regular(path)
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); {_DOWNLOAD}") from error
    if len(content) > most:
        raise ValueError(f"{path} has more than {most:,} bytes; unpack Groundtruth again")
    return content


def _tag_blocks(path: Path, images: list[str]) -> Iterator[np.ndarray]:
    """Blocks bool [rows, 1000] of the tag matrix, which is half a gigabyte of text.

    A row is 1,000 columns of 0 or 1, or the photo's id before them; the id must then be the one
    in the name of the image ("actor/0001_2124494179.jpg").
    """
    row = 0
    require_regular(path)
    with open(path, "rb") as file:
        width = len(file.readline(_LONGEST).split())
        if width not in (TAGS, TAGS + 1):
            raise ValueError(
                f"{path} has {width:,} columns, expected 1,000 of 0 or 1, with or without an id "
                f"before them; {_DOWNLOAD}"
            )
        file.seek(0)
        every = iter(lambda: file.readline(_LONGEST), b"")
        while lines := list(itertools.islice(every, _BLOCK_ROWS)):
            if max(map(len, lines)) == _LONGEST:
                raise ValueError(f"{path} has a row of {_LONGEST:,} bytes or more; {_DOWNLOAD}")
            lines = [line for line in lines if line.strip()]
            if not lines:
                continue
            if width > TAGS:
                parts = [(line.split(None, 1) + [b" "])[:2] for line in lines]
                _compare_ids(path, [number for number, _ in parts], images[row:], row)
                lines = [columns for _, columns in parts]
            yield _zeros_and_ones(path, lines, row)
            row += len(lines)
    if row != len(images):
        raise ValueError(
            f"{path} has {row:,} rows but the image list has {len(images):,}; they must come from "
            "the same release"
        )


def _zeros_and_ones(path: Path, lines: Sequence[bytes], first_row: int) -> np.ndarray:
    """bool [rows, 1000] of lines of 0 and 1, ten times as fast as a parser of numbers."""
    text = np.frombuffer(b"".join(lines), np.uint8)
    digit = (text | 1) == ord("1")
    wrong = ~digit & (text > ord(" "))
    wrong[1:] |= digit[1:] & digit[:-1]
    starts = np.cumsum([0, *(len(line) for line in lines[:-1])])
    counts = np.add.reduceat(digit, starts, dtype=np.int64)
    bad = np.flatnonzero((counts != TAGS) | np.logical_or.reduceat(wrong, starts))
    if len(bad):
        raise ValueError(
            f"{path} row {first_row + bad[0] + 1} is not 1,000 columns of 0 and 1; unpack "
            "NUS_WID_Tags.zip again"
        )
    return text[digit].reshape(-1, TAGS) == ord("1")


def _compare_ids(path: Path, ids: Sequence[bytes], images: list[str], first_row: int) -> None:
    for row, (number, image) in enumerate(zip(ids, images), first_row + 1):
        if number.decode("ascii", "replace") != PurePosixPath(image).stem.rpartition("_")[2]:
            raise ValueError(
                f"{path} row {row} has the id {number.decode('ascii', 'replace')}, the image list "
                f"has {image} there; they must come from the same release"
            )


def _picture_layout(folder: Path, images: list[str]):
    """A function from a listed name to its path, whichever way the images were unpacked."""
    sample = images[:: max(1, len(images) // 200)]
    layouts = []
    for base in (r / name for r in _roots(folder) for name in ("Flickr", "images", "image")):
        if base.is_dir():
            layouts.append(lambda image, base=base: base / image)
            layouts.append(lambda image, base=base: base / PurePosixPath(image).name)
    hits = [sum(os.path.exists(locate(image)) for image in sample) for locate in layouts]
    if not any(hits):
        raise ValueError(
            f"{folder} has no images such as Flickr/{images[0]} or images/"
            f"{PurePosixPath(images[0]).name}; {_DOWNLOAD}"
        )
    return layouts[int(np.argmax(hits))]
