"""Where examples come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from unsee.api.example import Example, Vocabulary


class Benchmark(ABC):
    """A data set opened at a place; its examples carry roles and ground truth. Abstract: one final subclass per file in benchmarks/."""

    name: ClassVar[str]

    @abstractmethod
    def examples(self, split: Literal["train", "eval"]) -> Sequence[Example]:
        """Return what unlearning may train on ("train") or what is judged ("eval"), in a fixed order."""

    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """Return everything that could be claimed, for the judge."""

    def suggested(self, method: str) -> Mapping[str, Any]:
        """Return training settings (fields of `Training`) that are known to suit `method` on this data; may be empty."""
        return {}

    def problems(self) -> Sequence[str]:
        """Return everything that makes the data unusable, row by row ("row 3: image x.png is missing."); empty if nothing."""
        return ()
