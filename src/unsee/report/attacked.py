"""Findings of attacks, read from attacks.json of the run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from unsee.report.read import Record, Stage
from unsee.report.summary import exact, some_seeds
from unsee.utils.grouping import by_key

COLLAPSED: Final = 0.5
"""Share of degenerate answers from which a model that gives nothing back counts as collapsed [inferred]."""
BACK: Final = 0.05
"""Share above gold that counts as having come back, whatever the other answers are like [inferred]."""

_HEATS: Final = (BACK, 0.1, 0.3, 0.7)
"""Shares above gold from which a finding is shown in the next colour; the second is `Thresholds.returns`."""
FINDS: Final = ("answers", "traces")
"""Targets of attacks, the graver first: forgotten information in answers, and traces of it inside the model."""
NO_GOLD: Final = (
    "a model that never met the forgotten has traces too, so they need one to compare with (unsee attack --gold)"
)
"""Why traces without a gold model show nothing: probes tell faces apart that the model never saw, facts are guessed."""


@dataclass(frozen=True, kw_only=True)
class Returned:
    """Information that one attack recovered from a model."""

    attack: str
    share: float
    """Share of the test questions that give the forgotten information away, mean over seeds."""
    gold: float | None
    """The same share of the gold model, or None without one."""
    how: str
    """Worst variant."""
    finds: str = "answers"
    """Target of the attack, one of `FINDS`."""
    cut: float | None = 0.0
    """Largest share of answers truncated before anything came back, over variants and seeds; None if not counted."""
    unjudged: float = 0.0
    """Largest share of answers that cannot be judged, over variants and seeds."""
    seeds: str = ""
    """How many seeds it was measured on, in words; empty = on all."""
    measured: int = 1
    """Number of seeds that it was measured on."""

    @property
    def above(self) -> float:
        """Share above gold, or the share itself without gold."""
        return exact(self.share - (self.gold or 0.0))

    @property
    def heat(self) -> int:
        """Colour step in 0..4, by the share above gold; from 2 on the request is not fulfilled."""
        return sum(self.above >= limit for limit in _HEATS)


def recovered_by_attack(stage: Stage) -> dict[str, Returned | str]:
    """Return attack -> recovered information, or the reason that nothing was measured.

    Traces without those of a gold model are not measured: no other model says how many of them are due to forgotten information.
    """
    outcomes: dict[str, Returned | str] = {}
    for name in dict.fromkeys(name for run in stage.runs for name in run.attacks):
        results = [result for run in stage.runs if isinstance(result := run.attacks.get(name), Mapping)]
        measured_results = [result for result in results if "recovered" in result]
        if measured_results:
            finding = _mean(name, measured_results, stage)
            outcomes[name] = NO_GOLD if finding.finds == "traces" and finding.gold is None else finding
        else:
            outcomes[name] = next((str(result["why"]) for result in results if result.get("why")), "not measured")
    return outcomes


def worst(stage: Stage, finds: str) -> Returned | None:
    """Return the attack that recovers most above gold among those with the target `finds`."""
    findings = [
        finding
        for finding in recovered_by_attack(stage).values()
        if isinstance(finding, Returned) and finding.finds == finds
    ]
    return max(findings, key=lambda finding: finding.above, default=None)


@dataclass(frozen=True, kw_only=True)
class Relearned:
    """Information recovered at one step by the worst source and rate."""

    step: float
    share: float
    gold: float


def relearning_curve(stage: Stage) -> list[Relearned]:
    """Return the relearning curve of the source and rate with most above gold, mean over seeds [inferred].

    It has the seeds with a `relearning_area`, at the steps that all of them were asked at.
    """
    curves = [curve for run in stage.runs if not isinstance(curve := _curve(run), str)]
    points_by_step = by_key((point.step, point) for curve in curves for point in curve)
    return [
        Relearned(
            step=step,
            share=sum(point.share for point in points) / len(points),
            gold=sum(point.gold for point in points) / len(points),
        )
        for step, points in sorted(points_by_step.items())
        if len(points) == len(curves)
    ]


def relearning_area(stage: Stage) -> float | None:
    """Return the area between the relearning curves of model and gold, or None if no seed has one.

    Mean over all steps that the attack asked at of the most that any source and rate bring back above gold, and over seeds
    [inferred]. A seed has none if the answers cannot be judged at one of the steps: areas over other steps are no areas of one
    kind.
    """
    areas = [
        sum(point.share - point.gold for point in curve) / len(curve)
        for run in stage.runs
        if not isinstance(curve := _curve(run), str)
    ]
    return sum(areas) / len(areas) if areas else None


def without_area(stage: Stage) -> list[str]:
    """Return why seeds that were relearned have no area, a reason for each of them."""
    return [reason for run in stage.runs if "relearning" in run.attacks and isinstance(reason := _curve(run), str)]


def _curve(run: Record) -> list[Relearned] | str:
    """Return the relearning curve of one seed at all steps that it was asked at, or why it has none.

    Its means are over the entities that both models could be judged for. Findings of a collapsed gold model are left out; of a
    collapsed model count those that give back at least `BACK` above gold.
    """
    result = run.attacks.get("relearning", {})
    findings = result.get("findings", {})
    model, gold = (findings.get(name, ()) for name in ("model", "gold"))
    if not model or not gold:
        return str(result.get("why") or f"no findings on {'the gold model' if model else 'the model'}")
    gold_by_point = {(row["variant"], row["at"]): row["recovered"] for row in gold if row["degenerate"] < COLLAPSED}
    points_by_step = by_key(
        (row["at"], Relearned(step=row["at"], share=means[0], gold=means[1]))
        for row in model
        if (means := _means(row["recovered"], gold_by_point.get((row["variant"], row["at"]), {}))) is not None
        and (row["degenerate"] < COLLAPSED or means[0] - means[1] >= BACK)
    )
    steps = sorted({row["at"] for row in model})
    if missing := [step for step in steps if step not in points_by_step]:
        return f"at step {missing[0]:g} its answers or gold's are degenerate or cannot be judged"
    return [max(points_by_step[step], key=lambda point: point.share - point.gold) for step in steps]


def _means(share_by_entity: Mapping[str, float], gold: Mapping[str, float]) -> tuple[float, float] | None:
    """Return the means of model and gold over the entities that both could be judged for, or None without any."""
    pairs = [(share, gold[entity]) for entity, share in share_by_entity.items() if entity in gold]
    if not pairs:
        return None
    model_shares, gold_shares = zip(*pairs, strict=True)
    return sum(model_shares) / len(pairs), sum(gold_shares) / len(pairs)


def attacks_of(stages: Sequence[Stage]) -> dict[str, str]:
    """Return the attacks on any model -> their target, in the order of the files."""
    runs = [run for stage in stages for run in stage.runs]
    return {name: str(result.get("finds", "answers")) for run in runs for name, result in run.attacks.items()}


def _mean(name: str, results: Sequence[Mapping[str, Any]], stage: Stage) -> Returned:
    """Return the mean over the measured seeds, or over those with a gold result if any."""
    with_gold = [result for result in results if result.get("gold") is not None]
    used_results = with_gold or results
    worst_result = max(used_results, key=lambda result: float(result["recovered"]) - float(result.get("gold") or 0.0))
    position, seeds = worst_result.get("at"), some_seeds(len(used_results), stage)
    variant = str(worst_result.get("worst", "")) + (
        "" if position is None else f", {position:g} {worst_result.get('axis', '')}"
    )
    return Returned(
        attack=name,
        share=sum(float(result["recovered"]) for result in used_results) / len(used_results),
        gold=sum(float(result["gold"]) for result in with_gold) / len(with_gold) if with_gold else None,
        how=f"{variant}; {seeds} measured" if seeds else variant,
        seeds=seeds,
        measured=len(used_results),
        finds=str(worst_result.get("finds", "answers")),
        cut=max(float(result["cut"]) for result in used_results)
        if all("cut" in result for result in used_results)
        else None,
        unjudged=max(map(_unjudged, used_results)),
    )


def _unjudged(result: Mapping[str, Any]) -> float:
    """Return the largest share of answers that cannot be judged, of results of earlier versions from their findings."""
    if "unjudged" in result:
        return float(result["unjudged"])
    sound = (
        finding
        for finding in result.get("findings", {}).get("model", ())
        if finding["recovered"] and finding["degenerate"] < COLLAPSED
    )
    return max((float(finding.get("further", {}).get("unjudged", 0.0)) for finding in sound), default=0.0)
