"""Which module may import which: the folder listing is the architecture."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "dsprh_tf"

# Each module and those of the package that it may import: a new module needs a line.
ALLOWED = {
    "__init__": (),
    "codes": (),
    "metrics": ("codes",),
    "similarity": (),
    "graph": ("similarity",),
    "compat": (),
    "torch_weights": (),
    "layers": (),
    "backbones": ("layers", "torch_weights"),
    "networks": ("layers",),
    "hierarchical": ("layers", "backbones", "networks"),
    "attention": ("compat", "layers", "networks"),
    "losses": ("layers",),
    "supervised_losses": ("layers", "losses"),
    "model": ("networks",),
    "methods": (
        "codes", "losses", "supervised_losses", "networks", "hierarchical", "attention", "model",
    ),
    "training": ("compat",),
    "runs": ("data",),
    "trunk_cache": ("backbones", "data"),
    "index": ("codes", "data", "index"),
    "page": ("data", "index", "page"),
    "evaluation": ("codes", "metrics", "data"),
    "sheets": ("data",),
    "references": ("codes", "similarity", "evaluation"),
    "encoding": ("codes", "data", "evaluation"),
    "monitoring": ("codes", "compat", "metrics", "data", "encoding", "evaluation", "sheets"),
    "export": ("codes", "data"),
    "cells": ("data", "evaluation"),
    "experiments": ("data", "runs", "methods", "references", "cells"),
    "summaries": ("evaluation", "experiments"),
    "report_plots": ("summaries",),
    "reports": ("data", "methods", "cells", "experiments", "summaries", "report_plots"),
    "data": ("data",),
}
NUMPY_ONLY = ("codes", "metrics", "similarity")
MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))


def owner(path):
    """The line of the table that a file stands under: its module, or its folder."""
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path):
    """Absolute dotted names that a file imports anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import in line {node.lineno}"
            if node.module in (PACKAGE, "absl"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_every_module_has_its_place():
    assert {owner(path) for path in MODULES} == set(ALLOWED)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{owner(path)}.{path.stem}")
def test_imports_run_one_way(path):
    for name in imports(path):
        top, *rest = name.split(".")
        assert top not in ("scripts", "tests", "benchmarks"), name
        assert not name.startswith(("absl.flags", "absl.app")), "only scripts touch flags"
        if top == PACKAGE:
            assert rest, "import a module of the package, not the package"
            assert rest[0] in ALLOWED[owner(path)], f"{owner(path)} must not import {rest[0]}"
        if owner(path) in NUMPY_ONLY:
            assert top in ("__future__", "os", "concurrent", "numpy", PACKAGE), name


def test_the_table_has_no_circle():
    done, left = set(), set(ALLOWED)
    while ready := {name for name in left if done.issuperset(set(ALLOWED[name]) - {name})}:
        done |= ready
        left -= ready
    assert not left


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{owner(path)}.{path.stem}")
def test_the_library_has_no_assert(path):
    found = [n.lineno for n in ast.walk(ast.parse(path.read_text("utf-8")))
             if isinstance(n, ast.Assert)]  # fmt: skip
    assert not found, f"assert in lines {found} of {path.name}: raise a ValueError"


def test_only_methods_know_the_names_of_methods():
    """A method's name as a string stands in one module."""
    from dsprh_tf.methods import METHODS

    for path in MODULES:
        if owner(path) == "methods":
            continue
        strings = {n.value for n in ast.walk(ast.parse(path.read_text("utf-8")))
                   if isinstance(n, ast.Constant) and isinstance(n.value, str)}  # fmt: skip
        assert not strings & set(METHODS), path
