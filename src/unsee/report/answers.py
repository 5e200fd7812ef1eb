"""Page with every answer of every model side by side, to filter and search, in one offline file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from unsee.api import Response
from unsee.report import gallery
from unsee.report.read import Record, Stage
from unsee.scoring.against_gold import alike

NAME: Final = "answers.html"
PICTURES: Final = 2000
"""Most different pictures in the page; of a larger data set the later questions have none."""


def content(stages: Sequence[Stage]) -> dict[str, Any]:
    """Return the questions and answers of every stage's first seed, as plain values for the page."""
    runs = [stage.runs[0] for stage in stages]
    pictures: dict[str, int] = {}
    thumbnails: list[str] = []
    rows = []
    for first, row in _questions(runs):
        place, key = -1, row.image_key or str(first.folder / row.image)
        if row.image and (key in pictures or len(pictures) < PICTURES):
            place = pictures.setdefault(key, len(thumbnails))
            if place == len(thumbnails):
                thumbnails.append(gallery.picture(first.folder, row))
        rows.append(
            {
                "id": gallery.printable(row.id),
                "role": row.role.value,
                "kind": row.kind.value,
                "entity": gallery.printable(row.entity),
                "question": gallery.printable(row.question),
                "reference": gallery.printable(row.answer),
                "picture": place,
                "answers": [_answer(run, row) for run in runs],
            }
        )
    labels = [gallery.printable(stage.label) for stage in stages]
    return {"stages": labels, "pictures": thumbnails, "rows": rows}


def _questions(runs: Sequence[Record]) -> list[tuple[Record, Response]]:
    """Return every question once, with the first run that it was asked in. One id may stand for several questions."""
    found: dict[str, list[tuple[Record, Response]]] = {}
    for run in runs:
        for index, row in run.by_id.items():
            known = found.setdefault(index, [])
            if not any(alike(row, other) for _, other in known):
                known.append((run, row))
    return [one for known in found.values() for one in known]


def _answer(run: Record, row: Response) -> list[Any] | None:
    """Return class and pieces (text, private) of an answer to this question, or None if it was not asked."""
    said = gallery.same(run, row)
    if said is None:
        return None
    found = gallery.answer(run.stage, "", run, said, signs=10_000)
    return [found.verdict, [[piece.text, int(piece.private)] for piece in found.pieces]]


def embedded(values: object) -> Markup:
    """Return values as JSON that cannot leave its script element."""
    text = json.dumps(values, ensure_ascii=True, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def path_beside(report: Path) -> Path:
    """Return the place of the page beside a report."""
    return report.with_name(NAME if report.name == "report.html" else f"{report.stem}.{NAME}")
