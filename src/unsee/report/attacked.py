"""Findings of attacks, read from attacks.json of the run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from unsee.report.read import Stage
from unsee.utils.grouping import by_key

COLLAPSED: Final = 0.5
"""Share of degenerate answers from which what does not come back counts as collapse, not as forgetting [inferred]."""
BACK: Final = 0.05
"""Share above gold that counts as having come back, whatever the other answers are like [inferred]."""

FINDS: Final = ("answers", "traces")
"""What attacks look for, the graver first: what a model can be made to say, and what is left inside it."""


@dataclass(frozen=True, kw_only=True)
class Returned:
    """What one attack brought back from a model."""

    attack: str
    share: float
    """Share of the test questions that give the forgotten information away, mean over seeds."""
    gold: float | None
    """The same share of the gold model, or None without one."""
    how: str
    """Worst variant."""
    finds: str = "answers"
    """answers that give the forgotten away, or traces inside the model."""
    cut: float | None = 0.0
    """Largest share of answers that were cut before anything came back, in a variant of a seed; None if nobody counted."""

    @property
    def above(self) -> float:
        """Share above gold; without gold, above nothing."""
        return self.share - (self.gold or 0.0)

    @property
    def heat(self) -> int:
        """Colour step in 0..4, by the share above gold."""
        return min(4, round(4 * max(0.0, self.above)))


def returned(stage: Stage) -> dict[str, Returned | str]:
    """Return attack -> what came back, or why nothing was measured."""
    found: dict[str, Returned | str] = {}
    for name in dict.fromkeys(name for run in stage.runs for name in run.attacks):
        results = [result for run in stage.runs if isinstance(result := run.attacks.get(name), Mapping)]
        measured = [result for result in results if "recovered" in result]
        if measured:
            found[name] = _mean(name, measured, len(results))
        else:
            found[name] = str(next((result.get("why") for result in results), "")) or "not measured"
    return found


def worst(stage: Stage, finds: str) -> Returned | None:
    """Return the attack with most above gold among those that look for answers, or for traces."""
    measured = [one for one in returned(stage).values() if isinstance(one, Returned) and one.finds == finds]
    return max(measured, key=lambda one: one.above, default=None)


@dataclass(frozen=True, kw_only=True)
class Relearned:
    """What the worst source and rate bring back at one step, mean over seeds."""

    step: float
    share: float
    gold: float


def relearning_curve(stage: Stage) -> list[Relearned]:
    """Return what relearning brings back at each step: of all sources and rates that with most above gold [inferred].

    Empty without findings on both the model and gold. Findings of a collapsed gold model are left out; of a collapsed model
    count those that give back at least `BACK` above gold.
    """
    found: dict[float, list[tuple[float, float]]] = {}
    for run in stage.runs:
        findings = run.attacks.get("relearning", {}).get("findings", {})
        beside = {
            (row["variant"], row["at"]): float(row["mean"])
            for row in findings.get("gold", ())
            if row["degenerate"] < COLLAPSED
        }
        pairs = by_key(
            (row["at"], (float(row["mean"]), gold))
            for row in findings.get("model", ())
            if (gold := beside.get((row["variant"], row["at"]))) is not None
            and (row["degenerate"] < COLLAPSED or float(row["mean"]) - gold >= BACK)
        )
        for step, several in pairs.items():
            found.setdefault(step, []).append(max(several, key=lambda pair: pair[0] - pair[1]))
    return [
        Relearned(step=step, share=sum(own) / len(own), gold=sum(golds) / len(golds))
        for step, (own, golds) in sorted((step, tuple(zip(*pairs, strict=True))) for step, pairs in found.items())
    ]


def relearning_area(stage: Stage) -> float | None:
    """Return the area between the relearning curves of the model and of gold, or None without both.

    Mean over the steps of the most that any source and rate bring back above gold, and over seeds [inferred].
    """
    above = [point.share - point.gold for point in relearning_curve(stage)]
    return sum(above) / len(above) if above else None


def attacks_of(stages: Sequence[Stage]) -> dict[str, str]:
    """Return the attacks that any model has met, and what each looks for, in the order of the files."""
    runs = [run for stage in stages for run in stage.runs]
    return {name: str(result.get("finds", "answers")) for run in runs for name, result in run.attacks.items()}


def _mean(name: str, results: Sequence[Mapping[str, Any]], seeds: int) -> Returned:
    """Return the mean over the seeds that were measured; beside gold, over those with gold."""
    golds = [result for result in results if result.get("gold") is not None]
    used = golds or results
    worst_one = max(used, key=lambda result: float(result["recovered"]) - float(result.get("gold") or 0.0))
    at = worst_one.get("at")
    how = str(worst_one.get("worst", "")) + ("" if at is None else f", {at:g} {worst_one.get('axis', '')}")
    return Returned(
        attack=name,
        share=sum(float(result["recovered"]) for result in used) / len(used),
        gold=sum(float(result["gold"]) for result in golds) / len(golds) if golds else None,
        how=how if len(used) == seeds else f"{how}; {len(used)} of {seeds} seeds measured",
        finds=str(worst_one.get("finds", "answers")),
        cut=max(float(result["cut"]) for result in used) if all("cut" in result for result in used) else None,
    )
