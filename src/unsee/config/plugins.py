"""Plugins of a run, loaded by name and recorded with the hash of their code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from unsee.api import registry
from unsee.api.plugins import PIN, Outside, Spec, pinned
from unsee.config.run import Run
from unsee.errors import UnknownNameError, UserError


def with_plugins(run: Run) -> Run:
    """Load the plugins of a run, and return it with their hashes.

    A method given as a plugin is replaced by its name.

    Raises:
        UserError: A plugin is broken or its name is taken. One that a written run names has changed; it is not run then.
    """
    method_specs = (run.method,) if _is_spec(run.method) else ()
    entries_by_spec = {text: registry.add(text) for text in (*run.plugins, *method_specs)}
    run = replace(run, plugins=tuple(dict.fromkeys(_pin(text, entries) for text, entries in entries_by_spec.items())))
    return replace(run, method=_only_method(run.method, entries_by_spec[run.method])) if method_specs else run


def with_used(run: Run, *names: tuple[registry.Listed, str]) -> Run:
    """Return the run with the plugins that define these names.

    Installed plugins are recorded by this alone.
    """
    specs = (spec for kind, name in names for spec in registry.pin(kind, name))
    return with_specs(run, tuple(specs))


def with_specs(run: Run, specs: tuple[str, ...]) -> Run:
    """Return the run with further plugins."""
    return replace(run, plugins=tuple(dict.fromkeys((*run.plugins, *specs))))


@contextmanager
def naming_plugins(run: Run) -> Iterator[None]:
    """Name the plugins of a run where one is missing. Data and models never load code."""
    try:
        yield
    except UnknownNameError as error:
        if not run.plugins:
            raise
        options = " ".join(f"--plugin {text.partition(PIN)[0]}" for text in run.plugins)
        raise UserError(
            f"{error} The model was made with plugins, which are not loaded by themselves: {options}"
        ) from error


def _is_spec(method: str) -> bool:
    """Tell whether a method is given as a file or module instead of a name."""
    return ":" in method or "/" in method or method.endswith(".py")


def _pin(text: str, entries: list[Outside]) -> str:
    """Return a spec with the hash of the code that was loaded for it."""
    spec, sha256 = Spec.parse(text), entries[0].spec.sha256
    return str(replace(spec, sha256=sha256) if sha256 else pinned(spec))


def _only_method(text: str, entries: list[Outside]) -> str:
    methods = [entry.name for entry in entries if entry.kind == "methods"]
    if len(methods) != 1:
        names = ", ".join(methods) or "none"
        raise UserError(f"--method {text} must define one method, found: {names}. Give --plugin {text} and a name.")
    return methods[0]
