"""BLEU (Papineni et al., 2002), computed by sacrebleu."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any


@cache
def installed() -> bool:
    """Tell whether `bleu` can be computed: sacrebleu is an extra."""
    return find_spec("sacrebleu") is not None


@lru_cache(maxsize=8192)
def bleu(*, prediction: str, reference: str) -> float:
    """Return sentence BLEU in 0 to 1 with exponential smoothing and effective order.

    Empty texts score 0.

    >>> bleu(prediction="the cat sat", reference="the cat sat"), round(bleu(prediction="the cat", reference="the cat sat"), 4)
    (1.0, 0.6065)
    """
    if not prediction.strip() or not reference.strip():
        return 0.0
    return min(1.0, _scorer().sentence_score(prediction, [reference]).score / 100)


@lru_cache(maxsize=8192)
def bleu_released(*, prediction: str, reference: str) -> float:
    """Return BLEU-4 on whitespace tokens with 0.1 for no match (MLLMU-Bench's release [code]).

    Chen and Cherry, 2014, smoothing 1 (https://aclanthology.org/W14-3346); orders longer than the texts count as without a
    match, so that short right answers have little. 0 without a common word.

    >>> round(bleu_released(prediction="Oslo", reference="Oslo"), 4), bleu_released(prediction="Rome", reference="Oslo")
    (0.1778, 0.0)
    >>> round(bleu_released(prediction="the cat sat", reference="the cat sat on it"), 4)
    0.2887
    """
    prediction_words, reference_words = prediction.split(), reference.split()
    matches = [_matches(prediction_words, reference_words, n) for n in range(1, 5)]
    if not matches[0]:
        return 0.0
    shares = ((count or 0.1) / max(1, len(prediction_words) - n) for n, count in enumerate(matches))
    brevity = min(1.0, math.exp(1 - len(reference_words) / len(prediction_words)))
    return brevity * math.exp(sum(map(math.log, shares)) / 4)


def _matches(prediction_words: Sequence[str], reference_words: Sequence[str], n: int) -> int:
    """Return the clipped number of common n-grams."""
    prediction_grams, reference_grams = (
        Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
        for words in (prediction_words, reference_words)
    )
    return (prediction_grams & reference_grams).total()


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from sacrebleu.metrics import BLEU  # not needed by most runs

    return BLEU(effective_order=True)
