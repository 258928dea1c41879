"""The package as pip installs it: its wheel, in an environment apart from the checkout."""

from __future__ import annotations

import email
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, call_program, read_weights
from packaging.requirements import Requirement
from packaging.version import Version

from dsprh_tf.cli.program import PROGRAMS

pytestmark = pytest.mark.slow

PINS = {"milvus": "-milvus", "pgvector": "-pgvector", "dev": "-dev"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(
        ROOT / "dsprh_tf", source / "dsprh_tf", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    if has("setuptools", "61") and has("wheel", "0"):
        command.append("--no-build-isolation")  # and so without a network
    done = subprocess.run(
        [*command, f"--wheel-dir={folder}", str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The `bin` of an environment with the wheel and, to save a download, this one's packages."""
    folder = tmp_path_factory.mktemp("installed") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", str(wheel)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = sysconfig.get_paths()
    (packages / "others.pth").write_text(f"{ours['purelib']}\n{ours['platlib']}\n")
    return folder / "bin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with `features.npz`: 400 pairs of 6 classes."""
    rng = np.random.default_rng(0)
    classes = np.arange(400) % 6
    found = tmp_path_factory.mktemp("user")
    np.savez(
        found / "features.npz",
        image=np.float32(rng.normal(size=(6, 16))[classes] + 0.5 * rng.normal(size=(400, 16))),
        text=np.float32(rng.normal(size=(6, 24))[classes] + 0.5 * rng.normal(size=(400, 24))),
        labels=np.eye(6, dtype=np.uint8)[classes],
    )
    return found


@pytest.fixture(scope="module")
def quickstart(installed, folder) -> str:
    """What the quickstart printed."""
    done = run(folder, installed / "python", ROOT / "examples" / "quickstart.py")
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def has(package: str, version: str) -> bool:
    if importlib.util.find_spec(package) is None:
        return False
    return Version(importlib.metadata.version(package)) >= Version(version)


def run(folder, *command) -> subprocess.CompletedProcess:
    """Runs a command in a folder, without what this process says about imports."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True
    )


def metadata(wheel) -> email.message.Message:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (n for n in file.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(file.read(name))


def requirements(wheel, extra: str = "") -> dict[str, Requirement]:
    """Name -> requirement of the package or of an extra, on Python 3.11."""
    found = {}
    for line in metadata(wheel).get_all("Requires-Dist"):
        requirement = Requirement(line)
        here = [
            requirement.marker is None
            or requirement.marker.evaluate({"extra": name, "python_version": "3.11"})
            for name in ("", extra)
        ]
        if here[0] != bool(extra) and here[1]:
            found[requirement.name] = requirement
    return found


def pins(name: str) -> dict[str, str]:
    """Package -> version of a requirements file."""
    lines = (ROOT / name).read_text().splitlines()
    found = [re.match(r"([\w-]+)(?:\[\w+\])?==(\S+)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


def test_the_wheel_holds_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    files = [path for path in (ROOT / "dsprh_tf").rglob("*") if path.is_file()]
    expected = {str(p.relative_to(ROOT)) for p in files if "__pycache__" not in p.parts}
    assert names == expected
    assert {"dsprh_tf/py.typed", "dsprh_tf/web/static/index.html"} <= names
    assert "dsprh_tf/experiments/published/tables_2_3.csv" in names


def test_the_package_requires_what_both_stacks_pin(wheel):
    ranges = requirements(wheel)
    for stack in ("requirements.txt", "requirements-tfa.txt"):
        pinned = pins(stack)
        pinned.pop("tensorflow-addons", None)
        assert set(ranges) == set(pinned), stack
        for name, version in pinned.items():
            assert ranges[name].specifier.contains(version), f"{stack}: {name} {version}"
            assert len(ranges[name].specifier) and "==" not in str(ranges[name]), name


def test_extras_require_what_their_files_pin(wheel):
    extras = {"milvus", "pgvector", "heif", "tfa", "dev"}
    assert set(metadata(wheel).get_all("Provides-Extra")) == extras
    for extra, file in PINS.items():
        ranges, pinned = requirements(wheel, extra), pins(f"requirements{file}.txt")
        pinned = {name: version for name, version in pinned.items() if name in ranges}
        assert set(ranges) == set(pinned) and pinned, extra
        for name, version in pinned.items():
            assert ranges[name].specifier.contains(version), f"{extra}: {name} {version}"


def test_the_extra_of_addons_asks_for_the_stack_that_it_works_with(wheel):
    ranges, pinned = requirements(wheel, "tfa"), pins("requirements-tfa.txt")
    assert set(ranges) == {"tensorflow-addons", "tensorflow", "keras"}
    for name, requirement in ranges.items():
        assert requirement.specifier.contains(pinned[name])
        assert not requirement.marker.evaluate({"extra": "tfa", "python_version": "3.12"})
    assert not ranges["tensorflow"].specifier.contains(pins("requirements.txt")["tensorflow"])


def test_metadata(wheel, installed, folder):
    from dsprh_tf import __version__

    found = metadata(wheel)
    assert (found["Name"].replace("-", "_"), found["Version"]) == ("dsprh_tf", __version__)
    assert found["Requires-Python"] == ">=3.9"
    assert "Typing :: Typed" in found.get_all("Classifier")
    assert run(folder, installed / "dsprh", "--version").stdout.strip() == __version__


def test_the_quickstart_runs_from_the_installed_package(quickstart, installed, folder):
    where = run(folder, installed / "python", "-c", "import dsprh_tf; print(dsprh_tf.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(installed.parent), where
    results = json.loads((folder / "runs/mine/results.json").read_text())
    assert results["image_to_text"]["map"] > 2 * results["chance"]
    assert "dsprh_plus on features, 64 bits, seed 0: 40 queries" in quickstart
    for kind in ("image", "text"):
        assert (folder / f"savedmodels/mine/{kind}_encoder/1/saved_model.pb").exists()


def test_the_program_gives_the_quickstarts_weights_bit_for_bit(quickstart, folder, monkeypatch):
    monkeypatch.chdir(folder)
    outcome = call_program(
        "train", "--run_dir=runs/program", "--method=dsprh_plus", "--dataset=features",
        "--data_dir=features.npz", "--bits=64",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err[-2000:]
    ours, theirs = read_weights("runs/mine"), read_weights("runs/program")
    assert set(ours) == set(theirs) and len(ours) > 10
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    for name in ("results.json", "split.json"):
        assert Path("runs/mine", name).read_bytes() == Path("runs/program", name).read_bytes()


def test_the_installed_program_lists_programs_and_flags(installed, folder):
    done = run(folder, installed / "dsprh", "--help")
    assert done.returncode == 0
    for name in PROGRAMS:
        assert re.search(rf"^  {name} +\w", done.stdout, re.MULTILINE), name
    done = run(folder, installed / "dsprh", "train", "--help")
    assert done.returncode == 0 and not done.stderr
    assert "dsprh train --flagfile=mir.flags" in done.stdout and "--neighbours" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "stats"], "index: needs --index=FOLDER"),
        (["index", "statistics"], "index: got 'statistics', expected one of build, add"),
        (["trian"], "dsprh: got 'trian', expected one of train, evaluate"),
    ],
)
def test_errors_of_the_installed_program_are_one_line(installed, folder, arguments, message):
    done = run(folder, installed / "dsprh", *arguments)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
