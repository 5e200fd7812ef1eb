"""Truth ratio of true and false answers (TOFU, Maini et al. 2024, CLEAR's form).

All log-probabilities are means over the tokens of an answer. The mean over the false answers is taken question by question; taken
over all questions at once, how hard a question is would leak into the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def log_truth_ratio(true: float, false: Sequence[float]) -> float:
    """Return log R = log p(true) - mean log p(false) of one question.

    >>> log_truth_ratio(-1.0, (-2.0, -4.0))
    2.0
    """
    if not false:
        raise ValueError("A truth ratio needs at least one false answer.")
    return true - math.fsum(false) / len(false)


def truth_hidden(log_ratio: float) -> float:
    """Return min(R, 1/R) for the forget set: 1 if true and false are equally probable.

    >>> truth_hidden(0.0), truth_hidden(math.log(4)), truth_hidden(math.log(0.25))
    (1.0, 0.25, 0.25)
    """
    return math.exp(-abs(log_ratio))


def truth_preferred(log_ratio: float) -> float:
    """Return max(0, 1 - 1/R) for the retain set: near 1 if the true answer is preferred.

    >>> truth_preferred(math.log(4)), truth_preferred(0.0), truth_preferred(-3.0)
    (0.75, 0.0, 0.0)
    """
    return -math.expm1(-log_ratio) if log_ratio > 0 else 0.0
