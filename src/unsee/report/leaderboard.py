"""The table without the page: leaderboard.md for people, leaderboard.json for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from unsee.api import Score
from unsee.report.read import Stage
from unsee.report.summary import judged_role, peak_gib, pooled, seconds
from unsee.report.verdict import Verdict, judge, ranked


class Heading(Protocol):
    """What a column has to say of itself."""

    @property
    def key(self) -> str:
        """Key in scores.json."""
        ...

    @property
    def title(self) -> str:
        """What stands above it."""
        ...

    @property
    def better(self) -> str:
        """An arrow."""
        ...


def write_leaderboard(stages: Sequence[Stage], columns: Sequence[Heading], out: Path) -> None:
    """Write leaderboard.md and leaderboard.json to the folder `out`."""
    role = judged_role(stages)
    original = next((stage for stage in stages if stage.name == "original"), None)
    verdicts = {stage.name: judge(stage, original, role) for stage in stages}
    order = ranked(stages, verdicts)
    text = markdown(order, verdicts, columns)
    (out / "leaderboard.md").write_text(text, encoding="utf-8", errors="replace")
    rows = [_row(stage, verdicts[stage.name], columns) for stage in order]
    (out / "leaderboard.json").write_text(json.dumps(rows, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")


def _row(stage: Stage, verdict: Verdict, columns: Sequence[Heading]) -> dict[str, Any]:
    scores = {column.key: score for column in columns if (score := pooled(stage, column.key)) is not None}
    return {
        "stage": stage.name,
        "reference": stage.reference,
        "seeds": len(stage.runs),
        "seconds": seconds(stage),
        "peak_gib": peak_gib(stage),
        "verdict": asdict(verdict),
        "scores": {key: {"value": s.value, "interval": s.interval, "n": s.n} for key, s in scores.items()},
    }


def markdown(stages: Sequence[Stage], verdicts: dict[str, Verdict], columns: Sequence[Heading]) -> str:
    """Return the table in Markdown, in the order given."""
    heads = ["model", *(f"{column.key} {column.better}" for column in columns), "seconds", "GiB", "seeds", "verdict"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for stage in stages:
        verdict = verdicts[stage.name]
        cells = [stage.name, *(_cell(pooled(stage, column.key)) for column in columns)]
        cells += [_number(seconds(stage), 1), _number(peak_gib(stage), 2), str(len(stage.runs))]
        flag = "**collapsed, ranked last** - " if verdict.collapsed else ""
        lines.append("| " + " | ".join(_plain(cell) for cell in [*cells, flag + verdict.sentence]) + " |")
    notes = ["In brackets: 95 % bootstrap interval over entities (and seeds).", *_missing(stages)]
    return "\n".join([*lines, "", *notes]) + "\n"


def _missing(stages: Sequence[Stage]) -> list[str]:
    """Return why a model has no forget quality although a gold model stands beside it."""
    whys = {stage.name: stage.runs[0].scores["model.fq"].why for stage in stages if "model.fq" in stage.runs[0].scores}
    return [f"{name}: {_plain(why)}." for name, why in whys.items() if why]


def _cell(score: Score | None) -> str:
    if score is None or score.value is None:
        return "-"
    return f"{score.value:.3f}" + (f" [{score.interval[0]:.3f}, {score.interval[1]:.3f}]" if score.interval else "")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _plain(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
