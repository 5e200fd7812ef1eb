"""BLEU: n-grams up to four that prediction and reference share (Papineni et al., 2002), by the sacrebleu library."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=8192)
def bleu(*, prediction: str, reference: str) -> float:
    """Return sentence BLEU in 0 to 1: exponential smoothing, orders longer than the texts left out; empty texts score 0.

    >>> bleu(prediction="the cat sat", reference="the cat sat"), round(bleu(prediction="the cat", reference="the cat sat"), 4)
    (1.0, 0.6065)
    """
    if not prediction.strip() or not reference.strip():
        return 0.0
    return min(1.0, _scorer().sentence_score(prediction, [reference]).score / 100)


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from sacrebleu.metrics import BLEU  # not needed by most runs

    return BLEU(effective_order=True)
