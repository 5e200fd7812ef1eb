"""Table of a leaderboard: methods by distance to the gold model of their promise.

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
from unsee.report.attacked import relearning_area, without_area, worst
from unsee.report.read import Stage
from unsee.report.summary import interval_text, judged_role, pooled_score, runs_with, seconds, some_seeds, value
from unsee.report.verdict import percent
from unsee.scoring.gold_distance import KEY, LEFT_OUT, LEVEL, MOST_LEFT_OUT, RESAMPLES, drawn_distances
from unsee.utils.grouping import by_key
from unsee.utils.markdown import table

TOLD: Final = ("clean", "leak", "degenerate")
"""Response classes of the forget questions that are shown as shares."""
_WORST: Final = {"worst": "answers", "traces": "traces"}
"""Figure of the attack that finds most -> its target."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Measure of the cost of unlearning."""

    clock: Literal["seconds", "cpu_seconds"] = "seconds"
    """Wall-clock time, or CPU time, which other programs on the machine do not lengthen."""


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
    """Smallest share of the original's retain scores that is kept, on the questions of this table."""
    stage: Stage | None = None
    """Evaluated runs, one per seed, beside gold; None = nothing to show."""
    gold: Stage | None = None
    gold_seconds: float | None = None
    """Time that training this gold model takes, by the clock of the leaderboard; None = unknown."""
    seeds: tuple[int, ...] = ()
    """Seeds planned for all rows, so that resampled seeds stay paired where one is missing. Empty: the seeds of this row."""
    reference: bool = False
    notes: tuple[str, ...] = ()
    """Remarks on this row, such as why it has no figures."""

    @property
    def left_out(self) -> float | None:
        """Share of questions left out of the distance: mean over seeds, 1 without a distance."""
        scores = [run.scores[KEY] for run in (self.stage.runs if self.stage else ()) if KEY in run.scores]
        return mean_of_known([left_out(score) for score in scores])

    @property
    def remarks(self) -> tuple[str, ...]:
        """Notes, what only some seeds have, and what the distance leaves out."""
        share = self.left_out
        notes = [*self.notes, *_some_seeds(self.stage), *_some_attacked_seeds(self.stage)]
        if share:
            notes.append(f"{'not judged: ' if share > MOST_LEFT_OUT else ''}{left_out_words(share)}")
        return tuple(notes)

    @cached_property
    def distance(self) -> Score | None:
        """Distance to gold: mean over seeds, with interval. None if it leaves out too much."""
        score = None if self.stage is None or (self.left_out or 0) > MOST_LEFT_OUT else pooled_score(self.stage, KEY)
        if score is None or score.value is None or not self.drawn_r.size:
            return score
        low, high = np.nanquantile(self.drawn_r, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Score(value=score.value, n=score.n, better="lower", interval=(float(low), float(high)))

    @cached_property
    def drawn_r(self) -> NDArray[np.float64]:
        """Distance per draw of entities and seeds (two-way bootstrap), NaN if undefined.

        Rows beside one gold model are paired: entities are drawn by name and seeds by number, also those that a row lacks.
        Empty where a seed's distance compares fewer than two entities in a half.
        """
        if self.stage is None or self.gold is None or (self.left_out or 0) > MOST_LEFT_OUT:
            return np.empty(0)
        gold_run = self.gold.runs[0]
        draws = [
            (run.seed, drawn_distances(run.responses, run.scores, gold_run.scores, gold_run.responses))
            for run in runs_with(self.stage, KEY)
        ]
        if not all(drawn_r.size for _, drawn_r in draws):
            return np.empty(0)
        return _over_seeds(draws, sorted({*map(str, self.seeds), *(seed for seed, _ in draws)}))


def _over_seeds(draws: Sequence[tuple[str, NDArray[np.float64]]], seeds: Sequence[str]) -> NDArray[np.float64]:
    """Return the mean distance over the drawn seeds per resample, NaN if none was run."""
    if not draws:
        return np.empty(0)
    weight_rs = np.random.default_rng(1).multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=RESAMPLES)
    weight_rs = weight_rs[:, [seeds.index(seed) for seed, _ in draws]]
    drawn_rs = np.array([drawn_r for _, drawn_r in draws]).T
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(weight_rs > 0, weight_rs * drawn_rs, 0).sum(axis=1) / weight_rs.sum(axis=1))


def _some_seeds(stage: Stage | None) -> Iterator[str]:
    """Yield the shares that some seeds lack, with the number of those that have them."""
    if stage is None:
        return
    for name, key in _share_keys(stage).items():
        if seeds := some_seeds(len(runs_with(stage, key)), stage):
            yield f"{name} of {seeds}"


def _some_attacked_seeds(stage: Stage | None) -> Iterator[str]:
    """Yield the figures of attacks that some attacked seeds lack, with the number of those that have them."""
    if stage is None:
        return
    attacked_count = _attacked_count(stage)
    if reasons := without_area(stage):
        whole = f"relearning area of {attacked_count - len(reasons)} of {attacked_count} attacked seeds"
        yield f"{whole}: {'; '.join(dict.fromkeys(reasons))}"
    for name, kind in _WORST.items():
        finding = worst(stage, kind)
        if finding is not None and finding.measured < attacked_count:
            yield f"{name} ({finding.attack}) of {finding.measured} of {attacked_count} attacked seeds"


def _attacked_count(stage: Stage) -> int:
    return sum(bool(run.attacks) for run in stage.runs)


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
    remaining = sorted((row for row in rows if not row.reference and row.drawn_r.size), key=_value)
    rank_by_name: dict[str, int] = {}
    while remaining:
        first, others = remaining[0], remaining[1:]
        p_values = holm([_p_value(row.drawn_r - first.drawn_r) for row in others])
        tied = [row for row, p in zip(others, p_values, strict=True) if p > 1 - LEVEL]
        rank = len(rank_by_name) + 1
        rank_by_name |= {row.name: rank for row in (first, *tied)}
        remaining = [row for row in others if row.name not in rank_by_name]
    return rank_by_name


def _value(row: Row) -> float:
    """Return the distance, or infinity without one."""
    score = row.distance
    return float("inf") if score is None or score.value is None else score.value


def _p_value(difference_r: NDArray[np.float64]) -> float:
    """Return the two-sided bootstrap p-value of no difference, over the draws that have one."""
    difference_r = difference_r[~np.isnan(difference_r)]
    tail_count = min(int((difference_r <= 0).sum()), int((difference_r >= 0).sum()))
    return min(1.0, 2 * (1 + tail_count) / (1 + len(difference_r)))


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
            **_attack_figures(row),
            "attacked_seeds": _attacked_count(row.stage) if row.stage else 0,
            cost.clock: (duration := took(row, cost)),
            "share_of_gold_seconds": share_of_gold(row, duration),
            "notes": list(row.remarks),
        }
        for group in by_key((row.promise, row) for row in rows).values()
        for rank, row in rows_in_order(group)
    ]


def markdown(rows: Sequence[Row], min_kept: float, score_keys: Sequence[str], cost: Cost) -> str:
    """Return one table per promise, and what its columns mean.

    Args:
        rows: Rows of all promises, each promise ranked by itself.
        min_kept: Smallest share of what the original keeps that a setting had to keep to be chosen.
        score_keys: Keys of the scores that this share is taken of.
        cost: Measure of the cost of unlearning.
    """
    header = [
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
    header += [
        cost.clock.replace("cpu_", "CPU "),
        "of gold's time",
        "seeds",
        "settings",
        "searched",
        "notes",
    ]
    parts = []
    for promise, group in by_key((row.promise, row) for row in rows).items():
        table_rows = [_line(row, rank, cost) for rank, row in rows_in_order(group)]
        filled_columns = [column for column in range(len(header)) if any(cells[column] for cells in table_rows)]
        filled_rows = [[cells[column] for column in filled_columns] for cells in table_rows]
        parts += [f"### Promise: {promise}", "", table([header[column] for column in filled_columns], filled_rows), ""]
    return "\n".join([*parts, *(f"- {line}" for line in legend(min_kept, score_keys))]) + "\n"


def rows_in_order(rows: Sequence[Row]) -> Iterator[tuple[int | None, Row]]:
    """Yield rank and row: references, then by rank and distance, then rows without a distance."""
    rank_by_name = ranks(rows)
    last_rank = len(rows) + 1
    for row in sorted(rows, key=lambda row: (not row.reference, rank_by_name.get(row.name, last_rank), _value(row))):
        yield rank_by_name.get(row.name), row


def legend(min_kept: float, score_keys: Sequence[str]) -> Iterator[str]:
    """Yield the meaning of the columns, in a sentence or two each."""
    yield (
        "Gold distance: 0 = answers like a model that never saw what was to be forgotten; in brackets the 95 % bootstrap interval, "
        "which draws entities and seeds."
    )
    yield (
        "Rank: methods whose distance cannot be told from that of the first one share its rank (paired bootstrap over entities and "
        "seeds, Holm's correction over all pairs with the first one, 5 %); the others are ranked in the same way among themselves. "
        "Each promise is ranked by itself. One forgotten entity alone gives neither interval nor rank."
    )
    yield (
        f"Keeps: the smallest share of what the original keeps, over {', '.join(f'`{key}`' for key in score_keys)}. Chosen were, on other "
        f"questions, the settings nearest to gold that keep at least {min_kept:.0%}; where none does, those that keep most (noted)."
    )
    yield (
        "Relearning area, worst attack: what comes back above gold (mean over the attacked seeds, and over the steps of the worst variant; "
        "the attack with most), with what the model says unattacked. A seed whose answers cannot be judged at one of the steps has no area. "
        "Traces: what is left inside above gold, by the test that finds most (probes, patching, membership); nobody has to say it. "
        f"An empty cell was not measured. A distance that leaves out more than {MOST_LEFT_OUT:.0%} of the questions is not told."
    )


def _line(row: Row, rank: int | None, cost: Cost) -> list[str]:
    shares, attack_figures = _shares(row), _attack_figures(row)
    duration = took(row, cost)
    attack_cells = (
        _number(attack_figures[f"{name}_above_gold"])
        + (f" ({attack})" if (attack := attack_figures[f"{name}_attack"]) else "")
        for name in _WORST
    )
    return [
        "" if rank is None else str(rank),
        row.name,
        interval_text(row.distance, 3),
        *(_number(shares[name]) for name in (*TOLD, "retained_names")),
        _number(row.keeps),
        _number(attack_figures["relearning_area"]),
        *attack_cells,
        "" if duration is None else f"{duration:.0f}",
        _percent(share_of_gold(row, duration)),
        str(len(row.stage.runs)) if row.stage else "0",
        row.settings,
        row.searched,
        "; ".join(row.remarks),
    ]


def _shares(row: Row) -> dict[str, float | None]:
    if row.stage is None:
        return dict.fromkeys((*TOLD, "retained_names"))
    return {name: value(row.stage, key) for name, key in _share_keys(row.stage).items()}


def _share_keys(stage: Stage) -> dict[str, str]:
    """Return figure -> key of its score."""
    role = judged_role([stage])
    return {**{name: f"{role}.{name}" for name in TOLD}, "retained_names": "retain.name"}


def _attack_figures(row: Row) -> Mapping[str, Any]:
    figures: dict[str, Any] = {"relearning_area": None if row.stage is None else relearning_area(row.stage)}
    for name, kind in _WORST.items():
        worst_attack = None if row.stage is None else worst(row.stage, kind)
        figures[f"{name}_above_gold"] = None if worst_attack is None else worst_attack.above
        figures[f"{name}_attack"] = "" if worst_attack is None else worst_attack.attack
    return figures


def took(row: Row, cost: Cost) -> float | None:
    """Return the mean unlearning time over seeds, by the clock of the leaderboard."""
    return seconds(row.stage, cost.clock) if row.stage else None


def share_of_gold(row: Row, duration: float | None) -> float | None:
    """Return a time as a share of that of training the row's gold model, None if that took none."""
    return None if duration is None or not row.gold_seconds else duration / row.gold_seconds


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
