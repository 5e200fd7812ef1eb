"""Results of a sequence in `continual.json`: matrices, curves, metrics, intervals.

Metrics of ICU-Bench (arXiv 2605.05938).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from unsee.api import Role
from unsee.errors import UserError
from unsee.metrics import continual as metrics
from unsee.metrics.statistics import Observation, entity_means, mean_of_known

PROTOCOL: Final = "icu_style/1"
HEADLINES: Final = (("name", "fact"), ("choice",), ("cloze",), ("accuracy",), ("rougeL_recall",))
"""Measures of remembering, by preference."""
PARTS: Final = ("name", "fact", "choice", "cloze", "chain.answer", "accuracy", "rougeL_recall", "leak")
CLASSES: Final = ("leak", "degenerate", "hallucination", "refusal", "uninformative", "clean")
RESAMPLES: Final = 500

Sample = Mapping[str, Any]
Means = dict[str, float]
"""Entity -> mean."""
Curve = Sequence[float | None]
"""One value per evaluated model, None where no answer could be judged."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Values of all responses after each evaluated number of requests."""

    at: tuple[int, ...]
    """Numbers of requests; the first is 0, the original model."""
    samples: tuple[Sequence[Sample], ...]
    count: int
    """Total number of requests."""
    headline: tuple[str, ...] = ()
    """Measures of remembering; none = by preference."""

    @property
    def counts(self) -> tuple[str, ...]:
        """Measures of remembering that are used."""
        if self.headline:
            return self.headline
        known_measures = {measure for row in self.samples[0] if row["k"] and row["image"] for measure in row["values"]}
        headline = next((measures for measures in HEADLINES if known_measures & set(measures)), ())
        if not headline:
            raise UserError(
                "No question about the requested entities has a right answer that could be measured; the data need "
                "questions of kind name, fact, choice, cloze or general with an image, or set continual.headline."
            )
        return headline

    def recall_by_entity(self, model_index: int, k: int, measures: Sequence[str], *, image: bool) -> Means:
        """Return entity -> recall of request k for an evaluated model.

        On held-out images if there are any, else on the training images.

        Args:
            model_index: Index into the evaluated models, the row of the matrix.
            k: Request, from 1.
            measures: Names of the scores that count, the first that a response has.
            image: Responses to questions with an image (True) or without (False).
        """
        rows = [row for row in self.samples[model_index] if row["k"] == k and bool(row["image"]) == image]
        held_out_entities = {
            row["entity"] for row in rows if row["role"] == Role.UNSEEN and _value(row, measures) is not None
        }
        return _means(
            [row for row in rows if row["role"] == Role.UNSEEN or row["entity"] not in held_out_entities], measures
        )

    def retain_means(
        self, model_index: int, measures: Sequence[str], roles: Sequence[Role], *, image: bool | None
    ) -> Means:
        """Return entity -> mean over its responses, for the retain set.

        Args:
            model_index: Index into the evaluated models, the row of the matrix.
            measures: Names of the scores that count, the first that a response has.
            roles: Roles that belong to the retain set.
            image: Responses to questions with an image (True), without (False), or all (None).
        """
        rows = [row for row in self.samples[model_index] if row["k"] == 0 and row["role"] in roles]
        return _means([row for row in rows if image is None or bool(row["image"]) == image], measures)

    def matrix(self, measures: Sequence[str], *, image: bool = True) -> list[list[float | None]]:
        """Return A: one row per evaluated model, one column per request. None without questions."""
        return [
            [
                mean_of_known(self.recall_by_entity(model_index, k, measures, image=image).values())
                for k in range(1, self.count + 1)
            ]
            for model_index in range(len(self.at))
        ]

    @cached_property
    def memory(self) -> list[list[float | None]]:
        """Matrix A by the measures of remembering."""
        return self.matrix(self.counts)

    def curve(self, measures: Sequence[str], *roles: Role, image: bool | None = True) -> Curve | None:
        """Return the mean over retain entities per evaluated model.

        None if the original model has no value. A later model without judgeable answers has None at its index.
        """
        means = [
            mean_of_known(self.retain_means(model_index, measures, roles, image=image).values())
            for model_index in range(len(self.at))
        ]
        return None if means[0] is None else means

    def share(self, model_index: int, measure: str, keep: Callable[[Sample], bool]) -> float | None:
        """Return the mean of a measure over some responses."""
        rows = (row for row in self.samples[model_index] if measure in row["values"] and keep(row))
        return mean_of_known(row["values"][measure] for row in rows)


def document(judged: Judged, *, support: metrics.Support, oracle: Sequence[float] | None = None) -> dict[str, Any]:
    """Return all of `continual.json` that follows from the responses."""
    required_matrix(judged)
    memory = judged.memory
    utility = judged.curve(judged.counts, Role.RETAIN)
    general = judged.curve(("accuracy",), Role.GENERAL, image=None)
    contents: dict[str, Any] = {
        "at": list(judged.at),
        "headline": list(judged.counts),
        "A": memory,
        "A_text": judged.matrix(judged.counts, image=False),
        "parts": {measure: judged.matrix((measure,)) for measure in PARTS if _has_measure(judged, measure)},
        "U": utility,
        "U_text": judged.curve(judged.counts, Role.RETAIN_TEXT, image=False),
        "G": general,
        "Q": [_quality(judged, model_index) for model_index in range(len(judged.at))],
        "aftermath": [_aftermath(judged, model_index) for model_index in range(len(judged.at))],
        "metrics": _curves(memory, utility, general, judged.at, support, oracle),
        "missing": _missing(judged, {"kept people (U)": utility, "unrelated questions (G)": general}),
        "fr_support": support,
    }
    return {**contents, "summary": summary(contents["metrics"], judged.at), "ci": intervals(judged, support)}


def required_matrix(judged: Judged) -> list[list[float]]:
    """Return the rows of A without gaps, or raise if its first row has one."""
    memory = judged.memory
    if None in memory[0]:
        raise UserError(
            f"Request {memory[0].index(None) + 1} has no judged question with an image that measures "
            f"{' or '.join(judged.counts)}; set continual.headline to something that all requests have."
        )
    return _complete_rows(memory)[1]


def _complete_rows(memory: Sequence[Curve]) -> tuple[list[int], list[list[float]]]:
    """Return indices and rows of the models for which every request could be judged."""
    model_indices = [model_index for model_index, row in enumerate(memory) if None not in row]
    return model_indices, [
        [value for value in memory[model_index] if value is not None] for model_index in model_indices
    ]


def _missing(judged: Judged, curves: Mapping[str, Curve | None]) -> list[str]:
    """Return a sentence for every value of a later model that could not be judged, and for shares of nothing."""
    columns = {f"request {k + 1}": [row[k] for row in judged.memory] for k in range(judged.count)}
    unjudged = [
        f"{name} after {judged.at[model_index]} requests: no answer to its questions can be judged"
        for name, curve in {**columns, **curves}.items()
        for model_index, value in enumerate(curve or ())
        if value is None
    ]
    return unjudged + [
        f"what is left of {name}, also in `overall`: the original model answers none of its questions right"
        for name, curve in curves.items()
        if curve and curve[0] == 0
    ]


def _curves(
    memory: Sequence[Curve],
    utility: Curve | None,
    general: Curve | None,
    request_counts: Sequence[int],
    support: metrics.Support,
    oracle: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Return every metric as a list over evaluated t >= 1 (RU, GU: all rows), or a number.

    A model with a request that could not be judged has None everywhere: a mean over fewer requests is another measure.
    """
    model_indices, rows = _complete_rows(memory)
    steps = [request_counts[model_index] for model_index in model_indices]
    task_rebounds = metrics.task_rebound(rows, steps)
    curves: dict[str, Curve] = {
        "CF": metrics.current_forgetting(rows, steps),
        "HP": metrics.historical_preservation(rows, steps),
        "A_HF": metrics.historical_memory(rows, steps),
        "FR": metrics.rebound(rows, steps, support),
        "FR_task_mean": [sum(row) / len(row) if row else None for row in task_rebounds],
        "FR_task_max": [max(row) if row else None for row in task_rebounds],
        "FT": metrics.transfer(rows, steps),
    }
    if oracle is not None:
        curves["nCF"] = metrics.normalised_forgetting(rows, oracle, steps)
    metric_values: dict[str, Any] = {
        name: _spread(curve, model_indices[1:], len(request_counts))[1:] for name, curve in curves.items()
    }
    if utility:
        metric_values |= {"RU": _relative(utility), **_stability(utility, request_counts)}
    return metric_values | ({"GU": _relative(general)} if general else {})


def _spread(values: Curve, indices: Sequence[int], count: int) -> list[float | None]:
    """Return `count` values: the given ones at their indices, None elsewhere."""
    value_by_index = dict(zip(indices, values, strict=True))
    return [value_by_index.get(index) for index in range(count)]


def _relative(curve: Curve) -> list[float | None]:
    """Return a curve as a share of its first value, None where it is None."""
    known_values = {index: value for index, value in enumerate(curve) if value is not None}
    return _spread(metrics.relative(list(known_values.values())), list(known_values), len(curve))


def _stability(utility: Curve, request_counts: Sequence[int]) -> dict[str, float | None]:
    """Return RSR, RD and the slope of RD, or None for all if a value is missing."""
    known_values = [value for value in utility if value is not None]
    if len(known_values) < len(utility):
        return dict.fromkeys(("RSR", "RD", "RD_slope"))
    drift, slope = metrics.drift(known_values, request_counts)
    return {"RSR": metrics.stability_rate(known_values), "RD": drift, "RD_slope": slope}


def summary(metric_values: Mapping[str, Any], request_counts: Sequence[int]) -> dict[str, float | None]:
    """Return one number per metric: means of the curves, and our ranking [inferred].

    Of CF, HP and RU also deviation and area, which counts a stretch of t in which nothing was judged by its length.
    """
    rebounds = [value for value in metric_values["FR"] if value is not None]
    numbers = {
        name: mean_of_known(metric_values[name])
        for name in ("CF", "HP", "FR", "FR_task_mean", "FT", "nCF")
        if name in metric_values
    }
    numbers |= {
        "FR_max": max(rebounds, default=None),
        "FR_share": sum(value > 0.01 for value in rebounds) / len(rebounds) if rebounds else None,
        "HP_last": metric_values["HP"][-1],
        "FR_task_max": max((value for value in metric_values["FR_task_max"] if value is not None), default=None),
    }
    for name in ("RU", "GU"):
        if name in metric_values:
            later_values = [min(1.0, value) for value in metric_values[name][1:] if value is not None]
            numbers |= {name: mean_of_known(later_values), f"{name}_last": metric_values[name][-1]}
    for name in ("CF", "HP", "RU"):
        if name in metric_values:
            numbers |= _steadiness(name, metric_values[name], request_counts[-len(metric_values[name]) :])
    numbers |= {name: metric_values[name] for name in ("RSR", "RD", "RD_slope") if name in metric_values}
    return {**numbers, "overall": _overall(numbers, metric_values)}


def _overall(numbers: Mapping[str, float | None], metric_values: Mapping[str, Any]) -> float | None:
    """Return our ranking, or None if a measure of the original model is missing later."""
    curves = [
        metric_values["CF"],
        *(metric_values[name] for name in ("RU", "GU") if name in metric_values and metric_values[name][0] is not None),
    ]
    if any(None in curve for curve in curves):
        return None
    parts = [numbers.get(name) for name in ("CF", "HP", "RU", "GU")]
    return metrics.overall([part for part in parts if part is not None])


def _steadiness(name: str, curve: Sequence[float | None], request_counts: Sequence[int]) -> dict[str, float | None]:
    """Return deviation and area of a curve where it is defined."""
    points = [(t, value) for t, value in zip(request_counts, curve, strict=True) if value is not None]
    steps, values = [t for t, _ in points], [value for _, value in points]
    return {
        f"{name}_std": metrics.deviation(values) if values else None,
        f"{name}_area": metrics.area(values, steps) if values else None,
    }


def intervals(judged: Judged, support: metrics.Support) -> dict[str, tuple[float, float]] | None:
    """Return 95 % percentile intervals of the summary, resampling entities.

    Entities that could be judged at every step are resampled within each request and within the retain set.

    None if no request has two such entities (only several orders can then give the uncertainty), or if one has none.
    """
    model_indices = _complete_rows(judged.memory)[0]
    means_by_model = {
        model_index: [
            judged.recall_by_entity(model_index, k, judged.counts, image=True) for k in range(1, judged.count + 1)
        ]
        for model_index in model_indices
    }
    entities = [_common([row[k] for row in means_by_model.values()]) for k in range(judged.count)]
    if not all(entities) or all(len(group) < 2 for group in entities):
        return None
    retain_means = [
        judged.retain_means(model_index, judged.counts, (Role.RETAIN,), image=True)
        for model_index in range(len(judged.at))
    ]
    retain_entities = _common([row for row in retain_means if row]) if retain_means[0] else []
    general = judged.curve(("accuracy",), Role.GENERAL, image=None)
    rng = np.random.default_rng(0)
    summaries = []
    for _ in range(RESAMPLES):
        sampled_entities = [[str(name) for name in rng.choice(group, len(group))] for group in entities]
        memory = [
            [
                _mean(means_by_model[model_index][k], group) if model_index in means_by_model else None
                for k, group in enumerate(sampled_entities)
            ]
            for model_index in range(len(judged.at))
        ]
        sampled_retain = (
            [str(name) for name in rng.choice(retain_entities, len(retain_entities))] if retain_entities else []
        )
        utility = [_mean(row, sampled_retain) if row else None for row in retain_means] if sampled_retain else None
        summaries.append(summary(_curves(memory, utility, general, judged.at, support), judged.at))
    # without retain entities, `overall` would not include the utility
    unknown_names = {"overall"} if retain_means[0] and not retain_entities else set()
    return {
        name: _percentiles([numbers[name] for numbers in summaries])
        for name in summaries[0]
        if name not in unknown_names and None not in [numbers[name] for numbers in summaries]
    }


def _common(rows: Sequence[Means]) -> list[str]:
    """Return the entities that have a value in every row."""
    return sorted(set.intersection(*map(set, rows)))


def _mean(row: Means, names: Sequence[str]) -> float:
    return float(np.mean([row[name] for name in names]))


def _percentiles(values: Sequence[float | None]) -> tuple[float, float]:
    low, high = np.quantile(np.asarray(values, dtype=np.float64), (0.025, 0.975))
    return float(low), float(high)


def _quality(judged: Judged, model_index: int) -> dict[str, float | None]:
    """Return shares of empty, repetitive, refusing and degenerate responses."""

    def kept(row: Sample) -> bool:
        return row["k"] == 0 and row["role"] == Role.RETAIN

    return {
        "empty": judged.share(model_index, "empty", _any),
        "repetition": judged.share(model_index, "rep4", _any),
        "refusal_on_retain": judged.share(model_index, "refusal", kept),
        "degenerate_on_retain": judged.share(model_index, "degenerate", kept),
    }


def _aftermath(judged: Judged, model_index: int) -> dict[str, float | None]:
    """Return the classes of responses about all requested entities so far.

    On held-out images of the entities that have any, else on their training images.
    """
    t = judged.at[model_index]
    held_out_entities = {row["entity"] for row in judged.samples[model_index] if row["role"] == Role.UNSEEN}

    def requested(row: Sample) -> bool:
        role = Role.UNSEEN if row["entity"] in held_out_entities else Role.FORGET
        return 0 < row["k"] <= t and row["role"] == role

    return {name: judged.share(model_index, name, requested) for name in CLASSES}


def _any(_: Sample) -> bool:
    return True


def _has_measure(judged: Judged, measure: str) -> bool:
    return any(row["k"] and row["image"] and measure in row["values"] for row in judged.samples[0])


def _value(row: Sample, measures: Sequence[str]) -> float | None:
    return next((row["values"][measure] for measure in measures if measure in row["values"]), None)


def _means(rows: Sequence[Sample], measures: Sequence[str]) -> Means:
    """Return entity -> mean over its images of the mean over their questions."""
    row_values = [(row, _value(row, measures)) for row in rows]
    return entity_means(
        Observation(entity=row["entity"], image=row["image"], value=value)
        for row, value in row_values
        if value is not None
    )
