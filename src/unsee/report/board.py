"""Table of a leaderboard: methods by distance to the gold model of their promise, ties and missing rows included.

Shapes: r resamples, s seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from unsee.api import Score
from unsee.metrics.statistics import holm, mean_of_known
from unsee.report.attacked import relearning_area, worst
from unsee.report.read import Stage
from unsee.report.summary import judged_role, pooled, seconds, value
from unsee.report.verdict import percent
from unsee.scoring.gold_distance import KEY, LEFT_OUT, LEVEL, MOST_LEFT_OUT, RESAMPLES, drawn_distances
from unsee.utils.grouping import by_key
from unsee.utils.markdown import table

TOLD: Final = ("clean", "leak", "degenerate")
"""Shares of answers about the forgotten that are shown."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """How the cost of unlearning is told."""

    clock: Literal["seconds", "cpu_seconds"] = "seconds"
    """Wall clock, or time of the processor, which other programs on the machine do not lengthen."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method of the leaderboard, or a model that it is compared with."""

    name: str
    promise: str
    settings: str = ""
    """Chosen settings, as text."""
    searched: str = ""
    """How many of how many settings could be judged."""
    keeps: float | None = None
    """Share that is kept of what the original keeps, on the questions of this table."""
    stage: Stage | None = None
    """Evaluated runs, one per seed, beside gold; None = nothing to show."""
    gold: Stage | None = None
    gold_seconds: float | None = None
    """Time that training this gold model takes, by the clock of the leaderboard; None = unknown."""
    seeds: tuple[int, ...] = ()
    """Seeds that all rows were to have, so that draws of seeds are paired even where one is missing. Empty: those it has."""
    reference: bool = False
    notes: tuple[str, ...] = ()
    """What must be known about this row, such as why it has no figures."""

    @property
    def left_out(self) -> float | None:
        """Share of the questions that the distance leaves out: mean over seeds, all for one without a distance."""
        scores = [run.scores[KEY] for run in (self.stage.runs if self.stage else ()) if KEY in run.scores]
        return mean_of_known([left_out(score) for score in scores])

    @property
    def remarks(self) -> tuple[str, ...]:
        """Notes, and what the distance leaves out."""
        share = self.left_out
        if not share:
            return self.notes
        return (*self.notes, f"{'not judged: ' if share > MOST_LEFT_OUT else ''}{left_out_words(share)}")

    @property
    def distance(self) -> Score | None:
        """Distance to gold: mean over seeds; the interval draws entities and seeds. None if it leaves out too much."""
        score = None if self.stage is None or (self.left_out or 0) > MOST_LEFT_OUT else pooled(self.stage, KEY)
        if score is None or score.value is None or not self.drawn_r.size:
            return score
        low, high = np.nanquantile(self.drawn_r, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Score(value=score.value, n=score.n, better="lower", interval=(float(low), float(high)))

    @cached_property
    def drawn_r(self) -> NDArray[np.float64]:
        """Distance over each draw of entities and seeds (two-way bootstrap), NaN where a draw has nothing to compare.

        Rows beside one gold model are paired: entities are drawn by name and seeds by number, also those that a row lacks.
        """
        if self.stage is None or self.gold is None or (self.left_out or 0) > MOST_LEFT_OUT:
            return np.empty(0)
        gold = self.gold.runs[0]
        found = [
            (run.seed, drawn_distances(run.responses, run.scores, gold.scores, gold.responses))
            for run in self.stage.runs
        ]
        drawn = [(seed, drawn_r) for seed, drawn_r in found if drawn_r.size]
        return _over_seeds(drawn, sorted({*map(str, self.seeds), *(seed for seed, _ in drawn)}))


def _over_seeds(drawn: Sequence[tuple[str, NDArray[np.float64]]], seeds: Sequence[str]) -> NDArray[np.float64]:
    """Return the mean over drawn seeds of each draw of entities, NaN where none of those drawn is there."""
    if not drawn:
        return np.empty(0)
    weight_rs = np.random.default_rng(1).multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=RESAMPLES)
    weight_rs = weight_rs[:, [seeds.index(seed) for seed, _ in drawn]]
    drawn_rs = np.array([drawn_r for _, drawn_r in drawn]).T
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(weight_rs > 0, weight_rs * drawn_rs, 0).sum(axis=1) / weight_rs.sum(axis=1))


def left_out(score: Score) -> float:
    """Return the share of the questions that a distance leaves out: all without a value."""
    return 1.0 if score.value is None else score.value_by_index.get(LEFT_OUT, 0.0)


def left_out_words(share: float) -> str:
    """Return what a distance leaves out, in words."""
    return (
        f"{percent(share)} of the questions have no part in the distance, as one of the models was asked otherwise or has "
        "no score for them"
    )


def ranks(rows: Sequence[Row]) -> dict[str, int]:
    """Return name -> rank of the rows that have a distance, the nearest to gold first.

    The nearest one shares its rank with all that cannot be told from it: the difference of their distances, paired over
    the same draws, has a two-sided p above 0.05 after Holm's correction for all pairs with the nearest. The others are
    ranked in the same way among themselves. [inferred]
    """
    left = sorted((row for row in rows if not row.reference and row.drawn_r.size), key=_value)
    found: dict[str, int] = {}
    while left:
        first, others = left[0], left[1:]
        p_values = holm([_p_value(row.drawn_r - first.drawn_r) for row in others])
        tied = [row for row, p in zip(others, p_values, strict=True) if p > 1 - LEVEL]
        rank = len(found) + 1
        found |= {row.name: rank for row in (first, *tied)}
        left = [row for row in others if row.name not in found]
    return found


def _value(row: Row) -> float:
    """Return the distance; only for rows that have one."""
    score = row.distance
    return float("inf") if score is None or score.value is None else score.value


def _p_value(difference_r: NDArray[np.float64]) -> float:
    """Return the two-sided bootstrap p-value of no difference, over the draws that have one."""
    difference_r = difference_r[~np.isnan(difference_r)]
    beyond = min(int((difference_r <= 0).sum()), int((difference_r >= 0).sum()))
    return min(1.0, 2 * (1 + beyond) / (1 + len(difference_r)))


def as_json(rows: Sequence[Row], cost: Cost) -> list[dict[str, Any]]:
    """Return the rows with all their figures, ranked ones first within each promise."""
    return [
        {
            "promise": row.promise,
            "rank": rank,
            "name": row.name,
            "reference": row.reference,
            "settings": row.settings,
            "searched": row.searched,
            "keeps": row.keeps,
            "seeds": len(row.stage.runs) if row.stage else 0,
            "gold_distance": None if row.distance is None else row.distance.value,
            "interval": None if row.distance is None else row.distance.interval,
            "left_out": row.left_out,
            **_shares(row),
            **_attacked(row),
            cost.clock: (lasted := took(row, cost)),
            "share_of_gold_seconds": share_of_gold(row, lasted),
            "notes": list(row.remarks),
        }
        for group in by_key((row.promise, row) for row in rows).values()
        for rank, row in ordered(group)
    ]


def markdown(rows: Sequence[Row], keep: float, kept: Sequence[str], cost: Cost) -> str:
    """Return one table per promise, and what its columns mean.

    Args:
        rows: Rows of all promises, each promise ranked by itself.
        keep: Smallest share of what the original keeps that a setting had to keep to be chosen.
        kept: Scores that this share is taken of.
        cost: How the cost of unlearning is told.
    """
    heads = [
        "rank",
        "method",
        "gold distance",
        *TOLD,
        "retained names",
        "keeps",
        "relearning area",
        "worst attack",
        "traces",
    ]
    heads += [
        cost.clock.replace("cpu_", "CPU "),
        "of gold's time",
        "seeds",
        "settings",
        "searched",
        "notes",
    ]
    parts = []
    for promise, group in by_key((row.promise, row) for row in rows).items():
        lines = [_line(row, rank, cost) for rank, row in ordered(group)]
        filled = [place for place in range(len(heads)) if any(line[place] for line in lines)]
        cells = [[line[place] for place in filled] for line in lines]
        parts += [f"### Promise: {promise}", "", table([heads[place] for place in filled], cells), ""]
    return "\n".join([*parts, *(f"- {line}" for line in legend(keep, kept))]) + "\n"


def ordered(rows: Sequence[Row]) -> Iterator[tuple[int | None, Row]]:
    """Yield rank and row: references, then by rank and distance, then those without a distance."""
    places = ranks(rows)
    last = len(rows) + 1
    for row in sorted(rows, key=lambda row: (not row.reference, places.get(row.name, last), _value(row))):
        yield places.get(row.name), row


def legend(keep: float, kept: Sequence[str]) -> Iterator[str]:
    """Yield what the columns mean, a sentence or two each."""
    yield (
        "Gold distance: 0 = answers like a model that never saw what was to be forgotten; in brackets the 95 % bootstrap interval, "
        "which draws entities and seeds."
    )
    yield (
        "Rank: methods whose distance cannot be told from that of the first one share its rank (paired bootstrap over entities and "
        "seeds, Holm's correction over all pairs with the first one, 5 %); the others are ranked in the same way among themselves. "
        "Each promise is ranked by itself."
    )
    yield (
        f"Keeps: the smallest share of what the original keeps, over {', '.join(f'`{key}`' for key in kept)}. Chosen were, on other "
        f"questions, the settings nearest to gold that keep at least {keep:.0%}; where none does, those that keep most (noted)."
    )
    yield (
        "Relearning area, worst attack: what comes back above gold (mean over the steps of the worst variant; the attack with most). "
        "Traces: what is left inside above gold, by the test that finds most (probes, patching, membership); nobody has to say it. "
        f"An empty cell was not measured. A distance that leaves out more than {MOST_LEFT_OUT:.0%} of the questions is not told."
    )


def _line(row: Row, rank: int | None, cost: Cost) -> list[str]:
    shares, attacked = _shares(row), _attacked(row)
    lasted = took(row, cost)
    found = (
        _number(attacked[f"{name}_above_gold"]) + (f" ({how})" if (how := attacked[f"{name}_attack"]) else "")
        for name in ("worst", "traces")
    )
    return [
        "" if rank is None else str(rank),
        row.name,
        _with_interval(row.distance),
        *(_number(shares[name]) for name in (*TOLD, "retained_names")),
        _number(row.keeps),
        _number(attacked["relearning_area"]),
        *found,
        "" if lasted is None else f"{lasted:.0f}",
        _percent(share_of_gold(row, lasted)),
        str(len(row.stage.runs)) if row.stage else "0",
        row.settings,
        row.searched,
        "; ".join(row.remarks),
    ]


def _shares(row: Row) -> dict[str, float | None]:
    if row.stage is None:
        return dict.fromkeys((*TOLD, "retained_names"))
    role = judged_role([row.stage])
    found = {name: value(row.stage, f"{role}.{name}") for name in TOLD}
    return {**found, "retained_names": value(row.stage, "retain.name")}


def _attacked(row: Row) -> Mapping[str, Any]:
    values: dict[str, Any] = {"relearning_area": None if row.stage is None else relearning_area(row.stage)}
    for name, finds in (("worst", "answers"), ("traces", "traces")):
        found = None if row.stage is None else worst(row.stage, finds)
        values[f"{name}_above_gold"] = None if found is None else found.above
        values[f"{name}_attack"] = "" if found is None else found.attack
    return values


def took(row: Row, cost: Cost) -> float | None:
    """Return the time that unlearning took by the clock of the leaderboard, mean over seeds."""
    return seconds(row.stage, cost.clock) if row.stage else None


def share_of_gold(row: Row, lasted: float | None) -> float | None:
    """Return a time as a share of that of training the row's gold model."""
    return None if lasted is None or row.gold_seconds is None else lasted / row.gold_seconds


def _with_interval(score: Score | None) -> str:
    if score is None or score.value is None:
        return ""
    return f"{score.value:.3f}" + (f" [{score.interval[0]:.3f}, {score.interval[1]:.3f}]" if score.interval else "")


def _number(found: float | None) -> str:
    return "" if found is None else f"{found:.2f}"


def _percent(found: float | None) -> str:
    return "" if found is None else f"{found:.0%}"
