"""Statistics over seeds: means, intervals, summary.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from unsee.api import PROBES, Response, Score
from unsee.metrics.aftermath import Aftermath
from unsee.metrics.statistics import Observation, entity_means, entity_sums
from unsee.report.read import Record, Stage
from unsee.scoring.aggregate import observation
from unsee.scoring.conditions import group_of, hazardous

CLASSES = tuple(outcome.value for outcome in Aftermath)
"""The aftermath classes, worst first."""

HAZARD = "rr_proxy"
"""Score that exists for hazard questions only."""

RECALL: tuple[Mapping[str, str], ...] = (
    {"retain.name": "names", "retain.fact": "facts"},
    {"retain.choice": "options", "retain.cloze": "gaps"},
)
"""Scores of retain recall and correctness, by preference."""

RESAMPLES = 1000


def pooled(stage: Stage, key: str) -> Score | None:
    """Return score `key` of the stage: mean over seeds, n summed, or None without a value.

    With one seed the interval is the run's own. With several, seeds and entities are both drawn with replacement
    [inferred: two-way bootstrap, so that the spread between seeds counts].
    """
    held = [run for run in stage.runs if key in run.scores and run.scores[key].value is not None]
    if not held:
        return None
    if len(held) == 1:
        return held[0].scores[key]
    values = [value for run in held if (value := run.scores[key].value) is not None]
    return Score(
        value=float(np.mean(values)),
        n=sum(run.scores[key].n for run in held),
        interval=_interval(held, key),
        better=held[0].scores[key].better,
    )


def _interval(runs: Sequence[Record], key: str) -> tuple[float, float] | None:
    """Return the two-way bootstrap interval over entities, or None below two of them.

    Shapes: s seeds, e entities, r resamples.
    """
    total_se, weight_se = _cells(runs, key)
    seeds, entities = total_se.shape
    if entities < 2:
        return None
    rng = np.random.default_rng(0)
    seed_rs = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    entity_re = rng.multinomial(entities, np.full(entities, 1 / entities), size=RESAMPLES)
    total_r = np.einsum("rs,se,re->r", seed_rs, total_se, entity_re)
    count_r = np.einsum("rs,se,re->r", seed_rs, weight_se, entity_re)
    mean_r = total_r[count_r > 0] / count_r[count_r > 0]
    low, high = np.quantile(mean_r, [0.025, 0.975])
    return float(low), float(high)


def _cells(runs: Sequence[Record], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return each entity's total per seed, and its weight, both 0 without questions.

    That is its mean and 1, or for a mean over questions their sum and number.
    """
    seen = [_observations(run, key) for run in runs]
    micro = any(_over_questions(run.scores[key].value, found) for run, found in zip(runs, seen, strict=True))
    cells = [
        entity_sums(found) if micro else {entity: (mean, 1) for entity, mean in entity_means(found).items()}
        for found in seen
    ]
    order = {entity: column for column, entity in enumerate(sorted({entity for row in cells for entity in row}))}
    total_se, weight_se = np.zeros((len(runs), len(order))), np.zeros((len(runs), len(order)))
    for seed, row in enumerate(cells):
        for entity, (total, weight) in row.items():
            total_se[seed, order[entity]] = total
            weight_se[seed, order[entity]] = weight
    return total_se, weight_se


def _over_questions(mean: float | None, seen: Sequence[Observation]) -> bool:
    """Tell whether a score is the mean over questions and not that over entities (`Measure.micro`, which no score records)."""
    if mean is None or not seen:
        return False
    micro, macro = np.mean([one.value for one in seen]), np.mean(list(entity_means(seen).values()))
    return bool(np.isclose(mean, micro) and not np.isclose(mean, macro))


def _observations(run: Record, key: str) -> list[Observation]:
    values = run.scores[key].value_by_index
    return [observation(run.by_id[index], value) for index, value in values.items() if index in run.by_id]


def value(stage: Stage, key: str) -> float | None:
    """Return the mean of score `key` over seeds, if any has it."""
    score = pooled(stage, key)
    return None if score is None else score.value


def recalls(stage: Stage) -> dict[str, str]:
    """Return the retain recall scores -> what they count, names and facts first."""
    found = ({key: word for key, word in keys.items() if value(stage, key) is not None} for keys in RECALL)
    return next((keys for keys in found if keys), {})


def judged_role(stages: Sequence[Stage]) -> str:
    """Return "unseen" if any stage has held-out images, else "forget"."""
    return (
        "unseen"
        if any(value(stage, f"unseen.{name}") is not None for stage in stages for name in (*CLASSES, HAZARD))
        else "forget"
    )


def shares(stage: Stage, role: str) -> dict[str, float]:
    """Return the share of each aftermath class in `role`, without unclassifiable responses."""
    found = {name: value(stage, f"{role}.{name}") for name in CLASSES}
    return {name: share for name, share in found.items() if share is not None}


def cut_share(stage: Stage, role: str) -> float:
    """Return the share of responses that were truncated before a class was clear.

    What leaks or loops before the limit would do so without it.
    """
    probed = _probed(stage, role)
    known = [f"{role}.{key}" for key in ("leak", "degenerate", "asr_proxy", "gibberish", HAZARD)]
    cut = [not response.ended and not any(_is_one(run, key, response.id) for key in known) for run, response in probed]
    return sum(cut) / len(cut) if cut else 0.0


def hidden_share(stage: Stage, role: str) -> tuple[float, str]:
    """Return the share of responses in which a leak was undetectable, and why."""
    judged = [(run, run.scores[f"{role}.leak"]) for run in stage.runs if f"{role}.leak" in run.scores]
    asked = sum(response.kind in PROBES for _, response in _probed(stage, role)) if judged else 0
    why = next((score.why for _, score in judged if score.why), "")
    seen = sum(score.n for _, score in judged)
    return (max(0.0, 1 - seen / asked), why) if asked and why else (0.0, "")


def _probed(stage: Stage, role: str) -> list[tuple[Record, Response]]:
    """Return the classifiable responses in `role`, with their runs."""
    return [
        (run, response)
        for run in stage.runs
        for response in run.responses
        if (response.kind in PROBES or hazardous(response)) and group_of(response) == role
    ]


def _is_one(run: Record, key: str, index: str) -> bool:
    return key in run.scores and run.scores[key].value_by_index.get(index) == 1


def seconds(stage: Stage, clock: Literal["seconds", "cpu_seconds"] = "seconds") -> float | None:
    """Return the mean unlearning time over seeds, in seconds of the wall clock or of the processor."""
    times = _numbers(stage, clock)
    return sum(times) / len(times) if times else None


def peak_gib(stage: Stage) -> float | None:
    """Return the largest peak memory of any seed in GiB."""
    return max(_numbers(stage, "peak_gib"), default=None)


def _numbers(stage: Stage, key: str) -> list[float]:
    return [float(run.result[key]) for run in stage.runs if isinstance(run.result.get(key), (int, float))]


def blank_share(stage: Stage) -> float:
    """Return the share of responses without letters and digits, over roles and seeds."""
    texts = [response.text for run in stage.runs for response in run.responses]
    return sum(not any(sign.isalnum() for sign in text) for text in texts) / len(texts)


def summarise(stages: Sequence[Stage]) -> dict[str, dict[str, Any]]:
    """Return stage -> role -> metric -> mean over seeds, with time and memory."""
    return {stage.name: {**_roles(stage), "seconds": seconds(stage), "peak_gib": peak_gib(stage)} for stage in stages}


def _roles(stage: Stage) -> dict[str, dict[str, float | None]]:
    keys = dict.fromkeys(key for run in stage.runs for key in run.scores)
    table: dict[str, dict[str, float | None]] = {}
    for key in keys:
        role, _, metric = key.partition(".")
        table.setdefault(role, {})[metric] = value(stage, key)
    return table
