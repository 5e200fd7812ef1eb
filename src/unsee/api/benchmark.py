"""Interface of a benchmark: a data set with roles and ground truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from unsee.api.example import Example, Vocabulary


@dataclass(frozen=True)
class Hub:
    """Data set on the Hugging Face hub, given in place of a folder."""

    id: str
    """`owner/name`."""

    def __str__(self) -> str:
        """Return the id."""
        return self.id


SPLITS: tuple[Literal["train", "eval"], ...] = ("train", "eval")
"""Splits of the examples: for training, and for evaluation."""
Place = Path | Hub
"""Location of data: a folder or file, or a data set on the hub."""


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """Settings of a benchmark that has none."""


class Benchmark(ABC):
    """Data set whose examples carry roles and ground truth.

    Abstract: one final subclass per file in benchmarks/.

    A subclass is called with the place and its settings: `Mllmu(Path("MLLMU-Bench"), MllmuSettings(ratio=10))`.
    """

    name: ClassVar[str]
    layout: ClassVar[str]
    """Description of the layout that `fits` looks for ("a folder with world.json"); shown when no benchmark fits."""
    settings_type: ClassVar[type] = NoSettings
    """Frozen dataclass of the settings: `benchmark:` in a run file, `--set benchmark.x=y`."""
    hub: ClassVar[tuple[str, ...]] = ()
    """Hub ids of this benchmark."""
    generic: ClassVar[bool] = False
    """Whether it also accepts the layout of other benchmarks; those take precedence."""
    likelihood: ClassVar[bool] = False
    """Whether evaluation also needs log-probabilities of answers and options."""

    settings: Any = NoSettings()
    """Settings it was opened with, of type `settings_type`."""

    @classmethod
    def fits(cls, place: Path) -> bool:  # noqa: ARG003 - a default of the contract
        """Tell from file names alone whether `place` has the layout of this benchmark."""
        return False

    @abstractmethod
    def examples(self, split: Literal["train", "eval"]) -> Sequence[Example]:
        """Return the training ("train") or evaluation ("eval") examples, in a fixed order."""

    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """Return all names and values for judging, and the extra measures of this benchmark."""

    def suggested(self, method: str) -> Mapping[str, Any]:
        """Return recommended `Training` fields for `method` on this data, may be empty."""
        return {}

    def idle(self) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect on these data (`benchmark.x`), each with what it counts with."""
        yield from ()

    def about(self, entities: Sequence[str]) -> Benchmark:
        """Return the same data with these entities as forget set, or itself if unsupported."""
        return self

    def problems(self) -> Sequence[str]:
        """Return all faults that make the data unusable, one message per row, else empty."""
        return ()

    def warnings(self) -> Sequence[str]:
        """Return legal but surprising facts: unexpected counts, rows left out."""
        return ()
