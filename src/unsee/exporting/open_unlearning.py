"""Result files of open-unlearning: `UNSEE_EVAL.json` and `UNSEE_SUMMARY.json`.

The former has a value per question, the latter the means.

Layout as its code writes it (`agg_value`, `value_by_index`; its documentation says `values_by_index`). Metrics that both programs
have bear its names and definitions (plain means over questions, ROUGE by recall); all of ours follow under their own.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unsee.api import Kind, Response
from unsee.errors import UserError
from unsee.exporting.evaluated import read_evaluation
from unsee.metrics.distance import ks_pvalue
from unsee.metrics.truth_ratio import log_truth_ratio
from unsee.utils.files import atomic_write_json

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

NAME: Final = "UNSEE"
"""Benchmark name in open-unlearning's file names (TOFU_EVAL.json)."""
TRUTH: Final = "forget_truth_ratio"

Metric = dict[str, Any]


def write(run: Path, out: Path, *, retain_logs_path: Path | str | None = None) -> list[Path]:
    """Write both files for a run. With the retrained model's logs also forget quality."""
    logs = logs_of(run)
    logs["forget_quality"] = forget_quality(logs, None if retain_logs_path is None else read(retain_logs_path))
    logs = dict(sorted(logs.items()))
    summary = {name: metric["agg_value"] for name, metric in logs.items() if metric["agg_value"] is not None}
    files = [out / f"{NAME}_EVAL.json", out / f"{NAME}_SUMMARY.json"]
    for file, content in zip(files, (logs, summary), strict=True):
        atomic_write_json(file, content)
    return files


def logs_of(run: Path) -> dict[str, Metric]:
    """Return the metrics of an evaluated run in open-unlearning's form."""
    responses, scores = read_evaluation(run)
    logs = {key: _score(score) for key, score in scores.items()}
    for role in dict.fromkeys(response.role for response in responses):
        logs.update(_role(role.value, [response for response in responses if response.role is role]))
    return logs


def read(location: Path | str) -> dict[str, Metric]:
    """Read the file at `retain_logs_path`: an EVAL.json, or an evaluated run folder."""
    path = Path(location)
    if path.is_dir():
        return logs_of(path)
    try:
        logs = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"retain_logs_path {path} cannot be read ({error}): expected an EVAL.json or a run folder."
        ) from error
    if not isinstance(logs, dict) or not all(
        isinstance(metric, dict) and "agg_value" in metric for metric in logs.values()
    ):
        raise UserError(
            f'{path} is no EVAL.json: expected {{"metric": {{"agg_value": ..., "value_by_index": ...}}}}. A SUMMARY.json '
            "has no value for each question; give the EVAL.json beside it."
        )
    return logs


def forget_quality(logs: Mapping[str, Metric], retain: Mapping[str, Metric] | None) -> Metric:
    """Return the KS p-value between truth ratios of this and the retrained model, or why not."""
    if retain is None:
        return {"agg_value": None, "why": "no retain_logs_path: forget quality compares with a retrained model"}
    for owner, metrics in (("this run", logs), ("retain_logs_path", retain)):
        if TRUTH not in metrics:
            return {
                "agg_value": None,
                "why": f"{owner} has no {TRUTH}: it needs perturbed answers, judged with likelihoods (unsee eval --likelihood)",
            }
    own_ratios, retain_ratios = _truth_ratios(logs, "this run"), _truth_ratios(retain, "retain_logs_path")
    if not own_ratios or not retain_ratios:
        owner = "retain_logs_path" if own_ratios else "this run"
        return {"agg_value": None, "why": f"{TRUTH} of {owner} has no value for any question"}
    if not _same_questions(own_ratios, retain_ratios):
        return {
            "agg_value": None,
            "why": f"{TRUTH} of this run and of retain_logs_path are about different questions: judge both models on the same data",
        }
    return {"agg_value": ks_pvalue(*([ratio for _, ratio in ratios] for ratios in (own_ratios, retain_ratios)))}


def _same_questions(*ratios: Sequence[tuple[str, float]]) -> bool:
    """Tell whether two lists are about the same questions. Without ids, as open-unlearning writes them, equal numbers are."""
    own_ids, retain_ids = (sorted(row_id for row_id, _ in pairs) for pairs in ratios)
    return len(own_ids) == len(retain_ids) and (own_ids == retain_ids or not all((*own_ids, *retain_ids)))


def _truth_ratios(metrics: Mapping[str, Metric], owner: str) -> list[tuple[str, float]]:
    """Return id, empty if there is none, and truth ratio of each question.

    Raises:
        UserError: The metric is damaged.
    """
    try:
        entries = metrics[TRUTH]["value_by_index"].values()
        ratios = [(str(entry.get("id", "")), float(entry["score"])) for entry in entries]
        if not all(math.isfinite(ratio) for _, ratio in ratios):
            raise ValueError("a score is not finite")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f'{TRUTH} of {owner} is damaged: expected {{"value_by_index": {{"0": {{"score": ...}}}}}} ({error!r:.100}). '
            "Give the EVAL.json as it was written, or evaluate that model again."
        ) from error
    return ratios


def _score(score: Mapping[str, Any]) -> Metric:
    """Return one score with its interval. The mean is over entities."""
    values = {index: {"score": value} for index, value in score["value_by_index"].items()}
    return {"agg_value": score["value"], "value_by_index": values, "interval": score["interval"], "n": score["n"]}


def _role(role: str, responses: Sequence[Response]) -> dict[str, Metric]:
    """Return the metrics that open-unlearning shares."""
    free_text = [response for response in responses if response.kind is not Kind.CHOICE]
    # open-unlearning's ROUGE knows ASCII words only; a reference without one would score 0 whatever is said
    with_words = [
        response for response in free_text if any(char.isascii() and char.isalnum() for char in response.answer)
    ]
    with_logprob = [response for response in free_text if response.logprob is not None and response.logprob_tokens]
    with_truth_ratio = [
        response for response in responses if response.true_logprob is not None and response.perturbed_logprobs
    ]
    truth_key = TRUTH if role == "forget" else f"{role}_Truth_Ratio"
    aggregate = _closer_to_one if role == "forget" else _true_better
    metrics = {
        f"{role}_Q_A_ROUGE": _metric(with_words, _rouge, "rougeL_recall", _mean),
        f"{role}_Q_A_Prob": _metric(with_logprob, _probability, "prob", _mean),
        truth_key: _metric(with_truth_ratio, _truth_ratio, "score", aggregate),
    }
    return {name: metric for name, metric in metrics.items() if metric["value_by_index"]}


def _metric(
    rows: Sequence[Response],
    value: Callable[[Response], dict[str, Any]],
    key: str,
    aggregate: Callable[[Sequence[float]], float],
) -> Metric:
    values = {str(index): {**value(row), "id": row.id} for index, row in enumerate(rows)}
    return {
        "agg_value": aggregate([entry[key] for entry in values.values()]) if values else None,
        "value_by_index": values,
    }


def _rouge(row: Response) -> dict[str, Any]:
    scores = _scorer().score(row.answer, row.text)
    return {
        "rouge1_recall": float(scores["rouge1"].recall),
        "rougeL_f1": float(scores["rougeL"].fmeasure),
        "rougeL_recall": float(scores["rougeL"].recall),
        "input": row.question,
        "ground_truth": row.answer,
        "generation": row.text,
    }


@cache
def _scorer() -> RougeScorer:
    """Return open-unlearning's scorer."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rougeL"], use_stemmer=True)


def _probability(row: Response) -> dict[str, Any]:
    loss = -(row.logprob or 0.0) / row.logprob_tokens
    return {"prob": math.exp(-loss), "avg_loss": loss}


def _truth_ratio(row: Response) -> dict[str, Any]:
    """Return p(false) / p(true), as open-unlearning defines it, capped at the largest float."""
    log_score = -log_truth_ratio(row.true_logprob or 0.0, row.perturbed_logprobs)
    return {"score": math.exp(log_score) if log_score < math.log(sys.float_info.max) else sys.float_info.max}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _closer_to_one(ratios: Sequence[float]) -> float:
    return _mean([min(ratio, 1 / (ratio + 1e-10)) for ratio in ratios])


def _true_better(ratios: Sequence[float]) -> float:
    return _mean([max(0.0, 1 - ratio) for ratio in ratios])
