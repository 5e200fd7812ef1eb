"""Workflow of `check`: problems of data and, given a model, rows that it cannot encode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unsee.api.idle import require_effect
from unsee.data.check import Report, examine
from unsee.data.open import open_benchmark


def check(
    data: Path | str,
    *,
    benchmark: str | Mapping[str, Any] = "",
    model: Path | str = "",
    suppress: Path | str = "",
) -> Report:
    """Return problems and warnings of data.

    Args:
        data: Folder, file or Hub name of the data, or the name of a built-in set.
        benchmark: Name, or mapping of name and options. Empty: recognised from the data.
        model: Also find the rows that this model cannot encode. Only its configs and its processor are read. Empty: not checked.
        suppress: Ledger of deletion requests: also find the rows that hold somebody who was forgotten. Empty: not checked.

    Raises:
        UserError: The data cannot be opened, or a setting has no effect on them.
    """
    opened_data = open_benchmark(data, benchmark)
    require_effect({"benchmark": opened_data.settings}, opened_data.idle())
    report = examine(opened_data, str(data))
    if report.usable and suppress:
        from unsee.workflows.requests.suppression import search_data

        report = replace(report, problems=tuple(search_data(opened_data, suppress)))
    if not model or not report.usable:
        return report
    from unsee.inference.preflight import of_model

    return replace(
        report, problems=tuple(of_model(model).lines([*opened_data.examples("train"), *opened_data.examples("eval")]))
    )
