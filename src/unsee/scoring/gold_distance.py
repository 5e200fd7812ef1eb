"""Distance to gold: one number between a model's behaviour and that of one retrained without what was to be forgotten.

Ours [inferred]; there is no published one (arXiv 2605.02206 argues for the comparison, and against forget accuracy alone).
Shapes: r resamples, p parts, c columns of a part, e entities, u units (an entity's image, or a question without image).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unsee.api import Response, Score
from unsee.metrics.aftermath import Aftermath
from unsee.scoring.conditions import CLASSED, FORGOTTEN, group_of

KEY: Final = "model.gold_distance"
CLASSES: Final = tuple(str(kind) for kind in Aftermath)
"""Shares that make one part: half the sum of their differences (total variation)."""
FORMS: Final = ("chain", "choice", "cloze", "declined")
"""Right answers in other forms than free text, about what was forgotten."""
ABILITIES: Final = tuple("name fact visible chain choice cloze accuracy known_name refusal degenerate".split())
"""Measures of what should stay."""
LEFT_OUT: Final = "left_out"
"""Entry of `value_by_index`: share of the questions of a half that it leaves out, that of the worse half."""
MOST_LEFT_OUT: Final = 0.1
"""Largest share left out of a distance that models are chosen or ranked by [inferred]: what is left out counts as no difference."""
RESAMPLES: Final = 2000
LEVEL: Final = 0.95

_Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class _Part:
    """Differences of one aspect.

    `mean_ce` is NaN where an entity was not asked; `share_cu` sums to the difference over all: what each unit adds to it.
    """

    name: str
    mean_ce: _Matrix
    share_cu: _Matrix


@dataclass(frozen=True)
class _Owner:
    entity: str
    unit: str


def gold_distance(
    responses: Sequence[Response], scores: Mapping[str, Score], gold_scores: Mapping[str, Score]
) -> dict[str, Score]:
    """Return `model.gold_distance` from the scores of a model and of gold on the same questions.

    It is the mean of two halves, each the mean of its parts, all between 0 and 1. `forgotten`: the total variation between the
    classes of answers; differences in choice, cloze and chain. `kept`: differences in what should stay; for strangers and harmless
    images the classes. Parts are means over entities, by role. `value_by_index` has parts, halves, `floor`: what a model that
    answers like gold stays below in 95 % of cases, from exchanging both models' answers image by image, and `left_out`: the share of
    the questions that have no score in some part, in the worse half. Below the floor the model cannot be told from gold by these
    questions. The interval draws entities, and is missing where a half compares fewer than two; a distance is never negative, so it
    lies a little too high near 0.
    """
    halves = _halves(responses, scores, gold_scores)
    missing = [half for half, parts in halves.items() if not parts]
    if missing:
        why = f"no question about what was {' or '.join(missing)} was answered by both models"
        return {KEY: Score(value=None, n=0, better="lower", why=why)}
    count, share = _left_out(_score_keys(responses), scores, gold_scores)
    why = (
        f"{count} questions are left out, as one of the models was asked otherwise or has no score for them"
        if count
        else ""
    )
    score = _score(halves)
    return {KEY: replace(score, value_by_index={**score.value_by_index, LEFT_OUT: share}, why=why)}


def drawn_distances(
    responses: Sequence[Response],
    scores: Mapping[str, Score],
    gold_scores: Mapping[str, Score],
    gold_responses: Sequence[Response] = (),
) -> _Matrix:
    """Return the distance over each of `RESAMPLES` draws of entities; empty where a half compares fewer than two entities.

    All entities that gold has a score for are drawn, so that the draws of two models beside one gold model are paired, even where
    one of them has no score for some entity. A draw without any entity that can be compared is NaN.

    Args:
        responses: Answers of the model.
        scores: Its scores.
        gold_scores: Scores of gold.
        gold_responses: Answers of gold. Default: entities that the model was not asked about are not drawn.
    """
    halves = _halves(responses, scores, gold_scores, gold_responses)
    drawable = all(parts and _compared_count(parts) > 1 for parts in halves.values())
    return _resampled_distances(halves)[0] if drawable else np.empty(0)


def _halves(
    responses: Sequence[Response],
    scores: Mapping[str, Score],
    gold_scores: Mapping[str, Score],
    gold_responses: Sequence[Response] = (),
) -> dict[str, list[_Part]]:
    owner = {row.id: _owner(row) for row in (*gold_responses, *responses)}
    return {half: _parts(parts, scores, gold_scores, owner) for half, parts in _score_keys(responses).items()}


def _score_keys(responses: Sequence[Response]) -> dict[str, list[tuple[str, list[str]]]]:
    """Return half -> its parts, each with the keys of its scores."""
    groups = {group_of(row): row.role for row in responses}
    return {
        "forgotten": [part for group, role in groups.items() if role in FORGOTTEN for part in _forgotten_parts(group)],
        "kept": [
            part
            for group, role in groups.items()
            if role not in FORGOTTEN
            for part in _staying(group, classed=role in CLASSED)
        ],
    }


def _owner(row: Response) -> _Owner:
    image = row.image_key or row.image
    entity = row.entity or image or row.id
    return _Owner(entity, f"{entity}/{image or row.id}")


def _forgotten_parts(group: str) -> list[tuple[str, list[str]]]:
    """Return the parts of a forgotten group: classes together, each other form by itself."""
    return [(f"{group}.classes", [f"{group}.{name}" for name in CLASSES]), *_single(group, FORMS)]


def _staying(group: str, *, classed: bool) -> list[tuple[str, list[str]]]:
    if classed:
        return [*_forgotten_parts(group)[:1], *_single(group, ("accuracy", "known_name"))]
    return _single(group, ABILITIES)


def _single(group: str, names: Sequence[str]) -> list[tuple[str, list[str]]]:
    return [(f"{group}.{name}", [f"{group}.{name}"]) for name in names]


def _parts(
    keys_by_part: Sequence[tuple[str, list[str]]],
    scores: Mapping[str, Score],
    gold_scores: Mapping[str, Score],
    owner: Mapping[str, _Owner],
) -> list[_Part]:
    """Return the parts that both models have answers for, over the entities that gold has scores for, and the same units."""
    columns_by_part = {
        name: columns for name, keys in keys_by_part if all(columns := _columns(keys, scores, gold_scores))
    }
    owners = [owner[index] for columns in columns_by_part.values() for column in columns for index in column]
    gold_ids = [
        index
        for _, keys in keys_by_part
        for key in keys
        if key in gold_scores
        for index in gold_scores[key].value_by_index
    ]
    entities = sorted({owner[index].entity for index in gold_ids if index in owner})
    units = sorted({row_owner.unit for row_owner in owners})
    parts = []
    for name, columns in columns_by_part.items():
        means, shares = [], []
        for column in columns:
            mean = _means(column, owner)
            counts = Counter(owner[index].entity for index in column)
            share: dict[str, float] = defaultdict(float)
            for index, value in column.items():
                share[owner[index].unit] += value / counts[owner[index].entity] / len(mean)
            means.append([mean.get(entity, np.nan) for entity in entities])
            shares.append([share.get(unit, 0.0) for unit in units])
        parts.append(_Part(name, np.array(means), np.array(shares)))
    return parts


def _columns(
    keys: Sequence[str], scores: Mapping[str, Score], gold_scores: Mapping[str, Score]
) -> list[dict[str, float]]:
    """Return id -> difference for each score, over the questions that both models have all these scores for.

    One that a model has no class for counts in no column, so that the columns of classes sum to 0.
    """
    if not all(key in side for key in keys for side in (scores, gold_scores)):
        return [{}]
    values = [(scores[key].value_by_index, gold_scores[key].value_by_index) for key in keys]
    shared = set.intersection(*({*model_values} & {*gold_values} for model_values, gold_values in values))
    return [
        {index: model_values[index] - gold_values[index] for index in sorted(shared)}
        for model_values, gold_values in values
    ]


def _left_out(
    parts_by_half: Mapping[str, Sequence[tuple[str, list[str]]]],
    scores: Mapping[str, Score],
    gold_scores: Mapping[str, Score],
) -> tuple[int, float]:
    """Return the number of questions that a part leaves out though a model has a score, and their share in the worse half."""
    count, shares = 0, [0.0]
    for parts in parts_by_half.values():
        scored, dropped = set[str](), set[str]()
        for _, keys in parts:
            scored_by_one = {
                i
                for key in keys
                for columns in (scores, gold_scores)
                if key in columns
                for i in columns[key].value_by_index
            }
            scored |= scored_by_one
            dropped |= scored_by_one - _columns(keys, scores, gold_scores)[0].keys()
        count += len(dropped)
        shares.append(len(dropped) / max(1, len(scored)))
    return count, max(shares)


def _means(column: Mapping[str, float], owner: Mapping[str, _Owner]) -> dict[str, float]:
    """Return entity -> mean over its questions."""
    values: dict[str, list[float]] = defaultdict(list)
    for index, value in column.items():
        values[owner[index].entity].append(value)
    return {entity: sum(numbers) / len(numbers) for entity, numbers in values.items()}


def _score(halves: Mapping[str, Sequence[_Part]]) -> Score:
    values = {half: [_size(part.share_cu.sum(axis=1)[None])[0] for part in parts] for half, parts in halves.items()}
    drawn_r, exchanged_r = _resampled_distances(halves)
    low, high = np.nanquantile(drawn_r, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    fewest = min(_compared_count(parts) for parts in halves.values())
    size_by_part = {
        part.name: float(value)
        for half, parts in halves.items()
        for part, value in zip(parts, values[half], strict=True)
    }
    means = {half: float(np.mean(sizes)) for half, sizes in values.items()}
    return Score(
        value=float(np.mean(list(means.values()))),
        n=len(size_by_part),
        interval=(float(low), float(high)) if fewest > 1 else None,
        better="lower",
        value_by_index={**means, "floor": float(np.quantile(exchanged_r, LEVEL)), **size_by_part},
    )


def _compared_count(parts: Sequence[_Part]) -> int:
    """Return the number of entities that some part of a half compares."""
    return int(np.any([~np.isnan(part.mean_ce).all(axis=0) for part in parts], axis=0).sum())


def _resampled_distances(halves: Mapping[str, Sequence[_Part]]) -> tuple[_Matrix, _Matrix]:
    """Return the distance over drawn entities, and over exchanged answers, for each resample.

    Each half draws from generators of its own, so that its draws do not depend on what else was asked.
    """
    drawn, exchanged = [], []
    for number, parts in enumerate(halves.values()):
        count = parts[0].mean_ce.shape[1]
        draws, signs = np.random.default_rng([0, number]), np.random.default_rng([1, number])
        weight_re = draws.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)
        sign_ru = signs.choice((-1.0, 1.0), size=(RESAMPLES, parts[0].share_cu.shape[1]))
        drawn.append(_known_mean(np.array([_size(_drawn_means(part, weight_re)) for part in parts])))
        exchanged.append(np.mean([_size(sign_ru @ part.share_cu.T) for part in parts], axis=0))
    return np.mean(drawn, axis=0), np.mean(exchanged, axis=0)


def _known_mean(drawn_pr: _Matrix) -> _Matrix:
    """Return the mean over the parts that a draw has, NaN where it has none."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(drawn_pr, axis=0) / (~np.isnan(drawn_pr)).sum(axis=0))


def _drawn_means(part: _Part, weight_re: _Matrix) -> _Matrix:
    """Return the mean difference of each column over drawn entities, NaN where none of them was asked."""
    known_ce = ~np.isnan(part.mean_ce)
    with np.errstate(invalid="ignore"):
        return np.asarray((weight_re @ np.where(known_ce, part.mean_ce, 0).T) / (weight_re @ known_ce.T.astype(float)))


def _size(difference_rc: _Matrix) -> _Matrix:
    """Return the absolute difference, or of several columns half the sum: the total variation."""
    return np.asarray(np.abs(difference_rc).sum(axis=1) / (2 if difference_rc.shape[1] > 1 else 1))
