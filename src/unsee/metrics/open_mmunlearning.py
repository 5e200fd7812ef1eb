"""FQ (forget quality) of OPEN-MMUNLEARNING (arXiv 2610.10358, App. A).

Everything is a share in 0 to 1 (the paper's cloze and choice accuracies divided by 100). An aggregate with a missing part is missing.
"""

from __future__ import annotations

import math


def mean_or_none(*parts: float | None) -> float | None:
    """Return the mean of the parts, or None if any is missing.

    >>> mean_or_none(0.5, 1.0), mean_or_none(0.5, None)
    (0.75, None)
    """
    present = [part for part in parts if part is not None]
    return math.fsum(present) / len(present) if present and len(present) == len(parts) else None


def split_forgetting(*, cloze: float | None, choice: float | None, rouge: float | None) -> float | None:
    """Return F of one split: how much of it the model no longer answers.

    >>> split_forgetting(cloze=0.5, choice=0.25, rouge=0.0)
    0.75
    """
    share = mean_or_none(cloze, choice, rouge)
    return None if share is None else 1 - share


def forget_quality(
    *,
    forget: float | None,
    test: float | None,
    truth_ratio: float | None,
    answer_prob: float | None,
    ks: float | None,
    js: float | None,
) -> float | None:
    """Return FQ from F of forget and held-out images, and distances to the retrained model.

    Args:
        forget: F of the forget images.
        test: F of held-out images of the same entities.
        truth_ratio: Truth ratio on the forget set.
        answer_prob: Probability of the forget answers, lower = better forgotten.
        ks: KS statistic between the truth ratios of this and the retrained model.
        js: Jensen-Shannon distance between them, in nats.

    Returns:
        FQ, or None if a part is missing.

    >>> forget_quality(forget=1.0, test=0.5, truth_ratio=0.5, answer_prob=0.25, ks=0.25, js=0.25)
    0.7
    """
    return mean_or_none(mean_or_none(forget, test), truth_ratio, *(_less(value) for value in (answer_prob, ks, js)))


def _less(value: float | None) -> float | None:
    return None if value is None else 1 - value
