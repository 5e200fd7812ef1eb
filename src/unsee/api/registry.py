"""Registry of methods, benchmarks, metrics, families, attacks and recipes, by file name."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

from unsee.api.benchmark import Benchmark
from unsee.api.family import Family
from unsee.api.method import Method
from unsee.errors import UnseeError, unknown_name

Listed = Literal["methods", "benchmarks", "metrics", "models", "attacks", "recipes"]
"""Packages whose public files are registered names."""
Loadable = Literal["methods", "benchmarks", "models"]
"""Packages whose files each define one class."""

_ROOT: Final = Path(__file__).parents[1]
_FOLDER: Final[dict[str, str]] = {"models": "models/families"}
"""Kind -> package, where the names differ."""
_BASE: Final[dict[str, type[Any]]] = {"methods": Method, "benchmarks": Benchmark, "models": Family}
_ONE: Final[dict[str, str]] = {
    "methods": "method",
    "benchmarks": "benchmark",
    "metrics": "metric",
    "models": "model family",
    "attacks": "attack",
    "recipes": "recipe",
}


def names(kind: Listed) -> list[str]:
    """Return the sorted names of a kind, from the file names alone (no leading `_`)."""
    return sorted(_files(kind))


def load(kind: Loadable, name: str) -> type[Any]:
    """Return the one public class that the file `name` defines.

    An unknown name raises an error with the nearest ones.
    """
    require(kind, name)
    return _only_class(importlib.import_module(module_of(kind, name)), _BASE[kind])


def module_of(kind: Listed, name: str) -> str:
    """Return the dotted name of the module that defines `name`."""
    return ".".join(("unsee", *_files(kind)[name].relative_to(_ROOT).with_suffix("").parts))


def require(kind: Listed, name: str) -> None:
    """Raise the error for an unknown name without importing anything."""
    known = names(kind)
    if name not in known:
        raise unknown_name(_ONE[kind], name, known)


def summary(kind: Listed, name: str) -> str:
    """Return the first line of the file's docstring, read without importing it."""
    require(kind, name)
    tree = ast.parse(_files(kind)[name].read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def _files(kind: Listed) -> dict[str, Path]:
    """Return the file of each name: `NAME.py`, or `NAME/<kind>.py` such as `NAME/method.py`."""
    folder = _ROOT / _FOLDER.get(kind, kind)
    files = {path.stem: path for path in folder.glob("*.py") if not path.stem.startswith("_")}
    inner = {path.parent.name: path for path in folder.glob(f"*/{_ONE[kind].split()[-1]}.py")}
    return files | inner


def _only_class(module: ModuleType, base: type[Any]) -> type[Any]:
    found = [
        cls
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, base) and cls.__module__ == module.__name__ and not name.startswith("_")
    ]
    if len(found) != 1:
        listed = ", ".join(cls.__name__ for cls in found) or "none"
        raise UnseeError(f"{module.__name__} must define exactly one public {base.__name__}, found: {listed}.")
    return found[0]
