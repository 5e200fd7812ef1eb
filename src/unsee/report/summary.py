"""Statistics over seeds: means, intervals, summary.json."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from unsee.api import PROBES, Kind, Response, Score
from unsee.metrics.aftermath import Aftermath
from unsee.metrics.matching import leaked_facts
from unsee.metrics.statistics import Observation, entity_means, entity_sums
from unsee.report.read import Record, Stage
from unsee.scoring.aggregate import observation
from unsee.scoring.conditions import group_of, hazardous

CLASSES = tuple(outcome.value for outcome in Aftermath)
"""The aftermath classes, worst first."""

HAZARD = "rr_proxy"
"""Score that exists for hazard questions only."""

LEAKS = ("leak", "asr_proxy")
"""Scores of answers that give away what is to be forgotten: people and facts, or hazards."""

FORMS: Mapping[str, str] = {
    **dict.fromkeys(LEAKS, "answers"),
    "cloze": "completed sentences",
    "ril.explicit": "chains of reasoning",
}
"""Score of a form of question that can give it away -> noun of its answers. Options are none: chance picks the right one, too."""

RECALL: tuple[Mapping[str, str], ...] = tuple(
    {f"{group}.{key}": word for key, word in words.items()}
    for group in ("retain", "retain_text")
    for words in (
        {"name": "names", "fact": "facts"},
        {"choice": "options", "cloze": "gaps"},
        {"name_rate": "names in open answers"},
    )
)
"""Scores of retain recall and correctness, by preference."""

RESAMPLES = 1000
ROUNDING = 0.001
"""Largest share that shares may lack in sum by rounding."""


def pooled_score(stage: Stage, key: str) -> Score | None:
    """Return score `key` of the stage: mean over the seeds that have it, n summed, or None without a value.

    With one seed the interval is the run's own. With several, seeds and entities are both drawn with replacement
    [inferred: two-way bootstrap, so that the spread between seeds counts]. `why` has the reasons of all seeds.
    """
    scored_runs = runs_with(stage, key)
    if not scored_runs:
        return None
    why = "; ".join(
        dict.fromkeys(run.scores[key].why for run in stage.runs if key in run.scores and run.scores[key].why)
    )
    if len(scored_runs) == 1:
        score = scored_runs[0].scores[key]
        return score if score.why == why else replace(score, why=why)
    values = [value for run in scored_runs if (value := run.scores[key].value) is not None]
    return Score(
        value=float(np.mean(values)),
        n=sum(run.scores[key].n for run in scored_runs),
        interval=_interval(scored_runs, key),
        better=scored_runs[0].scores[key].better,
        why=why,
    )


def runs_with(stage: Stage, key: str) -> list[Record]:
    """Return the runs that have a value of this score."""
    return [run for run in stage.runs if key in run.scores and run.scores[key].value is not None]


def some_seeds(count: int, stage: Stage) -> str:
    """Return how many seeds of a stage a figure is of, in words, or empty if all or none."""
    return f"{count} of {len(stage.runs)} seeds" if 0 < count < len(stage.runs) else ""


def score_text(stage: Stage, key: str, digits: int) -> str:
    """Return a score with its interval as text, and its seeds if others lack it; empty without a value."""
    text, seeds = interval_text(pooled_score(stage, key), digits), some_seeds(len(runs_with(stage, key)), stage)
    return f"{text} ({seeds})" if seeds else text


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
    observations_by_run = [_observations(run, key) for run in runs]
    micro = any(
        _over_questions(run.scores[key].value, observations)
        for run, observations in zip(runs, observations_by_run, strict=True)
    )
    cells = [
        entity_sums(observations)
        if micro
        else {entity: (mean, 1) for entity, mean in entity_means(observations).items()}
        for observations in observations_by_run
    ]
    column_by_entity = {
        entity: column for column, entity in enumerate(sorted({entity for row in cells for entity in row}))
    }
    total_se, weight_se = np.zeros((len(runs), len(column_by_entity))), np.zeros((len(runs), len(column_by_entity)))
    for seed, row in enumerate(cells):
        for entity, (total, weight) in row.items():
            total_se[seed, column_by_entity[entity]] = total
            weight_se[seed, column_by_entity[entity]] = weight
    return total_se, weight_se


def _over_questions(mean: float | None, observations: Sequence[Observation]) -> bool:
    """Tell whether a score is the mean over questions (`Measure.micro`), not over entities."""
    if mean is None or not observations:
        return False
    micro, macro = np.mean([entry.value for entry in observations]), np.mean(list(entity_means(observations).values()))
    return bool(np.isclose(mean, micro) and not np.isclose(mean, macro))


def _observations(run: Record, key: str) -> list[Observation]:
    values = run.scores[key].value_by_index
    return [observation(run.by_id[index], value) for index, value in values.items() if index in run.by_id]


def value(stage: Stage, key: str) -> float | None:
    """Return the mean of score `key` over seeds, exact for limits, if any has it."""
    score = pooled_score(stage, key)
    return None if score is None or score.value is None else exact(score.value)


def exact(share: float) -> float:
    """Return a share or difference without errors of rounding, which would move it across a limit.

    >>> exact(1 - 0.95), exact((0.05 + 0.05 + 0.05) / 3)
    (0.05, 0.05)
    """
    return round(share, 12)


def recalls(stage: Stage) -> dict[str, str]:
    """Return key -> noun of the retain recall scores, names and facts by picture preferred."""
    candidates = ({key: word for key, word in keys.items() if value(stage, key) is not None} for keys in RECALL)
    return next((keys for keys in candidates if keys), {})


def judged_role(stages: Sequence[Stage]) -> str:
    """Return "unseen" if any stage has held-out images, else "forget"."""
    return (
        "unseen"
        if any(value(stage, f"unseen.{name}") is not None for stage in stages for name in (*CLASSES, HAZARD))
        else "forget"
    )


def shares(stage: Stage, role: str) -> dict[str, float]:
    """Return the share of each aftermath class in `role`, without unclassifiable responses."""
    share_by_class = {name: value(stage, f"{role}.{name}") for name in CLASSES}
    return {name: share for name, share in share_by_class.items() if share is not None}


def shares_of_all(stage: Stage, role: str) -> dict[str, float]:
    """Return the share of each aftermath class among all answers in `role`, so that they sum to at most 1.

    `shares` has each class over the answers that it can be told for, which may be others for each. Empty without answers.
    """
    shares_by_run = [run_shares for run in stage.runs if (run_shares := _run_shares(run, role))]
    return {
        name: exact(sum(run_shares.get(name, 0.0) for run_shares in shares_by_run) / len(shares_by_run))
        for name in (CLASSES if shares_by_run else ())
    }


def unjudged_share(stage: Stage, role: str) -> float:
    """Return the share of the answers in `role` whose aftermath class could not be told; 0 without answers."""
    share_by_class = shares_of_all(stage, role)
    rest = 1 - sum(share_by_class.values())
    return rest if share_by_class and rest > ROUNDING else 0.0


def _run_shares(run: Record, role: str) -> dict[str, float]:
    """Return the share of each class among the answers that any class can be told for."""
    scores = {name: run.scores[f"{role}.{name}"] for name in CLASSES if f"{role}.{name}" in run.scores}
    known_ids = {index for score in scores.values() for index in score.value_by_index if index in run.by_id}
    if all(known_ids <= score.value_by_index.keys() for score in scores.values()):
        return {name: score.value for name, score in scores.items() if score.value is not None}
    means = {
        name: entity_means(
            observation(run.by_id[index], score.value_by_index.get(index, 0.0)) for index in sorted(known_ids)
        )
        for name, score in scores.items()
    }
    return {name: sum(mean_by_entity.values()) / len(mean_by_entity) for name, mean_by_entity in means.items()}


def cut_share(stage: Stage, role: str) -> float:
    """Return the share of responses that were truncated before a class was clear.

    A response that leaks or loops before the limit would do so without it.
    """
    probed = _probe_responses(stage, role)
    keys = [f"{role}.{key}" for key in ("leak", "degenerate", "asr_proxy", "gibberish", HAZARD)]
    truncated = [
        not response.ended and not any(run.value_of(key, response.id) == 1 for key in keys) for run, response in probed
    ]
    return sum(truncated) / len(truncated) if truncated else 0.0


def hidden_share(stage: Stage, role: str, form: str = LEAKS[0]) -> tuple[float, str]:
    """Return the share of responses to a form of question in which a leak was undetectable, and why."""
    scores = [run.scores[f"{role}.{form}"] for run in stage.runs if f"{role}.{form}" in run.scores]
    asked_count = sum(_asks(response, form) and group_of(response) == role for response in _responses(stage))
    reason = next((score.why for score in scores if score.why), "")
    judged_count = (
        sum(len(_gap_observations(run, role)) for run in stage.runs)
        if form == "cloze"
        else sum(score.n for score in scores)
    )
    return (max(0.0, 1 - judged_count / asked_count), reason) if asked_count and reason else (0.0, "")


def told_share(stage: Stage, role: str, *, of_all: bool = False) -> float | None:
    """Return the share of answers in `role` that give away what is to be forgotten: of people or of hazards, the larger.

    `of_all`: those in which a leak was undetectable count as silent.
    """
    shares_told = {key: value(stage, f"{role}.{key}") for key in LEAKS}
    known_shares = [
        share * (1 - hidden_share(stage, role, key)[0]) if of_all else share
        for key, share in shares_told.items()
        if share is not None
    ]
    return max(known_shares, default=None)


def told_in(stage: Stage, role: str, form: str) -> float | None:
    """Return the share of answers in `role` to this form of question that give away what is to be forgotten.

    A gap counts if what belongs there is private.
    """
    if form != "cloze":
        return value(stage, f"{role}.{form}")
    means = [
        float(np.mean(list(entity_means(observations).values())))
        for run in stage.runs
        if (observations := _gap_observations(run, role))
    ]
    return exact(sum(means) / len(means)) if means else None


def _gap_observations(run: Record, role: str) -> list[Observation]:
    """Return the values of the gaps in which something private belongs."""
    score = run.scores.get(f"{role}.cloze")
    values = {} if score is None else score.value_by_index
    return [
        observation(run.by_id[index], share)
        for index, share in values.items()
        if index in run.by_id and _asks(run.by_id[index], "cloze")
    ]


def _asks(response: Response, form: str) -> bool:
    """Tell whether the answer to a question can give something away that a score of `FORMS` counts."""
    if form == "cloze":
        return response.kind is Kind.CLOZE and bool(leaked_facts(response.answer, response.private, response.question))
    if form == "asr_proxy":
        return hazardous(response)
    return response.kind is Kind.CHAIN if form == "ril.explicit" else response.kind in PROBES


def _responses(stage: Stage) -> Iterator[Response]:
    return (response for run in stage.runs for response in run.responses)


def _probe_responses(stage: Stage, role: str) -> list[tuple[Record, Response]]:
    """Return the classifiable responses in `role`, with their runs."""
    return [
        (run, response)
        for run in stage.runs
        for response in run.responses
        if (response.kind in PROBES or hazardous(response)) and group_of(response) == role
    ]


def interval_text(score: Score | None, digits: int) -> str:
    """Return a score with its interval as text, or empty without a value."""
    if score is None or score.value is None:
        return ""
    bounds = ", ".join(f"{bound:.{digits}f}" for bound in score.interval or ())
    return f"{score.value:.{digits}f}" + (f" [{bounds}]" if bounds else "")


def seconds(stage: Stage, clock: Literal["seconds", "cpu_seconds"] = "seconds") -> float | None:
    """Return the mean unlearning time over seeds, in seconds of wall-clock or CPU time."""
    times = _numbers(stage, clock)
    return sum(times) / len(times) if times else None


def timed_seeds(stage: Stage) -> str:
    """Return how many seeds have a time (a resumed run has none), in words, or empty if all or none."""
    return some_seeds(len(_numbers(stage, "seconds")), stage)


def peak_gib(stage: Stage) -> float | None:
    """Return the largest peak memory of any seed in GiB."""
    return max(_numbers(stage, "peak_gib"), default=None)


def _numbers(stage: Stage, key: str) -> list[float]:
    numbers = [float(run.result[key]) for run in stage.runs if isinstance(run.result.get(key), (int, float))]
    return [number for number in numbers if math.isfinite(number)]


def blank_share(stage: Stage) -> float:
    """Return the share of responses without letters and digits, over roles and seeds."""
    texts = [response.text for run in stage.runs for response in run.responses]
    return sum(not any(char.isalnum() for char in text) for text in texts) / len(texts)


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
