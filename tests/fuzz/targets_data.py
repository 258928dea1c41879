"""Readers of data sets: manifests, arrays, images, the layouts of COCO, MIRFlickr and NUS-WIDE."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path

import numpy as np
from fuzz.mutators import Files
from fuzz.target import CHILD, Target, check, npy, npz, picture

PICTURES = {f"p{i}.jpg": picture(i) for i in range(6)}
ROWS = [
    {"image": "p0.jpg", "text": "a red dog", "labels": "dog;red", "split": "query", "id": "1"},
    {
        "image": "p1.jpg",
        "text": "two dogs, a beach",
        "labels": "dog",
        "split": "train",
        "id": "2",
    },
    {
        "image": "p2.jpg",
        "text": 'the "blue" sea',
        "labels": "sea|blue",
        "split": "train",
        "id": "x",
    },
    {"image": "p3.jpg", "text": "Ärger im Boot", "labels": "boat", "split": "database", "id": "y"},
    {"image": "p4.jpg", "text": "boat and sea", "labels": "", "split": "train", "id": "10"},
    {"image": "p5.jpg", "text": "beach\ndog", "labels": "dog;beach", "split": "query", "id": "7"},
]
NAMED = ("image", "text", "labels")


def _csv(rows: list[dict], **options) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], lineterminator="\n", **options)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def _jsonl(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _listed(rows: list[dict]) -> list[dict]:
    """Rows with labels as lists."""
    return [
        {**r, "labels": [p for p in r["labels"].replace("|", ";").split(";") if p]} for r in rows
    ]


def _parquet(rows: list[dict], **options) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), out, **options)
    return out.getvalue()


def _few(rows: list[dict], *columns: str) -> list[dict]:
    return [{c: row[c] for c in columns} for row in rows]


def sane(dataset, typed: bool = True) -> None:
    """What must hold of every data set that was read; `typed` labels may stand for none."""
    n = len(dataset)
    check(n > 0 and len(set(dataset.ids.tolist())) == n, "no pairs, or an id twice")
    if dataset.texts is not None:
        check(all(isinstance(t, str) for t in dataset.texts), "a text that is no string")
        check(not any("\n" in t for t in dataset.texts), "a text of several lines")
    for array in (dataset.image_features, dataset.text_features):
        if array is not None:
            check(array.dtype == np.float32 and array.ndim == 2 and len(array) == n, "features")
            check(np.isfinite(array).all(), "features that are not finite")
    if dataset.labels is not None:
        check(dataset.labels.shape == (n, len(dataset.label_names)), "labels of another shape")
        check(dataset.labels.dtype == np.uint8 and dataset.labels.max(initial=0) <= 1, "labels")
        check(len(set(dataset.label_names)) == len(dataset.label_names), "a label twice")
        check(all(str(name).strip() for name in dataset.label_names), "a label without a name")
        check(
            not typed
            or not {"none", "nan", "null"} & {str(name).lower() for name in dataset.label_names},
            f"no label taken for a name: {dataset.label_names}",
        )
    if dataset.given_split is not None:
        parts = dataset.given_split
        check(not set(parts["query"]) & set(parts["database"]), "a query in the database")
    bad = [note for note in dataset.notes if not isinstance(note, str) or "\n" in note]
    check(not bad, f"notes of several lines: {bad}")
    dataset.fingerprint()


def _pairs(name: str):
    def read(folder: Path) -> None:
        from dsprh_tf.data.pairs import load_pairs

        sane(load_pairs(folder / name))

    return read


def _manifests(make) -> list[bytes]:
    return [
        make(_few(ROWS, *NAMED)),
        make(ROWS),
        make(_few(ROWS, "image", "text")),
    ]


def _with_pictures(name: str, contents: list[bytes]) -> list[Files]:
    return [{name: content, **PICTURES} for content in contents]


def _csv_samples() -> list[Files]:
    quoted = _csv(ROWS, quoting=csv.QUOTE_ALL)
    return _with_pictures("manifest.csv", [*_manifests(_csv), quoted])


def _jsonl_samples() -> list[Files]:
    listed = _jsonl(_listed(_few(ROWS, *NAMED)))
    return _with_pictures("manifest.jsonl", [*_manifests(_jsonl), listed])


def _parquet_samples() -> list[Files]:
    listed = _listed(_few(ROWS, *NAMED))
    plain = {"use_dictionary": False, "compression": "none"}
    many = _few(ROWS, *NAMED) * 1
    contents = [
        _parquet(_few(ROWS, *NAMED), **plain),
        _parquet(ROWS),
        _parquet(listed, **plain),
        _parquet(many, compression="zstd", row_group_size=2),
    ]
    return _with_pictures("manifest.parquet", contents)


def _odd_parquet(rng: random.Random) -> Files:
    """A valid Parquet file with columns of odd types, some of them under names that are read."""
    import pyarrow as pa
    from pyarrow import parquet

    n = rng.randint(0, 8)
    whole = [rng.choice((None, 0, 1, -1, 2**62, -(2**62))) for _ in range(n)]
    text = [rng.choice((None, "", "a;b", "p0.jpg", "x" * 3000, "\u2028", "1.0")) for _ in range(n)]
    makers = [
        lambda: pa.array(whole, pa.int64()),
        lambda: pa.array(whole, pa.timestamp("ns")),
        lambda: pa.array(whole, pa.timestamp("s", "Nowhere/Land")),
        lambda: pa.array(whole, pa.duration("s")),
        lambda: pa.array(whole, pa.date64()),
        lambda: pa.array([None if w is None else w % 2**31 for w in whole], pa.date32()),
        lambda: pa.array([None if w is None else w % 86400 for w in whole], pa.time32("s")),
        lambda: pa.array([None if w is None else w / 3 for w in whole], pa.float64()),
        lambda: pa.array([float("nan")] * n),
        lambda: pa.array([None if w is None else w > 0 for w in whole]),
        lambda: pa.array(text),
        lambda: pa.array(text).dictionary_encode(),
        lambda: pa.array([None if t is None else t.encode() for t in text], pa.binary()),
        lambda: pa.array([b"\xff\xfe"] * n, pa.binary()),
        lambda: pa.array([[t, t] for t in text], pa.list_(pa.string())),
        lambda: pa.array([[[1, 0]]] * n),
        lambda: pa.array([{"bytes": b"x", "path": t} for t in text]),
        lambda: pa.array([{"bytes": PICTURES["p0.jpg"], "path": None}] * n),
        lambda: pa.array([[("k", t)] for t in text], pa.map_(pa.string(), pa.string())),
        lambda: pa.nulls(n),
        lambda: pa.array([0] * n, pa.decimal128(38, 0)),
        lambda: pa.array([[1, 0, 1]] * n, pa.list_(pa.int64(), 3)),
    ]
    names = rng.sample(["image", "text", "labels", "split", "id", "other", "Image", "caption"], 5)
    table = pa.table({name: rng.choice(makers)() for name in names})
    if rng.random() < 0.5:
        for name in ("image", "text"):
            if name in table.column_names:
                table = table.drop([name])
        table = table.append_column(
            "image", pa.array([f"p{i % 6}.jpg" for i in range(n)], pa.string())
        )
        table = table.append_column(
            "text", pa.array([f"word{i} dog" for i in range(n)], pa.string())
        )
    out = io.BytesIO()
    parquet.write_table(table, out, compression=rng.choice(("none", "zstd")))
    return {"manifest.parquet": out.getvalue(), **PICTURES}


def _source(name: str):
    def read(folder: Path) -> None:
        from dsprh_tf.index.sources import Source

        source = Source(folder / name, "text")
        ids = [item.id for item in source.items]
        check(ids and len(set(ids)) == len(ids), "no items, or an id twice")
        check(all(0 <= i < 2**63 for i in ids), "an id out of range")
        check(all(i.content.strip() and isinstance(i.content, str) for i in source.items), "a text")

    return read


def _queries(name: str):
    def read(folder: Path) -> None:
        from dsprh_tf.index.queries import KINDS, read_queries

        for kind, value in read_queries(folder / name):
            check(kind in KINDS and value.strip() and isinstance(value, str), "a query")

    return read


def _query_rows() -> list[dict]:
    return [
        {"text": "a dog", "image": "", "like": ""},
        {"text": "", "image": "p0.jpg", "like": ""},
        {"text": "", "image": "", "like": "5142310871543"},
    ]


def _coco(folder: Path) -> None:
    from dsprh_tf.data.coco import load_coco

    sane(load_coco(folder / "coco"), typed=False)


def _coco_samples() -> list[Files]:
    images = [{"id": i, "file_name": f"{i:012}.jpg", "width": 7, "height": 5} for i in range(4)]
    captions = [{"id": i, "image_id": i % 4, "caption": f"a dog number {i}"} for i in range(8)]
    instances = [{"id": i, "image_id": i % 4, "category_id": 1 + i % 2} for i in range(6)]
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    files: Files = {
        "coco/annotations/captions_val2017.json": json.dumps(
            {"images": images, "annotations": captions}
        ).encode(),
        "coco/annotations/instances_val2017.json": json.dumps(
            {"images": images, "annotations": instances, "categories": categories}
        ).encode(),
    }
    for image in images:
        files[f"coco/val2017/{image['file_name']}"] = picture(image["id"])
    split = {"query": [0], "database": [1, 2, 3], "train": [1, 2]}
    return [files, {**files, "coco/splits.json": json.dumps(split).encode()}]


def _arrays(kind: str = "f4") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.random((6, 4)).astype(kind),
        "text": rng.random((6, 3)).astype(kind),
        "labels": (rng.random((6, 2)) < 0.6).astype("u1"),
    }


def _features(name: str):
    def read(folder: Path) -> None:
        from dsprh_tf.data.features import load_features

        sane(load_features(folder / name))

    return read


def _npz_samples() -> list[Files]:
    compressed = io.BytesIO()
    np.savez_compressed(compressed, **_arrays("f8"))
    return [
        {"f.npz": npz(**_arrays())},
        {"f.npz": compressed.getvalue()},
        {"f.npz": npz(I=_arrays()["image"], T=_arrays()["text"])},
    ]


def _npy_samples() -> list[Files]:
    whole = {f"f/{name}.npy": npy(array) for name, array in _arrays().items()}
    fortran = {f"f/{name}.npy": npy(np.asfortranarray(a)) for name, a in _arrays("f8").items()}
    return [whole, fortran]


def _mat5_samples() -> list[Files]:
    import scipy.io
    import scipy.sparse

    found = []
    sparse = {**_arrays("f8"), "labels": scipy.sparse.csc_matrix(_arrays("f8")["labels"])}
    for arrays in (_arrays("f8"), sparse, {**_arrays(), "extra": np.array(["a", "bc"], object)}):
        for packed in (False, True):
            out = io.BytesIO()
            scipy.io.savemat(out, arrays, do_compression=packed)
            # The text of the header holds the time.
            found.append({"f.mat": b"MATLAB 5.0 MAT-file".ljust(116) + out.getvalue()[116:]})
    return found


def _mat73(arrays: dict, marked: bool = True, **options) -> bytes:
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w", libver="earliest") as file:
        for name, array in arrays.items():
            item = file.create_dataset(name, data=array.T if marked else array, **options)
            if marked:
                item.attrs["MATLAB_class"] = np.bytes_(b"double")
    return out.getvalue()


def _mat73_samples() -> list[Files]:
    chunked = {"chunks": (2, 2), "compression": "gzip"}
    return [
        {"f.mat": _mat73(_arrays("f8"))},
        {"f.mat": _mat73(_arrays("f8"), marked=False)},
        {"f.mat": _mat73(_arrays("f8"), **chunked)},
    ]


def _mirflickr_mat(folder: Path) -> None:
    from dsprh_tf.data.mirflickr_mat import load_mirflickr25k_mat

    sane(load_mirflickr25k_mat(folder / "f.mat"))


def _mirflickr_mat_samples() -> list[Files]:
    import scipy.io

    rng = np.random.default_rng(0)
    arrays = {
        "images": rng.integers(0, 256, (8, 5, 3, 7)).astype(np.uint8),
        "YAll": (rng.random((7, 9)) < 0.4).astype("f8"),
        "LAll": (rng.random((7, 4)) < 0.5).astype("f8"),
    }
    out = io.BytesIO()
    scipy.io.savemat(out, arrays)
    hdf5 = {**arrays, "images": rng.integers(0, 256, (7, 3, 8, 5)).astype(np.uint8)}
    return [
        {"f.mat": b"MATLAB 5.0 MAT-file".ljust(116) + out.getvalue()[116:]},
        {"f.mat": _mat73(hdf5, marked=False)},
    ]


def _mirflickr(folder: Path) -> None:
    from dsprh_tf.data.mirflickr import load_mirflickr25k

    sane(load_mirflickr25k(folder / "data"))


def _mirflickr_samples() -> list[Files]:
    from dsprh_tf.data.mirflickr import LABELS, MIN_TAG_COUNT

    files: Files = {
        "data/mirflickr/doc/common_tags.txt": f"dog {MIN_TAG_COUNT + 5}\nsea 30\nred 2\n".encode()
    }
    for i in range(1, 5):
        files[f"data/mirflickr/im{i}.jpg"] = picture(i)
        tags = ["dog\nbeach\n", "sea\r\ndog\r\n", "sea\n", "dog\nred\n"][i - 1]
        files[f"data/mirflickr/meta/tags/tags{i}.txt"] = tags.encode()
    for at, label in enumerate(LABELS):
        lines = "".join(f"{i}\n" for i in range(1, 5) if (i + at) % 3 == 0)
        files[f"data/annotations/{label}.txt"] = lines.encode()
    return [files]


def _nuswide(folder: Path) -> None:
    from dsprh_tf.data.nuswide import load_nuswide

    sane(load_nuswide(folder / "data"))


def _nuswide_samples() -> list[Files]:
    names = [f"actor/000{i}_{100 + i}.jpg" for i in range(4)]
    rng = np.random.default_rng(0)
    tags = (rng.random((4, 1000)) < 0.01).astype(int)
    tags[:, 0] = 1
    files: Files = {
        "data/ImageList/Imagelist.txt": "\n".join(n.replace("/", "\\") for n in names).encode(),
        "data/NUS_WID_Tags/TagList1k.txt": "\n".join(f"tag{i}" for i in range(1000)).encode(),
        "data/NUS_WID_Tags/AllTags1k.txt": "".join(
            " ".join(map(str, row)) + "\n" for row in tags
        ).encode(),
    }
    for i in range(11):
        column = "".join(f"{int((i + row) % 3 == 0)}\n" for row in range(4))
        files[f"data/Groundtruth/AllLabels/Labels_c{i}.txt"] = column.encode()
    for i, name in enumerate(names):
        files[f"data/Flickr/{name}"] = picture(i)
    return [files]


def _image(folder: Path) -> None:
    import dsprh_tf.data.preprocess  # noqa: F401 - TensorFlow, which decides on some files
    from dsprh_tf.data.images import load_image

    pixels = load_image(folder / "picture")
    check(pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3, "no RGB")
    check(pixels.size > 0, "an image without pixels")


def _image_samples() -> list[Files]:
    from PIL import Image

    oriented = Image.Exif()
    oriented[0x0112] = 6
    contents = [
        picture(0),
        picture(1, quality=95, exif=oriented.tobytes()),
        picture(2, progressive=True),
        picture(3, "PNG"),
        picture(4, "PNG", mode="P"),
        picture(5, "PNG", exif=oriented.tobytes()),
        picture(6, "GIF"),
        picture(7, "BMP"),
        picture(8, "WEBP"),
        picture(9, "WEBP", lossless=True),
        picture(10, "TIFF"),
        picture(11, "TIFF", compression="tiff_lzw"),
        picture(12, mode="L"),
        picture(13, mode="CMYK"),
    ]
    return [{"picture": content} for content in contents]


def _text_lines() -> list[Files]:
    return [{"q.txt": "a dog\n\nthe sea\nÄrger\n".encode()}]


TARGETS = [
    Target("manifest_csv", _csv_samples, _pairs("manifest.csv"), fixed=(".jpg",)),
    Target("manifest_jsonl", _jsonl_samples, _pairs("manifest.jsonl"), fixed=(".jpg",)),
    Target("manifest_parquet", _parquet_samples, _pairs("manifest.parquet"), fixed=(".jpg",),
           generate=_odd_parquet, generated=0.4, allowed=CHILD),
    Target("source_csv", lambda: [{"m.csv": c} for c in _manifests(_csv)], _source("m.csv")),
    Target("source_jsonl", lambda: [{"m.jsonl": c} for c in _manifests(_jsonl)],
           _source("m.jsonl")),
    Target("queries_txt", _text_lines, _queries("q.txt")),
    Target("queries_csv", lambda: [{"q.csv": _csv(_query_rows())}], _queries("q.csv")),
    Target("queries_parquet", lambda: [{"q.parquet": _parquet(_query_rows())}],
           _queries("q.parquet"), allowed=CHILD),
    Target("coco", _coco_samples, _coco, fixed=(".jpg",)),
    Target("features_npz", _npz_samples, _features("f.npz"), allowed=CHILD),
    Target("features_npy", _npy_samples, _features("f"), allowed=CHILD),
    Target("features_mat5", _mat5_samples, _features("f.mat"), allowed=CHILD),
    Target("features_mat73", _mat73_samples, _features("f.mat"), allowed=CHILD),
    Target("mirflickr_mat", _mirflickr_mat_samples, _mirflickr_mat, allowed=CHILD),
    Target("mirflickr", _mirflickr_samples, _mirflickr, fixed=(".jpg",)),
    Target("nuswide", _nuswide_samples, _nuswide, fixed=(".jpg",)),
    Target("images", _image_samples, _image),
]  # fmt: skip
