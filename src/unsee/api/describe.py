"""Descriptions of methods, benchmarks, metrics and families, read from their source."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from dataclasses import MISSING, Field, dataclass, fields
from itertools import pairwise
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from unsee.api import registry
from unsee.api.method import Method, Needs

_NO_COST: Final = ("trains", "adapters", "stops", "checks")
"""Fields of `Needs` that say nothing about the cost of a step."""


def field_docs(cls: type[Any]) -> dict[str, str]:
    """Return the docstring below each field of a dataclass, base classes included."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if "__dataclass_fields__" in vars(base):
            docs |= _own_docs(base)
    return docs


def describe(kind: registry.Listed, name: str) -> list[str]:
    """Return the description of a name: meaning, origin, settings and cost."""
    line = registry.summary(kind, name)
    source = re.search(r"[(;]\s*([^();]*(?:arXiv|\d{4}|https?:)[^()]*)\)", line)
    head = [f"{name}: {line}", f"defined by: {registry.origin(kind, name)}"]
    head += [f"source: {source[1]}"] if source else []
    return [*head, *_about(kind, name)]


def _about(kind: registry.Listed, name: str) -> list[str]:
    if kind == "methods":
        return _method(registry.load(kind, name))
    if kind == "benchmarks":
        return _benchmark(registry.load(kind, name))
    if kind == "models":
        types = registry.load(kind, name).model_types
        return [f"model types: {', '.join(types) or 'any that no other family serves'}"]
    if kind == "attacks":
        cls = registry.load(kind, name)
        return [
            f"needs: {cls.needs}",
            f"looks for: {cls.finds}",
            "",
            inspect.getdoc(cls) or "",
            "",
            *_settings(cls, name),
        ]
    if kind == "metrics" and name in registry.outside_names(kind):
        return [f"better: {registry.load_metric(name).better}"]
    return []


def _method(cls: type[Method]) -> list[str]:
    return ["", inspect.getdoc(cls) or "", "", *_settings(cls, "method"), "", *_cost(cls)]


def _benchmark(cls: type[Any]) -> list[str]:
    hub = [f"on the hub: {', '.join(cls.hub)}"] if cls.hub else []
    return [
        f"layout: {cls.layout}",
        *hub,
        "",
        inspect.getdoc(cls) or "",
        "",
        *_settings(cls.settings_type, "benchmark"),
    ]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a method, benchmark or attack."""

    name: str
    default: str
    """As `--set` takes it."""
    choices: tuple[str, ...]
    meaning: str


def settings_rows(cls: type[Any]) -> list[Setting]:
    """Return the settings of a class, in the order of its fields."""
    docs, hints = field_docs(cls), get_type_hints(cls)
    return [
        Setting(
            name=field.name,
            default=_default(field),
            choices=tuple(map(str, get_args(hints[field.name]) if get_origin(hints[field.name]) is Literal else ())),
            meaning=docs.get(field.name, ""),
        )
        for field in fields(cls)
        if field.init
    ]


def _settings(cls: type[Any], part: str) -> list[str]:
    """Return the settings: name and default as `--set` takes them, choices, and meaning."""
    lines = []
    for setting in settings_rows(cls):
        choices = f" (one of {', '.join(setting.choices)})" if setting.choices else ""
        lines += [f"  {part}.{setting.name}={setting.default}{choices}", f"      {setting.meaning}".rstrip()]
    return ["settings (--set NAME=VALUE), with their defaults:", *lines] if lines else ["settings: none"]


def _cost(cls: type[Method]) -> list[str]:
    """Return the memory requirements of a training step with default settings."""
    if any(field.init and field.default is MISSING and field.default_factory is MISSING for field in fields(cls)):
        return ["cost of a step: depends on settings that have no default"]
    needs, docs = cls().needs(), field_docs(Needs)
    if needs.edits:
        return ["cost of a step: none, weights are edited at once"]
    if not needs.trains:
        return ["cost of a step: none, no weight is trained"]
    lines = [f"  {name}={value}: {docs[name]}" for name, value in vars(needs).items() if value and name not in _NO_COST]
    return ["cost of a step with the defaults:", *lines]


def _default(field: Field[Any]) -> str:
    if field.default is MISSING and field.default_factory is MISSING:
        return ""
    value = field.default if field.default_factory is MISSING else field.default_factory()
    return json.dumps(value, ensure_ascii=False, default=str)


def _own_docs(cls: type[Any]) -> dict[str, str]:
    """Return the string below each annotated name of a class, or nothing without its source."""
    try:
        source = inspect.getsource(cls)
    except OSError:
        return {}
    body = next(node for node in ast.parse(textwrap.dedent(source)).body if isinstance(node, ast.ClassDef)).body
    return {
        node.target.id: " ".join(inspect.cleandoc(next_node.value.value).split())
        for node, next_node in pairwise(body)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if isinstance(next_node, ast.Expr)
        and isinstance(next_node.value, ast.Constant)
        and isinstance(next_node.value.value, str)
    }
