"""Codes of test queries for TensorBoard's Projector tab, with labels and thumbnails."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

import numpy as np
from PIL import Image

from dsprh_tf import codes
from dsprh_tf.data.dataset import PairDataset
from dsprh_tf.data.files import write_bytes
from dsprh_tf.data.images import load_image
from dsprh_tf.evaluation.retrieval import Encoded

_MOST = 500  # queries
_SIDE = 48  # pixels of a thumbnail
_TEXT_COLOUR = (70, 110, 180)
_LONGEST = 120  # characters of a text


def write_projector(
    log_dir: str | os.PathLike, dataset: PairDataset, items: np.ndarray, encoded: Encoded
) -> None:
    """Writes the points of the Projector tab: image and text codes of up to 500 items.

    Points of one item have the same row number in their metadata. Texts have a blue tile in place
    of a thumbnail.

    Args:
        log_dir: folder of event files; gets `projector_config.pbtxt` and a folder `projector`.
        dataset: of the items.
        items: [n], their indices.
        encoded: their codes, in the same order.
    """
    log_dir = Path(log_dir)
    folder = log_dir / "projector"
    folder.mkdir(parents=True, exist_ok=True)
    items = items[:_MOST]
    points = np.concatenate(
        [codes.unpack(encoded.side(side)[: len(items)]) for side in ("image", "text")]
    )
    vectors = "\n".join("\t".join(map(str, row)) for row in points.astype(int))
    write_bytes(folder / "codes.tsv", f"{vectors}\n".encode())
    rows = ["kind\titem\tlabels\ttext"]
    for side in ("image", "text"):
        rows += [f"{side}\t{item}\t{_cells(dataset, item)}" for item in items]
    write_bytes(folder / "metadata.tsv", ("\n".join(rows) + "\n").encode())
    sprite = ""
    if dataset.image_paths is not None:
        write_bytes(folder / "sprite.png", _sprite(dataset.image_paths[items]))
        sprite = (
            '  sprite {\n    image_path: "projector/sprite.png"\n'
            f"    single_image_dim: {_SIDE}\n    single_image_dim: {_SIDE}\n  }}\n"
        )
    config = (
        'embeddings {\n  tensor_name: "codes of test queries"\n'
        '  tensor_path: "projector/codes.tsv"\n  metadata_path: "projector/metadata.tsv"\n'
        f"{sprite}}}\n"
    )
    write_bytes(log_dir / "projector_config.pbtxt", config.encode())


def _cells(dataset: PairDataset, item: int) -> str:
    """Labels and text of an item, each in one cell of a TSV file."""
    labels = ""
    if dataset.labels is not None:
        labels = "; ".join(dataset.label_names[i] for i in np.flatnonzero(dataset.labels[item]))
    text = "" if dataset.texts is None else str(dataset.texts[item])
    return "\t".join(" ".join(cell.split())[:_LONGEST] for cell in (labels, text))


def _sprite(paths: np.ndarray) -> bytes:
    """A PNG with a tile per point, in rows from the top left: images, then as many texts."""
    columns = math.ceil(math.sqrt(2 * len(paths)))
    sheet = Image.new("RGB", (columns * _SIDE, columns * _SIDE), _TEXT_COLOUR)
    for number, path in enumerate(paths):
        row, column = divmod(number, columns)
        picture = Image.fromarray(load_image(path))
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        tile = picture.resize((_SIDE, _SIDE), box=(left, top, left + side, top + side))
        sheet.paste(tile, (column * _SIDE, row * _SIDE))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
