"""Means and bootstrap intervals clustered by entity and image.

Shapes: r resamples, e entities.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

RESAMPLES: Final = 2000
LEVEL: Final = 0.95
"""Share of the resampled means inside an interval."""
_AT_ONCE: Final = 2**20
"""Most drawn entities that are held in memory."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One value with its entity and image."""

    entity: str
    image: str
    value: float


def entity_means(observations: Iterable[Observation]) -> dict[str, float]:
    """Return entity -> mean over its images of the mean over their questions.

    >>> entity_means([Observation(entity="p", image=i, value=v) for i, v in (("a", 0.0), ("a", 1.0), ("b", 1.0))])
    {'p': 0.75}
    """
    images: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for observation in observations:
        images[observation.entity][observation.image].append(observation.value)
    return {
        entity: _mean([_mean(values) for values in values_by_image.values()])
        for entity, values_by_image in sorted(images.items())
    }


def entity_sums(observations: Iterable[Observation]) -> dict[str, tuple[float, int]]:
    """Return entity -> sum and number of its values.

    >>> entity_sums([Observation(entity="p", image=i, value=v) for i, v in (("a", 0.0), ("a", 1.0), ("b", 1.0))])
    {'p': (2.0, 3)}
    """
    values: dict[str, list[float]] = defaultdict(list)
    for observation in observations:
        values[observation.entity].append(observation.value)
    return {entity: (sum(numbers), len(numbers)) for entity, numbers in sorted(values.items())}


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are known, or None without any.

    >>> mean_of_known([0.5, None, 1.0]), mean_of_known([None])
    (0.75, None)
    """
    present = [value for value in values if value is not None]
    return _mean(present) if present else None


def bootstrap_interval(
    values: Sequence[float], *, weights: Sequence[float] | None = None
) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of the mean over resampled entities, or None below two.

    It does not depend on the order of the entities.

    Args:
        values: Mean of each entity.
        weights: Number of its questions, for the mean over questions. Default: all alike.

    >>> bootstrap_interval([0.0, 1.0]), bootstrap_interval([0.5]), bootstrap_interval([0.5, 0.5, 0.5])
    ((0.0, 1.0), None, (0.5, 0.5))
    """
    if len(values) < 2:
        return None
    value_e = np.asarray(values, dtype=np.float64)
    weight_e = np.ones_like(value_e) if weights is None else np.asarray(weights, dtype=np.float64)
    order_e = np.lexsort((weight_e, value_e))
    total_e, weight_e = (value_e * weight_e)[order_e], weight_e[order_e]
    draws = _draws(len(values))
    means_r = np.concatenate([total_e[drawn_re].sum(axis=1) / weight_e[drawn_re].sum(axis=1) for drawn_re in draws])
    low, high = np.quantile(means_r, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for all comparisons made together (Holm, 1979: step-down Bonferroni).

    >>> holm([0.5, 0.01, 0.02])
    [0.5, 0.03, 0.04]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(order), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _draws(count: int) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of the entities of each resample, some resamples at once."""
    rng, at_once = np.random.default_rng(0), max(1, _AT_ONCE // count)
    for start in range(0, RESAMPLES, at_once):
        yield rng.integers(count, size=(min(at_once, RESAMPLES - start), count))
