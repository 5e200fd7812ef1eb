"""Page with the answers of all models side by side, in one offline file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from unsee.api import Response
from unsee.report import gallery
from unsee.report.printable import printable
from unsee.report.read import Record, Stage
from unsee.scoring.against_gold import alike

NAME: Final = "answers.html"
PICTURES: Final = 2000
"""Largest number of different images in the page; further questions of a larger data set have none."""


def content(stages: Sequence[Stage]) -> dict[str, Any]:
    """Return the questions and answers of every stage's first seed as JSON values."""
    runs = [stage.runs[0] for stage in stages]
    pictures: dict[str, int] = {}
    thumbnails: list[str] = []
    rows = []
    for source_run, response in _questions(runs):
        thumbnail_index, key = -1, response.image_key or str(source_run.folder / response.image)
        if response.image and (key in pictures or len(pictures) < PICTURES):
            thumbnail_index = pictures.setdefault(key, len(thumbnails))
            if thumbnail_index == len(thumbnails):
                thumbnails.append(gallery.picture(source_run.folder, response))
        rows.append(
            {
                "id": printable(response.id),
                "role": response.role.value,
                "kind": response.kind.value,
                "entity": printable(response.entity),
                "question": printable(response.question),
                "reference": printable(response.answer),
                "picture": thumbnail_index,
                "answers": [_answer(run, response) for run in runs],
            }
        )
    labels = [stage.label for stage in stages]
    return {"stages": labels, "pictures": thumbnails, "rows": rows}


def _questions(runs: Sequence[Record]) -> list[tuple[Record, Response]]:
    """Return every question once, with the first run that has it. Ids may be shared."""
    questions_by_id: dict[str, list[tuple[Record, Response]]] = {}
    for run in runs:
        for index, response in run.by_id.items():
            questions = questions_by_id.setdefault(index, [])
            if not any(alike(response, other) for _, other in questions):
                questions.append((run, response))
    return [question for questions in questions_by_id.values() for question in questions]


def _answer(run: Record, response: Response) -> list[Any] | None:
    """Return class and pieces (text, private) of the answer, or None if it was not asked."""
    run_response = gallery.same(run, response)
    if run_response is None:
        return None
    answer = gallery.answer(run.stage, "", run, run_response, signs=10_000)
    return [answer.verdict, [[piece.text, int(piece.private)] for piece in answer.pieces]]


def embedded_json(values: object) -> Markup:
    """Return values as JSON that cannot leave its script element."""
    text = json.dumps(values, ensure_ascii=True, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def path_beside(report: Path) -> Path:
    """Return the path of the page beside a report."""
    return report.with_name(NAME if report.name == "report.html" else f"{report.stem}.{NAME}")
