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


def settings_schema(cls: type[Any], bases: Sequence[Mapping[str, Any]] = ({},)) -> Schema:
    """Return the schema of a mapping with the settings of `cls`.

    Args:
        cls: Dataclass of settings, whose checks raise UserErrors.
        bases: Values without which the dataclass cannot be built; a limit must hold with all of these.
    """
    docs, hints = field_docs(cls), get_type_hints(cls)
    properties, required = {}, []
    for field in fields(cls):
        if field.init:
            accepts = _acceptance(cls, field.name, bases)
            properties[field.name] = _setting(field, hints[field.name], docs.get(field.name, ""), accepts)
            if _default(field) is MISSING or not accepts(_default(field)):
                required.append(field.name)
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


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
        element = type_schema(arguments[0])
        return {"anyOf": [{"type": "array", "items": element}, element, *_comma_list(arguments[0])]}
    if origin in (Union, UnionType):
        return {"anyOf": [type_schema(argument) for argument in arguments]}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object"}
    return {"type": _TYPES[hint]}


def _comma_list(hint: Any) -> list[Schema]:
    """Return the schema of text that lists several values.

    There is none for types whose values are free text.
    """
    if get_origin(hint) is Literal:
        element = "|".join(map(str, get_args(hint)))
    elif hint in (int, float):
        element = r"[-+]?\d+" if hint is int else _NUMBER
    else:
        return []
    return [{"type": "string", "pattern": rf"^[\s,]*(?:(?:{element})\s*(?:,[\s,]*|$))*$"}]


def _acceptance(cls: type[Any], name: str, bases: Sequence[Mapping[str, Any]]) -> Callable[[Any], bool]:
    """Return a function that tells whether the checks of `cls` accept a value of a setting."""

    def accepts(value: Any) -> bool:
        for base in bases:
            try:
                cls(**{**base, name: value})
            except (UserError, TypeError):  # the latter: another setting has no default
                continue
            return True
        return False

    return accepts


def _setting(field: Field[Any], hint: Any, meaning: str, accepts: Callable[[Any], bool]) -> Schema:
    """Return the schema of one setting: type, limits, meaning and default."""
    default = _default(field)
    schema = {**type_schema(hint), **_limits(hint, default, accepts)}
    if meaning:
        schema["description"] = meaning
    return schema if default is MISSING else {**schema, "default": plain(default)}


def _limits(hint: Any, default: Any, accepts: Callable[[Any], bool]) -> Schema:
    """Return the limits that the checks of the dataclass put on a setting."""
    kinds = {hint, *get_args(hint)}
    for number_type in (int, float):
        if number_type in kinds and get_origin(hint) is not tuple:
            return _range(number_type, default, accepts)
    if get_origin(hint) is tuple and not accepts(()) and (accepts(default) or accepts(("some",))):
        return {"minItems": 1, "minLength": 1}
    if hint is str and not accepts("") and accepts(default):
        return {"pattern": r"\S"}
    return {}


def _range(number_type: type, default: Any, accepts: Callable[[Any], bool]) -> Schema:
    """Return the limits of a number by bisection between an accepted value and a refused one."""
    valid = next((value for value in (default, 1, 2, 0.5) if isinstance(value, number_type) and accepts(value)), None)
    if valid is None:
        return {}
    limits: Schema = {}
    for extreme, limit, beyond in (
        (-_FAR[number_type], "minimum", "exclusiveMinimum"),
        (_FAR[number_type], "maximum", "exclusiveMaximum"),
    ):
        if not accepts(number_type(extreme)):
            refused, accepted = _edge(number_type, number_type(extreme), valid, accepts)
            round_number = number_type is int or len(repr(accepted)) <= len(repr(refused))
            limits |= {limit: accepted} if round_number else {beyond: refused}
    lowest, highest = limits.get("minimum", -_FAR[number_type]), limits.get("maximum", _FAR[number_type])
    gaps = [value for value in _NEAR if number_type is int and lowest < value < highest and not accepts(value)]
    return {**limits, "not": {"enum": gaps}} if gaps else limits


def _edge(number_type: type, refused: Any, accepted: Any, accepts: Callable[[Any], bool]) -> tuple[Any, Any]:
    """Return the two neighbouring numbers between which acceptance changes."""
    to_order, from_order = (int, int) if number_type is int else (_to_order, _from_order)
    outside, inside = to_order(refused), to_order(accepted)
    while abs(outside - inside) > 1:
        middle = (outside + inside) // 2
        outside, inside = (outside, middle) if accepts(from_order(middle)) else (middle, inside)
    return from_order(outside), from_order(inside)


def _to_order(number: float) -> int:
    """Return the rank of a number among all floats, 0 for 0."""
    bits: int = struct.unpack("<q", struct.pack("<d", abs(number)))[0]
    return bits if number >= 0 else -bits


def _from_order(rank: int) -> float:
    number: float = struct.unpack("<d", struct.pack("<q", abs(rank)))[0]
    return number if rank >= 0 else -number


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default
