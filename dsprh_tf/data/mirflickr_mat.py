"""MIRFlickr-25K in the .mat files that hashing researchers pass on."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dsprh_tf.data import mat_files
from dsprh_tf.data.arrays.label_matrix import LabelMatrix, multi_hot
from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.files import first_existing, require_folder

IMAGES, TAGS, LABELS = "images", "tags", "labels"
_MERGED = "FLICKR-25K.mat"
_SEPARATE = {kind: f"mirflickr25k-{letter}all.mat" for kind, letter in
             ((IMAGES, "i"), (TAGS, "y"), (LABELS, "l"))}  # fmt: skip
_KEYS = {IMAGES: ("IAll", "images"), TAGS: ("YAll", "TAll", "tags"), LABELS: ("LAll", "labels")}
_AXIS_NAMES = {"N": "images", "C": "colours", "W": "width", "H": "height"}
_PLACE = (
    "put mirflickr25k-iall.mat, mirflickr25k-yall.mat and mirflickr25k-lall.mat (arrays IAll, "
    "YAll, LAll) or DCMH's FLICKR-25K.mat (arrays images, YAll, LAll) there"
)


def load_mirflickr25k_mat(data_dir: str | os.PathLike, on_bad_image: str = "error") -> PairDataset:
    """MIRFlickr-25K as arrays: images, 0/1 tags and 0/1 labels, every row kept as in the file.

    Either three files, each in MATLAB 5 or 7.3 (HDF5), or one with all arrays. Axes may stand in
    any order and are found by their lengths: the pairs are the one length that all three arrays
    share, the colours the axis of 3. Square images do not tell width from height. That is
    decided by the program that wrote the file:

    - MATLAB 5: height before width, as MATLAB holds images.
    - HDF5 written by MATLAB: width before height, since HDF5 shows MATLAB's axes reversed.
    - HDF5 of other programs: width before height where the array begins [N, 3], the form in which
      IAll is passed on; height before width in any other.

    Images stay in the file and are read one by one (HDF5), or are kept in memory (MATLAB 5).
    The files name no tags, so column t of YAll becomes the word "tag0001", ... of a fixed
    vocabulary, and column l of LAll the label "label01", ....

    Args:
        data_dir: the folder of the files, which may lie in `IAll/`, `YAll/`, `LAll/` or
            `Cleared-Set/` within it; or a merged file of any name.
        on_bad_image: "error" or "skip".

    Raises:
        ValueError: a file or array is missing or broken, numbers of pairs differ, axes cannot be
            told apart, images are not uint8 in 3 colours, tags or labels are not 0 and 1.
    """
    files = _find(Path(data_dir))
    keys = {kind: _key(file, _KEYS[kind]) for kind, file in files.items()}
    shape, dtype = _read(files[IMAGES], mat_files.array_type, keys[IMAGES])
    tables = {kind: _read(files[kind], mat_files.read_array, keys[kind]) for kind in (TAGS, LABELS)}
    shapes = {IMAGES: shape, **{kind: table.shape for kind, table in tables.items()}}
    names = {kind: f"{files[kind]}: {keys[kind]}" for kind in files}
    if dtype != np.uint8:
        raise ValueError(
            f"{names[IMAGES]} is {_by(shape)} of type {dtype}, expected images of "
            "uint8; save them as uint8, or give vectors as --dataset=features"
        )
    count = _pairs(names, shapes)
    axes = _axes(shape, count, files[IMAGES], keys[IMAGES])
    read = {kind: _multi_hot(names[kind], tables[kind], count) for kind in (TAGS, LABELS)}
    tags, labels = (read[kind].matrix for kind in (TAGS, LABELS))
    digits = max(4, len(str(tags.shape[1])))
    vocabulary = tuple(f"tag{t:0{digits}}" for t in range(1, tags.shape[1] + 1))
    dataset = PairDataset(
        name="mirflickr25k_mat",
        ids=np.arange(count).astype(np.str_),
        image_paths=np.array(
            [mat_files.picture_path(files[IMAGES], keys[IMAGES], axes, i) for i in range(count)],
            object,
        ),
        texts=np.array(
            [" ".join(vocabulary[t] for t in np.flatnonzero(row)) for row in tags], object
        ),
        labels=labels,
        label_names=tuple(f"label{column:02}" for column in range(1, labels.shape[1] + 1)),
        vocabulary=vocabulary,
        notes=(
            _image_note(files[IMAGES], keys[IMAGES], shape, axes),
            *(_table_note(files[k], keys[k], k, shapes[k], count) for k in (TAGS, LABELS)),
            *(note for kind in (TAGS, LABELS) for note in read[kind].notes),
            f"the tags have no names in these files: column 1 of {keys[TAGS]} is the word "
            f"{vocabulary[0]}, and so on to {vocabulary[-1]}",
            f"{count:,} pairs, as in the file",
            *_empty_notes(tags, labels),
        ),
    )
    return dataset.drop_bad_images(on_bad_image)


def _find(folder: Path) -> dict[str, Path]:
    """The file of each kind of array."""
    if folder.is_file():
        return dict.fromkeys(_KEYS, folder)
    require_folder(folder, _PLACE)
    found = {
        kind: _in_any_case(folder, name, f"{name[-8].upper()}All")
        for kind, name in _SEPARATE.items()
    }
    merged = _in_any_case(folder, _MERGED, "")
    if merged is not None:
        if any(found.values()):
            other = next(filter(None, found.values()))
            raise ValueError(
                f"{folder} has {merged.name} and {other.name}, expected one of the two forms; "
                f"choose by --data_dir={merged}, or move it away"
            )
        return dict.fromkeys(_KEYS, merged)
    missing = [_SEPARATE[kind] for kind, file in found.items() if file is None]
    if missing:
        raise ValueError(f"{folder} has no {' and no '.join(missing)}; {_PLACE}")
    return {kind: file for kind, file in found.items() if file is not None}


def _in_any_case(folder: Path, name: str, within: str) -> Path | None:
    """A file by its name, upper or lower case, in the folder or where the archives put it."""
    roots = (folder, folder / within, folder / "Cleared-Set", folder / "Cleared-Set" / within)
    return first_existing(
        file
        for root in roots
        if root.is_dir()
        for file in sorted(root.iterdir())
        if file.name.lower() == name.lower()
    )


def _read(file: Path, reader: Callable[..., Any], *arguments):
    try:
        return reader(file, *arguments)
    except Exception as error:  # of many kinds, from h5py
        cause = " ".join(str(error).split()) or type(error).__name__
        if cause.startswith(str(file)) and " cannot be read (" not in cause:
            raise ValueError(cause) from error  # whole, but of another kind
        cause = cause.replace(f"{file} cannot be read (", "").rstrip(")")
        raise ValueError(
            f"{file} cannot be read as a MATLAB file ({cause}); get it again, it may be truncated, "
            "or save it from MATLAB as full arrays in -v7.3"
        ) from error


def _key(file: Path, spellings: tuple[str, ...]) -> str:
    names = _read(file, mat_files.array_names)
    lowered = [spelling.lower() for spelling in spellings]
    matching = [name for name in names if name.lower() in lowered]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise ValueError(f"{file} has {' and '.join(matching)}, expected one of them; {_PLACE}")
    raise ValueError(
        f"{file} has no array {' or '.join(spellings)} (it has {', '.join(names) or 'none'}): "
        f"{_PLACE}; a truncated file ends early, get it again then"
    )


def _pairs(names: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> int:
    """N: the one length that all arrays share, in an axis that nothing else can be."""
    for kind, shape in shapes.items():
        expected = ("pairs", "3 colours", "width", "height") if kind == IMAGES else ("pairs", kind)
        if len(shape) != len(expected) or 0 in shape:
            raise ValueError(
                f"{names[kind]} is {_by(shape)}, expected {len(expected)} axes in any order: "
                f"{', '.join(expected)}"
            )
    all_of_them = "; ".join(f"{names[kind]} is {_by(shapes[kind])}" for kind in shapes)
    if 3 not in shapes[IMAGES]:
        raise ValueError(
            f"{names[IMAGES]} is {_by(shapes[IMAGES])} and has no axis of length 3, expected "
            "images in 3 colours"
        )
    shared = set.intersection(*map(set, shapes.values())) - {3}
    if not shared:
        raise ValueError(
            f"{all_of_them}: no length (other than 3, the colours) is in all three, expected the "
            "same number of pairs in each; take the files from one source"
        )
    count = min(shared)
    once = all(shape.count(count) == 1 for shape in shapes.values())
    if len(shared) > 1 or not once or shapes[IMAGES].count(3) > 1:
        raise ValueError(
            f"{all_of_them}: which axes are the pairs and the colours cannot be told from these "
            "lengths; leave out a pair, or crop the images, so that the lengths differ"
        )
    return count


def _axes(shape: tuple[int, ...], count: int, file: Path, key: str) -> str:
    """The axes of the images in their order, such as "NCWH"."""
    sides = "HW"
    if mat_files.is_hdf5(file) and (mat_files.made_by_matlab(file, key) or shape[:2] == (count, 3)):
        sides = "WH"
    left = iter(sides)
    return "".join("N" if n == count else "C" if n == 3 else next(left) for n in shape)


def _multi_hot(name: str, table: np.ndarray, count: int) -> LabelMatrix:
    """uint8 [N, columns] of 0 and 1, also where the table is on its side or has -1 for 0."""
    on_side = table.shape[0] != count
    line = "column" if on_side else "row"
    return multi_hot(
        table.T if on_side else table,
        name,
        lambda row: f"{name} {line} {row} (counted from 0)",
    )


def _image_note(file: Path, key: str, shape: tuple[int, ...], axes: str) -> str:
    named = " x ".join(_AXIS_NAMES[axis] for axis in axes)
    if not mat_files.is_hdf5(file):
        kind = "MATLAB 5"
        why = "MATLAB holds height before width"
        memory = f"kept in memory, {math.prod(shape) / 2**20:,.0f} MiB: MATLAB 5 is read whole"
    else:
        kind = "HDF5"
        memory = "read one by one"
        if mat_files.made_by_matlab(file, key):
            why = "HDF5 shows MATLAB's axes reversed, width before height"
        elif axes == "NCWH":
            why = "no mark of MATLAB, width before height as IAll is passed on"
        else:
            why = "no mark of MATLAB and not N x 3 first, height before width"
    return f"{file.name} ({kind}): {key} {_by(shape)} is {named} ({why}), {memory}"


def _table_note(file: Path, key: str, kind: str, shape: tuple[int, ...], count: int) -> str:
    on_side = shape[0] != count
    named = f"{kind} x pairs, transposed" if on_side else f"pairs x {kind}"
    hdf5 = "HDF5" if mat_files.is_hdf5(file) else "MATLAB 5"
    return f"{file.name} ({hdf5}): {key} {_by(shape)} is {named}"


def _empty_notes(tags: np.ndarray, labels: np.ndarray) -> list[str]:
    notes = []
    untagged, unlabelled = (int(np.sum(~table.any(axis=1))) for table in (tags, labels))
    if untagged:
        notes.append(f"{untagged:,} pairs have no tag; training leaves them out")
    if unlabelled:
        notes.append(f"{unlabelled:,} pairs have no label, so nothing is relevant to them")
    return notes


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{n:,}" for n in shape)
