"""Aggregation of per-response values to means with intervals. No model, no torch.

What is measured of whom stands in `unsee.scoring.measures`, what one answer is worth in `unsee.scoring.values`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import SupportsFloat

from unsee.api import Measure, Response, Score, Vocabulary
from unsee.api.measure import Direction
from unsee.errors import UserError, short_repr
from unsee.metrics.statistics import Observation, bootstrap_interval, entity_means, entity_sums
from unsee.scoring import image_text_pairs
from unsee.scoring.against_gold import model_utility
from unsee.scoring.conditions import group_of
from unsee.scoring.measures import measures_of


def score(responses: Sequence[Response], vocabulary: Vocabulary) -> dict[str, Score]:
    """Return `<role>.<measure>` -> Score for one model's responses.

    Questions with and without image are separate groups.
    """
    scores = _by_group(responses, vocabulary, lambda rows: measures_of(rows, vocabulary))
    return scores | _pair_scores(responses, vocabulary) | model_utility(scores)


def score_by(measure: Measure, responses: Sequence[Response], vocabulary: Vocabulary) -> dict[str, Score]:
    """Return `<role>.<key>` -> Score of a custom measure."""
    return _by_group(responses, vocabulary, lambda _: [measure])


def _by_group(
    responses: Sequence[Response], vocabulary: Vocabulary, chosen: Callable[[Sequence[Response]], Sequence[Measure]]
) -> dict[str, Score]:
    _require_one_run(responses)
    groups: dict[str, list[Response]] = defaultdict(list)
    for response in responses:
        groups[group_of(response)].append(response)
    return {
        f"{group}.{measure.key}": summed
        for group, rows in groups.items()
        for measure in chosen(rows)
        if (summed := _score(measure, rows, vocabulary)) is not None
    }


def _score(measure: Measure, rows: Iterable[Response], vocabulary: Vocabulary) -> Score | None:
    """Return the macro mean over entities with interval, or None if no row qualifies."""
    applicable = [row for row in rows if measure.applies(row)]
    if not applicable:
        return None
    values = {row.id: value for row in applicable if (value := _value(measure, row, vocabulary)) is not None}
    missing = [row for row in applicable if row.id not in values]
    why = measure.why(missing) or (
        "" if values else f"{measure.key} has no value for {len(missing)} answers, and says not why"
    )
    return _mean_score(applicable, values, measure.better, why, micro=measure.micro)


def _value(measure: Measure, row: Response, vocabulary: Vocabulary) -> float | None:
    value = measure.value(row, vocabulary)
    if value is None:
        return None
    if not isinstance(value, SupportsFloat) or not math.isfinite(value):
        raise UserError(
            f"The measure {measure.key} is {short_repr(value)} for the answer to {row.id!r}; expected a finite number, or None "
            "where it is undefined."
        )
    return float(value)


def _pair_scores(responses: Sequence[Response], vocabulary: Vocabulary) -> dict[str, Score]:
    """Return the scores of image-text question pairs, if the data set has such pairs."""
    if image_text_pairs.NAME not in vocabulary.measures:
        return {}
    columns = image_text_pairs.columns(responses)
    return {name: _mean_score(responses, column.values, column.better, column.why) for name, column in columns.items()}


def _mean_score(
    rows: Iterable[Response], values: Mapping[str, float], better: Direction, why: str = "", *, micro: bool = False
) -> Score:
    """Return the mean over entities with interval. `micro`: over questions; its interval draws entities, too."""
    observations = [observation(row, values[row.id]) for row in rows if row.id in values]
    cells = (
        list(entity_sums(observations).values())
        if micro
        else [(mean, 1) for mean in entity_means(observations).values()]
    )
    totals, weights = [total for total, _ in cells], [weight for _, weight in cells]
    return Score(
        value=sum(totals) / sum(weights) if cells else None,
        n=len(values),
        interval=bootstrap_interval([total / weight for total, weight in cells], weights=weights),
        better=better,
        value_by_index=dict(values),
        why=why,
    )


def observation(row: Response, value: float) -> Observation:
    """Assign a value to its entity. Rows without one are grouped by image."""
    image = row.image_key or row.image
    return Observation(entity=row.entity or image or row.id, image=image, value=value)


def _require_one_run(responses: Sequence[Response]) -> None:
    stages = sorted({response.stage for response in responses})
    if len(stages) > 1:
        raise UserError(
            f"Expected the answers of one model, got stages {', '.join(stages)}. Score each stage by itself."
        )
    twice = [index for index, count in Counter(response.id for response in responses).items() if count > 1]
    if twice:
        raise UserError(f"Expected one answer per question, but these ids occur twice: {', '.join(twice[:5])}.")
