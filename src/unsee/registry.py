"""What lies in methods/, benchmarks/, metrics/, models/, attacks/ and recipes/: one public file is one name. Listing imports nothing."""

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
"""Folders whose files have names."""
Loadable = Literal["methods", "benchmarks", "models"]
"""Folders whose files each define one class."""

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
    """Return the names of a kind, sorted, from the file names alone (files that start with `_` have none)."""
    return sorted(path.stem for path in _folder(kind).glob("*.py") if not path.stem.startswith("_"))


def load(kind: Loadable, name: str) -> type[Any]:
    """Return the one public class that the file `name` defines; an unknown name gets the nearest ones."""
    require(kind, name)
    return _only_class(importlib.import_module(f"unsee.{kind}.{name}"), _BASE[kind])


def require(kind: Listed, name: str) -> None:
    """Raise the error for an unknown name, without importing anything."""
    known = names(kind)
    if name not in known:
        raise unknown_name(_ONE[kind], name, known)


def summary(kind: Listed, name: str) -> str:
    """Return the first line of the file's docstring, read without importing it."""
    require(kind, name)
    tree = ast.parse((_folder(kind) / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def _folder(kind: Listed) -> Path:
    return Path(__file__).parent / kind


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
