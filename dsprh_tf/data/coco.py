"""COCO captions and instances in their standard layout."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import numpy as np

from dsprh_tf.data.dataset import SPLIT_NAMES, PairDataset
from dsprh_tf.data.files import read_json, require_folder

_DOWNLOAD = (
    "download val2017.zip (or train2017.zip, train2014.zip, val2014.zip) and "
    "annotations_trainval2017.zip (or ...2014.zip) from cocodataset.org and unpack both there, so "
    "that annotations/captions_val2017.json, annotations/instances_val2017.json and val2017/ exist"
)


def load_coco(data_dir: str | os.PathLike, on_bad_image: str = "error") -> PairDataset:
    """COCO: the text of an image is its captions, its labels are the categories that occur in it.

    All parts (train2017, val2014, ...) that have both captions and instances are merged; a part
    whose image folder is absent is left out, since COCO's annotation archive holds train and val
    together. Images without a label or without a caption are dropped, and counted.

    Args:
        data_dir: holds `annotations/` and the image folders; an optional `splits.json` with lists
            of image ids under "query", "database" and "train" becomes the given split.
        on_bad_image: "error" or "skip".

    Raises:
        ValueError: files are missing or broken; the line says what to download, and where to.
    """
    folder = require_folder(data_dir, _DOWNLOAD)
    notes: list[str] = []
    images: dict[int, str] = {}
    captions, present, categories = {}, {}, {}
    for part in _parts(folder):
        pictures = _image_folder(folder, part)
        if pictures is None:
            notes.append(f"{part}: left out, annotations are there but no image folder {part}/")
            continue
        caption_file = folder / "annotations" / f"captions_{part}.json"
        instance_file = folder / "annotations" / f"instances_{part}.json"
        caption_json = _read(caption_file, ("images", "annotations"))
        instance_json = _read(instance_file, ("images", "annotations", "categories"))
        try:
            categories.update({c["id"]: c["name"] for c in instance_json["categories"]})
            new = {i["id"]: str(pictures / i["file_name"]) for i in caption_json["images"]}
            # 2014 and 2017 hold the same images under the same ids: the first part wins.
            again = new.keys() & images.keys()
            fresh = new.keys() - again
            images.update({key: path for key, path in new.items() if key in fresh})
            captions.update(_gather(caption_json["annotations"], "caption", fresh))
            present.update(_gather(instance_json["annotations"], "category_id", fresh))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{caption_file} or {instance_file} lacks the field {error} of COCO's layout; "
                f"{_DOWNLOAD}"
            ) from error
        notes.append(f"{part}: {len(new):,} images")
        if again:
            notes.append(f"{part}: dropped {len(again):,} images that an earlier part has")
    if not images:
        raise ValueError(f"no image folder of the annotated parts in {folder}; {_DOWNLOAD}")

    columns = {category: column for column, category in enumerate(sorted(categories))}
    labels = np.zeros((len(images), len(columns)), np.uint8)
    texts = []
    for row, key in enumerate(images):
        texts.append(" ".join(" ".join(str(c).split()) for c in captions.get(key, ())))
        for category in present.get(key, ()):
            if category in columns:
                labels[row, columns[category]] = 1
    labelled = labels.any(axis=1)
    captioned = np.array([bool(text) for text in texts])
    notes.append(f"dropped {np.sum(~labelled):,} images without a label")
    notes.append(f"dropped {np.sum(labelled & ~captioned):,} further images without a caption")
    kept = np.flatnonzero(labelled & captioned)
    if not len(kept):
        raise ValueError(f"{folder}: no image has both a label and a caption; {_DOWNLOAD}")
    ids = np.array([str(key) for key in images])[kept]
    given, split_notes = _given_split(folder / "splits.json", ids)
    dataset = PairDataset(
        name="coco",
        ids=ids,
        image_paths=np.array(list(images.values()), dtype=object)[kept],
        texts=np.array(texts, dtype=object)[kept],
        labels=labels[kept],
        label_names=tuple(categories[category] for category in columns),
        given_split=given,
        notes=(*notes, f"{len(kept):,} pairs, {len(columns)} labels", *split_notes),
    )
    return dataset.drop_bad_images(on_bad_image)


def _parts(folder: Path) -> list[str]:
    """Names such as "val2017" that have both annotation files."""
    found = {
        kind: {p.name[len(kind) : -5] for p in (folder / "annotations").glob(f"{kind}*.json")}
        for kind in ("captions_", "instances_")
    }
    parts = sorted(found["captions_"] & found["instances_"])
    if not parts:
        raise ValueError(
            f"{folder / 'annotations'} has no pair of captions_*.json and instances_*.json; "
            f"{_DOWNLOAD}"
        )
    return parts


def _image_folder(folder: Path, part: str) -> Path | None:
    candidates = (folder / part, folder / "images" / part)
    return next((path for path in candidates if path.is_dir()), None)


def _read(path: Path, keys: tuple[str, ...]) -> dict:
    content = read_json(path, _DOWNLOAD)
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"{path} has no key {missing[0]!r}, as COCO's files do; {_DOWNLOAD}")
    return content


def _gather(annotations: list[dict], field: str, wanted: set) -> dict:
    """The values of a field by image id, in file order."""
    values = defaultdict(list)
    for annotation in annotations:
        if annotation["image_id"] in wanted:
            values[annotation["image_id"]].append(annotation[field])
    return values


def _given_split(path: Path, ids: np.ndarray) -> tuple[dict | None, list[str]]:
    if not path.exists():
        return None, []
    fix = "write lists of image ids under query, database and train, or remove the file"
    content = read_json(path, fix)
    if not isinstance(content, dict) or not isinstance(content.get("query"), list):
        raise ValueError(f"{path} has no list 'query'; {fix}")
    position = {name: index for index, name in enumerate(ids.tolist())}
    given, notes = {}, []
    for part in SPLIT_NAMES:
        if part not in content:
            continue
        listed = [str(name) for name in content[part]]
        given[part] = np.array([position[name] for name in listed if name in position], np.int64)
        notes.append(f"splits.json: {len(given[part]):,} {part} pairs")
        if len(given[part]) < len(listed):
            absent = len(listed) - len(given[part])
            notes.append(f"splits.json: dropped {absent:,} {part} ids that are not among the pairs")
    if "database" not in given:
        given["database"] = np.setdiff1d(np.arange(len(ids)), given["query"])
    return given, notes
