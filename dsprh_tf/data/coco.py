"""COCO captions and instances in their standard layout."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path

import numpy as np

from dsprh_tf.data import cells
from dsprh_tf.data.dataset import SPLIT_NAMES, PairDataset
from dsprh_tf.data.files import LARGE_JSON, read_json, require_folder

_DOWNLOAD = (
    "download val2017.zip (or train2017.zip, train2014.zip, val2014.zip) and "
    "annotations_trainval2017.zip (or ...2014.zip) from cocodataset.org and unpack both there, so "
    "that annotations/captions_val2017.json, annotations/instances_val2017.json and val2017/ exist"
)


def load_coco(data_dir: str | os.PathLike, on_bad_image: str = "error") -> PairDataset:
    """COCO: the texts of an image are its captions, its labels are the categories that occur in it.

    All parts (train2017, val2014, ...) that have both captions and instances are merged; a part
    whose image folder is absent is left out, since COCO's annotation archive holds train and val
    together. Images without a label or without a caption are dropped, and counted. Numbers and
    texts of the same digits are the same id; categories of one name are one label.

    Args:
        data_dir: holds `annotations/` and the image folders; an optional `splits.json` with lists
            of image ids under "query", "database" and "train" becomes the given split.
        on_bad_image: "error" or "skip".

    Raises:
        ValueError: files are missing or broken; the line says what to download, and where to. Or
            an id stands for two images or two categories.
    """
    folder = require_folder(data_dir, _DOWNLOAD)
    content = _Content()
    for part in _parts(folder):
        pictures = _image_folder(folder, part)
        if pictures is None:
            content.notes.append(
                f"{part}: left out, annotations are there but no image folder {part}/"
            )
            continue
        content.add(folder, part, pictures)
    notes = content.notes
    if not content.images:
        raise ValueError(f"no image folder of the annotated parts in {folder}; {_DOWNLOAD}")

    names, column_of = content.columns()
    labels = np.zeros((len(content.images), len(names)), np.uint8)
    unlisted: Counter[str] = Counter()
    for row, key in enumerate(content.images):
        for category in content.present.get(key, ()):
            if category in column_of:
                labels[row, column_of[category]] = 1
            else:
                unlisted[category] += 1
    if unlisted:
        notes.append(
            f"dropped {sum(unlisted.values()):,} labels of categories that are not listed, such as "
            f"{cells.shown(unlisted.most_common(1)[0][0])}"
        )
    text_lists = [content.captions.get(key, ()) for key in content.images]
    labelled = labels.any(axis=1)
    captioned = np.array([bool(texts) for texts in text_lists])
    notes.append(f"dropped {np.sum(~labelled):,} images without a label")
    notes.append(f"dropped {np.sum(labelled & ~captioned):,} further images without a caption")
    kept = np.flatnonzero(labelled & captioned)
    if not len(kept):
        raise ValueError(
            f"{folder}: no image has both a label and a caption ({'; '.join(notes)}); check the "
            "files in annotations/"
        )
    ids = np.array(list(content.images))[kept]
    given, split_notes = _given_split(folder / "splits.json", ids)
    kept_texts = [text_lists[row] for row in kept]
    dataset = PairDataset(
        name="coco",
        ids=ids,
        image_paths=np.array(list(content.images.values()), dtype=object)[kept],
        texts=np.array([" ".join(texts) for texts in kept_texts], dtype=object),
        text_lists=kept_texts if any(len(texts) > 1 for texts in kept_texts) else None,
        labels=labels[kept],
        label_names=names,
        given_split=given,
        notes=(*notes, f"{len(kept):,} pairs, {len(names)} labels", *split_notes),
    )
    return dataset.drop_bad_images(on_bad_image)


class _Content:
    """What the parts hold together, by ids as text.

    Attributes:
        images: id -> path of the file.
        captions: id of an image -> its captions.
        present: id of an image -> categories of its instances, in file order.
        categories: id -> name.
        notes: lines for `PairDataset.notes`.
    """

    def __init__(self):
        self.images: dict[str, str] = {}
        self.captions: dict[str, list[str]] = {}
        self.present: dict[str, list[str]] = {}
        self.categories: dict[str, str] = {}
        self.notes: list[str] = []

    def add(self, folder: Path, part: str, pictures: Path) -> None:
        """Takes a part, without the images that an earlier one has."""
        caption_file = folder / "annotations" / f"captions_{part}.json"
        instance_file = folder / "annotations" / f"instances_{part}.json"
        caption_json = _read(caption_file, ("images", "annotations"))
        instance_json = _read(instance_file, ("images", "annotations", "categories"))
        try:
            self._add_categories(instance_json["categories"])
            new = _images(caption_json["images"], pictures)
            # 2014 and 2017 hold the same images under the same ids: the first part wins.
            fresh = {key: path for key, path in new.items() if key not in self.images}
            known = {*new, *map(_id, instance_json["images"])}
            captions, strange = _gather(caption_json["annotations"], "caption", fresh, known)
            present, stranger = _gather(instance_json["annotations"], "category_id", fresh, known)
            texts = {key: [cells.texts_of(c) for c in found] for key, found in captions.items()}
            self.present.update(
                {key: list(map(cells.plain_id, found)) for key, found in present.items()}
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{caption_file} or {instance_file} lacks the field {error} of COCO's layout; "
                f"{_DOWNLOAD}"
            ) from error
        except ValueError as error:
            raise ValueError(f"{caption_file} or {instance_file}: {error}") from error
        self.images.update(fresh)
        for key, found in texts.items():
            self.captions[key] = [text for part_of in found for text in part_of]
        self.notes.append(f"{part}: {len(new):,} images")
        counts = {
            "images that an earlier part has": len(new) - len(fresh),
            "captions that are null or empty": sum(
                not t for found in texts.values() for t in found
            ),
            "annotations of images that are not listed": strange + stranger,
        }
        for what, count in counts.items():
            if count:
                self.notes.append(f"{part}: dropped {count:,} {what}")

    def _add_categories(self, categories: list[dict]) -> None:
        for category in categories:
            key, name = _id(category), category["name"]
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f"category {key} has the name {cells.shown(name)}, expected text")
            name = name.strip()
            if self.categories.setdefault(key, name) != name:
                raise ValueError(
                    f"the category {key} is {self.categories[key]!r} and {name!r}; give every "
                    "category an id of its own"
                )

    def columns(self) -> tuple[tuple[str, ...], dict[str, int]]:
        """Names of the labels, and the column of each category; those of one name share it."""
        order = sorted(self.categories, key=lambda key: (not key.isdecimal(), _number(key), key))
        names = list(dict.fromkeys(self.categories[key] for key in order))
        shared = [n for n, count in Counter(self.categories.values()).items() if count > 1]
        if shared:
            self.notes.append(
                f"{len(shared):,} names have several categories, such as {shared[0]!r}: one label"
            )
        return tuple(names), {key: names.index(self.categories[key]) for key in order}


def _id(entry: dict) -> str:
    key = cells.plain_id(entry["id"])
    if not key:
        raise ValueError("an image or a category has the id null or an empty one")
    return key


def _number(key: str) -> int:
    return int(key) if key.isdecimal() and len(key) < 400 else 0


def _images(entries: list[dict], pictures: Path) -> dict[str, str]:
    """Id -> path; an id of two files is refused, since its captions may be of either."""
    found: dict[str, str] = {}
    for entry in entries:
        key, name = _id(entry), entry["file_name"]
        if not isinstance(name, str) or not name:
            raise ValueError(f"image {key} has the file_name {cells.shown(name)}, expected a name")
        path = str(pictures / cells.file_name(pictures, name))
        if found.setdefault(key, path) != path:
            raise ValueError(
                f"the image id {key} is of {found[key]!r} and {path!r}; give every image an id of "
                "its own"
            )
    return found


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
    content = read_json(path, _DOWNLOAD, LARGE_JSON)
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"{path} has no key {missing[0]!r}, as COCO's files do; {_DOWNLOAD}")
    return content


def _gather(
    annotations: list[dict], field: str, wanted: Collection[str], known: Collection[str]
) -> tuple[dict[str, list], int]:
    """The values of a field by wanted image, in file order; and how many are of no known image."""
    values = defaultdict(list)
    strange = 0
    for annotation in annotations:
        key = cells.plain_id(annotation["image_id"])
        if key in wanted:
            values[key].append(annotation[field])
        strange += key not in known
    return values, strange


def _given_split(path: Path, ids: np.ndarray) -> tuple[dict | None, list[str]]:
    if not path.exists():
        return None, []
    fix = "write lists of image ids under query, database and train, or remove the file"
    content = read_json(path, fix, LARGE_JSON)
    if not isinstance(content, dict) or not isinstance(content.get("query"), list):
        raise ValueError(f"{path} has no list 'query'; {fix}")
    position = {name: index for index, name in enumerate(ids.tolist())}
    given, notes = {}, []
    for part in SPLIT_NAMES:
        if part not in content:
            continue
        try:
            listed = [cells.plain_id(name) for name in content[part]]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {part} is no list of ids ({error}); {fix}") from error
        given[part] = np.array([position[name] for name in listed if name in position], np.int64)
        notes.append(f"splits.json: {len(given[part]):,} {part} pairs")
        if len(given[part]) < len(listed):
            absent = len(listed) - len(given[part])
            notes.append(f"splits.json: dropped {absent:,} {part} ids that are not among the pairs")
    if "database" not in given:
        given["database"] = np.setdiff1d(np.arange(len(ids)), given["query"])
    return given, notes
