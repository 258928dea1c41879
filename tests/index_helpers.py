"""Helpers of the index's tests: codes, items, sources, folders of codes, results by definition."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from dsprh_tf.index.code_folder import CodeFolder, CodeWriter, part_schema
from dsprh_tf.index.items import SCHEMA


def random_codes(rows: int, bits: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, bits // 8), np.uint8)


def clustered_codes(rows: int, bits: int = 64, seed: int = 0) -> np.ndarray:
    """Codes around centres, as trained encoders make them."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2, (rows // 50 + 1, bits), np.uint8)
    flips = rng.random((rows, bits)) < 0.08
    return np.packbits(centres[rng.integers(0, len(centres), rows)] ^ flips, axis=1)


def image_items(rows: int, start: int = 0) -> pa.Table:
    """Images numbered from `start`: ids 10 i, two folders, tags by i."""
    numbers = range(start, start + rows)
    return pa.table(
        {
            "id": [10 * i for i in numbers],
            "modality": ["image"] * rows,
            "path": [f"/pictures/{'even' if i % 2 == 0 else 'odd'}/{i}.jpg" for i in numbers],
            "text": [None] * rows,
            "size": [1000 + i for i in numbers],
            "sha256": [i.to_bytes(32, "big") for i in numbers],
            "tags": [["all"] + ["third"] * (i % 3 == 0) for i in numbers],
        },
        SCHEMA,
    )


def expected(codes, ids, query, k):
    """Distances and ids of the k nearest, ties by id: the definition, one query at a time."""
    rows = []
    for one in query:
        distance = np.unpackbits(one ^ codes, axis=1).sum(axis=1).astype(int)
        rows.append(sorted(zip(distance, ids))[:k])
    return np.array(rows).reshape(len(query), -1, 2)


def assert_same_results(found, codes, ids, query, k):
    """Equal up to ties: the same distances, and every id at its true distance, none twice."""
    wanted = expected(codes, ids, query, k)
    width = wanted.shape[1]
    np.testing.assert_array_equal(found.distances[:, :width], wanted[..., 0])
    assert (found.distances[:, width:] == -1).all()
    assert (found.ids[:, width:] == -1).all()
    row_of = {number: row for row, number in enumerate(ids)}
    for one, distances, names in zip(query, found.distances, found.ids):
        names = names[:width]
        assert len(set(names.tolist())) == width
        true = [np.unpackbits(one ^ codes[row_of[name]]).sum() for name in names]
        np.testing.assert_array_equal(distances[:width], true)
        for distance in set(true):
            tied = names[distances[:width] == distance]
            assert (np.diff(tied) > 0).all()


def write_code_folder(path: Path, codes: np.ndarray, items: pa.Table) -> None:
    """A folder of codes as `dsprh encode` leaves it, of encoders with the fingerprint "abc"."""
    rows, bits = len(codes), codes.shape[1] * 8
    writer = CodeWriter(path, bits, "abc", "image", "/pictures")
    table = items.to_pydict()
    table.update(modified=[1] * rows, code=[bytes(code) for code in codes], problem=[None] * rows)
    writer.write_part(pa.table(table, part_schema(bits)))
    writer.finish(table["id"])


class HashEncoder:
    """Codes that depend on the item and on the whole batch that it is encoded in.

    Real encoders may round a sum differently in another batch; here every code would show it.
    """

    bits = 64

    def __init__(self):
        self.encoded = []

    def encode(self, items, batch_size):
        assert batch_size >= len(items)
        contents = [item if isinstance(item, bytes) else item.encode() for item in items]
        for content in contents:
            if content.startswith((b"\xff\xd8", b"\x89PNG")):
                try:
                    Image.open(io.BytesIO(content)).load()
                except Exception as error:
                    raise ValueError(f"item cannot be encoded: {error}") from error
                if b"only Pillow" in content:
                    raise ValueError("item cannot be encoded")
        self.encoded += contents
        whole = hashlib.sha256(b"".join(contents)).digest()[:2]
        rows = [hashlib.sha256(content).digest()[:6] + whole for content in contents]
        return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), 8)

    def known_words(self, texts):
        return np.array(["known" in text for text in texts], int)


def write_image(path: Path, seed: int = 0, **options) -> Path:
    """A small image of noise; its folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_album(folder: Path) -> Path:
    """21 images in two folders, and files that are none."""
    for i in range(21):
        write_image(folder / ("b" if i % 2 else "a") / f"{i:02}.jpg", i)
    (folder / "notes.txt").write_text("no image")
    (folder / "a" / ".hidden.jpg").write_text("no image")
    write_image(folder / ".cache" / "x.jpg")
    return folder


def folder_content(out: Path) -> tuple:
    """Everything that counts of a folder of codes."""
    folder = CodeFolder(out)
    return folder.codes.tobytes(), folder.items().to_pylist(), folder.skipped


def assert_same_folders(a: Path, b: Path) -> None:
    """The same codes, items and skipped items, and no other files."""
    assert folder_content(a) == folder_content(b)
    for out in (a, b):
        assert set(os.listdir(out)) == {"codes.npy", "items.parquet", "codes.json", ".lock"}
