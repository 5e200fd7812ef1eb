"""Workflow of `schema`: JSON Schema (draft 2020-12) of the files that commands read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from unsee.api import Training, registry
from unsee.config import EvalConfig, Run
from unsee.config.json_schema import Schema, settings_schema
from unsee.data.assignment import Assignment
from unsee.errors import unknown_name
from unsee.workflows.continual.settings import Course
from unsee.workflows.leaderboard.plan import Board

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_NAMED: Final[Mapping[str, registry.Loadable]] = {"method": "methods", "benchmark": "benchmarks"}
_CODE: Final[Mapping[str, list[Schema]]] = {"method": [{"type": "string", "pattern": r"[:/]|\.py$"}], "benchmark": []}
"""Values in place of a name: a file or module with a plugin."""
_NAMES: Final[Schema] = {"type": ["string", "integer", "array"], "items": {"type": ["string", "integer"]}}
"""Names in a file of requests, one or several."""
_SOME_PLUGIN: Final[Schema] = {
    "required": ["plugins"],
    "properties": {"plugins": {"type": ["string", "array"], "minLength": 1, "minItems": 1}},
}
_COURSES: Final = ({"tasks": 1}, {"requests": "requests.yaml"})
"""Settings without which a course cannot be built."""


_BOARDS: Final = (
    {"base": {"model": "m"}, "golds": {"person": "g"}, "methods": {"npo": {}}, "settings": 1, "kept": ["retain.name"]},
)
"""Settings without which a leaderboard cannot be built."""


def schema(kind: str = "any") -> Schema:
    """Return the schema of one kind of file, or of all kinds, told apart by their content.

    It covers names, types, choices, defaults and limits of the settings. It does not cover what depends on the
    model, the data or other files, nor rules over several settings, nor that 1.0 is no whole number (JSON has one kind of number).
    What an option can supply is not required.

    Raises:
        UserError: There is no such kind.
    """
    if kind not in KINDS:
        raise unknown_name("kind of file", kind, KINDS)
    return {"$schema": DRAFT, "title": f"unsee: {kind}", **KINDS[kind](), "$defs": _definitions()}


def _definitions() -> Schema:
    """Return the parts that schemas refer to."""
    definitions: Schema = {
        "training": settings_schema(Training),
        "eval": settings_schema(EvalConfig),
        "run": _run(),
        "requests": _requests(),
        "roles": settings_schema(Assignment, ({"forget": ("some",)},)),
        "leaderboard": settings_schema(Board, _BOARDS),
        **{part: _choice_schema(part) for part in _NAMED},
        **{f"{part}.{name}": _settings(part, name) for part, kind in _NAMED.items() for name in registry.names(kind)},
    }
    return {**definitions, "continual": _continual(definitions["run"]), "sweep": _sweep(definitions)}


def _settings(part: str, name: str) -> Schema:
    """Return the schema of a method or benchmark: its bare name, or name and settings."""
    cls = registry.load(_NAMED[part], name)
    settings = settings_schema(cls if part == "method" else cls.settings_type)
    return {**settings, "type": ["string", "object"], "properties": {"name": {"const": name}, **settings["properties"]}}


def _choice_schema(part: str) -> Schema:
    """Return the schema of `method` or `benchmark`, with the settings of each name."""
    kind = _NAMED[part]
    rules = [
        {
            "if": {
                "anyOf": [
                    {"const": name},
                    {"type": "object", "required": ["name"], "properties": {"name": {"const": name}}},
                ]
            },
            "then": {"$ref": f"#/$defs/{part}.{name}"},
        }
        for name in registry.names(kind)
    ]
    meanings = "\n".join(f"{name}: {registry.summary(kind, name)}" for name in registry.names(kind))
    return {
        "type": ["string", "object"],
        "properties": {"name": {"type": "string"}},
        "description": f"Name, or a mapping with `name` and settings.\n{meanings}",
        "allOf": rules,
    }


def _run() -> Schema:
    """Return the schema of a run file."""
    run_properties = settings_schema(Run)["properties"]
    del run_properties["settings"]  # they stand below `method`
    references = {part: {"$ref": f"#/$defs/{part}"} for part in ("training", "eval", *_NAMED)}
    return {
        "type": "object",
        "properties": {**run_properties, **references, "record": {}, "result": {}},
        "additionalProperties": False,
        "allOf": [{"anyOf": [_SOME_PLUGIN, {"properties": {part: _names_schema(part)}}]} for part in _NAMED],
    }


def _names_schema(part: str) -> Schema:
    """Return the schema of the names that need no plugin, empty if there are none."""
    name_schema = {"anyOf": [{"enum": ["", *registry.names(_NAMED[part])]}, *_CODE[part]]}
    return {"if": {"type": "object"}, "then": {"properties": {"name": name_schema}}, "else": name_schema}


def _continual(run: Schema) -> Schema:
    """Return the schema of a run file of `unsee continual`, new or of an earlier sequence."""
    course = settings_schema(Course, _COURSES)
    conflict = {
        "required": ["requests", "tasks"],
        "properties": {"requests": {"minLength": 1}, "tasks": {"minimum": 1}},
    }
    properties = {"continual": {**course, "not": conflict}, "tasks": {}, "retain": {}}
    return {**run, "properties": {**run["properties"], **properties}}


def _sweep(definitions: Schema) -> Schema:
    """Return the schema of a grid."""
    axes = _axes(definitions)
    mapping = {"type": ["object", "null"]}
    required_rules = [_required_schema(key) for key in ("model", "data", "method")]
    plugin_rules = [
        {"required": [part], "properties": {part: rule}}
        for part, rule in (("base", _SOME_PLUGIN), ("axes", {"required": ["plugins"]}))
    ]
    names = {"method": {"items": _names_schema("method")}, "benchmark": {"items": _names_schema("benchmark")}}
    known_names = {"properties": {"axes": {"properties": names}}}
    return {
        "type": "object",
        "properties": {
            "base": {
                "description": "A run file; `out` is not needed.",
                "anyOf": [{"$ref": "#/$defs/run"}, {"type": "null"}],
            },
            "axes": {
                "description": "Setting -> list of values; names as in --set.",
                **mapping,
                "properties": {path: {"type": "array", "minItems": 1, "items": items} for path, items in axes.items()},
                "additionalProperties": False,
            },
            "slurm": {"description": "For --launcher slurm: parameters of submitit.", **mapping},
            "table": {"description": "Columns of table.md: title -> score.", **mapping},
        },
        "additionalProperties": False,
        "allOf": [*required_rules, {"anyOf": [*plugin_rules, known_names]}],
    }


def _required_schema(key: str) -> Schema:
    """Return the schema of a grid that says `key`, below `base` or as an axis."""
    filled: Schema = {"minLength": 1}
    if key == "method":
        filled = {**filled, "required": ["name"], "properties": {"name": filled}}
    base = {"base": {"type": "object", "required": [key], "properties": {key: filled}}}
    axes = {"axes": {"type": "object", "required": [key], "properties": {key: {"items": filled}}}}
    names = {"axes": {"type": "object", "required": [f"{key}.name"]}}
    return {"anyOf": [{"required": [*part], "properties": part} for part in (base, axes, names)]}


def _axes(definitions: Schema) -> Schema:
    """Return the schema of one value of every axis."""
    run_names = [name for name in definitions["run"]["properties"] if name not in ("record", "result")]
    axes: Schema = {name: {"$ref": f"#/$defs/run/properties/{name}"} for name in run_names}
    for part in definitions:
        for setting in definitions[part].get("properties", {}):
            path = f"{part.partition('.')[0]}.{setting}"
            if part.partition(".")[0] in ("training", "eval", *_NAMED):
                axes.setdefault(path, {"anyOf": []})["anyOf"].append({"$ref": f"#/$defs/{part}/properties/{setting}"})
    return axes


def _requests() -> Schema:
    """Return the schema of a file of requests: a list, or a mapping with `retain` as well."""
    targets = {"anyOf": [{"required": [key], "properties": {key: {"minItems": 1}}} for key in ("entities", "rows")]}
    request = {
        "properties": {
            "entities": _NAMES,
            "rows": _NAMES,
            "id": {"type": ["string", "integer"], "pattern": r"\S"},
            "relation": {},
        },
        "additionalProperties": False,
        **targets,
    }
    entry = {"if": {"type": "object"}, "then": request, "else": {**_NAMES, "minItems": 1}}
    request_list = {"type": "array", "minItems": 1, "items": entry}
    mapping = {
        "properties": {"requests": request_list, "retain": _NAMES},
        "additionalProperties": False,
        "required": ["requests"],
    }
    return {"type": ["array", "object"], "if": {"type": "array"}, "then": request_list, "else": mapping}


def _any() -> Schema:
    """Return the schema of every kind of file, chosen by the keys that only this kind has."""
    choice: Schema = {"$ref": "#/$defs/run"}
    for kind, keys in (
        ("roles", ["forget"]),
        ("requests", ["requests"]),
        ("sweep", ["base", "axes"]),
        ("continual", ["continual"]),
        ("leaderboard", ["methods", "golds"]),
    ):
        condition = {"type": "object", "anyOf": [{"required": [key]} for key in keys]}
        choice = {"if": condition, "then": {"$ref": f"#/$defs/{kind}"}, "else": choice}
    return {"if": {"type": "array"}, "then": {"$ref": "#/$defs/requests"}, "else": choice}


def _refer(kind: str) -> Callable[[], Schema]:
    return lambda: {"$ref": f"#/$defs/{kind}"}


KINDS: Final[Mapping[str, Callable[[], Schema]]] = {
    "any": _any,
    **{kind: _refer(kind) for kind in ("run", "continual", "sweep", "requests", "roles", "leaderboard")},
}
"""Kinds of file."""
