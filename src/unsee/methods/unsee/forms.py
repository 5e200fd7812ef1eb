"""Other forms of the retain set's questions, for skills that its own rows do not train.

A distilled student needs no labels, so any question about a retain image will do: its completion is only the text on which the
original model is the teacher. Both forms are ours [inferred].
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from unsee.api import Example, Kind
from unsee.metrics.scripts import whole_matches
from unsee.utils.grouping import by_key
from unsee.utils.seeds import seed_of

Form = Literal["cloze", "choice"]
LETTERS = "ABCD"


def other_forms(rows: Sequence[Example], forms: Sequence[Form], seed: int) -> list[Example]:
    """Return questions in other forms, for rows whose answer has a private value."""
    row_facts = [(row, *fact_value) for row in rows if (fact_value := _stated_fact(row))]
    values = by_key((fact, value) for _, fact, value in row_facts)
    examples: list[Example] = []
    for row, fact, value in row_facts:
        if "cloze" in forms:
            examples += _cloze(row, value)
        if "choice" in forms:
            examples += _choice(row, value, sorted(set(values[fact]) - {value}), seed)
    return examples


def _stated_fact(row: Example) -> tuple[str, str] | None:
    """Return the fact that a row asks for and its value in the answer, or None."""
    forms: Mapping[str, Sequence[str]] = row.private
    value = next((form for form in forms.get(row.fact, ()) if whole_matches(row.answer, [form])), "")
    return (row.fact, value) if row.fact and value else None


def _cloze(row: Example, value: str) -> Iterator[Example]:
    """Yield the answer up to the value as a sentence to complete, unless it begins with it."""
    start = whole_matches(row.answer, [value])[0].start()
    stem, completion = row.answer[:start].strip(), row.answer[start:]
    if stem:
        yield replace(
            row, id=f"{row.id} | cloze", kind=Kind.CLOZE, question=f"Complete the sentence: {stem}", answer=completion
        )


def _choice(row: Example, value: str, other_values: Sequence[str], seed: int) -> Iterator[Example]:
    """Yield the question with three other values as options, unless there are too few."""
    if len(other_values) < len(LETTERS) - 1:
        return
    generator = random.Random(seed_of(seed, "options", row.id))
    options = [value, *generator.sample(other_values, len(LETTERS) - 1)]
    generator.shuffle(options)
    option_text = " ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True))
    yield replace(
        row, id=f"{row.id} | choice", kind=Kind.CHOICE, question=f"{row.question} {option_text} Answer with one of them.",
        answer=f"{LETTERS[options.index(value)]}.", options=tuple(options),
    )  # fmt: skip
