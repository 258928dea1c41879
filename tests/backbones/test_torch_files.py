"""PyTorch checkpoints read without PyTorch and without running their code; the script."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from helpers import ROOT

from dsprh_tf.backbones import torch_files
from dsprh_tf.backbones.torch_files import read_weights, write_weights
from dsprh_tf.data.files import file_sha256

FLOATS = np.arange(12, dtype="<f4")


class Global:
    """Pickles as a bare reference to `module.name`, which need not exist here."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Reduced:
    """Pickles as a call of a Global."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class Stored:
    """Pickles as a persistent id."""

    def __init__(self, *reference):
        self.reference = reference


class TorchPickler(pickle._Pickler):
    """Writes what torch.save writes, without PyTorch (protocol 2)."""

    def persistent_id(self, obj):
        return obj.reference if isinstance(obj, Stored) else None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Reduced):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


def dumped(obj):
    stream = io.BytesIO()
    TorchPickler(stream, 2).dump(obj)
    return stream.getvalue()


def tensor(size, stride, offset=0, storage="FloatStorage", key="0", elements=12, legacy=False):
    reference = ("storage", Global("torch", storage), key, "cpu", elements)
    return Reduced(
        Global("torch._utils", "_rebuild_tensor_v2"),
        Stored(*reference, *[None] * legacy),
        offset,
        size,
        stride,
        False,
        collections.OrderedDict(),
    )


def write_zip(path, obj, storages=None, compression=zipfile.ZIP_STORED, order=b"little"):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", dumped(obj))
        archive.writestr("archive/byteorder", order)
        for key, raw in (storages or {"0": FLOATS.tobytes()}).items():
            archive.writestr(f"archive/data/{key}", raw)
    return path


def write_legacy(path, obj, raw=None, elements=12):
    info = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [dumped(p) for p in (0x1950A86A20F9469CFC6C, 1001, info, obj, ["0"])]
    raw = FLOATS.tobytes() if raw is None else raw
    path.write_bytes(b"".join(parts) + struct.pack("<q", elements) + raw)
    return path


def state(*tensors, **kwargs):
    return collections.OrderedDict((f"t{i}", tensor(*t, **kwargs)) for i, t in enumerate(tensors))


VIEWS = (
    ((3, 4), (4, 1)),
    ((4, 3), (1, 4)),
    ((2, 2), (8, 2), 1),
    ((), (), 5),
    ((0, 3), (3, 1)),
    ((2, 3), (0, 1)),
)
GRID = FLOATS.reshape(3, 4)
EXPECTED = (
    GRID,
    GRID.T,
    np.array([[1, 3], [9, 11]]),
    np.array(5),
    np.zeros((0, 3)),
    np.array([[0, 1, 2], [0, 1, 2]]),
)


@pytest.mark.parametrize("legacy", [False, True])
def test_views_of_a_storage(tmp_path, legacy):
    write = write_legacy if legacy else write_zip
    arrays = read_weights(write(tmp_path / "w.pth", state(*VIEWS, legacy=legacy)))
    assert list(arrays) == [f"t{i}" for i in range(len(VIEWS))]
    for array, expected in zip(arrays.values(), EXPECTED):
        assert array.dtype == np.float32 and array.flags.c_contiguous and array.flags.writeable
        assert array.shape == expected.shape and np.array_equal(array, expected)


def test_element_types(tmp_path):
    kinds = {
        "DoubleStorage": "<f8",
        "HalfStorage": "<f2",
        "LongStorage": "<i8",
        "IntStorage": "<i4",
        "ShortStorage": "<i2",
        "CharStorage": "i1",
        "ByteStorage": "u1",
        "BoolStorage": "?",
    }
    content = {k: tensor((3,), (1,), storage=k, key=k, elements=3) for k in kinds}
    raw = {k: np.array([0, 1, 1]).astype(d).tobytes() for k, d in kinds.items()}
    content["BFloat16Storage"] = tensor((3,), (1,), 0, "BFloat16Storage", "b", 3)
    raw["b"] = np.array([0x0000, 0x3F80, 0x3F80], "<u2").tobytes()  # 0, 1, 1
    arrays = read_weights(write_zip(tmp_path / "w.pt", {"state_dict": content, "epoch": 3}, raw))
    for name, array in arrays.items():
        assert array.tolist() == [0, 1, 1], name
        assert array.dtype == np.dtype(kinds.get(name, "<f4"))


def test_big_endian(tmp_path):
    raw = {"0": FLOATS.astype(">f4").tobytes()}
    path = write_zip(tmp_path / "w.pth", state(((12,), (1,))), raw, order=b"big")
    assert np.array_equal(read_weights(path)["t0"], FLOATS)


def test_old_parameters(tmp_path):
    data = Reduced(
        Global("torch._utils", "_rebuild_tensor"),
        Stored("storage", Global("torch", "FloatStorage"), "0", "cpu", 12, None),
        0,
        (12,),
        (1,),
    )
    content = {
        "a": Reduced(Global("torch.nn.parameter", "Parameter"), data),
        "b": Reduced(Global("torch._utils", "_rebuild_parameter"), data, True, {}),
    }
    arrays = read_weights(write_legacy(tmp_path / "w.pth", content))
    assert np.array_equal(arrays["a"], FLOATS) and np.array_equal(arrays["b"], FLOATS)


class Attack:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("attack", [
    lambda path: Attack(os.system, f"touch {path}"),
    lambda path: Attack(eval, f"open({str(path)!r}, 'w')"),
    lambda path: Reduced(Global("builtins", "getattr"), Global("os", "environ"), "get"),
    lambda path: Reduced(Global("torch._utils", "os.system"), f"touch {path}"),
    lambda path: Reduced(Global("collections", "OrderedDict.__init__"), path),
    lambda path: Reduced(Global("torch", "load"), str(path)),
])  # fmt: skip
@pytest.mark.parametrize("place", ["value", "key", "root", "nested"])
def test_code_is_refused(tmp_path, attack, place):
    touched = tmp_path / "touched"
    evil = attack(touched)
    content = {
        "value": {"t0": evil},
        "key": {"t0": tensor((1,), (1,)), "x": (evil,)},
        "root": evil,
        "nested": {"state_dict": state(((1,), (1,))), "extra": [evil]},
    }[place]
    for write in (write_zip, write_legacy):
        if place == "nested" and write is write_legacy:
            content["state_dict"] = state(((1,), (1,)), legacy=True)
        path = write(tmp_path / "evil.pth", content)
        with pytest.raises(ValueError, match="could run code: refused") as caught:
            read_weights(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not touched.exists()


def test_magic_number_with_code(tmp_path):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Attack(os.system, f"touch {tmp_path / 'touched'}"), 0))
    with pytest.raises(ValueError, match="refused"):
        read_weights(path)
    assert not (tmp_path / "touched").exists()


def test_damaged_files(tmp_path):
    good = write_zip(tmp_path / "good.pth", state(((3, 4), (4, 1)))).read_bytes()
    old = write_legacy(tmp_path / "old.pth", state(((3, 4), (4, 1)), legacy=True)).read_bytes()
    for number, content in enumerate((
        b"", b"\x80", b"hello", good[: len(good) // 2], good[:-30], old[:-1], old[:200],
        good.replace(FLOATS[3:6].tobytes(), b"\xff" * 12),  # checksum
        pickle.dumps(7), b"PK\x03\x04", b"./././ustar",
    )):  # fmt: skip
        path = tmp_path / f"bad{number}.pth"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot read weights") as caught:
            read_weights(path)
        assert "\n" not in str(caught.value) and path.name in str(caught.value)


@pytest.mark.parametrize("content", [
    state(((13,), (1,))), state(((3,), (6,))), state(((2,), (1,), 11)), state(((2,), (-1,), 3)),
    state(((2,), (1,), -1)), state(((2**40,), (0,))), state(((3,), (1, 1))), state((("3",), (1,))),
    state(((3,), (1,)), elements=13), state(((3,), (1,)), elements="3"),
    {}, [1], {"a": 1}, {"state_dict": {}}, state(((3,), (1,)), key="../../secret"),
    state(((3,), (1,)), storage="HalfStorage", elements=30),
])  # fmt: skip
def test_lying_tensors(tmp_path, content):
    with pytest.raises(ValueError, match="cannot read weights"):
        read_weights(write_zip(tmp_path / "w.pth", content))


def test_compressed_archives_are_refused(tmp_path):
    bomb = write_zip(
        tmp_path / "w.pth", state(((3,), (1,))), {"0": bytes(10**7)}, zipfile.ZIP_DEFLATED
    )
    with pytest.raises(ValueError, match="compressed"):
        read_weights(bomb)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_write_and_read(tmp_path, suffix, monkeypatch):
    arrays = {"a.weight": GRID.T, "n": np.array(3), "half": np.zeros((2, 0), np.float16)}
    path = tmp_path / "deep" / f"w{suffix}"
    write_weights(path, arrays)
    again = read_weights(path)
    assert set(again) == set(arrays)
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype and np.array_equal(again[name], array)

    before = path.read_bytes()
    write_weights(path, arrays)
    assert path.read_bytes() == before  # the same arrays give the same file
    monkeypatch.setattr(torch_files.os, "fsync", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_weights(path, {"b": GRID})
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_pickled_npz_is_refused(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([Attack(os.getcwd)], object))
    with pytest.raises(ValueError, match="cannot read weights"):
        read_weights(tmp_path / "w.npz")


def test_unknown_extensions(tmp_path):
    with pytest.raises(ValueError, match=r"expected \.safetensors or \.npz"):
        write_weights(tmp_path / "w.pth", {})
    with pytest.raises(ValueError, match="extension '.bin'"):
        read_weights(tmp_path / "w.bin")
    with pytest.raises(ValueError, match="No such file"):
        read_weights(tmp_path / "w.pth")


def run_script(*arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "convert_weights.py"), *map(str, arguments)],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )


def test_script(tmp_path):
    source = write_zip(tmp_path / "w.pth", state(((3, 4), (4, 1)), ((), (), 5)))
    target = tmp_path / "weights" / "w.safetensors"
    result = run_script(f"--input={source}", f"--output={target}")
    assert result.returncode == 0 and result.stderr == ""
    assert np.array_equal(read_weights(target)["t0"], GRID)
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["t0", "float32", "3x4"] and lines[1].split()[-1] == "scalar"
    assert lines[2] == "2 arrays, 13 parameters"
    assert lines[3].split() == ["sha256", file_sha256(source), str(source)]
    assert lines[4].split() == ["sha256", file_sha256(target), str(target)]
    again = run_script(f"--input={target}", f"--output={tmp_path / 'w.npz'}")
    assert again.returncode == 0 and np.array_equal(read_weights(tmp_path / "w.npz")["t0"], GRID)


def test_script_with_bad_input(tmp_path):
    attack = Attack(os.system, f"touch {tmp_path / 'touched'}")
    evil = write_zip(tmp_path / "evil.pth", {"a": attack})
    good = write_zip(tmp_path / "good.pth", state(((3,), (1,))))
    out = tmp_path / "out.npz"
    for arguments, message in (
        ([f"--input={evil}", f"--output={out}"], "refused"),
        ([f"--input={tmp_path / 'no.pth'}", f"--output={out}"], "No such file"),
        ([f"--input={good}", f"--output={tmp_path / 'out.bin'}"], "expected .safetensors or .npz"),
        ([f"--input={good}", f"--output={good}"], "the same file"),
        ([f"--input={good}"], "--output=FILE"),
        (["--nonsense=1"], "nonsense"),
    ):
        result = run_script(*arguments)
        assert result.returncode == 2 and message in result.stderr, result
        assert len(result.stderr.splitlines()) == 1
    assert not out.exists() and not (tmp_path / "touched").exists()


@pytest.mark.parametrize("zip_format", [True, False])
def test_files_of_torch_save(tmp_path, zip_format):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    tensors = {
        "whole": base, "transposed": base.permute(2, 0, 1), "part": base[1, ::2, 1:],
        "scalar": torch.tensor(3), "half": base.half(), "brain": base.bfloat16(),
        "double": base.double(), "parameter": torch.nn.Parameter(base + 1),
        "expanded": torch.ones(3, 1).expand(3, 5), "bool": base > 3,
    }  # fmt: skip
    layers = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    for content in (tensors, {"epoch": 1, "state_dict": tensors}, layers.state_dict()):
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zip_format)
        arrays = read_weights(tmp_path / "w.pth")
        expected = content.get("state_dict", content)
        assert list(arrays) == list(expected)
        for name, value in expected.items():
            value = value.detach()
            value = value.float() if value.dtype == torch.bfloat16 else value
            assert np.array_equal(arrays[name], value.numpy()), name
            assert arrays[name].dtype == value.numpy().dtype, name
    torch.save(layers, tmp_path / "module.pth", _use_new_zipfile_serialization=zip_format)
    with pytest.raises(ValueError, match="refused"):
        read_weights(tmp_path / "module.pth")
