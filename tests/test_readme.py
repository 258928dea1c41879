"""The README and BUILD.md: every command, flag and file that they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "BUILD.md")
FLAG_FILES = sorted(ROOT.glob("*.flags"))


def _defined_flags(script: str) -> set:
    files = [ROOT / "scripts" / script]
    if script == "train.py":
        files.append(ROOT / "scripts/train_flags.py")
    source = "\n".join(path.read_text() for path in files)
    names = re.findall(r"(?:DEFINE_\w+|_[BEFIS])\(\s*\"(\w+)\"", source)
    return {*names, *("no" + name for name in names), "flagfile", "help"}


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_existing_scripts_and_flags(page):
    text = (ROOT / page).read_text().replace("\\\n", " ")
    commands = re.findall(r"python (scripts|benchmarks)/(\w+\.py)([^\n`|]*)", text)
    assert commands
    for folder, script, rest in commands:
        assert (ROOT / folder / script).is_file(), script
        if folder == "scripts":
            unknown = set(re.findall(r"--(\w+)", rest)) - _defined_flags(script)
            assert not unknown, f"{page}: {script} has no {unknown}"


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([\w-]+)`", (ROOT / page).read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES)
def test_linked_files_exist(page):
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("path", FLAG_FILES, ids=lambda path: path.name)
def test_flag_files_hold_known_flags(path):
    lines = [line.strip() for line in path.read_text().splitlines()]
    names = [re.match(r"--(\w+)", line)[1] for line in lines if line and line[0] != "#"]
    assert names
    assert not set(names) - _defined_flags("train.py")


def test_every_dependency_is_explained():
    build = (ROOT / "BUILD.md").read_text()
    for name in ("requirements.txt", "requirements-tfa.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if line and line[0] != "#":
                package, _, version = line.partition("==")
                assert version, f"{name}: {line} has no exact version"
                assert re.search(rf"\b{re.escape(package)}\b", build), f"BUILD.md misses {package}"


def test_readme_numbers_are_the_committed_measurements():
    pd = pytest.importorskip("pandas")
    table = pd.read_csv(ROOT / "benchmarks/results/coco_accuracy.csv")
    readme = (ROOT / "README.md").read_text()
    assert len(table) >= 3, "the README speaks of three seeds"
    for column in table.columns[3:7]:
        shown = f"{table[column].mean():.3f} ± {table[column].std():.3f}"
        assert shown in readme, f"README lacks {column}: {shown}"
