"""Registry of methods, benchmarks, metrics, families, attacks and recipes, by file name.

Installed packages and plugins add names of their own (`unsee.api.plugins`). Listing imports nothing.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, cast

from unsee.api import plugins
from unsee.api.measure import Measure
from unsee.api.method import GROUPS, Group, Method
from unsee.api.plugins import Outside, Spec
from unsee.errors import UnseeError, UserError, unknown_name

Listed = Literal["methods", "benchmarks", "metrics", "models", "attacks", "recipes"]
"""Packages whose public files are registered names."""
Loadable = Literal["methods", "benchmarks", "models", "attacks"]
"""Packages whose files each define one class."""

_ROOT: Final = Path(__file__).parents[1]
_FOLDER: Final[dict[str, str]] = {"models": "models/families"}
"""Kind -> package, where the names differ."""
_ONE: Final[dict[str, str]] = {
    "methods": "method",
    "benchmarks": "benchmark",
    "metrics": "metric",
    "models": "model family",
    "attacks": "attack",
    "recipes": "recipe",
}
_ADDED: Final[dict[tuple[str, str], Outside]] = {}
"""(kind, name) -> what the plugins of this process define."""


def names(kind: Listed) -> list[str]:
    """Return the sorted names of a kind without importing anything (no leading `_`)."""
    return sorted({*_files(kind), *outside_names(kind)})


def outside_names(kind: Listed) -> list[str]:
    """Return the names that installed packages and plugins add."""
    return sorted({entry.name for entry in _outside(kind)})


def load(kind: Loadable, name: str) -> type[Any]:
    """Return the public class of a name, from its file or a plugin.

    An unknown name raises an error with the nearest ones.
    """
    entry = _entry(kind, name)
    if entry is not None:
        plugin_class: type[Any] = entry.load()
        return plugin_class
    return _only_class(importlib.import_module(module_of(kind, name)), plugins.BASES[kind])


def load_metric(key: str) -> Measure:
    """Return the measure that a plugin defines under this key."""
    entry = _entry("metrics", key)
    if entry is None:
        raise UserError(f"The metric {key} is one of unsee, and no Measure.")
    measure: Measure = entry.load()
    return measure


def add(spec: str | Path) -> list[Outside]:
    """Load a plugin and return its definitions. A second call changes nothing.

    Raises:
        UserError: The plugin is broken, has not the hash that the spec asks for, or defines a name that is taken.
    """
    plugin_spec = Spec.parse(spec)
    if loaded := [entry for entry in _ADDED.values() if entry.spec == plugin_spec and plugin_spec.sha256]:
        return loaded
    plugin_spec = plugins.pinned(plugin_spec)
    if same_entries := [entry for entry in _all_outside() if _same(entry, plugin_spec)]:
        return same_entries
    entries = plugins.read(plugin_spec)
    for entry in entries:
        _require_free(entry, entries)
    for key in [key for key, entry in _ADDED.items() if entry.spec.name == plugin_spec.name]:
        del _ADDED[key]  # an earlier version of the same file
    _ADDED.update({(entry.kind, entry.name): entry for entry in entries})
    return entries


def add_class(cls: type[Method]) -> str:
    """Return the name of a method class. A class from no file or plugin gets one here."""
    if name := name_of("methods", cls):
        return name
    entry = plugins.of_class(cls)
    _require_free(entry, [entry])
    _ADDED["methods", entry.name] = entry
    return entry.name


def name_of(kind: Loadable, cls: type[Any]) -> str:
    """Return the name of a class of unsee or of a loaded plugin, or empty for any other class."""
    own_names = (name for name in _files(kind) if cls.__module__ == module_of(kind, name))
    loaded = (entry for entry in _outside(kind) if entry in _ADDED.values() or entry.spec.place in sys.modules)
    return next(chain(own_names, (entry.name for entry in loaded if entry.load() is cls)), "")


def pin(kind: Listed, name: str) -> tuple[str, ...]:
    """Return the hashed spec of the plugin that defines `name`, or nothing for built-in names."""
    entry = _entry(kind, name)
    return () if entry is None else (_pinned_spec(entry),)


def pin_of_family(cls: type[Any]) -> tuple[str, ...]:
    """Return the spec of the plugin that defines a family, with its hash."""
    return tuple(_pinned_spec(entry) for entry in _outside("models") if entry.load() is cls)


def faults(kind: Listed, name: str) -> AbstractContextManager[None]:
    """Return a context that turns exceptions of a plugin into UserErrors with file and line.

    Those of unsee, and of a class that no plugin defines, pass.
    """
    entry = next((entry for entry in _outside(kind) if entry.name == name), None)
    if entry is None or entry.spec.place == plugins.MAIN:
        return nullcontext()
    return plugins.faults_in(entry.origin, plugins.source_of(entry.spec))


def fault_of(error: BaseException) -> UserError | None:
    """Return an exception that came through the code of a plugin as a UserError, or None for any other."""
    for entry in _all_outside():
        with suppress(UserError):  # an installed package whose module is gone
            source = plugins.source_of(entry.spec)
            if plugins.passed_through(error, source):
                return plugins.fault_in(entry.origin, source, error)
    return None


def _pinned_spec(entry: Outside) -> str:
    is_pinned = entry.spec.sha256 or entry.spec.place == plugins.MAIN
    return str(entry.spec if is_pinned else plugins.pinned(entry.spec))


def origin(kind: Listed, name: str) -> str:
    """Return who defines `name`: unsee, a package, or the path of a plugin."""
    entry = _entry(kind, name)
    return "unsee" if entry is None else entry.origin


def module_of(kind: Listed, name: str) -> str:
    """Return the dotted name of the module of unsee that defines `name`."""
    return ".".join(("unsee", *_files(kind)[name].relative_to(_ROOT).with_suffix("").parts))


def require(kind: Listed, name: str) -> None:
    """Raise the error for an unknown name without importing anything."""
    known_names = names(kind)
    if name not in known_names:
        raise unknown_name(_ONE[kind], name, known_names)


def summary(kind: Listed, name: str) -> str:
    """Return the first line of the file's docstring, read without importing it."""
    entry = _entry(kind, name)
    if entry is not None:
        return plugins.summary(entry)
    return plugins.first_line(_files(kind)[name].read_text(encoding="utf-8"))


def group(name: str) -> Group:
    """Return the group of a method, read from its source without importing it."""
    entry = _entry("methods", name)
    if entry is not None and entry in _ADDED.values():  # its code has run, and may define several
        declared = entry.load().group
        return cast("Group", declared if declared in GROUPS else "loss")
    try:
        text = _files("methods")[name].read_text("utf-8") if entry is None else plugins.class_text(entry)
    except (OSError, SyntaxError, ValueError, UserError):  # the summary says what is wrong with the file
        text = ""
    match = re.search(r'^    group: ClassVar\[Group\] = "(\w+)"', text, re.MULTILINE)
    return cast("Group", match[1] if match and match[1] in GROUPS else "loss")


def _outside(kind: Listed) -> list[Outside]:
    return [*plugins.installed(kind), *(entry for entry in _ADDED.values() if entry.kind == kind)]


def _all_outside() -> list[Outside]:
    return [*(entry for kind in plugins.GROUPS for entry in plugins.installed(kind)), *_ADDED.values()]


def _same(entry: Outside, spec: Spec) -> bool:
    """Tell whether an entry comes from the same plugin in the same version."""
    same_attribute = spec.attribute in ("", entry.spec.attribute)
    return entry.spec.place == spec.place and same_attribute and entry.spec.sha256 in ("", spec.sha256)


def _entry(kind: Listed, name: str) -> Outside | None:
    """Return the plugin entry of a name, or None for a built-in one. Raises if ambiguous."""
    require(kind, name)
    entries = [entry for entry in _outside(kind) if entry.name == name]
    origins = [*(["unsee"] if name in _files(kind) else []), *(entry.origin for entry in entries)]
    _require_one(kind, name, origins)
    return entries[0] if entries else None


def _require_free(entry: Outside, new_entries: list[Outside]) -> None:
    """Raise if the name of a new entry is taken."""
    kind = cast("Listed", entry.kind)
    twins = [other.origin for other in new_entries if (other.kind, other.name) == (entry.kind, entry.name)]
    others = [
        other.origin for other in _outside(kind) if other.name == entry.name and other.spec.place != entry.spec.place
    ]
    _require_one(kind, entry.name, [*(["unsee"] if entry.name in _files(kind) else []), *others, *twins])


def _require_one(kind: Listed, name: str, origins: list[str]) -> None:
    if len(origins) > 1:
        raise UserError(
            f"The {_ONE[kind]} {name} is defined twice: by {' and by '.join(origins)}. "
            "Rename one of them, or go without it."
        )


@cache
def _files(kind: Listed) -> dict[str, Path]:
    """Return the file of each name: `NAME.py`, or `NAME/<kind>.py` such as `NAME/method.py`."""
    folder = _ROOT / _FOLDER.get(kind, kind)
    files = {path.stem: path for path in folder.glob("*.py") if not path.stem.startswith("_")}
    package_files = {path.parent.name: path for path in folder.glob(f"*/{_ONE[kind].split()[-1]}.py")}
    return files | package_files


def _only_class(module: ModuleType, base: type[Any]) -> type[Any]:
    classes = [
        cls
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, base) and cls.__module__ == module.__name__ and not name.startswith("_")
    ]
    if len(classes) != 1:
        class_names = ", ".join(cls.__name__ for cls in classes) or "none"
        raise UnseeError(f"{module.__name__} must define exactly one public {base.__name__}, found: {class_names}.")
    return classes[0]
