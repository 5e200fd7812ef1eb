"""Model utility: harmonic mean over the retain sets (TOFU, Maini et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence


def harmonic_mean(parts: Sequence[float]) -> float:
    """Return the harmonic mean of parts in 0 to 1. A part of 0 makes it 0.

    >>> harmonic_mean((1.0, 0.5, 0.25)), harmonic_mean((0.9, 0.0))
    (0.42857142857142855, 0.0)
    """
    if not parts or min(parts) < 0:
        raise ValueError(f"A harmonic mean needs parts, none of them negative; got {list(parts)}.")
    return len(parts) / math.fsum(1 / part for part in parts) if min(parts) > 0 else 0.0
