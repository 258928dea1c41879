"""The README and BUILD.md: every command, flag and file that they name exists."""

from __future__ import annotations

import ast
import re
import sys

import pandas as pd
import pytest
from helpers import ROOT

from dsprh_tf.cli.program import PROGRAMS, load

PAGES = (
    "README.md", "BUILD.md", "RESULTS.md", "CONTRIBUTING.md", "docs/architecture.md",
    "docs/tutorial.md",
)  # fmt: skip
FLAG_FILES = sorted(ROOT.glob("*.flags"))


def _defined_flags(program: str) -> set:
    """The flags that a program's help lists."""
    names = re.findall(r"^  --(\w+)", load(program).help(), re.MULTILINE)
    return {*names, *("no" + name for name in names), "flagfile", "help"}


def _commands(page: str) -> list:
    """(program, the rest of the line) of the commands that a page shows."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    found = re.findall(r"python scripts/(\w+)\.py([^\n`|]*)", text)
    return found + re.findall(r"(?:^|`)dsprh (\w+)([^\n`|]*)", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_existing_programs_and_flags(page):
    commands = [(name, rest) for name, rest in _commands(page) if name != "NAME"]
    assert commands or page == "CONTRIBUTING.md"
    for name, rest in commands:
        assert name in PROGRAMS and (ROOT / "scripts" / f"{name}.py").is_file(), name
        unknown = set(re.findall(r"--(\w+)", rest)) - _defined_flags(name)
        assert not unknown, f"{page}: {name} has no {unknown}"
    text = (ROOT / page).read_text()
    for folder, name, rest in re.findall(r"\b(benchmarks|tests)/(\w+\.py)([^`\n|]*)", text):
        assert (ROOT / folder / name).is_file(), name
        source = (ROOT / folder / name).read_text()
        known = set(re.findall(r'(?:add_argument|DEFINE_\w+)\(\s*"(?:--)?(\w+)"', source))
        if "define_settings(" in source:
            known |= _defined_flags("train")
        assert set(re.findall(r"--(\w+)", rest)) <= known, f"{page}: {name}{rest}"


def test_the_quickstart_stands_in_readme():
    example = ast.parse((ROOT / "examples" / "quickstart.py").read_text())
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (block,) = (block for block in blocks if "dsprh_tf.Run(" in block)
    assert ast.get_docstring(example)
    del example.body[0]
    assert ast.dump(ast.parse(block)) == ast.dump(example)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_has_a_script_with_help_worth_reading(name):
    script = (ROOT / "scripts" / f"{name}.py").read_text()
    assert f"python scripts/{name}.py" in script and f'start("{name}")' in script
    text = load(name).help()
    assert f"dsprh {name} " in text and "--flagfile=FILE" in text


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([\w-]+)`", (ROOT / page).read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES)
def test_linked_files_exist(page):
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / link).exists(), link


@pytest.mark.parametrize("path", FLAG_FILES, ids=lambda path: path.name)
def test_flag_files_hold_known_flags(path):
    lines = [line.strip() for line in path.read_text().splitlines()]
    names = [re.match(r"--(\w+)", line)[1] for line in lines if line and line[0] != "#"]
    assert names
    assert not set(names) - _defined_flags("train")


def test_every_dependency_is_explained():
    build = (ROOT / "BUILD.md").read_text()
    for name in ("requirements.txt", "requirements-tfa.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if line and line[0] != "#":
                package, _, version = line.split(";")[0].strip().partition("==")
                assert version, f"{name}: {line} has no exact version"
                assert re.search(rf"\b{re.escape(package)}\b", build), f"BUILD.md misses {package}"


def test_results_page_is_what_the_measurements_say():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import results_page

    page = (ROOT / "RESULTS.md").read_text("utf-8")
    assert results_page.filled(page) == page, "run python benchmarks/results_page.py"
    named = set(re.findall(r"<!-- (?!end )(\w+) -->", page))
    assert {
        "table2", "dsah_adamw", "features", "ablation_loss", "ablation_parts", "supervised",
        "ablation_hsidhn", "ablation_sdeh",
    } <= named  # fmt: skip
    for name in named:
        seeds = 2 if name == "ablation_plus" else 3  # as the page says
        table = pd.read_csv(results_page.RESULTS / f"{name}.csv")
        assert table.loc[table["metric"] == "mean of four", "done"].min() >= seeds


def test_readme_table_is_the_committed_measurement():
    readme = (ROOT / "README.md").read_text("utf-8")
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in readme.splitlines()
             if re.match(r"\|.* ± ", line)]  # fmt: skip
    assert len(lines) >= 6
    names = ("table2", "table2_64", "table2_before", "dsah_adamw", "supervised")
    tables = {name: pd.read_csv(ROOT / f"benchmarks/results/{name}.csv") for name in names}
    for row, *cells in lines:
        row, _, by = row.strip("*").partition(", ranked by ")
        name = row.removesuffix(", AdamW")
        metric = "asymmetric mean of four" if by else "mean of four"
        for bits, cell in zip((16, 32, 64, 128), cells):
            if cell == "–":
                continue
            measured = ["table2", "table2_64"]
            if cell.endswith("\\*"):
                measured = ["table2_before"]
            if name != row:
                measured = ["dsah_adamw"]
            if "(supervised)" in row:
                measured = ["supervised"]
            table = pd.concat([tables[each] for each in measured])
            found = table[(table["metric"] == metric) & (table["row"] == name)]
            value = found[found["bits"] == bits].iloc[0]
            cell = cell.removesuffix("\\*").strip()
            assert cell.strip("*") == f"{value['mean']:.3f} ± {value['std']:.3f}", (row, bits)
