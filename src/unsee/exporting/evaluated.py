"""Responses and scores of an evaluated run, read for other programs' files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from unsee import config
from unsee.api import Response
from unsee.errors import UserError


def read_evaluation(run: Path) -> tuple[list[Response], dict[str, dict[str, Any]]]:
    """Return responses and scores (`api.Score` as JSON, by role and metric) of a run.

    Raises:
        UserError: It has not been judged in full, or a file is damaged.
    """
    config.require_judged(run)
    for name in ("responses.jsonl", "scores.json"):
        if not (run / name).is_file():
            raise UserError(f"{run} has no {name}. Judge it first: unsee eval --model {run} --data DATA --out {run}")
    responses = config.read_responses(run / "responses.jsonl")
    try:
        scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
        for score in scores.values():
            numbers = [score["value"], score["n"], *(score["interval"] or ()), *dict(score["value_by_index"]).values()]
            if not all(number is None or math.isfinite(number) for number in numbers):
                raise ValueError("a number is not finite")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{run / 'scores.json'} is damaged ({error!s:.200}). Judge the run again with `unsee eval`."
        ) from error
    return responses, scores
