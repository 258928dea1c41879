"""Readers of arrays: NumPy, SciPy, MATLAB 4 to 7.3, HDF5, PyTorch, safetensors."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from array_helpers import torch_file
from fuzz.mutators import Files, bytes_change
from fuzz.target import Target, npy, npz
from fuzz.targets_data import sane

HEAD = b"MATLAB 5.0 MAT-file".ljust(116)  # the text that SciPy writes holds the time


def _arrays(kind: str = "f8") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.random((6, 4)).astype(kind),
        "text": rng.random((6, 3)).round().astype(kind),
        "labels": (rng.random((6, 2)) < 0.6).astype("u1"),
    }


def _split() -> dict[str, np.ndarray]:
    arrays = _arrays()
    letters = dict(zip(arrays, "ITL"))
    ends = {"tr": slice(2, 6), "te": slice(0, 2), "db": slice(2, 6)}
    return {f"{letters[n]}_{part}": a[at] for n, a in arrays.items() for part, at in ends.items()}


def _features(name: str):
    def read(folder: Path) -> None:
        from dsprh_tf.data.features import load_features

        sane(load_features(folder / name))

    return read


def _numpy_samples() -> list[Files]:
    import scipy.sparse

    def sparse(array, form) -> bytes:
        out = io.BytesIO()
        scipy.sparse.save_npz(out, scipy.sparse.csr_array(array).asformat(form))
        return out.getvalue()

    arrays = _arrays()
    names = np.array(["dog", "cat", "dog", "sea", "", "cat;sea"])
    found: list[Files] = [
        {"f/image.npy": npy(arrays["image"]), "f/text.npz": sparse(arrays["text"], form),
         "f/labels.npz": sparse(arrays["labels"], form)}
        for form in ("csr", "csc", "coo")
    ]  # fmt: skip
    for labels in (names, names.astype("S"), np.arange(6) % 3, np.where(arrays["labels"], 1, -1)):
        found.append({"f/a.npz": npz(**{**arrays, "labels": labels})})
    packed = io.BytesIO()
    np.savez_compressed(packed, **_split())
    found.append({"f/a.npz": packed.getvalue()})
    return found


def _matlab_arrays() -> list[dict]:
    import scipy.sparse

    arrays = _arrays()
    cells = np.array([["dog"], ["cat"], ["sea"], ["dog"], ["cat"], [""]], object)
    return [
        arrays,
        _split(),
        {**arrays, "labels": scipy.sparse.csc_matrix(arrays["labels"] > 0)},
        {**arrays, "text": scipy.sparse.csc_matrix(arrays["text"])},
        {**arrays, "labels": cells, "f": {"a": 1.0, "b": "x"}, "c": arrays["image"] + 1j},
        {**arrays, "labels": np.array(["dog  ", "cat", "sea", "dog", "cat", "x"])},
    ]


def _matlab5_samples() -> list[Files]:
    import scipy.io

    found: list[Files] = []
    for arrays in _matlab_arrays():
        for packed in (False, True):
            out = io.BytesIO()
            scipy.io.savemat(out, arrays, do_compression=packed)
            found.append({"f.mat": HEAD + out.getvalue()[116:]})
    for arrays in _matlab_arrays()[:1]:
        out = io.BytesIO()
        scipy.io.savemat(out, arrays, format="4")
        found.append({"f.mat": out.getvalue()})
    return found


def matlab5_change(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """A MATLAB 5 file with one variable changed, and packed again where it was packed."""
    elements, at = [], 128
    while at + 8 <= len(content):
        kind, size = struct.unpack("<2I", content[at : at + 8])
        elements.append((kind, content[at + 8 : at + 8 + size]))
        at += 8 + size
    if not elements:
        return bytes_change(rng, content, others)
    which = rng.randrange(len(elements))
    kind, inside = elements[which]
    if kind == 15:
        try:
            plain = zlib.decompress(inside)
        except zlib.error:
            return bytes_change(rng, content, others)
        elements[which] = kind, zlib.compress(bytes_change(rng, plain, others))
    else:
        elements[which] = kind, bytes_change(rng, inside, others)
    if rng.random() < 0.1:
        elements.append(rng.choice(elements))
    parts = (struct.pack("<2I", kind, len(inside)) + inside for kind, inside in elements)
    return content[:128] + b"".join(parts)


def _hdf5_samples() -> list[Files]:
    import h5py

    def written(fill, **options) -> bytes:
        out = io.BytesIO()
        with h5py.File(out, "w", **options) as file:
            fill(file)
        return out.getvalue()

    arrays = _arrays()

    def matlab(file) -> None:
        for name, array in arrays.items():
            item = file.create_dataset(name, data=array.T)
            item.attrs["MATLAB_class"] = np.bytes_(b"double")

    def sparse(file) -> None:
        import scipy.sparse

        file["image"] = arrays["image"].T
        file["image"].attrs["MATLAB_class"] = np.bytes_(b"double")
        for name in ("text", "labels"):
            columns = scipy.sparse.csc_matrix(arrays[name])
            group = file.create_group(name)
            group.attrs["MATLAB_sparse"] = np.uint64(6)
            group.attrs["MATLAB_class"] = np.bytes_(b"double")
            group["data"], group["ir"] = columns.data, columns.indices.astype("u8")
            group["jc"] = columns.indptr.astype("u8")

    def packed(file) -> None:
        for name, array in _split().items():
            file.create_dataset(name, data=array, chunks=(2, 2), compression="gzip", shuffle=True,
                                fletcher32=True)  # fmt: skip

    def groups(file) -> None:
        for name, array in _split().items():
            file[f"{name[2:]}/{name[0]}"] = array
        file["te/L"].attrs["about"] = "labels"

    def strings(file) -> None:
        file["img_emb"], file["txt_emb"] = arrays["image"].astype("f4"), arrays["text"]
        file["labels"] = np.array(["dog", "cat", "sea", "dog", "", "a;b"], object)

    fills = (matlab, sparse, packed, groups, strings)
    found: list[Files] = [{"f.mat": written(fill)} for fill in fills]
    return found + [{"f.mat": written(fill, libver="latest")} for fill in fills]


def _tensor_samples() -> list[Files]:
    arrays = _arrays("f4")
    return [
        {"f/a.pt": torch_file(arrays)},
        {"f/a.pt": torch_file(arrays, legacy=True)},
        {f"f/{name}.pt": torch_file({"": array}) for name, array in arrays.items()},
    ]


def _safetensor_samples() -> list[Files]:
    import safetensors.numpy

    halves = {n: a.astype("f2") if n != "labels" else a for n, a in _arrays().items()}
    return [
        {"f.safetensors": safetensors.numpy.save(_arrays("f4"))},
        {"f.safetensors": safetensors.numpy.save(halves, {"made": "by"})},
    ]


def safetensors_change(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """A file with another header, whose length is right."""
    size = struct.unpack("<Q", content[:8])[0] if len(content) > 8 else 0
    if not 0 < size <= len(content):
        return bytes_change(rng, content, others)
    header = bytes_change(rng, content[8 : 8 + size], others)
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


def matrix_tables(folder: Path) -> None:
    """MIRFlickr's file with sparse and +-1 tables."""
    from dsprh_tf.data.mirflickr_mat import load_mirflickr25k_mat

    sane(load_mirflickr25k_mat(folder / "f.mat"))


def _table_samples() -> list[Files]:
    import scipy.io
    import scipy.sparse

    rng = np.random.default_rng(0)
    out = io.BytesIO()
    arrays = {
        "images": rng.integers(0, 256, (8, 5, 3, 7)).astype(np.uint8),
        "YAll": scipy.sparse.csc_matrix((rng.random((7, 9)) < 0.4).astype("f8")),
        "LAll": np.where(rng.random((7, 4)) < 0.5, 1.0, -1.0),
    }
    scipy.io.savemat(out, arrays, do_compression=True)
    return [{"f.mat": HEAD + out.getvalue()[116:]}]


_MATLAB = {".mat": (matlab5_change,)}
_PROCESS = frozenset({"subprocess.Popen"})  # HDF5 is read in a process of its own
TARGETS = [
    Target("arrays_numpy", _numpy_samples, _features("f")),
    Target("arrays_matlab5", _matlab5_samples, _features("f.mat"), kinds=_MATLAB, allowed=_PROCESS),
    Target("arrays_hdf5", _hdf5_samples, _features("f.mat"), allowed=_PROCESS),
    Target("arrays_torch", _tensor_samples, _features("f")),
    Target(
        "arrays_safetensors",
        _safetensor_samples,
        _features("f.safetensors"),
        kinds={".safetensors": (safetensors_change,)},
    ),
    Target("arrays_tables", _table_samples, matrix_tables, kinds=_MATLAB, allowed=_PROCESS),
]
