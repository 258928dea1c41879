"""Arrays of six pairs, and writers of the files that people pass them on in."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import scipy.sparse

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(6, 4)).astype(np.float32)
TEXT = RNG.normal(size=(6, 3)).round(1).astype(np.float16).astype(np.float32)
LABELS = np.array([[1, 0], [0, 1], [1, 1], [1, 0], [0, 1], [1, 1]], np.uint8)
ALL = {"image": IMAGE, "text": TEXT, "labels": LABELS}


def write_npz(path: Path, **arrays) -> Path:
    """An .npz file."""
    np.savez(path, **arrays)
    return path


def write_folder(path: Path, **arrays) -> Path:
    """A folder with a .npy file for each array; sparse ones as .npz, as SciPy writes them."""
    path.mkdir(parents=True)
    for name, array in arrays.items():
        if scipy.sparse.issparse(array):
            scipy.sparse.save_npz(path / f"{name}.npz", array)
        else:
            np.save(path / f"{name}.npy", array)
    return path


def write_mat5(path: Path, packed: bool = True, **arrays) -> Path:
    """A MATLAB 5 file."""
    scipy.io.savemat(path, arrays, do_compression=packed)
    return path


def write_hdf5(path: Path, **arrays) -> Path:
    """An HDF5 file as h5py writes it."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def write_mat73(path: Path, **arrays) -> Path:
    """A MATLAB 7.3 file: marked, its axes reversed, sparse matrices as groups."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            if scipy.sparse.issparse(array):
                _write_sparse(file, name, scipy.sparse.csc_matrix(array))
            else:
                file[name] = np.asarray(array).transpose()
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


def _write_sparse(file: h5py.File, name: str, matrix) -> None:
    group = file.create_group(name)
    group.attrs["MATLAB_sparse"] = np.uint64(matrix.shape[0])
    group["jc"] = matrix.indptr.astype(np.uint64)
    if matrix.nnz:  # MATLAB writes neither of these for a matrix of zeros
        group["data"], group["ir"] = matrix.data, matrix.indices.astype(np.uint64)


def torch_file(arrays: dict[str, np.ndarray], legacy: bool = False) -> bytes:
    """What `torch.save` writes of a mapping of tensors; of a tensor where its name is ""."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def tensor(key: str, array: np.ndarray) -> bytes:
        def numbers(values) -> bytes:
            return b"(" + b"".join(b"K" + bytes([value]) for value in values) + b"t"

        kind = {"f4": b"FloatStorage", "u1": b"ByteStorage"}[array.dtype.str[1:]]
        strides = [step // array.itemsize for step in array.strides]
        about = b"(" + text("storage") + b"ctorch\n" + kind + b"\n" + text(key) + text("cpu")
        about += b"K" + bytes([array.size]) + (b"N" if legacy else b"") + b"tQ"
        end = b"K\x00" + numbers(array.shape) + numbers(strides) + b"\x89)tR"
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + about + end

    keys = {name: str(at) for at, name in enumerate(arrays)}
    items = b"".join(text(name) + tensor(keys[name], a) for name, a in arrays.items() if name)
    body = tensor("0", arrays[""]) if "" in arrays else b"}(" + items + b"u"
    content = b"\x80\x02" + body + b"."
    if legacy:
        head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
        parts = [pickle.dumps(value, 2) for value in head]
        parts += [content, pickle.dumps(list(keys.values()), 2)]
        parts += [struct.pack("<q", a.size) + a.tobytes("A") for a in arrays.values()]
        return b"".join(parts)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        members = {"data.pkl": content, "byteorder": b"little"}
        members.update({f"data/{keys[name]}": array.tobytes("A") for name, array in arrays.items()})
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return out.getvalue()
