"""Data sets by name: the value of `--dataset`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dsprh_tf.data import coco, features, mirflickr, mirflickr_mat, nuswide, pairs, sanity
from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.scenes import draw

LOADERS: dict[str, Callable[[Path, str], PairDataset]] = {
    "coco": coco.load_coco,
    "features": lambda path, on_bad_image: features.load_features(path),
    "mirflickr25k": mirflickr.load_mirflickr25k,
    "mirflickr25k_mat": mirflickr_mat.load_mirflickr25k_mat,
    "nuswide": nuswide.load_nuswide,
    "pairs": pairs.load_pairs,
    "scenes": pairs.load_pairs,
}


def load_dataset(
    name: str,
    data_dir: str | None,
    on_bad_image: str = "error",
    scenes_count: int = 2000,
    seed: int = 0,
    accept_odd: bool = False,
) -> PairDataset:
    """A data set, with what was read and dropped printed.

    Args:
        name: one of `LOADERS`.
        data_dir: its folder, manifest or file.
        on_bad_image: "error" or "skip".
        scenes_count: images to draw, for "scenes".
        seed: of the drawing, for "scenes".
        accept_odd: as in `sanity.dataset_lines`.

    Raises:
        ValueError: no folder was given, the data cannot be read, or they look wrong.
    """
    if not data_dir:
        raise ValueError(f"--dataset={name} needs --data_dir=FOLDER")
    folder = Path(data_dir)
    if name == "scenes":
        folder = draw.write_scenes(folder, scenes_count, seed).parent
    dataset = LOADERS[name](folder, on_bad_image)
    for note in dataset.notes:
        print(f"data: {note}")
    try:
        lines = sanity.dataset_lines(dataset, accept_odd)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    for line in lines:
        print(f"data: {line}")
    return dataset
