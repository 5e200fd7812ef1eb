"""JSON Schema (draft 2020-12) of settings dataclasses.

Types, choices, defaults and meanings are read from the fields. Limits are found by building the dataclass with values on both sides
of them, so that they are written down once, in the checks of the dataclass.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from unsee.api.describe import field_docs
from unsee.config.schema import plain
from unsee.errors import UserError

Schema = dict[str, Any]

_TYPES: Final = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string", type(None): "null"}
_NUMBER: Final = r"[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?"
_FAR: Final[Mapping[type, float]] = {int: 10**12, float: 1e300}
"""Values beyond every limit."""
_NEAR: Final = range(-2, 4)
"""Whole numbers that are tried one by one, for a value inside of the limits that is refused."""


def settings_schema(cls: type[Any], given: Sequence[Mapping[str, Any]] = ({},)) -> Schema:
    """Return the schema of a mapping with the settings of `cls`.

    Args:
        cls: Dataclass of settings, whose checks raise UserErrors.
        given: Values without which the dataclass cannot be built; a limit must hold with all of these.
    """
    docs, hints = field_docs(cls), get_type_hints(cls)
    properties, required = {}, []
    for item in fields(cls):
        if item.init:
            accepts = _acceptance(cls, item.name, given)
            properties[item.name] = _setting(item, hints[item.name], docs.get(item.name, ""), accepts)
            if _default(item) is MISSING or not accepts(_default(item)):
                required.append(item.name)
    found = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**found, "required": required} if required else found


def type_schema(hint: Any) -> Schema:
    """Return the schema of the values that `unsee.config.schema.convert` takes for a type.

    >>> type_schema(int | None), type_schema(Literal["a", "b"])
    ({'anyOf': [{'type': 'integer'}, {'type': 'null'}]}, {'enum': ['a', 'b']})
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return {}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        item = type_schema(arguments[0])
        return {"anyOf": [{"type": "array", "items": item}, item, *_comma_list(arguments[0])]}
    if origin in (Union, UnionType):
        return {"anyOf": [type_schema(argument) for argument in arguments]}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object"}
    return {"type": _TYPES[hint]}


def _comma_list(hint: Any) -> list[Schema]:
    """Return the schema of text that lists several values, where single values are no free text."""
    if get_origin(hint) is Literal:
        one = "|".join(map(str, get_args(hint)))
    elif hint in (int, float):
        one = r"[-+]?\d+" if hint is int else _NUMBER
    else:
        return []
    return [{"type": "string", "pattern": rf"^[\s,]*(?:(?:{one})\s*(?:,[\s,]*|$))*$"}]


def _acceptance(cls: type[Any], name: str, given: Sequence[Mapping[str, Any]]) -> Callable[[Any], bool]:
    """Return a function that tells whether the checks of `cls` let a value of one setting pass."""

    def accepts(value: Any) -> bool:
        for base in given:
            try:
                cls(**{**base, name: value})
            except (UserError, TypeError):  # the latter: another setting has no default
                continue
            return True
        return False

    return accepts


def _setting(item: Field[Any], hint: Any, meaning: str, accepts: Callable[[Any], bool]) -> Schema:
    """Return the schema of one setting: type, limits, meaning and default."""
    default = _default(item)
    found = {**type_schema(hint), **_limits(hint, default, accepts)}
    if meaning:
        found["description"] = meaning
    return found if default is MISSING else {**found, "default": plain(default)}


def _limits(hint: Any, default: Any, accepts: Callable[[Any], bool]) -> Schema:
    """Return the limits that the checks of the dataclass put on a setting."""
    kinds = {hint, *get_args(hint)}
    for kind in (int, float):
        if kind in kinds and get_origin(hint) is not tuple:
            return _range(kind, default, accepts)
    if get_origin(hint) is tuple and not accepts(()) and (accepts(default) or accepts(("some",))):
        return {"minItems": 1, "minLength": 1}
    if hint is str and not accepts("") and accepts(default):
        return {"pattern": r"\S"}
    return {}


def _range(kind: type, default: Any, accepts: Callable[[Any], bool]) -> Schema:
    """Return the limits of a number by bisection between an accepted value and a refused one."""
    inside = next((value for value in (default, 1, 2, 0.5) if isinstance(value, kind) and accepts(value)), None)
    if inside is None:
        return {}
    found: Schema = {}
    for far, limit, beyond in (
        (-_FAR[kind], "minimum", "exclusiveMinimum"),
        (_FAR[kind], "maximum", "exclusiveMaximum"),
    ):
        if not accepts(kind(far)):
            refused, taken = _edge(kind, kind(far), inside, accepts)
            round_number = kind is int or len(repr(taken)) <= len(repr(refused))
            found |= {limit: taken} if round_number else {beyond: refused}
    lowest, highest = found.get("minimum", -_FAR[kind]), found.get("maximum", _FAR[kind])
    gaps = [value for value in _NEAR if kind is int and lowest < value < highest and not accepts(value)]
    return {**found, "not": {"enum": gaps}} if gaps else found


def _edge(kind: type, refused: Any, taken: Any, accepts: Callable[[Any], bool]) -> tuple[Any, Any]:
    """Return the two neighbouring numbers between which acceptance changes."""
    there, back = (int, int) if kind is int else (_to_order, _from_order)
    outside, inside = there(refused), there(taken)
    while abs(outside - inside) > 1:
        middle = (outside + inside) // 2
        outside, inside = (outside, middle) if accepts(back(middle)) else (middle, inside)
    return back(outside), back(inside)


def _to_order(number: float) -> int:
    """Return the rank of a number among all floats, 0 for 0."""
    bits: int = struct.unpack("<q", struct.pack("<d", abs(number)))[0]
    return bits if number >= 0 else -bits


def _from_order(rank: int) -> float:
    number: float = struct.unpack("<d", struct.pack("<q", abs(rank)))[0]
    return number if rank >= 0 else -number


def _default(item: Field[Any]) -> Any:
    return item.default_factory() if item.default_factory is not MISSING else item.default
