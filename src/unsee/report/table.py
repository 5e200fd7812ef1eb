"""Markdown table of runs: one row per model, chosen columns, means over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Final

from unsee.errors import UserError
from unsee.report.read import Record, Stage, read_run
from unsee.report.seeds import folders_by_row
from unsee.report.summary import score_text, some_seeds
from unsee.utils import markdown

RESULT: Final = "result."
"""Prefix of columns read from `result` in run.yaml, such as result.seconds or result.mask.kept."""


def table(runs: Sequence[Path], columns: Mapping[str, str]) -> str:
    """Return the table of evaluated runs. Equal stage, model and questions are one row.

    Args:
        runs: Run folders, in the order of the rows.
        columns: Title -> key in scores.json (`unseen.leak`), or `result.` and a number's path in run.yaml.

    Raises:
        UserError: No run has the key of a column.
    """
    stages = _stages(runs)
    rows = [[stage.name, *(_cell(stage, key) for key in columns.values()), str(len(stage.runs))] for stage in stages]
    for column, (title, key) in enumerate(columns.items(), start=1):
        if all(row[column] == "-" for row in rows) and not any(
            key in run.scores for stage in stages for run in stage.runs
        ):
            raise UserError(f"The column {title!r} is empty: no run has {key!r} in its scores.json or run.yaml.")
    return markdown.table(["run", *columns, "seeds"], rows) + "\n"


def _stages(runs: Sequence[Path]) -> list[Stage]:
    rows = folders_by_row(runs)
    return [Stage(name=name, runs=tuple(map(read_run, folders))) for name, folders in rows.items()]


def _cell(stage: Stage, key: str) -> str:
    if key.startswith(RESULT):
        numbers = [number for run in stage.runs if (number := _result_number(run, key)) is not None]
        seeds = some_seeds(len(numbers), stage)
        return f"{sum(numbers) / len(numbers):.3g}{seeds and f' ({seeds})'}" if numbers else "-"
    return score_text(stage, key, 2) or "-"


def _result_number(run: Record, key: str) -> float | None:
    """Return the number at a path in the result, None without one."""

    def below(value: Any, name: str) -> Any:
        return value.get(name) if isinstance(value, Mapping) else None

    value = reduce(below, key.removeprefix(RESULT).split("."), run.result)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)
