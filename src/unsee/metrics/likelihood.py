"""Probabilities of answers and options, without generated text."""

from __future__ import annotations

import math
from collections.abc import Sequence


def answer_probability(logprob: float, tokens: int) -> float:
    """Return exp(log p / tokens), the geometric mean over tokens (TOFU, Maini et al. 2024).

    >>> answer_probability(math.log(0.25), 2)
    0.5
    """
    return math.exp(logprob / tokens)


def picks(logprobs: Sequence[float], right: int) -> bool:
    """Tell whether the right option is the most probable one. A tie is not.

    >>> picks((-2.0, -1.0), 1), picks((-1.0, -1.0), 1)
    (True, False)
    """
    return all(logprobs[right] > other for place, other in enumerate(logprobs) if place != right)


def option_probability(logprobs: Sequence[float], right: int) -> float:
    """Return the probability of the right option, normalised over options.

    >>> round(option_probability((math.log(0.1), math.log(0.3)), 1), 9)
    0.75
    """
    top = max(logprobs)
    weights = [math.exp(logprob - top) for logprob in logprobs]
    return weights[right] / math.fsum(weights)
