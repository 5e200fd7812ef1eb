"""Checks that also hold under `python -O`, which drops assert statements."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from unsee.api.describe import field_docs
from unsee.errors import UserError


def require(condition: object, message: str) -> None:
    """Raise AssertionError with the message unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def refusal(call: Callable[[], Any], setting: str) -> str:
    """Return the message of the UserError that the call must raise."""
    try:
        call()
    except UserError as error:
        return str(error)
    raise AssertionError(f"{setting} was accepted; expected a UserError")


def settings_contract(cls: type[Any], settings: Mapping[str, Any], part: str = "method") -> None:
    """Check that settings are frozen, documented, and refuse NaN and infinite values."""
    require(cls.__doc__, f"{cls.__name__} has no docstring")
    instance, docs = cls(**settings), field_docs(cls)
    try:
        instance.anything = 1
    except dataclasses.FrozenInstanceError:
        pass
    else:
        raise AssertionError(f"{cls.__name__} is not frozen")
    for field in dataclasses.fields(cls):
        require(docs.get(field.name), f"{cls.__name__}.{field.name} has no docstring below it")
        if "float" in str(field.type):
            for value in (math.nan, math.inf):
                message = refusal(partial(_built, cls, {**settings, field.name: value}), f"{field.name}={value}")
                expected = f"{part}.{field.name} must be a finite number, got {value}"
                require(expected in message, f"expected {expected!r}, got {message!r}")


def _built(cls: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    return cls(**settings)
