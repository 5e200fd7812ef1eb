"""CLIPScore of text and image (Hessel et al., 2021, arXiv 2104.08718)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

WEIGHT: Final = 2.5
"""The paper's w, which scales usual values to 0 to 1."""


def clip_score(image: Sequence[float], text: Sequence[float]) -> float:
    """Return w · max(cos, 0) of two embeddings.

    >>> clip_score((3.0, 4.0), (6.0, 8.0)), clip_score((1.0, 0.0), (0.0, 2.0)), clip_score((1.0, 0.0), (-1.0, 0.0))
    (2.5, 0.0, 0.0)
    """
    if len(image) != len(text):
        raise ValueError(f"Two embeddings of one length are compared; got {len(image)} and {len(text)}.")
    norms = math.hypot(*image) * math.hypot(*text)
    if not norms or not math.isfinite(norms):
        raise ValueError(f"Embeddings of lengths {math.hypot(*image)} and {math.hypot(*text)} have no angle.")
    return WEIGHT * max(0.0, math.fsum(a * b for a, b in zip(image, text, strict=True)) / norms)
