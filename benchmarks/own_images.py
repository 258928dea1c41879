"""Images of a COCO folder as a user's own: one caption each, in a manifest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dsprh_tf.data.coco import load_coco


def captions(data_dir: str | None) -> pd.DataFrame:
    """Path, first caption, id and labels (a list of names) of each image, in COCO's order.

    Raises:
        ValueError: no folder, or not COCO's.
    """
    if not data_dir:
        raise ValueError("needs --data_dir=FOLDER with COCO's images and captions")
    coco = load_coco(os.path.abspath(data_dir))
    texts = coco.texts if coco.text_lists is None else [texts[0] for texts in coco.text_lists]
    names = np.asarray(coco.label_names)
    labels = [set(names[row.astype(bool)]) for row in coco.labels]
    columns = {"image": coco.image_paths, "text": texts, "id": coco.ids, "labels": labels}
    return pd.DataFrame(columns)


def write_manifest(
    images: pd.DataFrame, rows: np.ndarray, path: Path, columns: Sequence[str] = ("image", "text")
) -> None:
    """A CSV of some images, in the order of `rows`."""
    images.iloc[rows][list(columns)].to_csv(path, index=False)


def frozen(weights: str | None) -> list[str]:
    """Arguments of `dsprh train` for its default backbone, with weights in a file."""
    if not weights:
        return []
    return [
        "--backbone=MobileNetV2",
        f"--backbone_weights={os.path.abspath(weights)}",
        "--freeze_backbone",
    ]
