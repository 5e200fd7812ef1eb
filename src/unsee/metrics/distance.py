"""Distances between two samples, such as truth ratios of unlearned and retrained model.

Forget quality (TOFU, Maini et al. 2024) is the p-value of the two-sample Kolmogorov-Smirnov test; because it depends on the number of
questions and saturates, the statistic and the Jensen-Shannon divergence stand beside it.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

RESAMPLES: Final = 1000
LEVEL: Final = 0.95
"""Share of the resamples between the ends of an interval."""
BINS: Final = 10
"""Common bins of the Jensen-Shannon divergence [inferred: few enough for tens of questions]."""


def ks_statistic(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the Kolmogorov-Smirnov statistic of two samples, 0 to 1.

    >>> ks_statistic((1.0, 2.0, 3.0, 4.0), (3.0, 4.0, 5.0, 6.0))
    0.5
    """
    _demand(one, other)
    left, right = sorted(one), sorted(other)
    return max(
        abs(bisect_right(left, value) / len(left) - bisect_right(right, value) / len(right)) for value in (*one, *other)
    )


def ks_pvalue(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the p-value of the two-sample KS test (exact where computable).

    >>> round(ks_pvalue((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0)), 6)
    0.028571
    """
    from scipy.stats import ks_2samp  # takes a second to import, and few runs need it

    _demand(one, other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that it goes over to the limit law
        return float(ks_2samp(one, other).pvalue)


def js_divergence(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the Jensen-Shannon divergence of two histograms on common bins, 0 to 1 bit.

    The bins hold equal shares of both samples together [inferred], so that neither a far value nor a monotone change of scale
    (the ratio instead of its logarithm) matters; values are never paired by their place.

    >>> js_divergence((0.0, 1.0), (1.0, 0.0)), js_divergence((0.0, 1.0), (5.0, 6.0)), js_divergence((0, 1), (1, 2))
    (0.0, 1.0, 0.5)
    """
    _demand(one, other)
    edges = _edges([*one, *other])
    return _js(_shares(one, edges), _shares(other, edges))


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Lower and upper end for each distance."""

    ks: tuple[float, float]
    js: tuple[float, float]


def intervals(one: Sequence[float], other: Sequence[float], entities: Sequence[str]) -> Intervals | None:
    """Return 95 % bootstrap intervals of KS and JS, or None with fewer than two entities.

    The statistic of a resample is on average a little larger than that of the sample.
    Shapes: r resamples, e entities, n values of both samples in order, k bins.

    Args:
        one: Values of one model, one per question.
        other: Values of the other model on the same questions.
        entities: Entity of each question; resampled with all of its answers.
    """
    _demand(one, other)
    names = sorted(set(entities))
    if len(names) < 2:
        return None
    draws_re = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    value_n = np.array([*one, *other])
    order_n = np.argsort(value_n, kind="stable")
    owner_n = np.searchsorted(names, [*entities, *entities])[order_n]
    mine_n = (np.arange(len(value_n)) < len(one))[order_n]
    count_rn = draws_re[:, owner_n] * np.where(mine_n, 1, -1)
    total_r = (count_rn * mine_n).sum(axis=1)
    sorted_n = value_n[order_n]
    last_n = np.append(sorted_n[1:] != sorted_n[:-1], True)
    ks_r = np.abs(count_rn.cumsum(axis=1)[:, last_n]).max(axis=1) / total_r
    bin_n = np.searchsorted(_edges([*one, *other]), sorted_n, side="right")
    held_nk = bin_n[:, None] == np.arange(BINS)
    mine_rk, other_rk = (count_rn * mine_n) @ held_nk, (-count_rn * ~mine_n) @ held_nk
    shares = ((side_rk / total_r[:, None]).tolist() for side_rk in (mine_rk, other_rk))
    js_r = [_js(p_k, q_k) for p_k, q_k in zip(*shares, strict=True)]
    return Intervals(ks=_middle(ks_r.tolist()), js=_middle(js_r))


def _middle(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _demand(first: Sequence[float], second: Sequence[float]) -> None:
    if not first or not second:
        raise ValueError("Two samples are compared; one of them is empty.")
    if not all(math.isfinite(value) for value in (*first, *second)):
        raise ValueError("Two samples of finite numbers are compared; one of them has infinity or not-a-number.")


def _edges(values: Sequence[float]) -> list[float]:
    """Return the starts of the inner bins. Equal values share a bin."""
    ordered = sorted(values)
    ranks = (bin_number * len(ordered) // BINS for bin_number in range(1, BINS))
    return sorted({ordered[bin_number] for bin_number in ranks if ordered[bin_number] > ordered[0]})


def _shares(values: Sequence[float], edges: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    before = [0, *(bisect_left(ordered, edge) for edge in edges), len(ordered)]
    return [(end - start) / len(ordered) for start, end in pairwise(before)]


def _js(first: Sequence[float], second: Sequence[float]) -> float:
    pairs = [(p, q, (p + q) / 2) for p, q in zip(first, second, strict=True)]
    return math.fsum(_term(p, m) + _term(q, m) for p, q, m in pairs) / 2


def _term(share: float, mean: float) -> float:
    return share * math.log2(share / mean) if share else 0.0
