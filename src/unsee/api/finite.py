"""Check that numeric settings are finite."""

from __future__ import annotations

import math
from typing import Any

from unsee.errors import UserError


def require_finite(settings: Any, part: str) -> None:
    """Raise if a numeric field of a settings dataclass is NaN or infinite."""
    for name, value in vars(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{part}.{name} must be a finite number, got {value}.")
