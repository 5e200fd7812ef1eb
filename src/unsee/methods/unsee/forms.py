"""Other forms of the retain set's questions: what a shrunk model would not learn again, since no row asks in that form.

A distilled student needs no labels, so any question about a kept picture may be asked; only a completion is wanted, on which the
original model is the teacher. Both forms are ours [inferred].
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from unsee.api import Example, Kind
from unsee.utils.grouping import by_key
from unsee.utils.seeds import seed_of

Form = Literal["cloze", "choice"]
LETTERS = "ABCD"


def other_forms(rows: Sequence[Example], forms: Sequence[Form], seed: int) -> list[Example]:
    """Return the same questions in other forms, for rows whose answer has a private value of their entity."""
    told = [(row, *found) for row in rows if (found := _told(row))]
    values = by_key((fact, value) for _, fact, value in told)
    made: list[Example] = []
    for row, fact, value in told:
        if "cloze" in forms:
            made += _cloze(row, value)
        if "choice" in forms:
            made += _choice(row, value, sorted(set(values[fact]) - {value}), seed)
    return made


def _told(row: Example) -> tuple[str, str] | None:
    """Return fact and value that the answer of a row tells: the one it asks for, else none."""
    forms: Mapping[str, Sequence[str]] = row.private
    value = next((form for form in forms.get(row.fact, ()) if form in row.answer), "")
    return (row.fact, value) if row.fact and value else None


def _cloze(row: Example, value: str) -> Iterator[Example]:
    """Yield the answer up to the value as a sentence to complete, unless it begins with it."""
    stem, rest = row.answer[: row.answer.index(value)].strip(), row.answer[row.answer.index(value) :]
    if stem:
        yield replace(
            row, id=f"{row.id} | cloze", kind=Kind.CLOZE, question=f"Complete the sentence: {stem}", answer=rest
        )


def _choice(row: Example, value: str, others: Sequence[str], seed: int) -> Iterator[Example]:
    """Yield the question with the value and three of other entities as options, unless there are too few."""
    if len(others) < len(LETTERS) - 1:
        return
    draw = random.Random(seed_of(seed, "options", row.id))
    options = [value, *draw.sample(others, len(LETTERS) - 1)]
    draw.shuffle(options)
    listed = " ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True))
    yield replace(
        row, id=f"{row.id} | choice", kind=Kind.CHOICE, question=f"{row.question} {listed} Answer with one of them.",
        answer=f"{LETTERS[options.index(value)]}.", options=tuple(options),
    )  # fmt: skip
