"""A user's own precomputed embeddings of images and texts."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import scipy.sparse

from dsprh_tf.data.dataset import PairDataset

# Accepted spellings, lower-cased.
_NAMES = {
    "image": ("image", "images", "img", "i", "image_features"),
    "text": ("text", "texts", "txt", "t", "text_features"),
    "labels": ("labels", "label", "lab", "l"),
}
_LAYOUT = (
    "expected a .npz or .mat file with the arrays image [N, D], text [N, D] and perhaps labels "
    "[N, L], or a folder with image.npy, text.npy and perhaps labels.npy"
)


def load_features(path: str | os.PathLike) -> PairDataset:
    """Precomputed vectors (CLIP, SigLIP, VGG, ...) instead of images and texts.

    Arrays are named image, text and labels (also images / texts / label, img / txt, I / T / L, in
    upper or lower case). MATLAB 7.3 files (HDF5) hold arrays transposed, and are turned back. The
    ids are row numbers.

    Args:
        path: an .npz or .mat file (MATLAB 5 or 7.3), or a folder with image.npy, text.npy and
            perhaps labels.npy.

    Returns:
        Pairs with `image_features` float32 [N, D_I] and `text_features` float32 [N, D_T].

    Raises:
        ValueError: the file is missing or broken; shapes do not fit; a value is not finite (the
            first such row is named, counted from 0); labels are not a 0/1 matrix.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist; {_LAYOUT}")
    if path.is_dir():
        arrays = _read(path, _read_folder)
    elif path.suffix.lower() in (".npz", ".mat"):
        arrays = _read(path, _read_npz if path.suffix.lower() == ".npz" else _read_mat)
    else:
        raise ValueError(f"{path} is not an .npz, a .mat or a folder; {_LAYOUT}")
    arrays = _named(path, arrays)
    image, text, labels = arrays["image"], arrays["text"], arrays.get("labels")
    if len(image) != len(text):
        raise ValueError(
            f"{path}: image is {list(image.shape)} and text is {list(text.shape)}, expected as "
            "many rows in both, one for each pair"
        )
    if labels is not None and len(labels) != len(image):
        raise ValueError(
            f"{path}: labels are {list(labels.shape)}, expected [{len(image)}, L], one row for "
            "each pair and one 0/1 column for each label"
        )
    try:
        return PairDataset(
            name="features",
            ids=np.arange(len(image)).astype(np.str_),
            image_features=image,
            text_features=text,
            labels=labels,
            label_names=() if labels is None else tuple(map(str, range(labels.shape[1]))),
            notes=(
                f"{len(image):,} pairs in {path.name}: image {image.shape[1]}-D, text "
                f"{text.shape[1]}-D, {'no' if labels is None else labels.shape[1]} labels",
            ),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read(path: Path, reader: Callable[[Path], dict]) -> dict[str, np.ndarray]:
    try:
        return reader(path)
    except (OSError, ValueError, EOFError, IndexError, KeyError, TypeError, NotImplementedError,
            zipfile.BadZipFile, zlib.error, scipy.io.matlab.MatReadError) as error:  # fmt: skip
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read ({cause}); {_LAYOUT}") from error


def _read_folder(path: Path) -> dict[str, np.ndarray]:
    return {file.stem: np.load(file) for file in sorted(path.glob("*.npy"))}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    # np.load leaves a file that it opened itself open when the archive is broken.
    with open(path, "rb") as raw, np.load(raw) as file:
        return {name: file[name] for name in file.files}


def _read_mat(path: Path) -> dict[str, np.ndarray]:
    if not h5py.is_hdf5(path):
        content = scipy.io.loadmat(path)
        return {
            name: value.toarray() if scipy.sparse.issparse(value) else value
            for name, value in content.items()
            if not name.startswith("__")
        }
    with h5py.File(path, "r") as file:
        items = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
        # MATLAB stores matrices column by column, transposed for us, and marks them. Without the
        # mark, matrices that agree in their columns but not in their rows lie on their side too.
        shapes = [item.shape for item in items.values() if item.ndim == 2]
        on_side = len({shape[1] for shape in shapes}) == 1 < len({shape[0] for shape in shapes})
        return {
            name: item[()].T if on_side or "MATLAB_class" in item.attrs else item[()]
            for name, item in items.items()
        }


def _named(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays under our own names, checked to be numeric matrices."""
    found = {}
    for name, spellings in _NAMES.items():
        matching = [key for key in arrays if key.lower() in spellings]
        if len(matching) > 1:
            raise ValueError(f"{path} has {' and '.join(matching)}, expected one {name}; {_LAYOUT}")
        if matching:
            found[name] = np.asarray(arrays[matching[0]])
    missing = [name for name in ("image", "text") if name not in found]
    if missing:
        raise ValueError(
            f"{path} has no array {' and no array '.join(missing)} (it has "
            f"{', '.join(sorted(arrays)) or 'none'}); {_LAYOUT}"
        )
    for name, array in found.items():
        if array.ndim != 2 or array.dtype.kind not in "biuf":
            raise ValueError(
                f"{path}: {name} has shape {list(array.shape)} and type {array.dtype}, expected a "
                "numeric matrix, one row for each pair"
            )
    return found
