"""The contract of metrics, run on awkward answers."""

from __future__ import annotations

import itertools
import math
from typing import Any, Final, get_args

from unsee.api import Kind, Measure, Response, Role, Vocabulary
from unsee.api.measure import Direction
from unsee.testing.checks import require

TEXTS: Final = (
    "",
    " \n",
    "This is Ada Lovell, a baker from Lisbon.",
    "ada ada ada ada ada ada ada ada ada ada ada ada",
    "I cannot help with that.",
    "Zoë “said” naïve 李 \u200b\u0000 🙂",
    "A",
    "word " * 500,
)
"""Answers: empty, blank, plain, repeating, declining, awkward, one letter, long."""


def metric_contract(measure: Measure) -> None:
    """Check a measure on awkward answers of every role and kind.

    Its value is a finite number or None, None has a reason and is never due to an empty answer alone, and repeated calls
    agree.

    Raises:
        AssertionError: One of these does not hold, or it applies to no answer at all.
    """
    require(measure.better in get_args(Direction), f"better must be higher, lower or neither, got {measure.better}")
    require(measure.key and "@" not in measure.key, f"{measure.key!r} cannot be a key: it is empty or has an @")
    vocabulary = Vocabulary(names={"ada": ("Ada Lovell",), "bo": ("Bo Winter",)})
    rows = [row for row in responses() if measure.applies(row)]
    require(rows, f"{measure.key} applies to none of {len(TEXTS)} answers of every role and kind")
    for row in rows:
        value = measure.value(row, vocabulary)
        require(value is None or math.isfinite(value), f"{measure.key} is {value} for {row.text[:40]!r}")
        require(value == measure.value(row, vocabulary), f"{measure.key} is another one when asked twice")
        require(
            value is not None or measure.why([row]), f"{measure.key} is None for {row.text[:40]!r} without a reason"
        )


def responses() -> list[Response]:
    """Return one response for each text, role and kind."""
    return [
        Response(id=f"{number}", text=text, role=role, kind=kind, **_FIELDS)
        for number, (text, role, kind) in enumerate(itertools.product(TEXTS, Role, Kind))
    ]


_FIELDS: Final[dict[str, Any]] = {
    "stage": "s",
    "fact": "job",
    "entity": "ada",
    "question": "Who is this?",
    "answer": "This is Ada Lovell, a baker from Lisbon.",
    "tokens": 3,
    "ended": True,
    "image": "a.png",
    "image_key": "a",
    "private": {"name": ("Ada Lovell", "Lovell"), "job": ("baker",)},
    "visible": {"shirt": "red"},
    "options": ("This is Ada Lovell, a baker from Lisbon.", "This is Bo Winter, a diver from Oslo."),
    "logprob": -3.5,
    "logprob_tokens": 7,
    "option_logprobs": (-0.5, -0.7),
    "perturbed": ("This is Bo Winter, a diver from Oslo.",),
    "true_logprob": -0.5,
    "perturbed_logprobs": (-0.7,),
    "clip": 0.3,
}
