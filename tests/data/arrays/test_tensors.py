"""Tensors of PyTorch and safetensors, without PyTorch and without running code."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from array_helpers import torch_file

from dsprh_tf.data.arrays import tensors

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


def refused(path, message, reader=tensors.list_torch):
    with pytest.raises(ValueError, match=message) as error:
        for array in reader(path):
            array.read()
    assert "\n" not in str(error.value) and path.name in str(error.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_mappings_and_single_tensors(tmp_path, legacy):
    (tmp_path / "a.pt").write_bytes(torch_file({"x": ARRAY, "y": ARRAY.T}, legacy=legacy))
    found = {array.name: array.read() for array in tensors.list_torch(tmp_path / "a.pt")}
    np.testing.assert_array_equal(found["x"], ARRAY)
    np.testing.assert_array_equal(found["y"], ARRAY.T)
    (tmp_path / "image.pt").write_bytes(torch_file({"": ARRAY}, legacy=legacy))
    (image,) = tensors.list_torch(tmp_path / "image.pt")
    assert image.name == "image" and np.array_equal(image.read(), ARRAY)


@pytest.mark.parametrize("zip_format", [True, False])
def test_files_of_torch_save(tmp_path, zip_format):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    base = torch.arange(24, dtype=torch.float32).reshape(6, 4)
    content = {
        "image": base, "text": base.T.contiguous().T, "labels": torch.arange(6) % 3,
        "train": {"image": base[:2], "half": base.half(), "brain": base.bfloat16() / 3},
    }  # fmt: skip
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zip_format)
    found = {array.name: array.read() for array in tensors.list_torch(tmp_path / "a.pt")}
    assert list(found) == ["image", "text", "labels", "train.image", "train.half", "train.brain"]
    for name, array in found.items():
        value = content
        for part in name.split("."):
            value = value[part]
        np.testing.assert_array_equal(array, (value.float() if "brain" in name else value).numpy())
    torch.save([base, base], tmp_path / "b.pt", _use_new_zipfile_serialization=zip_format)
    refused(tmp_path / "b.pt", r"holds a list, .*torch.save\(\{'image': image")
    torch.save({"image": base.numpy()}, tmp_path / "c.pt",
               _use_new_zipfile_serialization=zip_format)  # fmt: skip
    refused(tmp_path / "c.pt", "could run code: refused; save tensors alone")


def write_pickle(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return path


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def nested(depth):
    """Tuples within tuples, each twice: 2 ** depth of them to be hashed or printed."""
    return b"N" + b"2\x86" * depth


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


PICKLES = {
    "a key of tuples within tuples": b"\x80\x02}" + nested(60) + b"K\x01s.",
    "a key of tuples among others": b"\x80\x02}(" + nested(60) + b"K\x01u.",
    "a mapping in one piece": b"\x80\x02(" + nested(60) + b"K\x01d.",
    "a set": b"\x80\x04\x8f(" + nested(60) + b"\x90.",
    "a reference of tuples": b"\x80\x02(" + nested(60) + b"K\x01" * 4 + b"tQ.",
    "a position that is far away": b"\x80\x02}r\xff\xff\xff\x7f.",
    "a long text": b"\x80\x02X\xff\xff\xff\xffabc.",
    "a tensor of tuples": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(((t"
    + nested(60)
    + b"t)tR.",
    "nothing": b"",
    "a number": b"\x80\x02K\x07.",
}


@pytest.mark.parametrize("content", PICKLES.values(), ids=PICKLES)
def test_pickles_that_would_take_for_ever(tmp_path, content):
    refused(write_pickle(tmp_path / "a.pt", content), r"a\.pt cannot be read")


def test_code_is_refused(tmp_path):
    attack = Attack(tmp_path / "touched")
    for content in (attack, {"image": attack}, [attack]):
        refused(
            write_pickle(tmp_path / "a.pt", pickle.dumps(content, 2)), "could run code: refused"
        )
    assert not (tmp_path / "touched").exists()


def safetensors_file(path, header, data=bytes(48)):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def entry(dtype="F32", shape=(3, 4), places=(0, 48)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(places)}


def test_safetensors(tmp_path):
    header = {"__metadata__": {"made": "by"}, "a": entry(), "b": entry("I8", (48,))}
    data = np.arange(12, dtype="<f4").tobytes()
    found = tensors.list_safetensors(safetensors_file(tmp_path / "a.safetensors", header, data))
    assert [array.name for array in found] == ["a", "b"]
    np.testing.assert_array_equal(found[0].read(), ARRAY)
    assert found[1].read().tobytes() == data


SAFETENSORS = {
    "another size": {"a": entry(shape=(3, 5))},
    "behind the end": {"a": entry(places=(8, 56))},
    "backwards": {"a": entry(places=(48, 0))},
    "an absurd shape": {"a": entry(shape=(2**40, 2**40))},
    "a negative shape": {"a": entry(shape=(-3, -4))},
    "a shape of text": {"a": entry(shape=("3", "4"))},
    "no shape": {"a": {"dtype": "F32"}},
    "another type": {"a": entry("F8_E4M3", (48,))},
    "a name twice": b'{"a": {}, "a": {}}',
    "a list": [1, 2],
    "deep": b"[" * 100_000,
    "no JSON": b"{",
}


@pytest.mark.parametrize("header", SAFETENSORS.values(), ids=SAFETENSORS)
def test_damaged_safetensors(tmp_path, header):
    path = safetensors_file(tmp_path / "a.safetensors", header)
    refused(path, "(cannot be read|save it as float32)", tensors.list_safetensors)


def test_a_header_that_is_longer_than_the_file(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    refused(tmp_path / "a.safetensors", "a header of", tensors.list_safetensors)
