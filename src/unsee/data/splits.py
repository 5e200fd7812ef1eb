"""Disjoint parts of the evaluation questions: to choose settings on, to report, to attack.

Settings chosen on the questions of the report or of an attack would bias their scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from unsee.api import Benchmark, Example, Vocabulary
from unsee.errors import unknown_name
from unsee.utils.seeds import seed_of

PARTS: Final = ("selection", "report", "attacks")
SPLITS: Final = ("all", *PARTS)


def part_of(example: Example) -> str:
    """Return the part of a question, by hash of entity, kind and fact.

    So all its pictures and wordings lie in one part.
    """
    key = (example.entity, example.kind, example.fact) if example.entity else (example.id,)
    return PARTS[seed_of("split", *key) % len(PARTS)]


def only(benchmark: Benchmark, split: str) -> Benchmark:
    """Return the data with the evaluation questions of one part, or unchanged for "all".

    Raises:
        UserError: There is no such part.
    """
    if split not in SPLITS:
        raise unknown_name("split of the questions", split, SPLITS)
    if split == "all":
        return benchmark
    return Narrowed(benchmark, lambda row: part_of(row) == split)


class Narrowed(Benchmark):
    """Data with a part of its evaluation examples, and all else as it is."""

    name = "part"
    layout = ""

    def __init__(self, benchmark: Benchmark, keep: Callable[[Example], bool]) -> None:
        """Store the data with their name and needs, and the filter of the part."""
        self.settings = benchmark.settings
        self._whole, self._keep = benchmark, keep
        vars(self).update(name=benchmark.name, likelihood=benchmark.likelihood)

    def examples(self, split: Literal["train", "eval"]) -> Sequence[Example]:
        """Return all training examples, or the evaluation examples of the part."""
        rows = self._whole.examples(split)
        return rows if split == "train" else [row for row in rows if self._keep(row)]

    def vocabulary(self) -> Vocabulary:
        """Return the vocabulary of all the data."""
        return self._whole.vocabulary()

    def suggested(self, method: str) -> Mapping[str, Any]:
        """Return the suggestions of the data."""
        return self._whole.suggested(method)

    def about(self, entities: Sequence[str]) -> Benchmark:
        """Return the part of the data with these entities as forget set."""
        return Narrowed(self._whole.about(entities), self._keep)

    def problems(self) -> Sequence[str]:
        """Return the faults of the data."""
        return self._whole.problems()

    def warnings(self) -> Sequence[str]:
        """Return the warnings of the data."""
        return self._whole.warnings()
