"""Examples in docstrings give what they say, and long signatures are explained."""

from __future__ import annotations

import ast
import doctest
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import unsee

SOURCE = Path(unsee.__file__).parent
SHOWING = [file for file in sorted(SOURCE.rglob("*.py")) if ">>> " in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize("file", SHOWING, ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_examples_of_a_module(file):
    module = import_module(".".join(file.relative_to(SOURCE.parent).with_suffix("").parts))
    found = doctest.testmod(module)
    assert found.failed == 0
    assert found.attempted


FEW = 3
"""Most parameters that names and types alone may explain."""


def test_many_parameters_are_explained():
    trees = {file.relative_to(SOURCE): ast.parse(file.read_text(encoding="utf-8")) for file in SOURCE.rglob("*.py")}
    classes = {node.name: node for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef)}
    public = {file: tree for file, tree in trees.items() if not any(map(_private, file.with_suffix("").parts))}
    missing = [f"{file}: {name}" for file, tree in sorted(public.items()) for name in _unexplained(tree.body, classes)]
    assert missing == [], "these need Args in their docstring, or a leading underscore"


def test_unexplained_parameters_are_found():
    long = "def {}(self, a, b, *, c, d): 'Do.'"
    told = 'def {}(self, a, b, *, c, d):\n  """Do.\n\n  Args:\n    a: First.\n  """'
    source = [
        "class A:", f" {long.format('m')}", " def few(self, a, b, *, c): 'Do.'", f" {long.format('_hidden')}",
        "class B(Base[int]):", f" {long.format('run')}", f" {long.format('other')}",
        "class _C:", f" {long.format('m')}", told.format("f"), long.format("g"),
    ]  # fmt: skip
    (base,) = ast.parse("class Base:\n " + told.format("run").replace("\n", "\n ")).body
    assert isinstance(base, ast.ClassDef)
    assert list(_unexplained(ast.parse("\n".join(source)).body, {"Base": base})) == ["A.m", "B.other", "g"]


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _unexplained(body: list[ast.stmt], classes: dict[str, ast.ClassDef]) -> Iterator[str]:
    """Yield public functions and methods with many parameters and no Args, neither of their own nor inherited."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and _is_bare(node):
            yield node.name
        elif isinstance(node, ast.ClassDef) and not _private(node.name):
            inherited = {method.name for base in _bases(node, classes) for method in _methods(base) if _told(method)}
            bare = (method.name for method in _methods(node) if _is_bare(method))
            yield from (f"{node.name}.{name}" for name in bare if name not in inherited)


def _is_bare(function: ast.FunctionDef) -> bool:
    given = function.args
    names = [item.arg for item in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    many = len(names) - (names[:1] in (["self"], ["cls"])) > FEW
    return many and not function.name.startswith("_") and not _told(function)


def _told(function: ast.FunctionDef) -> bool:
    return "Args:" in (ast.get_docstring(function) or "")


def _methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [part for part in node.body if isinstance(part, ast.FunctionDef)]


def _bases(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """Yield all base classes that are among `classes`, found by name."""
    for base in node.bases:
        named = base.value if isinstance(base, ast.Subscript) else base
        found = classes.get(named.attr if isinstance(named, ast.Attribute) else getattr(named, "id", ""))
        if found is not None and found is not node:
            yield found
            yield from _bases(found, classes)
