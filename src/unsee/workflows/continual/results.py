"""Results of a sequence in `continual.json`: matrices, curves, metrics, intervals.

Metrics of ICU-Bench (arXiv 2605.05938).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
        had = {measure for row in self.samples[0] if row["k"] and row["image"] for measure in row["values"]}
        found = next((measures for measures in HEADLINES if had & set(measures)), ())
        if not found:
            raise UserError(
                "No question about the requested entities has a right answer that could be measured; the data need "
                "questions of kind name, fact, choice, cloze or general with an image, or set continual.headline."
            )
        return found

    def remembered(self, place: int, k: int, measures: Sequence[str], *, image: bool) -> Means:
        """Return entity -> recall of request k in row `place`.

        On held-out images where there are some, else on the seen ones.

        Args:
            place: Row: index into the evaluated steps.
            k: Request, from 1.
            measures: Names of the scores that count, the first that a response has.
            image: Responses to questions with an image (True) or without (False).
        """
        rows = [row for row in self.samples[place] if row["k"] == k and bool(row["image"]) == image]
        fresh = {row["entity"] for row in rows if row["role"] == Role.UNSEEN and _value(row, measures) is not None}
        return _means([row for row in rows if row["role"] == Role.UNSEEN or row["entity"] not in fresh], measures)

    def kept(self, place: int, measures: Sequence[str], roles: Sequence[Role], *, image: bool | None) -> Means:
        """Return entity -> mean over its responses, for the retain set.

        Args:
            place: Row: index into the evaluated steps.
            measures: Names of the scores that count, the first that a response has.
            roles: Roles that belong to the retain set.
            image: Responses to questions with an image (True), without (False), or all (None).
        """
        rows = [row for row in self.samples[place] if row["k"] == 0 and row["role"] in roles]
        return _means([row for row in rows if image is None or bool(row["image"]) == image], measures)

    def matrix(self, measures: Sequence[str], *, image: bool = True) -> list[list[float | None]]:
        """Return A: one row per evaluated model, one column per request. None without questions."""
        return [
            [mean_of_known(self.remembered(place, k, measures, image=image).values()) for k in range(1, self.count + 1)]
            for place in range(len(self.at))
        ]

    def curve(self, measures: Sequence[str], *roles: Role, image: bool | None = True) -> Curve | None:
        """Return the mean over retain entities per evaluated model, or None if the original model has no value.

        A later model of which no answer can be judged has None in its place.
        """
        found = [
            mean_of_known(self.kept(place, measures, roles, image=image).values()) for place in range(len(self.at))
        ]
        return None if found[0] is None else found

    def share(self, place: int, measure: str, keep: Callable[[Sample], bool]) -> float | None:
        """Return the mean of a measure over some responses."""
        rows = (row for row in self.samples[place] if measure in row["values"] and keep(row))
        return mean_of_known(row["values"][measure] for row in rows)


def document(judged: Judged, *, support: metrics.Support, oracle: Sequence[float] | None = None) -> dict[str, Any]:
    """Return all of `continual.json` that follows from the responses."""
    required_matrix(judged)
    memory = judged.matrix(judged.counts)
    utility = judged.curve(judged.counts, Role.RETAIN)
    general = judged.curve(("accuracy",), Role.GENERAL, image=None)
    found: dict[str, Any] = {
        "at": list(judged.at),
        "headline": list(judged.counts),
        "A": memory,
        "A_text": judged.matrix(judged.counts, image=False),
        "parts": {measure: judged.matrix((measure,)) for measure in PARTS if _known(judged, measure)},
        "U": utility,
        "U_text": judged.curve(judged.counts, Role.RETAIN_TEXT, image=False),
        "G": general,
        "Q": [_quality(judged, place) for place in range(len(judged.at))],
        "aftermath": [_aftermath(judged, place) for place in range(len(judged.at))],
        "metrics": _curves(memory, utility, general, judged.at, support, oracle),
        "missing": _missing(judged, {"kept people (U)": utility, "unrelated questions (G)": general}),
        "fr_support": support,
    }
    return {**found, "summary": summary(found["metrics"], judged.at), "ci": intervals(judged, support)}


def required_matrix(judged: Judged) -> list[list[float]]:
    """Return the rows of A without a gap, or raise if a request has no question that measures it in the first."""
    memory = judged.matrix(judged.counts)
    if None in memory[0]:
        raise UserError(
            f"Request {memory[0].index(None) + 1} has no judged question with an image that measures "
            f"{' or '.join(judged.counts)}; set continual.headline to something that all requests have."
        )
    return _whole(memory)[1]


def _whole(memory: Sequence[Curve]) -> tuple[list[int], list[list[float]]]:
    """Return places and rows of the models of which every request could be judged."""
    places = [place for place, row in enumerate(memory) if None not in row]
    return places, [[value for value in memory[place] if value is not None] for place in places]


def _missing(judged: Judged, curves: Mapping[str, Curve | None]) -> list[str]:
    """Return what could not be judged of later models, a sentence each."""
    memory = judged.matrix(judged.counts)
    columns = {f"request {k + 1}": [row[k] for row in memory] for k in range(judged.count)}
    return [
        f"{what} after {judged.at[place]} requests: no answer to its questions can be judged"
        for what, curve in {**columns, **curves}.items()
        for place, value in enumerate(curve or ())
        if value is None
    ]


def _curves(
    memory: Sequence[Curve],
    utility: Curve | None,
    general: Curve | None,
    at: Sequence[int],
    support: metrics.Support,
    oracle: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Return every metric as a list over evaluated t >= 1 (RU, GU: all rows), or a number.

    A model of which some request could not be judged has None everywhere: a mean over fewer requests is another measure.
    """
    places, rows = _whole(memory)
    steps = [at[place] for place in places]
    apart = metrics.task_rebound(rows, steps)
    made: dict[str, Curve] = {
        "CF": metrics.current_forgetting(rows, steps),
        "HP": metrics.historical_preservation(rows, steps),
        "A_HF": metrics.historical_memory(rows, steps),
        "FR": metrics.rebound(rows, steps, support),
        "FR_task_mean": [sum(row) / len(row) if row else None for row in apart],
        "FR_task_max": [max(row) if row else None for row in apart],
        "FT": metrics.transfer(rows, steps),
    }
    if oracle is not None:
        made["nCF"] = metrics.normalised_forgetting(rows, oracle, steps)
    found: dict[str, Any] = {name: _spread(curve, places[1:], len(at))[1:] for name, curve in made.items()}
    if utility:
        found |= {"RU": _relative(utility), **_stability(utility, at)}
    return found | ({"GU": _relative(general)} if general else {})


def _spread(values: Curve, places: Sequence[int], count: int) -> list[float | None]:
    """Return `count` values, those given in their places and None elsewhere."""
    known = dict(zip(places, values, strict=True))
    return [known.get(place) for place in range(count)]


def _relative(curve: Curve) -> list[float | None]:
    """Return a curve as a share of its first value, None where it is None."""
    known = {place: value for place, value in enumerate(curve) if value is not None}
    return _spread(metrics.relative(list(known.values())), list(known), len(curve))


def _stability(utility: Curve, at: Sequence[int]) -> dict[str, float | None]:
    """Return RSR, RD and the slope of RD, or None for all if a value is missing."""
    known = [value for value in utility if value is not None]
    if len(known) < len(utility):
        return dict.fromkeys(("RSR", "RD", "RD_slope"))
    lost, slope = metrics.drift(known, at)
    return {"RSR": metrics.stability_rate(known), "RD": lost, "RD_slope": slope}


def summary(found: Mapping[str, Any], at: Sequence[int]) -> dict[str, float | None]:
    """Return one number per metric: means of the curves, and our ranking [inferred].

    Of CF, HP and RU also deviation and area, which counts a stretch of t in which nothing was judged by its length.
    """
    rebounds = [value for value in found["FR"] if value is not None]
    numbers = {
        name: mean_of_known(found[name]) for name in ("CF", "HP", "FR", "FR_task_mean", "FT", "nCF") if name in found
    }
    numbers |= {
        "FR_max": max(rebounds, default=None),
        "FR_share": sum(value > 0.01 for value in rebounds) / len(rebounds) if rebounds else None,
        "HP_last": found["HP"][-1],
        "FR_task_max": max((value for value in found["FR_task_max"] if value is not None), default=None),
    }
    for name in ("RU", "GU"):
        if name in found:
            after = [min(1.0, value) for value in found[name][1:] if value is not None]
            numbers |= {name: mean_of_known(after), f"{name}_last": found[name][-1]}
    for name in ("CF", "HP", "RU"):
        if name in found:
            numbers |= _steadiness(name, found[name], at[-len(found[name]) :])
    numbers |= {name: found[name] for name in ("RSR", "RD", "RD_slope") if name in found}
    return {**numbers, "overall": _overall(numbers, found)}


def _overall(numbers: Mapping[str, float | None], found: Mapping[str, Any]) -> float | None:
    """Return our ranking, or None if something that the original model had could not be judged later."""
    had = [found["CF"], *(found[name] for name in ("RU", "GU") if name in found and found[name][0] is not None)]
    if any(None in curve for curve in had):
        return None
    parts = [numbers.get(name) for name in ("CF", "HP", "RU", "GU")]
    return metrics.overall([part for part in parts if part is not None])


def _steadiness(name: str, curve: Sequence[float | None], at: Sequence[int]) -> dict[str, float | None]:
    """Return deviation and area of a curve where it is defined."""
    known = [(t, value) for t, value in zip(at, curve, strict=True) if value is not None]
    steps, values = [t for t, _ in known], [value for _, value in known]
    return {
        f"{name}_std": metrics.deviation(values) if values else None,
        f"{name}_area": metrics.area(values, steps) if values else None,
    }


def intervals(judged: Judged, support: metrics.Support) -> dict[str, tuple[float, float]] | None:
    """Return 95 % percentile intervals of the summary, resampling entities that could be judged at every step.

    Within each request and within the retain set.

    None if no request has two entities, since then only several orders can say how sure a number is, or if one has none.
    """
    places = _whole(judged.matrix(judged.counts))[0]
    tables = {
        place: [judged.remembered(place, k, judged.counts, image=True) for k in range(1, judged.count + 1)]
        for place in places
    }
    entities = [_common([row[k] for row in tables.values()]) for k in range(judged.count)]
    if not all(entities) or all(len(group) < 2 for group in entities):
        return None
    kept = [judged.kept(place, judged.counts, (Role.RETAIN,), image=True) for place in range(len(judged.at))]
    people = _common([row for row in kept if row]) if kept[0] else []
    general = judged.curve(("accuracy",), Role.GENERAL, image=None)
    draws = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = [[str(name) for name in draws.choice(group, len(group))] for group in entities]
        memory = [
            [_mean(tables[place][k], group) if place in tables else None for k, group in enumerate(chosen)]
            for place in range(len(judged.at))
        ]
        names = [str(name) for name in draws.choice(people, len(people))] if people else []
        utility = [_mean(row, names) if row else None for row in kept] if names else None
        drawn.append(summary(_curves(memory, utility, general, judged.at, support), judged.at))
    unknown = {"overall"} if kept[0] and not people else set()  # it would lack the utility
    return {
        name: _percentiles([one[name] for one in drawn])
        for name in drawn[0]
        if name not in unknown and None not in [one[name] for one in drawn]
    }


def _common(rows: Sequence[Means]) -> list[str]:
    """Return the entities that have a value in every row."""
    return sorted(set.intersection(*map(set, rows)))


def _mean(row: Means, names: Sequence[str]) -> float:
    return float(np.mean([row[name] for name in names]))


def _percentiles(values: Sequence[float | None]) -> tuple[float, float]:
    low, high = np.quantile(np.asarray(values, dtype=np.float64), (0.025, 0.975))
    return float(low), float(high)


def _quality(judged: Judged, place: int) -> dict[str, float | None]:
    """Return language quality on the retain set: empty, repetitive, refusing, gibberish."""

    def kept(row: Sample) -> bool:
        return row["k"] == 0 and row["role"] == Role.RETAIN

    return {
        "empty": judged.share(place, "empty", _any),
        "repetition": judged.share(place, "rep4", _any),
        "refusal_on_retain": judged.share(place, "refusal", kept),
        "degenerate_on_retain": judged.share(place, "degenerate", kept),
    }


def _aftermath(judged: Judged, place: int) -> dict[str, float | None]:
    """Return the classes of responses about all requested entities so far."""
    t = judged.at[place]
    fresh = any(row["role"] == Role.UNSEEN for row in judged.samples[place])
    wanted = Role.UNSEEN if fresh else Role.FORGET
    return {
        name: judged.share(place, name, lambda row: 0 < row["k"] <= t and row["role"] == wanted) for name in CLASSES
    }


def _any(_: Sample) -> bool:
    return True


def _known(judged: Judged, measure: str) -> bool:
    return any(row["k"] and row["image"] and measure in row["values"] for row in judged.samples[0])


def _value(row: Sample, measures: Sequence[str]) -> float | None:
    return next((row["values"][measure] for measure in measures if measure in row["values"]), None)


def _means(rows: Sequence[Sample], measures: Sequence[str]) -> Means:
    """Return entity -> mean over its images of the mean over their questions."""
    valued = [(row, _value(row, measures)) for row in rows]
    return entity_means(
        Observation(entity=row["entity"], image=row["image"], value=value) for row, value in valued if value is not None
    )
