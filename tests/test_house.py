"""The rules of behaviour of the house (docs/design.md), each as a check."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import worldclip
from worldclip import errors

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "worldclip"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(worldclip.__path__, "worldclip.")
    if not module.name.endswith(".__main__")  # which runs the command when imported
)
#: What makes, trains or runs a model. All else is the data side, and works where torch is not installed.
NEEDS_TORCH = re.compile(r"worldclip\.(loader\.(images|memory|parts|workers)|model\.\w+|train\.\w+|use)")


def python(program: str, *arguments: str) -> str:
    """Run a program in a fresh Python; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_is_light() -> None:
    loaded = set(python("import sys, worldclip; print(*sys.modules)").split())
    assert "worldclip" in loaded
    assert not loaded & {"torch", "numba", "ray", "transformers", "pyarrow", "numpy", "PIL"}


BLOCKED = """
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "ray"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(name, error.name)
"""


def test_the_data_side_works_without_torch() -> None:
    lines = [line.split() for line in python(BLOCKED, *MODULES).splitlines()]
    assert {missing.partition(".")[0] for _, missing in lines} <= {"torch", "transformers"}
    assert [name for name, _ in lines if not NEEDS_TORCH.fullmatch(name)] == []
    assert len(lines) < len(MODULES) / 2


@pytest.mark.parametrize("module", MODULES)
def test_every_module_can_be_imported_and_says_what_it_is(module: str) -> None:
    assert importlib.import_module(module).__doc__


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of these kinds in the package, and where it is."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, kinds):
                yield path.relative_to(ROOT).as_posix(), node


#: The pipe between the driver and its own workers.
TRANSPORT = "worldclip/engines/local.py"

#: Reads CIFAR's Python version by an unpickler of its own, which makes nothing that a file names.
CIFAR = "worldclip/evaluation/suites/pixels.py"


def test_nothing_is_unpickled() -> None:
    found = []
    for path, node in nodes(ast.Import, ast.ImportFrom):
        assert isinstance(node, ast.Import | ast.ImportFrom)
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        found += [path for name in names if name.partition(".")[0] in ("pickle", "marshal", "shelve", "dill", "joblib")]
    assert set(found) <= {TRANSPORT, CIFAR}
    for path, node in nodes(ast.Call):
        assert isinstance(node, ast.Call)
        options = {option.arg: ast.unparse(option.value) for option in node.keywords}
        match ast.unparse(node.func):
            case "torch.load":
                assert options.get("weights_only") == "True", path
            case "np.load":
                assert options.get("allow_pickle") == "False", path
            case "pickle.load" | "pickle.loads" | "pickle.Unpickler":
                assert path == TRANSPORT
            case "eval" | "exec" | "compile" | "__import__" | "os.system":
                pytest.fail(f"{path}:{node.lineno}: {ast.unparse(node)}")
            case _:
                assert options.get("shell") != "True", path


def test_no_bare_assert_judges_input() -> None:
    assert {path for path, _ in nodes(ast.Assert)} <= {TRANSPORT}


def test_no_error_is_raised_by_a_bare_name() -> None:
    # Errors that a user meets are of the tree in errors.py; what a function raises for its own caller may be a builtin.
    bare = {"Exception", "BaseException", "RuntimeError", "AssertionError", "NotImplementedError"}
    for path, node in nodes(ast.Raise):
        assert isinstance(node, ast.Raise)
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        assert not (isinstance(raised, ast.Name) and raised.id in bare), f"{path}:{node.lineno}"


def test_no_public_function_takes_any_keyword() -> None:
    for path, scope in nodes(ast.Module, ast.ClassDef):
        assert isinstance(scope, ast.Module | ast.ClassDef)
        for node in scope.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                assert node.args.kwarg is None, f"{path}:{node.lineno} {node.name}"


def test_the_tree_of_errors_is_the_one_that_is_drawn() -> None:
    def tree(kind: type[Exception], depth: int = 0) -> Iterator[tuple[int, str]]:
        yield depth, kind.__name__
        for child in kind.__subclasses__():
            if child.__module__ == "worldclip.errors":
                yield from tree(child, depth + 1)

    drawn = re.findall(r"^ {4}([│├└─ ]*)([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    assert [(len(branch) // 4, name) for branch, name in drawn] == list(tree(errors.WorldclipError))
    codes = {name: getattr(errors, name).exit_code for _, name in tree(errors.WorldclipError)}
    assert {name for name, code in codes.items() if code == 2} == {
        "InputError",
        "ConfigError",
        "DataError",
        "MissingData",
    }
    assert set(codes.values()) == {1, 2}


def test_the_reference_is_short_and_plain() -> None:
    text = Path(__file__).with_name("reference.py").read_text("utf-8")
    assert len(text.splitlines()) <= 80
    imported = {
        name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported <= {"string", "itertools", "math"}


def test_the_map_of_the_recipe_names_what_is_there() -> None:
    table = [line for line in (ROOT / "docs/recipe.md").read_text("utf-8").splitlines() if line.startswith("|")]
    named = [re.findall(r"`(worldclip/[\w/]+)\.py:(\w+)`", row) for row in table]
    assert sum(map(len, named)) >= 20
    for row, places in zip(table[2:], named[2:], strict=True):
        assert places, f"no place is named in {row}"
    for module, name in (place for places in named for place in places):
        assert hasattr(importlib.import_module(module.replace("/", ".")), name), f"{module}.py has no {name}"
    # Every step of Algorithm 1 is in it.
    for part in ("lid", "match", "count", "threshold", "sample"):
        assert any(module == f"worldclip/curation/{part}" for places in named for module, _ in places), part
