"""Sources of items: a folder of images, or the rows of a manifest."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from dsprh_tf.data import cells, columns
from dsprh_tf.data.label_lists import Flags, read_labels
from dsprh_tf.data.manifest import Manifest
from dsprh_tf.index.image_folder import ImageFolder
from dsprh_tf.index.items import named_id, stable_id


class Item(NamedTuple):
    """An item to encode.

    Attributes:
        id: a whole number of its own.
        content: the path of an image, or a text; of a vector "" if there is none.
        tags: of the manifest's column tags, or else labels.
        row: the row of the manifest, 0 for an image of a folder; of a vector its row, from 0.
        caption: the text of an image of which there is a vector.
        sha256: of a vector; None for files and texts.
    """

    id: int
    content: str
    tags: tuple[str, ...] = ()
    row: int = 0
    caption: str | None = None
    sha256: bytes | None = None


class Source:
    """Items of one modality, in a fixed order.

    Attributes:
        content: what is encoded: "image", "text" or "vector".
        modality: "image" or "text".
        path: the absolute path of the folder or the manifest.
        items: the items of this shard.
        notes: lines on what was passed over, for the screen.

    Args:
        path: a folder that is searched for images (`ImageFolder`); or a manifest (CSV, Parquet,
            JSONL) with a column image or text, and optionally id, tags or labels, under
            these or other usual names (`columns`). Whole numbers in the column id are the items'
            ids; other ids, paths and texts are hashed to one (`items.stable_id`). Rows of one
            image are one item, each text is one.
        modality: "image" or "text".
        shard: (i, n): only items whose id leaves the remainder i when divided by n, so that n
            machines can share a source.
        empty_ok: whether the source may have no items.

    Raises:
        ValueError: the source is missing, empty or broken, or two items have the same id.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        modality: str,
        shard: tuple[int, int] = (0, 1),
        empty_ok: bool = False,
    ):
        self.modality = self.content = modality
        self.path = os.path.abspath(path)
        self.notes: list[str] = []
        if os.path.isdir(path) and modality == "image":
            found: Iterable[Item] = self._walk()
        elif os.path.isfile(path):
            found = self._rows()
        else:
            wanted = "a folder or a manifest" if modality == "image" else "a manifest"
            raise ValueError(f"{path} does not exist or is no file, expected {wanted}")
        items = self._unique(found)
        if not items and not empty_ok:
            raise ValueError(
                f"{path} has no {modality}s" + (f" ({'; '.join(self.notes)})" if self.notes else "")
            )
        self.share(items, shard)

    def share(self, items: Sequence[Item], shard: tuple[int, int]) -> None:
        """Keeps the items of a shard."""
        part, parts = shard
        self.items = [item for item in items if item.id % parts == part]
        if parts > 1:
            self.notes.append(f"shard {part} of {parts}: {len(self.items):,} of {len(items):,}")

    def _walk(self) -> Iterator[Item]:
        folder = ImageFolder(self.path)
        for path in folder:
            yield Item(stable_id("image", path), path)
        self.notes += folder.notes

    def _rows(self) -> list[Item]:
        modality, folder = self.modality, os.path.dirname(self.path)
        wanted = {
            modality: columns.IMAGE if modality == "image" else columns.TEXT,
            "tags": columns.TAGS,
            "labels": columns.LABELS,
            "id": columns.IMAGE_ID if modality == "image" else columns.TEXT_ID,
        }
        manifest = Manifest(self.path, wanted)
        manifest.require((modality,), f"a manifest of {modality}s needs it")
        items: list[Item] = []
        tags: list[Any] = []
        unnamed = 0
        for row, record in manifest.rows():
            try:
                name = cells.plain_id(record.get("id", ""))
                contents = cells.texts_of(record.get("text", "")) if modality == "text" else []
            except ValueError as error:
                raise ValueError(f"{self.path} row {row}: {error}") from error
            if modality == "image" and record.get("image"):
                image = cells.file_name(folder, record["image"])
                contents = [os.path.abspath(os.path.join(folder, image))]
            if not contents:
                raise ValueError(
                    f"{self.path} row {row}: {modality} is empty; fill it in or remove the row"
                )
            if name and len(contents) > 1:  # the id of a row cannot be that of each text
                name, unnamed = "", unnamed + 1
            for content in contents:
                where = f"{self.path} row {row}"
                items.append(Item(self.id_of(name, content, where), content, (), row))
                tags.append(tags_of(record))
        found = read_labels(tags, lambda i: f"{self.path} row {items[i].row}")
        self.notes += manifest.notes
        self.notes += [f"tags: {note}" for note in found.notes]
        if unnamed:
            self.notes.append(
                f"{unnamed:,} rows have several texts: each is an item, with an id of its own "
                "instead of the row's"
            )
        return [item._replace(tags=tags) for item, tags in zip(items, found.lists)]

    def id_of(self, name: str, content: str, where: str) -> int:
        """The id of an item that has a name, or else none but its content.

        Raises:
            ValueError: the name is a number that is too large; `where` begins the error line.
        """
        try:
            return named_id(self.modality, name) if name else stable_id(self.modality, content)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    def _unique(self, found: Iterable[Item]) -> list[Item]:
        """The items; of those with the same id and content one, with the tags of all."""
        items: dict[int, Item] = {}
        repeated = 0
        for item in found:
            other = items.setdefault(item.id, item)
            if other is item:
                continue
            if other.content != item.content:
                raise ValueError(
                    f"{self.path} row {item.row}: its id {item.id} is that of row {other.row} "
                    f"already ({other.content[:60]!r}); ids are unique"
                )
            repeated += 1
            if item.tags != other.tags:
                tags = tuple(dict.fromkeys((*other.tags, *item.tags)))
                items[item.id] = other._replace(tags=tags)
        if repeated:
            self.notes.append(f"{repeated:,} rows that repeat another were merged with it")
        return list(items.values())


def tags_of(record: dict[str, Any]) -> Any:
    """The cell of tags of a row, or else that of labels."""
    labels = record.get("labels", "")
    if "tags" not in record:
        return labels
    return record["tags"] or ("" if isinstance(labels, Flags) else labels)


def path_prefix(typed: str | None) -> str | None:
    """The beginning of a path in the form that items have: absolute; a "/" at the end stays."""
    if not typed:
        return None
    path = os.path.abspath(typed)
    return os.path.join(path, "") if typed.endswith("/") else path
