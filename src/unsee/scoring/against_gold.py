"""Run-level scores: forget quality against the retrained (gold) model, and model utility."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from unsee.api import Response, Role, Score
from unsee.errors import UserError
from unsee.metrics import open_mmunlearning
from unsee.metrics.distance import intervals, js_divergence, ks_pvalue, ks_statistic
from unsee.metrics.utility import harmonic_mean
from unsee.scoring.conditions import FORGOTTEN, group_of, with_false_answers
from unsee.scoring.values import log_truth_ratio_of

KEPT: Final = ("retain", "retain_text", "general", "general_text")
"""Groups of responses that should not change."""
PARTS: Final = ("answer_prob", "rougeL_recall", "truth_ratio")
"""Components of utility for each group (TOFU, Maini et al. 2024)."""
FQ_NEEDS: Final = (
    *(f"{role}.{part}" for role in ("forget", "unseen") for part in ("cloze", "choice", "rougeL")),
    *(f"forget.{part}" for part in ("truth_ratio", "answer_prob", "ks", "js")),
)
"""Scores that FQ is computed from."""
DISTANCES: Final = ("forget_quality", "ks", "js")
"""Keys of the scores that compare truth ratios with those of a gold model."""
ITSELF: Final = (
    "the gold model is the judged model itself; give the run of a model trained without what was to be forgotten"
)


def model_utility(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Return `model.utility`, the harmonic mean of retain probability, ROUGE-L, truth ratio.

    Nothing without probabilities. `value_by_index` has the parts; of a group without false answers the truth ratio is no part
    [inferred], so compare runs on the same data only.
    """
    groups = [group for group in KEPT if f"{group}.answer_prob" in scores]
    keys = [f"{group}.{part}" for group in groups for part in PARTS]
    parts = {key: value for key in keys if key in scores and (value := scores[key].value) is not None}
    if not parts:
        return {}
    return {
        "model.utility": Score(
            value=harmonic_mean(list(parts.values())), n=len(parts), better="higher", value_by_index=parts
        )
    }


def against_gold(responses: Sequence[Response], gold: Sequence[Response]) -> dict[str, Score]:
    """Return distances of forget truth ratios from those of the retrained model.

    `<role>.forget_quality` is the p-value of the KS test, `<role>.ks` its statistic, `<role>.js` the Jensen-Shannon divergence; of a
    role with several kinds of questions also of each kind (`forget.ks@name`).
    Questions about one entity are not independent, so the p-value is too small; the intervals of the others draw entities.

    Raises:
        UserError: There is nothing to compare, or both are one model (docs/defects.md 72 and 73).
    """
    why = incomparable(responses, gold)
    if why:
        raise UserError(f"No forget quality: {why}.")
    gold_by_id = {row.id: row for row in same_questions(gold, responses) if with_false_answers(row)}
    groups: dict[tuple[str, str], list[Response]] = defaultdict(list)
    for row in _forgotten(responses):
        groups[group_of(row), ""].append(row)
        groups[group_of(row), f"@{row.kind.value}"].append(row)
    return {
        f"{group}.{key}{kind}": score
        for (group, kind), rows in groups.items()
        if not kind or len(rows) < len(groups[group, ""])
        for key, score in _distances(rows, gold_by_id).items()
    }


def same_questions(gold: Sequence[Response], responses: Sequence[Response]) -> list[Response]:
    """Return the gold model's responses without those that share an id with another question or image.

    Two data sets may number their questions alike; figures of such a pair would compare answers to different questions.
    """
    judged_by_id = {row.id: row for row in responses}
    return [row for row in gold if row.id not in judged_by_id or alike(row, judged_by_id[row.id])]


def alike(one: Response, other: Response) -> bool:
    """Tell whether two responses are to the same question about the same image, whatever their ids."""
    image = one.image_key == other.image_key or not (one.image_key and other.image_key)  # older runs have no key
    return image and (one.question, one.answer) == (other.question, other.answer)


def incomparable(responses: Sequence[Response], gold: Sequence[Response]) -> str:
    """Return why two sets of responses have no forget quality, or empty if they have."""
    judged, gold_by_id = _forgotten(responses), {row.id: row for row in _forgotten(same_questions(gold, responses))}
    advice = "judge it with `unsee eval --likelihood` on data whose examples have false answers (`perturbed`)"
    if not judged:
        return f"the answers to questions about what was forgotten have no truth ratio; {advice}"
    if not _forgotten(gold):
        return f"the gold model's answers have no truth ratio; {advice}"
    common = [(row, gold_by_id[row.id]) for row in judged if row.id in gold_by_id]
    if not common:
        return "the gold model was asked other questions; judge both on the same data"
    if all(log_truth_ratio_of(row) == log_truth_ratio_of(other) for row, other in common):
        return ITSELF
    return ""


def no_forget_quality(why: str) -> Score:
    """Return FQ as missing, with the reason."""
    return Score(value=None, n=0, better="higher", why=f"no forget quality: {why}")


def forget_quality_score(scores: Mapping[str, Score]) -> Score:
    """Return FQ from the scores of a run with a gold model.

    See `unsee.metrics.open_mmunlearning`; its Jensen-Shannon distance is in nats. Missing inputs are named in the result.
    """
    js = _value(scores, "forget.js")
    parts = {
        "forget": open_mmunlearning.split_forgetting(**_split(scores, Role.FORGET)),
        "test": open_mmunlearning.split_forgetting(**_split(scores, Role.UNSEEN)),
        "truth_ratio": _value(scores, "forget.truth_ratio"),
        "answer_prob": _value(scores, "forget.answer_prob"),
        "ks": _value(scores, "forget.ks"),
        "js": None if js is None else math.sqrt(js * math.log(2)),  # bits -> nats, as scipy's jensenshannon has it
    }
    missing = ", ".join(key for key in FQ_NEEDS if _value(scores, key) is None)
    return Score(
        value=open_mmunlearning.forget_quality(**parts),
        n=len(parts),
        better="higher",
        value_by_index={name: value for name, value in parts.items() if value is not None},
        why=f"FQ needs {missing}, which this data does not give" if missing else "",
    )


def _split(scores: Mapping[str, Score], role: Role) -> dict[str, float | None]:
    names = {"cloze": "cloze", "choice": "choice", "rouge": "rougeL"}
    return {name: _value(scores, f"{role.value}.{key}") for name, key in names.items()}


def _value(scores: Mapping[str, Score], key: str) -> float | None:
    return scores[key].value if key in scores else None


def _forgotten(responses: Sequence[Response]) -> list[Response]:
    return [row for row in responses if row.role in FORGOTTEN and with_false_answers(row)]


def _distances(rows: Sequence[Response], gold_by_id: Mapping[str, Response]) -> dict[str, Score]:
    """Return the three distances over shared questions, or none without any."""
    pairs = [(row, gold_by_id[row.id]) for row in rows if row.id in gold_by_id]
    if not pairs:
        return {}
    missing = len(rows) - len(pairs)
    judged = [log_truth_ratio_of(row) for row, _ in pairs]
    gold = [log_truth_ratio_of(row) for _, row in pairs]
    ends = intervals(judged, gold, [row.entity or row.id for row, _ in pairs])
    why = f"{missing} questions were not asked of the gold model" if missing else ""
    n = len(pairs)
    return {
        "forget_quality": Score(value=ks_pvalue(judged, gold), n=n, better="higher", why=why),
        "ks": Score(value=ks_statistic(judged, gold), n=n, interval=ends.ks if ends else None, better="lower", why=why),
        "js": Score(
            value=js_divergence(judged, gold), n=n, interval=ends.js if ends else None, better="lower", why=why
        ),
    }
