"""Metrics of continual unlearning: forgetting, rebound, utility (arXiv 2605.05938).

A memory matrix has one row an evaluated model and one column a request: A[t][k] in [0, 1] is how well request k is
*remembered* after t requests. `at` says t of each row; without it the rows are t = 0, 1, 2, ... (row 0 = the original model).
The definitions are ours [inferred] but for rebound and retain stability rate [second-hand: MCU, arXiv 2608.04548].
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from typing import Final, Literal

from unsee.metrics.statistics import mean_of_known
from unsee.metrics.utility import harmonic_mean

Matrix = Sequence[Sequence[float]]
Support = Literal["common", "running"]
CLIP: Final = 1.5
"""Normalised forgetting is clipped to [0, 1.5]."""


def current_forgetting(memory: Matrix, at: Sequence[int] | None = None) -> list[float]:
    """Return CF_t = 1 - A[t][t] for every evaluated t >= 1.

    >>> current_forgetting([[1.0, 1.0], [0.25, 1.0], [0.5, 0.0]])
    [0.75, 1.0]
    """
    return [1 - row[t - 1] for t, row in _steps(memory, at)]


def normalised_forgetting(
    memory: Matrix, oracle: Sequence[float], at: Sequence[int] | None = None
) -> list[float | None]:
    """Return nCF_t = (A[0][t] - A[t][t]) / (A[0][t] - A_ret[t]), clipped.

    None where the retrained model knows as much as the original.

    >>> normalised_forgetting([[1.0, 0.5], [0.5, 0.5], [0.0, 0.0]], oracle=[0.0, 0.5])
    [0.5, None]
    """
    gaps = [memory[0][t - 1] - oracle[t - 1] for t, _ in _steps(memory, at)]
    lost = [memory[0][t - 1] - row[t - 1] for t, row in _steps(memory, at)]
    return [min(CLIP, max(0.0, loss / gap)) if gap > 0 else None for loss, gap in zip(lost, gaps, strict=True)]


def historical_memory(memory: Matrix, at: Sequence[int] | None = None) -> list[float | None]:
    """Return A_HF[t], the mean of A[t][k] over earlier requests k < t, or None at t = 1.

    >>> historical_memory([[1.0, 1.0], [0.0, 1.0], [0.25, 0.0]])
    [None, 0.25]
    """
    return [mean_of_known(row[: t - 1]) if t > 1 else None for t, row in _steps(memory, at)]


def historical_preservation(memory: Matrix, at: Sequence[int] | None = None) -> list[float | None]:
    """Return HP_t = 1 - A_HF[t], or None at t = 1.

    >>> historical_preservation([[1.0, 1.0], [0.0, 1.0], [0.25, 0.0]])
    [None, 0.75]
    """
    return [None if value is None else 1 - value for value in historical_memory(memory, at)]


def rebound(memory: Matrix, at: Sequence[int] | None = None, support: Support = "common") -> list[float | None]:
    """Return FR_t = max(0, A_HF[t] - A_HF[t-1]) for every evaluated t >= 1, else None.

    `common`: both terms over the requests that the previous evaluated model had been asked to forget, so from the second
    row on. `running`: each term over its own k < t, so that a newly added request shifts the mean; from t = 3 on.

    >>> rebound([[1.0, 1.0], [0.0, 1.0], [0.25, 0.0]])
    [None, 0.25]
    """
    steps = _steps(memory, at)
    means = historical_memory(memory, at)
    rebounds: list[float | None] = [None] * len(steps)
    for step in range(1, len(steps)):
        (before, old), (_, new) = steps[step - 1], steps[step]
        pair = (
            (mean_of_known(new[:before]), mean_of_known(old[:before]))
            if support == "common"
            else (means[step], means[step - 1])
        )
        if pair[0] is not None and pair[1] is not None:
            rebounds[step] = max(0.0, pair[0] - pair[1])
    return rebounds


def task_rebound(memory: Matrix, at: Sequence[int] | None = None) -> list[list[float]]:
    """Return FR_{t,k} = max(0, A[t][k] - min_{j<=t} A[j][k]) for earlier requests k < t.

    >>> task_rebound([[1.0, 1.0], [0.0, 1.0], [0.25, 0.0]])
    [[], [0.25]]
    """
    requests = list(range(len(memory))) if at is None else list(at)
    return [
        [max(0.0, row[k] - min(memory[j][k] for j in range(len(memory)) if requests[j] <= t)) for k in range(t - 1)]
        for t, row in _steps(memory, at)
    ]


def transfer(memory: Matrix, at: Sequence[int] | None = None) -> list[float | None]:
    """Return FT_t = mean over k > t of A[0][k] - A[t][k], or None at the last request.

    >>> transfer([[1.0, 1.0, 0.5], [0.0, 0.75, 0.5], [0.0, 0.0, 0.0]])
    [0.125, 0.5]
    """
    first = memory[0]
    return [mean_of_known([first[k] - row[k] for k in range(t, len(row))]) for t, row in _steps(memory, at)]


def relative(curve: Sequence[float]) -> list[float | None]:
    """Return RU_t = U[t] / U[0] (or GU) per row, or None everywhere if U[0] is 0.

    >>> relative([0.5, 0.25])
    [1.0, 0.5]
    """
    return [value / curve[0] if curve[0] > 0 else None for value in curve]


def stability_rate(curve: Sequence[float]) -> float | None:
    """Return RSR, the mean absolute change of retain accuracy between evaluations.

    The original model is the first.

    A model that stays broken has 0, and improvement counts like loss: read it beside U[0], U[N] and `drift`.

    >>> round(stability_rate([1.0, 0.9, 1.0]), 12), stability_rate([0.3, 0.3])
    (0.1, 0.0)
    """
    return mean_of_known([abs(after - before) for before, after in pairwise(curve)])


def drift(curve: Sequence[float], at: Sequence[int] | None = None) -> tuple[float, float]:
    """Return RD = U[0] - U[N] and the least-squares slope of U over t.

    >>> drift([1.0, 0.5, 0.0])
    (1.0, -0.5)
    """
    steps = list(range(len(curve))) if at is None else list(at)
    middle, mean = sum(steps) / len(steps), sum(curve) / len(curve)
    spread = sum((t - middle) ** 2 for t in steps)
    slope = sum((t - middle) * (u - mean) for t, u in zip(steps, curve, strict=True)) / spread if spread else 0.0
    return curve[0] - curve[-1], slope


def deviation(curve: Sequence[float]) -> float:
    """Return the standard deviation of a curve.

    >>> deviation([0.0, 1.0])
    0.5
    """
    mean = sum(curve) / len(curve)
    return sqrt(sum((value - mean) ** 2 for value in curve) / len(curve))


def area(curve: Sequence[float], at: Sequence[int] | None = None) -> float:
    """Return the area under a curve by trapezoids, divided by the span of t.

    >>> area([1.0, 0.0, 0.0])
    0.25
    """
    steps = list(range(len(curve))) if at is None else list(at)
    if len(curve) == 1:
        return curve[0]
    pieces = [(b - a) * (u + v) / 2 for a, b, u, v in zip(steps, steps[1:], curve, curve[1:], strict=False)]
    return sum(pieces) / (steps[-1] - steps[0])


def overall(parts: Sequence[float]) -> float:
    """Return the harmonic mean of mean CF, HP, min(1, RU), min(1, GU), our ranking [inferred].

    >>> round(overall([1.0, 0.5]), 4), overall([1.0, 0.0])
    (0.6667, 0.0)
    """
    return harmonic_mean([max(part, 0.0) for part in parts])


def _steps(memory: Matrix, at: Sequence[int] | None) -> list[tuple[int, Sequence[float]]]:
    """Return (t, row) of the models evaluated after at least one request."""
    requests = range(len(memory)) if at is None else at
    return [(t, row) for t, row in zip(requests, memory, strict=True) if t > 0]
