"""Check of modes that run published code: settings that it lacks are refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from unsee.errors import UserError


def require_unset(settings: Any, part: str, names: Iterable[str]) -> None:
    """Raise for a setting that mode=as_released would ignore.

    Args:
        settings: Dataclass of settings.
        part: Prefix of the names of settings: method or training.
        names: Settings that the published code does not know.

    Raises:
        UserError: One of them does not have its default.
    """
    defaults = {field.name: field.default for field in fields(settings)}
    for name in names:
        value, default = getattr(settings, name), defaults[name]
        if value != default:
            raise UserError(
                f"method.mode=as_released is the published code, which knows no {part}.{name}: expected {default!r}, got "
                f"{value!r}. Leave it out, or choose the other mode."
            )
