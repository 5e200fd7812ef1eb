"""Where examples come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from unsee.api.example import Example, Vocabulary


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face hub, in the place of a folder."""

    id: str
    """`owner/name`."""

    def __str__(self) -> str:
        """Return the id."""
        return self.id


Place = Path | Hub
"""Where data lies: a folder or file, or a data set on the hub."""


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """What may be set about a benchmark that has nothing to set."""


class Benchmark(ABC):
    """A data set opened at a place; its examples carry roles and ground truth. Abstract: one final subclass per file in benchmarks/.

    A subclass is called with the place and its settings: `Mllmu(Path("MLLMU-Bench"), MllmuSettings(ratio=10))`.
    """

    name: ClassVar[str]
    layout: ClassVar[str]
    """What `fits` looks for, in words ("a folder with world.json"); said to a user whose data fits nothing."""
    settings_type: ClassVar[type] = NoSettings
    """A frozen dataclass: what `benchmark:` in a run file and `--set benchmark.x=y` may name."""
    hub: ClassVar[tuple[str, ...]] = ()
    """Ids on the hub that are this benchmark."""
    generic: ClassVar[bool] = False
    """Whether it also fits what belongs to another benchmark, which then goes first."""
    likelihood: ClassVar[bool] = False
    """Whether its protocol needs to know how probable answers and options are, not only what is said."""

    settings: Any
    """The settings it was opened with, of type `settings_type`."""

    @classmethod
    def fits(cls, place: Path) -> bool:  # noqa: ARG003 - a default of the contract
        """Tell, from file names alone, whether what lies at `place` is laid out as this benchmark is."""
        return False

    @abstractmethod
    def examples(self, split: Literal["train", "eval"]) -> Sequence[Example]:
        """Return what unlearning may train on ("train") or what is judged ("eval"), in a fixed order."""

    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """Return everything that could be claimed, for the judge, and the extra measures that the benchmark is judged by."""

    def suggested(self, method: str) -> Mapping[str, Any]:
        """Return training settings (fields of `Training`) that are known to suit `method` on this data; may be empty."""
        return {}

    def about(self, entities: Sequence[str]) -> Benchmark:
        """Return the data with all there is about these entities, as if just they were to be forgotten; itself if it has no more."""
        return self

    def problems(self) -> Sequence[str]:
        """Return everything that makes the data unusable, row by row ("row 3: image x.png is missing."); empty if nothing."""
        return ()

    def warnings(self) -> Sequence[str]:
        """Return what is legal but may surprise: counts that differ from the published ones, rows left out."""
        return ()
