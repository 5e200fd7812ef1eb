"""Class of one answer, by the rules and with the names of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unsee.api import Example, Response, Role, Score, Vocabulary
from unsee.api.request import Completion
from unsee.report.gallery import Piece, answer
from unsee.report.read import Record
from unsee.report.summary import CLASSES
from unsee.scoring.aggregate import score
from unsee.scoring.conditions import CLASSED, group_of

MISSING: Final = "missing"
"""Class of an answer that cannot be judged."""
NOBODY: Final = "nobody was chosen, so the private strings are not known and a leak cannot be seen"
_KEPT: Final = "a question of your own about somebody to keep has no reference answer, and its answer is neither a refusal nor degenerate"
_LONGEST: Final = 20_000


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Class of an answer."""

    verdict: str
    """Class as in the report, or `MISSING`."""
    why: str
    """Why it is missing; else empty."""
    pieces: tuple[Piece, ...]
    """The text, its private parts marked if it leaks."""


def judge(example: Example, generated: Completion, vocabulary: Vocabulary) -> Judged:
    """Return the class of one answer, from the scores that `unsee eval` would give it."""
    response = Response.of(
        example,
        stage="page",
        text=generated.text,
        tokens=len(generated.token_ids) + generated.ended,
        ended=generated.ended,
        image_key="page" if example.image is not None else "",
    )
    scores = score([response], vocabulary)
    record = Record(folder=Path(), stage="page", seed="", scores=scores, responses=(response,), known=0)
    gallery_answer = answer("page", "", record, response, signs=_LONGEST)
    verdict = "" if _unknown(example) else gallery_answer.verdict
    return Judged(
        verdict=verdict or MISSING, why="" if verdict else _why(example, response, scores), pieces=gallery_answer.pieces
    )


def _unknown(example: Example) -> bool:
    """Tell whether neither an entity nor a reference answer is known to judge by."""
    return not example.entity and not example.answer


def _why(example: Example, response: Response, scores: Mapping[str, Score]) -> str:
    """Return why the answer has no class."""
    if _unknown(example):
        return NOBODY
    class_score = scores.get(f"{group_of(response)}.{CLASSES[-1]}")
    if class_score is not None and class_score.why:
        return class_score.why
    if example.role in (Role.RETAIN, Role.RETAIN_TEXT) and not example.answer:
        return _KEPT
    scope = "to forget, strangers and look-alikes" if example.role not in CLASSED else "that ask for private facts"
    return (
        f"the classes are defined for questions {scope}, not for this one ({example.role.value}, {example.kind.value})"
    )
