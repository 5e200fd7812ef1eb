"""Disjoint parts of the evaluation questions: to choose settings on, to report, to attack.

Whoever chooses settings by the questions that a report shows, or that an attack asks, reports the choice.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Final, Literal

from unsee.api import Benchmark, Example
from unsee.errors import unknown_name
from unsee.utils.seeds import seed_of

PARTS: Final = ("selection", "report", "attacks")
SPLITS: Final = ("all", *PARTS)


def part_of(example: Example) -> str:
    """Return the part of a question, by hash of entity, kind and fact: all its pictures and wordings lie in one part."""
    asked = (example.entity, example.kind, example.fact) if example.entity else (example.id,)
    return PARTS[seed_of("split", *asked) % len(PARTS)]


def only(benchmark: Benchmark, split: str) -> Benchmark:
    """Return the data with the evaluation questions of one part, or themselves for "all".

    Raises:
        UserError: There is no such part.
    """
    if split not in SPLITS:
        raise unknown_name("split of the questions", split, SPLITS)
    if split == "all":
        return benchmark
    part = copy.copy(benchmark)
    part.__class__ = _restricted(type(benchmark), split)
    return part


def _restricted(whole: type[Benchmark], split: str) -> Any:
    """Return the class with the evaluation examples of one part, and all else as it is."""

    def examples(self: Benchmark, which: Literal["train", "eval"]) -> Sequence[Example]:
        rows = whole.examples(self, which)
        return rows if which == "train" else [row for row in rows if part_of(row) == split]

    return type(whole.__name__, (whole,), {"examples": examples, "__doc__": whole.__doc__})
