"""Which module may import which, and the rules of the house: the listing is the architecture."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from helpers import ROOT

PACKAGE = "dsprh_tf"

# A module or a folder, and what it may import of the package: modules, or folders with all that is
# in them. The most exact line counts. A new module of the top level needs one, and so does a file
# that differs from its folder.
ALLOWED = {
    "__init__": (),
    # NumPy alone.
    "codes": (),
    "metrics": ("codes",),
    "similarity": (),
    # Data on disk.
    "data": ("data",),
    "data.near_images": ("codes", "data"),
    # Keras and TensorFlow.
    "compat": (),
    "layers": (),
    "backbones": ("backbones", "layers"),
    "backbones.torch_files": ("data.arrays", "data.files", "data.npy_files"),
    "backbones.weights": ("backbones", "data.files"),
    "backbones.feature_cache": ("backbones", "data"),
    "networks": ("layers",),
    "losses": ("layers",),
    "neighbour_graph": ("similarity",),
    "model": ("compat", "networks"),
    # Results.
    "evaluation": ("codes", "data", "evaluation", "metrics", "similarity"),
    # Methods: none imports another.
    "methods": ("methods",),
    "methods.base": ("codes",),
    "methods.djsrh": ("losses", "methods.base", "networks"),
    "methods.dsah": ("losses", "methods.base", "networks"),
    "methods.dsprh": ("losses", "methods.base", "networks", "similarity"),
    "methods.dsprh_plus": ("losses", "methods.base", "networks", "neighbour_graph"),
    "methods.hsidhn": (
        "backbones.architectures", "layers", "losses", "methods.base", "networks",
    ),
    "methods.sdeh": ("compat", "layers", "losses", "methods.base", "networks"),
    "methods.baselines": (
        "codes", "data.single_texts", "evaluation.retrieval", "similarity",
    ),
    # Runs.
    "training": ("compat", "training"),
    "training.checkpoints": ("compat", "data.files", "training.averaging"),
    "training.curve_notes": (),
    "training.tensorboard": (
        "codes", "compat", "evaluation", "metrics", "training.curve_notes",
    ),
    "settings": (
        "backbones.architectures", "backbones.found_weights", "codes", "data.sources", "methods",
        "training.optimizers",
    ),
    "run_folder": (
        "data.files", "evaluation.results", "settings", "training.averaging",
        "training.checkpoints",
    ),
    "run_data": ("backbones", "data", "methods", "run_folder"),
    "serving": ("codes", "data", "serving"),
    "run": (
        "backbones", "data", "evaluation", "methods", "model", "run_data", "run_folder",
        "serving.export", "settings", "training",
    ),
    "baseline_run": (
        "evaluation", "methods.baselines", "run_data", "run_folder", "settings",
    ),
    "experiments": (
        "baseline_run", "data", "evaluation", "experiments", "methods", "run_data", "settings",
        "training.curve_notes",
    ),
    # Search.
    "index": ("codes", "data", "index"),
    "web": ("codes", "data", "index", "web"),
    # Programs.
    "cli": (
        "", "backbones", "baseline_run", "cli", "codes", "data", "evaluation", "experiments",
        "index", "methods", "run", "serving", "settings", "web",
    ),
}  # fmt: skip
NUMPY_ONLY = ("codes", "metrics", "similarity")
LINES = {"dsprh_tf": 500, "scripts": 60}
FILES = 16
UNBOUNDED = ("data", "index")  # one file per source, one per engine


def module_of(path: Path) -> str:
    """Dotted name below the package; "" for the package itself, a folder for its `__init__`."""
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = sorted((ROOT / PACKAGE).rglob("*.py"))
MODULES = {module_of(path): path for path in PATHS}
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
every_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module or PACKAGE)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imports(path: Path):
    """Absolute dotted names that a file imports anywhere, functions included.

    Of `from a import b` it is `a.b`, whether b is a module or not.
    """
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import in line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    """Modules of the package that a module imports."""
    found = set()
    for name in imports(MODULES[module]):
        top, _, rest = name.partition(".")
        if top == PACKAGE:
            while rest not in MODULES:  # a class or function of a module
                rest = rest.rpartition(".")[0]
            found.add(rest)
    return found


def within(module: str, place: str) -> bool:
    """Whether a module is a place of the table or in it."""
    return module == place or bool(place) and module.startswith(f"{place}.")


def line_of(module: str) -> str:
    """The line of the table that a module stands under: the most exact one."""
    if not module:
        return "__init__"
    return max((place for place in ALLOWED if within(module, place)), key=len, default="")


def circle(graph: dict[str, set[str]]) -> set[str]:
    """Nodes that are on a circle or behind one; an arrow to itself does not count."""
    left = {node: set(to) - {node} for node, to in graph.items()}
    while ready := [node for node, to in left.items() if not to & set(left)]:
        for node in ready:
            del left[node]
    return set(left)


# Imports


@every_module
def test_every_module_has_its_place(module):
    assert line_of(module) in ALLOWED, "a new module needs a line in ALLOWED"


def test_the_table_has_no_line_without_a_module():
    assert set(ALLOWED) - {"__init__"} <= set(MODULES)
    assert {place for places in ALLOWED.values() for place in places} <= set(MODULES)


@every_module
def test_imports_run_one_way(module):
    line = line_of(module)
    for name in own_imports(module):
        assert any(within(name, place) for place in ALLOWED[line]), (
            f"{module} must not import {name}"
        )


def test_tops_of_the_table_have_no_circle():
    graph = {}
    for place, allowed in ALLOWED.items():
        tops = graph.setdefault(place.partition(".")[0], set())
        tops.update(name.partition(".")[0] for name in allowed if name)
    assert not circle(graph)


def test_modules_have_no_circle():
    assert not circle({module: own_imports(module) for module in MODULES})


def test_a_circle_is_found():
    graph = {"a": {"b"}, "b": {"b", "c"}, "c": {"d"}, "d": {"b"}, "e": set(), "f": {"e"}}
    assert circle(graph) == {"a", "b", "c", "d"}
    del graph["d"]
    assert not circle(graph)


@every_module
def test_what_a_module_imports_from_elsewhere(module):
    for name in imports(MODULES[module]):
        top = name.partition(".")[0]
        assert top not in ("scripts", "tests", "benchmarks", "examples"), name
        if not within(module, "cli"):
            assert not name.startswith(("absl.flags", "absl.app")), "only cli/ touches flags"
        if module not in ("", "cli.program"):  # they load what is asked for
            assert name != "importlib", "an import by name goes past the table"
        if module in NUMPY_ONLY:
            assert top in ("__future__", "os", "concurrent", "numpy", PACKAGE), name


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem
)
def test_benchmarks_import_what_there_is(path):
    """Few of them run in a test: a name that was moved would not be missed."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("dsprh_tf"):
            continue
        place = ROOT.joinpath(*node.module.split("."))
        file = place.with_suffix(".py")
        file = file if file.is_file() else place / "__init__.py"
        assert file.is_file(), f"there is no {node.module}"
        known = {name for statement in ast.parse(file.read_text()).body
                 for name in _defined(statement)}  # fmt: skip
        for alias in node.names:
            inside = place / alias.name
            there = alias.name in known or inside.is_dir() or inside.with_suffix(".py").is_file()
            assert there, f"{node.module} has no {alias.name}"


def _defined(statement: ast.stmt) -> list[str]:
    """Names that a statement at the top of a module gives it."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return [statement.name]
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name for alias in statement.names]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
    return [
        node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)
    ]


def test_no_test_file_imports_another():
    helpers = {path.stem for path in TESTS if not path.stem.startswith("test_")}
    for path in TESTS:
        for name in imports(path):
            parts = name.split(".")
            assert not any(part.startswith("test_") for part in parts), f"{path}: {name}"
            assert parts[0] != "tests" and parts[0] != "conftest", f"{path}: {name}"
    assert "helpers" in helpers


# Contents


@every_module
def test_the_library_has_no_assert(module):
    found = [n.lineno for n in ast.walk(parsed(MODULES[module])) if isinstance(n, ast.Assert)]
    assert not found, f"assert in lines {found} of {module}: raise a ValueError"


def test_only_methods_know_the_names_of_methods():
    """A method's name as a string of its own stands in its file; others go by METHODS."""
    from dsprh_tf.methods import METHODS

    for module, path in MODULES.items():
        if within(module, "methods"):
            continue
        strings = {
            node.value
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not strings & set(METHODS), path


@pytest.mark.parametrize("path", [p for p in SCRIPTS if p.stem[0] != "_"], ids=lambda p: p.name)
def test_a_script_is_its_docstring_and_one_call(path):
    from dsprh_tf.cli.program import PROGRAMS

    assert path.stem in PROGRAMS
    docstring, *imported, last = parsed(path).body
    assert ast.get_docstring(parsed(path)) and f"scripts/{path.name}" in docstring.value.value
    assert all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in imported)
    assert set(imports(path)) == {"_checkout", "dsprh_tf.cli.program.start"}
    assert ast.unparse(last) == f"if __name__ == '__main__':\n    start('{path.stem}')"


def test_every_program_is_a_script_and_a_module_of_cli():
    from dsprh_tf.cli.program import PROGRAMS

    assert {path.stem for path in SCRIPTS if path.stem[0] != "_"} == set(PROGRAMS)
    assert {f"cli.{name}" for name in PROGRAMS} <= set(MODULES)


# Sizes


@pytest.mark.parametrize("folder", LINES)
def test_no_file_is_too_long(folder):
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in (ROOT / folder).rglob("*.py")
    }
    assert not {name: lines for name, lines in lengths.items() if lines > LINES[folder]}


def test_no_folder_has_too_many_files():
    for folder in {path.parent for path in PATHS} - {ROOT / PACKAGE / name for name in UNBOUNDED}:
        files = [path.name for path in folder.iterdir() if path.is_file()]
        assert len(files) <= FILES, (folder.name, len(files))
