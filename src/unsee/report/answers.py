"""Page with every answer of every model side by side, to filter and search, in one offline file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from unsee.report import gallery
from unsee.report.read import Record, Stage

NAME: Final = "answers.html"
PICTURES: Final = 2000
"""Most different pictures in the page; of a larger data set the later questions have none."""


def content(stages: Sequence[Stage]) -> dict[str, Any]:
    """Return the questions and answers of every stage's first seed, as plain values for the page."""
    runs = [stage.runs[0] for stage in stages]
    pictures: dict[str, int] = {}
    thumbnails: list[str] = []
    rows = []
    for index in dict.fromkeys(index for run in runs for index in run.by_id):
        first = next(run for run in runs if index in run.by_id)
        row = first.by_id[index]
        place = -1
        if row.image and (row.image in pictures or len(pictures) < PICTURES):
            place = pictures.setdefault(row.image, len(thumbnails))
            if place == len(thumbnails):
                thumbnails.append(gallery.picture(first.folder, row))
        rows.append(
            {
                "id": gallery.printable(index),
                "role": row.role.value,
                "kind": row.kind.value,
                "entity": gallery.printable(row.entity),
                "question": gallery.printable(row.question),
                "reference": gallery.printable(row.answer),
                "picture": place,
                "answers": [_answer(run, index) for run in runs],
            }
        )
    labels = [gallery.printable(stage.label) for stage in stages]
    return {"stages": labels, "pictures": thumbnails, "rows": rows}


def _answer(run: Record, index: str) -> list[Any] | None:
    """Return class and pieces (text, private) of an answer, or None if it was not asked."""
    if index not in run.by_id:
        return None
    found = gallery.answer(run.stage, "", run, run.by_id[index], signs=10_000)
    return [found.verdict, [[piece.text, int(piece.private)] for piece in found.pieces]]


def embedded(values: object) -> Markup:
    """Return values as JSON that cannot leave its script element."""
    text = json.dumps(values, ensure_ascii=True, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def path_beside(report: Path) -> Path:
    """Return the place of the page beside a report."""
    return report.with_name(NAME if report.name == "report.html" else f"{report.stem}.{NAME}")
