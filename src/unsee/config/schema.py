"""Conversion of dataclasses to and from plain values, with type checks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from unsee.errors import UserError, did_you_mean, nearest, short_repr, unknown_name
from unsee.utils.parsing import text_fault

T = TypeVar("T")


def settings_of(settings: Any) -> dict[str, Any]:
    """Return the fields of a settings dataclass as plain values."""
    values: dict[str, Any] = plain(asdict(settings))
    return values


def build(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Build the settings dataclass `cls` from plain values, with types checked."""
    hints = get_type_hints(cls)
    # `cls` is a dataclass; its bound cannot be written with the types of 3.11.
    types = {field.name: hints[field.name] for field in fields(cls) if field.init}  # type: ignore[arg-type]
    for name in values:
        if name not in types:
            raise unknown_name(f"setting of {where}", str(name), types)
    return cls(**{name: convert(value, types[name], where=f"{where}: {name}") for name, value in values.items()})


def convert(value: Any, hint: Any, *, where: str) -> Any:
    """Convert `value` to the type `hint` (list to tuple, int to float), or raise."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        return _one_of(value, arguments, where)
    if origin in (Union, UnionType):
        return _any_of(value, arguments, where)
    if origin is not None:
        return _container(value, origin, arguments, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return _float(value, where)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        if isinstance(value, str) and (fault := text_fault(value)):
            raise UserError(f"{where} {fault}; remove it.")
        return value
    raise UserError(f"{where} must be {_in_words(hint)}, got {short_repr(value)}.")


def _container(value: Any, kind: type, item_hints: Sequence[Any], where: str) -> Any:
    """Return a tuple or mapping with converted items, any other container as it is, or raise."""
    if kind is tuple:
        return tuple(convert(item, item_hints[0], where=where) for item in _items(value, item_hints[0]))
    values = convert(value, kind, where=where)
    if not isinstance(values, Mapping):
        return values
    if unnamed := [name for name in values if item_hints[0] is str and not isinstance(name, str)]:
        raise UserError(f"{where} must have texts as names, got {short_repr(unnamed[0])}. Put it in quotes.")
    return {name: convert(item, item_hints[1], where=f"{where}.{name}") for name, item in values.items()}


def _float(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise UserError(f"{where} must be a number below 1.8e308, got {short_repr(value)}.") from error


def _in_words(hint: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "nothing"}
    return words.get(hint, f"a {hint.__name__}")


def _one_of(value: Any, choices: Sequence[Any], where: str) -> Any:
    if value in choices and type(value) in {type(choice) for choice in choices}:
        return value
    names = list(map(str, choices))
    hint = did_you_mean(nearest(short_repr(value).strip("'\""), names))
    raise UserError(f"{where} must be one of {', '.join(names)}, got {short_repr(value)}.{hint}")


def _items(value: Any, hint: Any) -> list[Any]:
    """Return the items of a list, or of text with commas between them. A choice may have a comma itself."""
    if isinstance(value, str):
        choices = [re.escape(choice) for choice in get_args(hint) if isinstance(choice, str) and "," in choice]
        one_item = "|".join([*(rf"{choice}(?=\s*(?:,|$))" for choice in choices), "[^,]+"])
        items = [item.strip() for item in re.findall(rf"\s*({one_item})", value) if item.strip()]
        return [_number(item) for item in items] if hint in (int, float) else items
    return list(value) if isinstance(value, list | tuple) else [value]


def _number(text: str) -> Any:
    """Return the number that the text writes, or the text itself."""
    for number_type in (int, float):
        try:
            return number_type(text)
        except ValueError:
            continue
    return text


def _any_of(value: Any, hints: Sequence[Any], where: str) -> Any:
    if value is None and type(None) in hints:
        return None
    refusals = []
    for hint in hints:
        try:
            return convert(value, hint, where=where)
        except UserError as error:
            refusals.append(str(error))
    raise UserError(refusals[0])


def plain(value: Any) -> Any:
    """Convert tuples, mappings and paths to the types of YAML and JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
