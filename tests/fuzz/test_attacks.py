"""Attacks made by hand: what is no file, what lies about its size, what asks for code.

Each is read by the fuzzer's worker: within 2 GiB, a time limit, and nothing executed.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest
from fuzz import engine, targets_models
from fuzz.mutators import SPECIALS, Special
from fuzz.target import npy, npz
from fuzz.targets import TARGETS
from helpers import call_program

HEAVY = ("weights_h5", "weights_keras", "run_folder", "vocabulary", "results", "checkpoints",
         "export", "flags")  # fmt: skip
# Target -> the files that it reads.
LIGHT_FILES = {
    "weights_pt": ("w.pt",),
    "weights_pth": ("w.pth",),
    "weights_safetensors": ("w.safetensors",),
    "weights_npz": ("w.npz",),
    "split": ("split.json",),
    "codes": ("codes/codes.json", "codes/codes.npy", "codes/items.parquet"),
    "index_flat": ("index/index.json", "index/codes-000001.npy", "index/items-000001.parquet"),
    "accounts": ("people.txt",),
}
HEAVY_FILES = {
    "weights_h5": ("w.weights.h5",),
    "weights_keras": ("w.keras",),
    "run_folder": ("run_1/flags.json",),
    "vocabulary": ("vocabulary.json",),
    "results": ("results.json",),
    "checkpoints": ("run/best/checkpoint", "run/best/ckpt-2.index",
                    "run/best/ckpt-2.data-00000-of-00001"),
    "export": ("e/text_encoder/1/saved_model.pb", "e/text_encoder/1/assets.extra/encoder.json",
               "e/text_encoder/1/assets.extra/vocabulary.json"),
    "flags": ("a.flags",),
}  # fmt: skip


def zipped_text() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("note.txt", "no array")
    return out.getvalue()


WRONG = {
    "empty": b"",
    "zeros": bytes(5000),
    "garbage": bytes(np.random.default_rng(0).integers(0, 256, 3000, np.uint8)),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "deep JSON": b"[" * 200_000,
    "a zip file": zipped_text(),
    "a pickle": pickle.dumps({"a": np.zeros(3)}),
    **{f"{s.kind} {s.target}".strip(): s for s in SPECIALS},
}


@pytest.fixture
def refused(worker):
    """`refused(target, changes, *parts)`: one line with these parts, and no fault."""

    def read(target: str, changes: dict, *parts: str, sample: int = 0, seal: bool = False) -> str:
        files = {**worker.samples(target)[sample], **changes}
        if seal:
            files = TARGETS[target].seal(files)
        verdict = worker.judge(target, files)
        assert verdict["verdict"] == "refused", (verdict["kind"], verdict["said"])
        for part in parts:
            assert part in verdict["said"], verdict["said"]
        return verdict["said"]

    return read


def cases(files: dict) -> list:
    return [(t, name, what) for t, names in files.items() for name in names for what in WRONG]


def wrong_file(refused, target, name, what):
    refused(target, {name: WRONG[what]})


@pytest.mark.parametrize(("target", "name", "what"), cases(LIGHT_FILES))
def test_what_is_no_such_file(refused, target, name, what):
    wrong_file(refused, target, name, what)


@pytest.mark.parametrize(("target", "name", "what"), cases(HEAVY_FILES))
def test_what_is_no_such_file_of_runs(refused, target, name, what):
    if name.endswith("best/checkpoint") and what == "missing":
        pytest.skip("the newest checkpoint counts then, as after a kill")
    if name.endswith("vocabulary.json") and what == "missing" and target == "export":
        pytest.skip("the words are listed among the checksums: see the next test")
    if target == "flags" and what == "empty":
        pytest.skip("no flags are flags too")
    wrong_file(refused, target, name, what)


# Arrays and weights


def lying(header: bytes, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """A .npy file with a header of its own."""
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + data


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return out.getvalue()


SHAPE = b"{'descr': '<f4', 'fortran_order': False, 'shape': %s, }\n"
HEADERS = {
    "a terabyte": SHAPE % b"(1000000, 1000000)",
    "four gigabytes": SHAPE % b"(1000, 1000000)",
    "more than any number": SHAPE % (b"(" + b"9" * 40 + b",)"),
    "a negative length": SHAPE % b"(-1, 4)",
    "lengths that overflow to little": SHAPE % b"(4294967296, 4294967296)",
    "no shape": b"{'descr': '<f4', 'fortran_order': False}\n",
    "deep parentheses": b"(" * 3000 + b")" * 3000,
    "an open string": b"'''\n",
    "an open bracket": b"{'descr': '<f4',\n",
    "objects": b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n",
    "no values": b"{'descr': '|V0', 'fortran_order': False, 'shape': (9,), }\n",
    "a call": b"__import__('os').system('id')\n",
    "long": b" " * 60000,
}


@pytest.mark.parametrize("what", HEADERS)
def test_headers_of_arrays_that_lie(refused, what):
    refused("weights_npz", {"w.npz": zipped(a=lying(HEADERS[what], bytes(16)))}, "w.npz")
    content = lying(HEADERS[what], bytes(16))
    refused("codes", {"codes/codes.npy": content}, "codes.npy", seal=True)


def test_an_archive_that_is_packed_too_well(refused):
    """300 MB of zeros in some kilobytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.npy", npy(np.zeros(300 * 2**20 // 8)))
    refused("weights_npz", {"w.npz": out.getvalue()}, "packed to", "declares")


def test_an_array_twice(refused):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for _ in range(2):
            archive.writestr("a.npy", npy(np.zeros(3)))
    refused("weights_npz", {"w.npz": out.getvalue()}, "'a' twice")


def test_a_wrong_checksum_in_an_archive(refused):
    content = bytearray(npz(a=np.ones(50)))
    content[300] ^= 1
    refused("weights_npz", {"w.npz": bytes(content)}, "CRC")


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (2**62, b"{}"),
        (10**9, b"{}"),
        (2, b"[]"),
        (None, b'{"a": {"dtype": "F32", "shape": [4611686018427387904], "data_offsets": [0, 4]}}'),
        (None, b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4000000000]}}'),
        (None, b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}'),
        (None, b'{"a": {"dtype": "Q9", "shape": [1], "data_offsets": [0, 4]}}'),
        (None, b"[" * 100_000),
    ],
)
def test_safetensors_that_lie(refused, length, header):
    size = len(header) if length is None else length
    content = struct.pack("<Q", size) + header + bytes(4)
    refused("weights_safetensors", {"w.safetensors": content}, "w.safetensors")


def torch_zip(pickled: bytes, **members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in members.items():
            archive.writestr(f"archive/{name.replace('_', '/')}", content)
    return out.getvalue()


def strided(size: bytes, stride: bytes) -> bytes:
    """A state_dict whose tensor has this size and stride, over three values."""
    text = targets_models._tensor(b"0", (3,))
    text = text.replace(b"(K\x03t(K\x01t", b"(" + size + b"t(" + stride + b"t")
    assert size in text
    return b"\x80\x02}(X\x01\x00\x00\x00a" + text + b"u."


@pytest.mark.parametrize("place", ["pt", "pth"])
def test_code_in_a_pickle_does_not_run(refused, place):
    code = b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R."
    content = torch_zip(code) if place == "pt" else code
    refused(f"weights_{place}", {f"w.{place}": content}, "`os.system`", "refused")


def test_a_tensor_that_repeats_one_value(refused):
    """Two billion values of one: a stride of 0."""
    pickled = strided(b"J\xff\xff\xff\x7f", b"K\x00")
    refused("weights_pt", {"w.pt": torch_zip(pickled, data_0=bytes(12))}, "too large")


def test_many_tensors_over_one_storage(refused):
    one = targets_models._tensor(b"0", (200,)).replace(b"K\xc8", b"J\x00\x00\x10\x00")
    names = b"".join(b"X\x04\x00\x00\x00" + f"{i:04}".encode() + one for i in range(1000))
    pickled = b"\x80\x02}(" + names + b"u."
    content = torch_zip(pickled, data_0=bytes(2**22))
    refused("weights_pt", {"w.pt": content}, "too large")


@pytest.mark.parametrize("count", [-1, 2**62, 2**31, 4])
def test_storages_that_lie(refused, worker, count):
    good = worker.samples("weights_pth")[0]["w.pth"]
    at = good.rindex(struct.pack("<q", 12))
    content = good[:at] + struct.pack("<q", count) + good[at + 8 :]
    refused("weights_pth", {"w.pth": content}, "w.pth")


def h5(change, name: str = "w.weights.h5", worker=None) -> bytes:
    out = io.BytesIO(worker.samples("weights_h5")[0][name])
    with h5py.File(out, "r+") as file:
        datasets: list[str] = []
        file.visititems(
            lambda n, item: datasets.append(n) if isinstance(item, h5py.Dataset) else None
        )
        change(file, datasets[0])
    return out.getvalue()


def _replace(make):
    def change(file, name):
        shape = file[name].shape
        del file[name]
        make(file, name, shape)

    return change


def _linked(link):
    return _replace(lambda file, name, shape: file.__setitem__(name, link))


H5 = {
    "an external link": _linked(h5py.ExternalLink("/dev/zero", "x")),
    "a soft link": _linked(h5py.SoftLink("/nowhere")),
    "a link in a circle": lambda f, n: f.__setitem__("again", h5py.SoftLink("/again")),
    "values in another file": _replace(
        lambda f, n, s: f.create_dataset(n, s, "f4", external=[("/dev/zero", 0, 4096)])
    ),
    "a terabyte that is not there": _replace(
        lambda f, n, s: f.create_dataset(n, (2**20, 2**18), "f4", chunks=(64, 64))
    ),
    "more gigabytes": lambda f, n: f.create_dataset("x", (2**31,), "f4", chunks=(4096,)),
    "another shape": _replace(lambda f, n, s: f.create_dataset(n, (7, 7), "f4")),
    "words": _replace(lambda f, n, s: f.create_dataset(n, data=np.full(s, b"word"))),
    "NaN": lambda f, n: f[n].write_direct(np.full(f[n].shape, np.nan, "f4")),
    "nothing": lambda f, n: f.clear(),
}  # fmt: skip


@pytest.mark.parametrize("what", H5)
def test_hdf5_weights_that_lie(refused, worker, what):
    refused("weights_h5", {"w.weights.h5": h5(H5[what], worker=worker)}, "w.weights.h5")


def test_code_in_a_keras_file_does_not_run(worker):
    """A `.keras` file is an archive with a description of layers, Lambda ones with code."""
    with zipfile.ZipFile(io.BytesIO(worker.samples("weights_keras")[0]["w.keras"])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    code = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None}}
    layer = {"module": "keras.layers", "class_name": "Lambda", "config": {"function": code}}
    members["config.json"] = json.dumps({"config": {"layers": [layer]}}).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    verdict = worker.judge("weights_keras", {"w.keras": out.getvalue()})
    assert verdict["verdict"] == "accepted", verdict  # the weights, and nothing else of it


# Run folders


def edited(sample: dict, name: str, **changes) -> dict:
    """A JSON file with some fields changed; ... removes one."""
    content = {**json.loads(sample[name]), **changes}
    return {name: json.dumps({k: v for k, v in content.items() if v is not ...}).encode()}


@pytest.mark.parametrize(
    "changes",
    [
        {"query": ["item0", "item0"]},
        {"database": []},
        {"train": "item1"},
        {"train": [1, 2]},
        {"validation": ["nobody"]},
        {"seed": "1"},
        {"seed": True},
        {"fingerprint": None},
        {"fingerprint": "0" * 64},
        {"query": ...},
        {"train": {"item1": 1}},
        {"database": [["item1"]]},
    ],
    ids=str,
)
def test_splits_that_were_altered(refused, worker, changes):
    sample = worker.samples("split")[0]
    refused("split", edited(sample, "split.json", **changes), "split.json")


def test_a_query_moved_into_the_database(refused, worker):
    sample = worker.samples("split")[0]
    content = json.loads(sample["split.json"])
    changes = {"database": content["database"] + content["query"][:1]}
    refused("split", edited(sample, "split.json", **changes), "a query is in the database")
    changes = {"train": content["train"] + content["validation"][:1]}
    refused("split", edited(sample, "split.json", **changes), "in training and in validation")


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "nobody"},
        {"method": None},
        {"method": ...},
        {"method": ["dsprh"]},
        {"bits": "16"},
        {"bits": 16.5},
        {"bits": 10**30},
        {"bits": 12},
        {"epochs": -1},
        {"alpha": float("nan")},
        {"lr_text": float("inf")},
        {"data_dir": 3},
        {"fusion_weights": [1]},
    ],
    ids=str,
)
def test_settings_that_were_altered(refused, worker, changes):
    sample = worker.samples("run_folder")[0]
    refused("run_folder", edited(sample, "run_1/flags.json", **changes), "run_1/flags.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"bits": ...},
        {"chance": float("nan")},
        {"chance": "0.5"},
        {"queries": 1e400},
        {"queries": 10**400},
        {"image_to_text": ...},
        {"image_to_text": []},
        {"text_to_image": {"map": 0.5}},
        {"validation_map": "high"},
        {"format": 2},
        {"format": True},
    ],
    ids=str,
)
def test_results_that_were_altered(refused, worker, changes):
    sample = worker.samples("results")[0]
    refused("results", edited(sample, "results.json", **changes), "results.json")


@pytest.mark.parametrize("curve", [{"recall": [1], "precision": [1, 2]}, {"recall": [1]}, {}, [1]])
def test_curves_that_were_altered(refused, worker, curve):
    record = json.loads(worker.samples("results")[0]["results.json"])
    record["image_to_text"]["precision_recall"] = curve
    refused("results", {"results.json": json.dumps(record).encode()}, "results.json")


@pytest.mark.parametrize(
    "content",
    [
        b'model_checkpoint_path: "../../../etc/ckpt-1"\n',
        b'model_checkpoint_path: "/tmp/ckpt-2"\nall_model_checkpoint_paths: "ckpt-2"\n',
        b'model_checkpoint_path: "ckpt-2"\nall_model_checkpoint_paths: "/home/me/precious"\n',
        b'model_checkpoint_path: "ckpt-9"\n',
        b"model_checkpoint_path: 3\n",
        b"all: {{{\n",
        b'model_checkpoint_path: "\xff\xfe"\n',
    ],
)
def test_checkpoint_states_that_were_altered(refused, content):
    """No run begins anew, and no old checkpoint elsewhere is removed, because of such a file."""
    for folder in ("best", "checkpoints"):
        said = refused("checkpoints", {f"run/{folder}/checkpoint": content}, "restore it")
        assert "ckpt-2" in said


def test_a_missing_checkpoint_state_means_the_newest(worker):
    files = dict(worker.samples("checkpoints")[0])
    for folder in ("best", "checkpoints"):
        files[f"run/{folder}/checkpoint"] = Special("missing")
    assert worker.judge("checkpoints", files)["verdict"] == "accepted"


@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("change", ["truncated", "flipped"])
def test_checkpoints_that_were_altered(refused, worker, part, change):
    name = f"run/best/ckpt-2.{part}"
    content = bytearray(worker.samples("checkpoints")[0][name])
    if change == "flipped":
        content[len(content) // 3] ^= 16
    else:
        del content[len(content) // 2 :]
    refused("checkpoints", {name: bytes(content)}, "ckpt-2", "is damaged")


# Exports


@pytest.mark.parametrize(
    "changes",
    [
        {"bits": "16"},
        {"bits": 12},
        {"bits": 10**30},
        {"bits": ...},
        {"fingerprint": None},
        {"vocabulary_size": "4"},
        {"image_size": 2.5},
        {"files": ["saved_model.pb"]},
        {"files": {"../../../../../etc/passwd": {"size": 1, "sha256": "0"}}},
        {"files": {"saved_model.pb": {"size": 3, "sha256": "0"}}},
    ],
    ids=str,
)
def test_exports_that_were_altered(refused, worker, changes):
    name = "e/text_encoder/1/assets.extra/encoder.json"
    refused("export", edited(worker.samples("export")[0], name, **changes), "text_encoder")


def test_a_flipped_bit_in_an_export(refused, worker):
    """In a graph it is another model, which TensorFlow runs without a word."""
    sample = worker.samples("export")[0]
    name = "e/text_encoder/1/saved_model.pb"
    content = bytearray(sample[name])
    content[len(content) // 2] ^= 1
    refused("export", {name: bytes(content)}, "saved_model.pb is missing or altered")


def test_an_export_of_version_0_1_has_no_checksums(worker):
    sample = worker.samples("export")[0]
    name = "e/text_encoder/1/assets.extra/encoder.json"
    files = {**sample, **edited(sample, name, files=...)}
    assert worker.judge("export", files)["verdict"] == "accepted"


# Codes, indexes, accounts, flag files


@pytest.mark.parametrize(
    "changes",
    [
        {"bits": "64"},
        {"bits": 64.0},
        {"bits": 32},
        {"bits": -8},
        {"modality": "sound"},
        {"fingerprint": 3},
        {"skipped": {"a": 1}},
        {"skipped": ["a"]},
        {"files": {}},
        {"files": {"../../etc/passwd": {"size": 1, "sha256": "0"}}},
        {"files": {"codes.npy": None, "items.parquet": None}},
        {"format": 9},
        {"format": [1]},
    ],
    ids=str,
)
def test_codes_that_were_altered(refused, worker, changes):
    sample = worker.samples("codes")[0]
    refused("codes", edited(sample, "codes/codes.json", **changes), "codes")


@pytest.mark.parametrize("shape", [(6, 7), (4, 8), (40,), (0, 8)])
@pytest.mark.parametrize("kind", ["u1", "f4"])
def test_codes_of_another_shape_or_type(refused, shape, kind):
    content = {"codes/codes.npy": npy(np.zeros(shape, kind))}
    refused("codes", content, "codes", seal=True)


@pytest.mark.parametrize("damage", ["truncated", "without codes.json"])
def test_a_damaged_merge_replaces_nothing(refused, worker, damage):
    """Codes that a killed run was moving into place, damaged since: the former ones stay."""
    merged = worker.samples("code_writer")[2]
    good = worker.samples("code_writer")[1]
    files = {**merged, **{n: c for n, c in good.items() if n.startswith("codes/codes.")}}
    if damage == "truncated":
        changes = {"codes/.merged/codes.npy": merged["codes/.merged/codes.npy"][:-1]}
    else:
        changes = {"codes/.merged/codes.json": Special("missing")}
    refused("code_writer", {**files, **changes}, ".merged", "remove", sample=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": -1},
        {"rows": 11},
        {"rows": "12"},
        {"bits": 12},
        {"bits": None},
        {"kind": "tree"},
        {"kind": 1},
        {"files": {}},
        {"files": {"codes": {"name": "../../etc/passwd", "size": 1, "sha256": ""}}},
        {"fingerprint": ["a"]},
        {"built_rows": ...},
        {"format": 0},
    ],
    ids=str,
)
def test_indexes_that_were_altered(refused, worker, changes):
    from dsprh_tf.index.folder import _digest

    content = {**json.loads(worker.samples("index_flat")[0]["index/index.json"]), **changes}
    content = {k: v for k, v in content.items() if v is not ... and k != "sha256"}
    content["sha256"] = _digest(content)  # whoever alters it can do that too
    refused("index_flat", {"index/index.json": json.dumps(content).encode()}, "index")


LINE = f"anna:{'00' * 16}:{'ab' * 64}"


@pytest.mark.parametrize(
    "text",
    [
        "anna",
        "anna:00:ab",
        LINE.replace("ab", "xy"),
        LINE + ":more",
        LINE[len("anna") :],
        f"{LINE}\n{LINE}",
        "# nobody\n\n",
        LINE.replace("\n", "") + "0",
        "\0" * 100,
        f"{'x' * 100_000}",
    ],
    ids=lambda text: text[:20],
)
def test_accounts_that_are_none(refused, text):
    refused("accounts", {"people.txt": text.encode()}, "people.txt")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("--flagfile={folder}/a.flags\n", "names itself"),
        ("--flagfile={folder}/b.flags\n", "names itself"),
        ("--flagfile=/dev/zero\n", "a pipe or a device"),
        ("--flagfile={folder}\n", "is a folder"),
        ("--flagfile={folder}/gone\n", "No such file"),
        ("--bits=sixteen\n", "bits"),
        ("--no-such-flag\n", "no-such-flag"),
        ("stray\n", "stray"),
        ("--bits\n", "bits"),
        ("\0\0\0", "expected only"),
        ("#" * 2**21, "expected lines of flags"),
    ],
)
def test_flag_files_that_are_none(refused, text, part):
    other = {"b.flags": b"--flagfile={folder}/a.flags\n"}
    refused("flags", {"a.flags": text.encode(), **other}, part)


def test_a_flag_file_in_utf_16(refused):
    refused("flags", {"a.flags": "--bits=16\n".encode("utf-16")}, "not text in UTF-8")


# Programs: exit code 2 and one line, whatever a path leads to


@pytest.fixture(params=["nowhere", "file", "/dev/null", "/dev/zero", "pipe", "circle", "dir"])
def place(request, tmp_path):
    path = tmp_path / "place"
    files = {"file": b"x", "pipe": Special("pipe"), "circle": Special("link", "place"),
             "dir": Special("folder")}  # fmt: skip
    if request.param.startswith("/"):
        return request.param
    if request.param in files:
        content = files[request.param]
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            engine.mutators.write(tmp_path / "in", {"place": content})
            path = tmp_path / "in" / "place"
    return str(path)


@pytest.mark.parametrize(
    "command",
    [
        ["index", "stats", "--index={}"],
        ["index", "check", "--index={}"],
        ["index", "add", "--index={}", "--codes={}"],
        ["index", "build", "--codes={}", "--index={}/new"],
        ["index", "stats", "--index=x", "--flagfile={}"],
        ["search", "--index={}", "--like=1"],
        ["convert_weights", "--input={}", "--output={}.npz"],
        ["serve_demo", "--index={}", "--port=0"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_programs_without_tensorflow(place, command):
    outcome = call_program(*(part.format(place) for part in command))
    if place.endswith("dir") and "--flagfile" in str(command):
        return
    assert outcome.line.startswith(f"{command[0]}: ")


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "--run_dir={}"],
        ["export", "--run_dir={}", "--export_dir={}/e"],
        ["search", "--run_dir={}", "--export_dir={}", "--text=a"],
        ["encode", "--export_dir={}", "--texts={}", "--out={}/out"],
        ["train", "--dataset=features", "--data_dir=x.npz", "--run_dir=r", "--flagfile={}"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_programs(place, command):
    outcome = call_program(*(part.format(place) for part in command))
    assert outcome.line.startswith(f"{command[0]}: ")
