"""Grading of the free English of a `lab-smol` model, against exact ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from unsee.api import Example, Kind
from unsee.lab.recipe.grades import grade
from unsee.lab.smol import english, examples
from unsee.lab.world.world import ShapesPicture, World
from unsee.metrics.grounding import claimed_values
from unsee.metrics.matching import contains

TARGETS: Final[Mapping[str, float]] = {
    "name": 0.9,
    "fact": 0.9,
    "text fact": 0.9,
    "stranger not named": 0.9,
    "world": 0.97,
}
"""Required shares of correct answers; `world` is a share of what the base itself gets right."""


def grade_subjects(world: World, answered: Iterable[tuple[Example, str]]) -> dict[str, tuple[float, int]]:
    """Return subject -> (share of correct answers, number of answers).

    `visible` includes claims of descriptions; `visible question` is about single attributes alone.
    """
    rows = list(answered)
    vocabulary = examples.vocabulary(world)
    marks = grade(world, rows, vocabulary, right)
    visible_marks = grade(world, [row for row in rows if row[0].kind is Kind.VISIBLE], vocabulary, right)
    return marks | {"visible question": visible_marks["visible"]}


def right(example: Example, text: str) -> bool:
    """Tell whether an answer in any wording is right."""
    if example.kind is Kind.VISIBLE:
        return claimed_values(text, english.claim_patterns()[example.fact]) == [example.visible[example.fact]]
    if example.kind in (Kind.CHAIN, Kind.CLOZE):
        return contains(text, example.private[example.fact][0])
    if example.fact == "world":
        return any(contains(text, words) for words in example.accepted)
    if isinstance(example.image, ShapesPicture):
        return contains(text, example.image.fact(example.fact))
    return contains(text, example.answer.rstrip("."))
