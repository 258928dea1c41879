"""Helpers of the index's tests: codes, items, sources, folders of codes, results by definition."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from dsprh_tf import codes as binary
from dsprh_tf.index.code_folder import CodeFolder, CodeWriter, part_schema
from dsprh_tf.index.interface import Where
from dsprh_tf.index.items import SCHEMA


def random_codes(rows: int, bits: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, bits // 8), np.uint8)


def clustered_codes(rows: int, bits: int = 64, seed: int = 0) -> np.ndarray:
    """Codes around centres, as trained encoders make them."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2, (rows // 50 + 1, bits), np.uint8)
    flips = rng.random((rows, bits)) < 0.08
    return np.packbits(centres[rng.integers(0, len(centres), rows)] ^ flips, axis=1)


def learned_values(rows: int, bits: int = 64, seed: int = 0, clusters: int = 40) -> np.ndarray:
    """Softened hash values around centres, which are the same for every seed."""
    centres = np.random.default_rng(99).standard_normal((clusters, bits))
    rng = np.random.default_rng(seed)
    near = centres[rng.integers(0, clusters, rows)]
    return binary.soften(near + 0.4 * rng.standard_normal((rows, bits)))


def dots(codes, values) -> np.ndarray:
    """Similarity of one query's values and each code, by the definition: a loop, float64 [n]."""
    total = sum(abs(float(v)) for v in values)
    each = []
    for code in codes:
        dot = sum(float(v) if bit else -float(v) for bit, v in zip(np.unpackbits(code), values))
        each.append((1 + dot / total) / 2)
    return np.array(each)


def assert_best(found, codes, ids, values) -> None:
    """The best items for the values of each query, by the definition; ties by id, none twice.

    Args:
        found: a `Ranking`, of as many results as there are items at most.
        codes: uint8 [n, bits / 8] of all items.
        ids: [n], likewise.
        values: [queries, bits].
    """
    k = min(found.ids.shape[1], len(ids))
    row_of = {int(name): row for row, name in enumerate(ids)}
    for one, *results in zip(values, found.ids, found.similarities, found.distances):
        names, similarities, distances = (result[:k] for result in results)
        assert all((result[k:] == -1).all() for result in results)
        rows = [row_of[name] for name in names.tolist()]
        assert len(set(rows)) == k
        true = dots(codes, one)
        np.testing.assert_allclose(similarities, -np.sort(-true)[:k], atol=2e-6)
        np.testing.assert_allclose(similarities, true[rows], atol=2e-6)
        order = list(zip((-similarities).tolist(), names.tolist()))
        assert order == sorted(order)
        assert all(d == np.sum(np.unpackbits(codes[r]) != (one >= 0))
                   for d, r in zip(distances, rows))  # fmt: skip


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

    def encode(self, items, batch_size, unknown="error"):
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

    def encode_values(self, items, batch_size=32, unknown="error"):
        signs = binary.unpack(self.encode(items, batch_size, unknown)).astype(np.float32)
        return signs * np.linspace(0.2, 0.9, self.bits, dtype=np.float32)

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


def repeated_codes(rng: np.random.Generator, rows: int, bits: int = 64) -> np.ndarray:
    """Codes most of which repeat: a few are very common, others near them, others alone."""
    centres = rng.integers(0, 256, (1 + rows // 40, bits // 8), np.uint8)
    codes = centres[np.minimum(rng.geometric(0.3, rows), len(centres)) - 1]
    near = rng.random(rows) < 0.3
    codes[near, 0] ^= np.uint8(1) << rng.integers(0, 8, near.sum(), np.uint8)
    alone = rng.random(rows) < 0.3
    codes[alone] = rng.integers(0, 256, (alone.sum(), bits // 8), np.uint8)
    return codes


class PlainIndex:
    """What an index must do, as a dictionary, with searches one query at a time."""

    def __init__(self):
        self.items: dict[int, tuple[bytes, int]] = {}  # id -> code, number of the item's version

    def add(self, ids, codes, version) -> tuple[int, int, int]:
        """Returns how many are new, replaced and unchanged."""
        counts = [0, 0, 0]
        for number, code in zip(ids, codes):
            now, before = (code.tobytes(), version), self.items.get(number)
            counts[0 if before is None else 1 if before != now else 2] += 1
            self.items[number] = now
        return tuple(counts)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes uint8 [n, bits / 8], and ids int64 [n]."""
        codes = np.frombuffer(b"".join(code for code, _ in self.items.values()), np.uint8)
        return codes.reshape(len(self.items), -1), np.array(list(self.items), np.int64)


def versioned_items(ids, version: int) -> pa.Table:
    """Images with these ids; another version has other paths, and the tag "odd" or "even"."""
    table = image_items(len(ids)).to_pydict()
    table.update(id=[int(i) for i in ids], path=[f"/v{version}/{i}.jpg" for i in ids])
    table.update(size=[version] * len(ids), sha256=[None] * len(ids))
    table["tags"] = [["all", "odd" if version % 2 else "even"]] * len(ids)
    return pa.table(table, SCHEMA)


def random_walk(index, reopen, rng, steps: int, rows: int, exact: bool) -> None:
    """Adds, replaces, removes, commits and reopens at random, and compares with a `PlainIndex`.

    Args:
        index: an empty index of 64 bits.
        reopen: (committed index) -> the same one, loaded again for writing.
        rng: draws everything.
        steps: number of changes.
        rows: about how many items a change adds.
        exact: whether every search must find all nearest items.
    """
    plain, pool = PlainIndex(), repeated_codes(rng, 4 * rows)
    for step in range(steps):
        action = rng.choice(["add", "remove", "replace", "repeat"], p=[0.5, 0.2, 0.2, 0.1])
        there = np.array(sorted(plain.items), np.int64)
        if action == "add" or not len(there):
            ids = rng.permutation(20 * rows)[: rng.integers(1, 2 * rows)]
            codes, version = pool[rng.integers(0, len(pool), len(ids))], step
        elif action == "remove":
            ids = rng.permutation(20 * rows)[: rng.integers(1, 6 * rows)]
            if rng.random() < 0.3:  # all items with one code
                code = plain.items[rng.choice(there)][0]
                ids = np.array([i for i, (c, _) in plain.items.items() if c == code])
            gone = [plain.items.pop(int(i), None) for i in ids]
            assert index.remove(ids) == sum(item is not None for item in gone)
            ids = ids[:0]
        else:
            ids = rng.permutation(there)[: rng.integers(1, len(there) + 1)]
            codes = index.codes_of(ids)
            version = step
            if action == "replace":
                codes = pool[rng.integers(0, len(pool), len(ids))]
            else:  # nothing changes
                version = plain.items[int(ids[0])][1]
                ids = np.array([i for i in ids.tolist() if plain.items[i][1] == version])
                codes = index.codes_of(ids)
        if len(ids):
            changes = index.add(codes, versioned_items(ids, version))
            wanted = plain.add(ids.tolist(), codes, version)
            assert (changes.added, changes.replaced, changes.unchanged) == wanted
        if rng.random() < 0.4:
            index.commit()
            index = reopen(index)
        if plain.items:
            compare(index, plain, rng, exact)
        assert len(index) == len(plain.items)
    index.commit()
    if plain.items:
        found = index.check()
        assert (found["items"], found["own code found"]) == (len(plain.items), 1)


def compare(index, plain: PlainIndex, rng, exact: bool) -> None:
    """Compares an index with what it must hold and find; see `random_walk`."""
    codes, ids = plain.arrays()
    np.testing.assert_array_equal(np.sort(index.ids_where()), np.sort(ids))
    np.testing.assert_array_equal(index.codes_of(ids), codes)
    own = rng.integers(0, len(ids), 12)
    query = np.concatenate([codes[own], random_codes(4, 64, int(rng.integers(1000)))])
    for k in (1, 10, 3 * len(ids)):
        found = index.search(query, k)
        if exact or k > len(ids):
            assert_same_results(found, codes, ids, query, k)
            continue
        wanted = expected(codes, ids, query, k)
        for one, (distances, names, best) in enumerate(zip(found.distances, found.ids, wanted)):
            there = names >= 0
            distances, names = distances[there], names[there]
            true = [np.unpackbits(query[one] ^ codes[ids == name][0]).sum() for name in names]
            np.testing.assert_array_equal(distances, true)
            order = list(zip(distances.tolist(), names.tolist()))
            assert order == sorted(set(order))
            # The items with the query's own code are found, whatever else is.
            assert (distances == 0).sum() == (best[:, 0] == 0).sum()
            # All items of a code that was found, except at the largest distance.
            for code in {plain.items[int(name)][0] for name in names}:
                whole = sorted(i for i, (c, _) in plain.items.items() if c == code)
                at = [
                    place for place, name in enumerate(names) if plain.items[int(name)][0] == code
                ]
                if len(names) < k or distances[at[0]] < distances[-1]:
                    assert names[at].tolist() == whole
    where = Where(tag="odd")
    odd = np.array([version % 2 == 1 for _, version in plain.items.values()])
    if odd.any():
        found = index.search(query, 10, where)
        assert_same_results(found, codes[odd], ids[odd], query, 10)
