"""Modes that are published code: settings that it does not know are refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from unsee.errors import UserError


def require_unset(settings: Any, part: str, names: Iterable[str]) -> None:
    """Raise for a setting that mode=as_released would ignore.

    Args:
        settings: Dataclass of settings.
        part: What stands before the name of a setting: method or training.
        names: Settings that the published code does not know.

    Raises:
        UserError: One of them does not have its default.
    """
    defaults = {field.name: field.default for field in fields(settings)}
    for name in names:
        given, default = getattr(settings, name), defaults[name]
        if given != default:
            raise UserError(
                f"method.mode=as_released is the published code, which knows no {part}.{name}: expected {default!r}, got "
                f"{given!r}. Leave it out, or choose the other mode."
            )
