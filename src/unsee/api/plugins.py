"""Plugins: code outside the tree that a user names, and entry points of packages.

A plugin runs only because a user named it on purpose or installed it. Nothing is looked for in data or model folders.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Self, get_args

from unsee.api.attack import Attack
from unsee.api.benchmark import Benchmark
from unsee.api.family import Family
from unsee.api.measure import Direction, Measure
from unsee.api.method import Method
from unsee.errors import UnseeError, UserError, short_repr

GROUPS: Final[Mapping[str, str]] = {
    "methods": "unsee.methods",
    "benchmarks": "unsee.benchmarks",
    "metrics": "unsee.metrics",
    "models": "unsee.families",
    "attacks": "unsee.attacks",
}
"""Kind -> group of entry points."""
BASES: Final[Mapping[str, type[Any]]] = {
    "methods": Method,
    "benchmarks": Benchmark,
    "metrics": Measure,
    "models": Family,
    "attacks": Attack,
}
"""Kind -> what a plugin of it is: a subclass, for metrics an instance."""
MAIN: Final = "__main__"
PIN: Final = "#sha256="
"""Stands between a plugin and the hash of its code."""
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Location of a plugin: `FILE.py`, `FOLDER` or `pkg.mod`, with optional class and hash.

    Written as `pkg.mod:Class#sha256=HEX`.
    """

    place: str
    """Absolute path, or dotted name of a module."""
    attribute: str = ""
    """One class or measure in it; empty = all."""
    sha256: str = ""
    """Hash that the code must have; empty = any."""

    @classmethod
    def parse(cls, text: str | Path) -> Self:
        """Parse the text form. A path that does not exist is an error."""
        location, _, pin = str(text).partition(PIN)
        is_whole = ":" not in location or Path(location).exists()
        place, attribute = (location, "") if is_whole else location.rsplit(":", 1)
        path = Path(place).expanduser()
        if path.exists():
            place = str(path.resolve())
        elif place.endswith(".py") or not _MODULE.fullmatch(place):
            raise UserError(
                f"There is no plugin {short_repr(location)}: expected a file, a folder, or a module such as pkg.mod:Class. "
                "Correct --plugin or `plugins:`."
            )
        return cls(place=place, attribute=attribute, sha256=pin)

    def __str__(self) -> str:
        """Return the text form."""
        return self.name + (f"{PIN}{self.sha256}" if self.sha256 else "")

    @property
    def name(self) -> str:
        """Place and attribute without the hash."""
        return f"{self.place}:{self.attribute}" if self.attribute else self.place


@dataclass(frozen=True, kw_only=True)
class Outside:
    """One method, benchmark, metric, family or attack that is defined outside of unsee."""

    kind: str
    name: str
    origin: str
    """What a user reads: the path, or the package with its version."""
    spec: Spec
    load: Callable[[], Any]
    """Returns the class, or the measure."""
    doc: str = ""
    """First line of the docstring; empty = read it from the source."""


def listed(specs: str | Path | Iterable[Path | str]) -> tuple[str, ...]:
    """Return plugin specs as texts, where one alone may be given without a list."""
    return (str(specs),) if isinstance(specs, str | Path) else tuple(map(str, specs))


def hash_of(spec: Spec) -> str:
    """Return the SHA-256 of a file, or of all Python files of a folder, without running them."""
    source = source_of(spec)
    if source.is_file():
        return hashlib.sha256(source.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(source.rglob("*.py")):
        digest.update(
            f"{file.relative_to(source).as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode()
        )
    return digest.hexdigest()


def pinned(spec: Spec) -> Spec:
    """Return the spec with the hash of its current code, or raise if it has a different one."""
    sha256 = hash_of(spec)
    if spec.sha256 not in ("", sha256):
        raise UserError(
            f"The plugin {spec.name} has changed: its SHA-256 is {sha256[:12]}..., expected {spec.sha256[:12]}.... "
            f"Nothing of it was run. Restore the file; or, for a new run with the new code, take `{PIN}...` out of a copy of "
            "the run file, and give another --out."
        )
    return replace(spec, sha256=sha256)


def read(spec: Spec) -> list[Outside]:
    """Run a plugin's code and return its definitions, after comparing a pinned hash."""
    spec = pinned(spec)
    with faults_in(spec.name, source_of(spec)):
        modules = _modules(spec)
        if spec.attribute:
            return [_attribute(spec, modules[0])]
        entries = [entry for module in modules for entry in _public_definitions(spec, module)]
    if not entries:
        raise UserError(
            f"The plugin {spec.name} defines no method, benchmark, metric, family or attack. "
            "Expected a public subclass of Method, Benchmark, Family or Attack, or a Measure (docs/extending.md)."
        )
    return entries


def of_class(cls: type[Method]) -> Outside:
    """Return the entry of a method class that Python code has handed over."""
    main_file = getattr(sys.modules.get(MAIN), "__file__", None) if cls.__module__ == MAIN else None
    spec = Spec(place=str(Path(main_file).resolve()) if main_file else cls.__module__, attribute=cls.__qualname__)
    spec = replace(spec, sha256=_hash_of_source(cls)) if spec.place == MAIN else pinned(spec)
    return _entry(spec, "methods", cls, cls.__name__.lower(), doc=cls.__doc__)


def _hash_of_source(cls: type[Any]) -> str:
    """Return the hash of a class defined interactively, or "" without its source."""
    try:
        return hashlib.sha256(inspect.getsource(cls).encode()).hexdigest()
    except (OSError, TypeError):
        return ""


def installed(kind: str) -> tuple[Outside, ...]:
    """Return the entry points of installed packages, without importing them."""
    return _installed(kind, tuple(sys.path))


@cache
def _installed(kind: str, _: tuple[str, ...]) -> tuple[Outside, ...]:
    points = importlib.metadata.entry_points(group=GROUPS[kind]) if kind in GROUPS else ()
    return tuple(
        Outside(
            kind=kind,
            name=point.name,
            origin=f"package {point.dist.name} {point.dist.version}" if point.dist else point.value,
            spec=Spec(place=point.module, attribute=point.attr),
            load=partial(_load_entry_point, point, kind),
        )
        for point in points
    )


def unknown_groups() -> list[str]:
    """Return groups of entry points that begin with `unsee.` but are unknown, such as misspelt ones."""
    groups = importlib.metadata.entry_points().groups
    return sorted(group for group in groups if group.startswith("unsee.") and group not in GROUPS.values())


def _load_entry_point(point: importlib.metadata.EntryPoint, kind: str) -> Any:
    """Import an entry point and check it."""
    origin = f"{point.value} of package {point.dist.name}" if point.dist else point.value
    with faults_in(origin, source_of(Spec(place=point.module), origin)):
        definition = point.load()
        _require(kind, definition, origin)
    declared_name = definition.key if kind == "metrics" else definition.name if kind == "benchmarks" else point.name
    if declared_name != point.name:
        raise UserError(
            f"The plugin {origin} is declared as {point.name}, but calls itself {declared_name}. Make them the same."
        )
    return definition


def text_of(entry: Outside) -> str:
    """Return the source of a plugin's module, which is not imported."""
    source = source_of(entry.spec)
    return (source / "__init__.py" if source.is_dir() else source).read_text(encoding="utf-8-sig")


def class_text(entry: Outside) -> str:
    """Return the source of the class that the entry names, else of its module.

    Neither is imported.
    """
    text = text_of(entry)
    classes = (
        node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == entry.spec.attribute
    )
    class_node = next(classes, None)
    return ast.get_source_segment(text, class_node) or text if class_node else text


def summary(entry: Outside) -> str:
    """Return the first line of the docstring of the module, read without importing it."""
    if entry.doc:
        return entry.doc
    try:
        return first_line(text_of(entry))
    except (OSError, SyntaxError, ValueError, UserError) as error:
        return f"cannot be read: {error}"


def first_line(source: str) -> str:
    """Return the first line of the docstring of a module's source, or empty without one."""
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


@contextmanager
def faults_in(origin: str, source: Path) -> Iterator[None]:
    """Turn exceptions of a plugin into UserErrors with file and line."""
    try:
        yield
    except UnseeError:
        raise
    except (Exception, SystemExit) as error:
        raise fault_in(origin, source, error) from error


def fault_in(origin: str, source: Path, error: BaseException) -> UserError:
    """Return the exception of a plugin as a UserError with file and line."""
    return UserError(
        f"The plugin {origin} failed at {_place_of(error, source)}: {type(error).__name__}: {error}. "
        "Correct it, or go without it; --debug shows the traceback."
    )


def passed_through(error: BaseException, source: Path) -> list[traceback.FrameSummary]:
    """Return the calls inside a plugin that an exception came through, the last one last."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if Path(frame.filename).is_relative_to(source)]


def _place_of(error: BaseException, source: Path) -> str:
    """Return file and line of a fault: the last call inside the plugin, else the last one."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    last = (passed_through(error, source) or list(traceback.extract_tb(error.__traceback__)))[-1]
    return f"{last.filename}, line {last.lineno}"


def source_of(spec: Spec, label: str = "") -> Path:
    """Return the file of a plugin, or the folder of a package. `label`: its name in the error."""
    if Path(spec.place).is_absolute():
        return Path(spec.place)
    module_spec = _find(spec.place)
    if module_spec is None or not module_spec.origin or not Path(module_spec.origin).is_file():
        raise UserError(
            f"The plugin {label or spec.name} cannot be found: there is no module {spec.place} in this environment. "
            "Install its package (anew), or correct --plugin or `plugins:`."
        )
    origin = Path(module_spec.origin)
    return origin.parent if origin.name == "__init__.py" else origin


def _find(module: str) -> ModuleSpec | None:
    """Return the spec of a module, without running parent packages."""
    search_path, module_spec, parts = None, None, module.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        specs = (finder.find_spec(name, search_path) for finder in sys.meta_path)
        module_spec = next((spec for spec in specs if spec is not None), None)
        if module_spec is None:
            return None
        search_path = module_spec.submodule_search_locations
    return module_spec


def _modules(spec: Spec) -> list[ModuleType]:
    """Import the modules of a plugin: one for a file or name, all public ones of a folder."""
    path = Path(spec.place)
    if not path.is_absolute():
        return [importlib.import_module(spec.place)]
    name = f"unsee_plugin_{hashlib.sha256(f'{path}{spec.sha256}'.encode()).hexdigest()[:12]}"
    with _no_bytecode():
        main_module = sys.modules.get(name) or _run(name, path)
        if path.is_file():
            return [main_module]
        names = sorted(file.stem for file in path.glob("*.py") if not file.stem.startswith("_"))
        return [main_module, *(importlib.import_module(f"{name}.{stem}") for stem in names)]


def _run(name: str, path: Path) -> ModuleType:
    """Run a file as a module of this name, or a folder as a package."""
    file = path if path.is_file() else path / "__init__.py"
    search_locations = None if path.is_file() else [str(path)]
    loader = SourceFileLoader(name, str(file)) if file.is_file() else None
    spec = ModuleSpec(name, loader, origin=str(file), is_package=search_locations is not None)
    spec.has_location, spec.submodule_search_locations = loader is not None, search_locations
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        if loader is not None:
            loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Disable bytecode, which could outlive an edit of its source."""
    previous, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = previous


def _attribute(spec: Spec, module: ModuleType) -> Outside:
    """Return the one entry that the spec names."""
    definition = getattr(module, spec.attribute, None)
    kinds = [kind for kind in BASES if _is(kind, definition)]
    if not kinds:
        raise UserError(
            f"The plugin {spec.name} is no method, benchmark, metric, family or attack: {spec.place} has "
            f"{'no ' + spec.attribute if definition is None else short_repr(definition) + ' there'}."
        )
    return _entry(spec, kinds[0], definition, spec.attribute.lower(), doc=module.__doc__)


def _public_definitions(spec: Spec, module: ModuleType) -> Iterator[Outside]:
    """Yield the public methods, benchmarks, families and measures that a module defines."""
    definitions = [definition for name, definition in vars(module).items() if not name.startswith("_")]
    for kind in BASES:
        matches = [
            definition
            for definition in definitions
            if _is(kind, definition) and _module_of(definition, module) == module.__name__
        ]
        file = Path(module.__file__ or spec.place)
        stem = file.parent.name if file.name == "__init__.py" else file.stem
        for definition in matches:
            yield _entry(spec, kind, definition, stem if len(matches) == 1 else "", doc=module.__doc__)


def _module_of(definition: Any, module: ModuleType) -> str:
    """Return the module that defines a class. Measures count as defined where they stand."""
    return str(definition.__module__) if inspect.isclass(definition) else module.__name__


def _entry(spec: Spec, kind: str, definition: Any, default: str, *, doc: str | None) -> Outside:
    """Return the checked entry of a class or measure. `default` is the fallback name."""
    _require(kind, definition, spec.name)
    name = definition.key if kind == "metrics" else _declared_name(kind, definition) or default
    if not name:
        raise UserError(
            f"{_line_of(definition)}: {definition.__name__} is one of several in its file and needs a name of its own. "
            'Add `name: ClassVar[str] = "..."` to each class.'
        )
    if not _NAME.fullmatch(name):
        raise UserError(
            f"The plugin {spec.name} has the name {short_repr(name)}: letters, digits, '_', '.' and '-' only. Rename it."
        )
    line = (doc or getattr(definition, "__doc__", "") or "").strip().partition("\n")[0]
    return Outside(kind=kind, name=name, origin=spec.name, spec=spec, load=lambda: definition, doc=line)


def _declared_name(kind: str, cls: type[Any]) -> str:
    """Return the name that a class declares. A field called `name` is a setting."""
    if kind == "methods" and "name" in {field.name for field in fields(cls)}:
        return ""
    name = getattr(cls, "name", "")
    return name if isinstance(name, str) else ""


def _is(kind: str, definition: Any) -> bool:
    base = BASES[kind]
    return (
        isinstance(definition, base)
        if kind == "metrics"
        else inspect.isclass(definition) and issubclass(definition, base)
    )


def _require(kind: str, definition: Any, origin: str) -> None:
    """Raise if a definition does not fit its declared kind."""
    if kind not in BASES:
        return
    if not _is(kind, definition):
        raise UserError(f"The plugin {origin} must be a {BASES[kind].__name__}, got {short_repr(definition)}.")
    if missing := sorted(getattr(definition, "__abstractmethods__", ())):
        raise UserError(
            f"{_line_of(definition)}: {definition.__name__} lacks {', '.join(missing)}. "
            "Define it, or let the name of the class start with _."
        )
    if kind == "methods" and "__dataclass_fields__" not in vars(definition):
        raise UserError(
            f"{_line_of(definition)}: put @dataclass(frozen=True, kw_only=True) above class {definition.__name__}."
        )
    if kind == "metrics" and definition.better not in get_args(Direction):
        raise UserError(
            f"The plugin {origin}: `better` of the measure {definition.key} must be one of {', '.join(get_args(Direction))}, got "
            f"{short_repr(definition.better)}."
        )
    if kind == "benchmarks" and not all(
        isinstance(getattr(definition, name, None), str) for name in ("name", "layout")
    ):
        raise UserError(f"{_line_of(definition)}: {definition.__name__} needs `name` and `layout`, both ClassVar[str].")


def _line_of(cls: type[Any]) -> str:
    return f"{inspect.getsourcefile(cls)}, line {inspect.getsourcelines(cls)[1]}"
