"""Check that numeric settings are finite and large enough, and that lists name nothing twice."""

from __future__ import annotations

import math
from typing import Any

from unsee.errors import UserError


def require_finite(settings: Any, part: str) -> None:
    """Raise if a numeric field of a settings dataclass, or a number in a list, is NaN or infinite."""
    for name in vars(settings):
        for value in _values(settings, name):
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{part}.{name} must be a finite number, got {value}.")


def require_values(settings: Any, part: str, **lowest: float | None) -> None:
    """Raise if a field has a value below its lowest, or is a list without any, or with one twice.

    Args:
        settings: Settings dataclass.
        part: What the settings are of, for the message.
        **lowest: Field -> its lowest value, None for any.
    """
    for name, low in lowest.items():
        values = _values(settings, name)
        if not values:
            raise UserError(f"{part}.{name} needs at least one value.")
        if low is not None and min(values) < low:
            raise UserError(f"{part}.{name} must be {low:g} or more, got {min(values)}.")
        require_distinct(settings, part, name)


def require_distinct(settings: Any, part: str, name: str) -> None:
    """Raise if a list has a value twice."""
    values = _values(settings, name)
    if repeated := [value for value in values if values.count(value) > 1]:
        raise UserError(f"{part}.{name} has {repeated[0]} more than once; give each value once.")


def _values(settings: Any, name: str) -> tuple[Any, ...]:
    value = getattr(settings, name)
    return value if isinstance(value, tuple) else (value,)
