"""Workflow of `check`: problems of data and, given a model, rows that it cannot encode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unsee.data.check import Report, examine
from unsee.data.open import open_benchmark


def check(
    data: Path | str,
    *,
    benchmark: str | Mapping[str, Any] = "",
    model: Path | str = "",
    suppress: Path | str = "",
) -> Report:
    """Return problems and warnings of data, or raise UserError if they cannot be opened.

    With a model (only its configs and its processor are read), also the rows that it cannot encode. With the
    ledger of deletion requests as `suppress`, also the rows that hold somebody who was forgotten.
    """
    opened = open_benchmark(data, benchmark)
    report = examine(opened, str(data))
    if report.usable and suppress:
        from unsee.workflows.requests.suppression import search_data

        report = replace(report, problems=tuple(search_data(opened, suppress)))
    if not model or not report.usable:
        return report
    from unsee.inference.preflight import of_model

    return replace(report, problems=tuple(of_model(model).lines([*opened.examples("train"), *opened.examples("eval")])))
