"""Interface of an attack: recovery of forgotten information from a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from unsee.api.benchmark import Benchmark
from unsee.api.finite import require_finite
from unsee.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Victim:
    """Model under attack. The gold model is attacked in the same way."""

    open: Callable[[], Any]
    """Opens a fresh copy (`unsee.models.checkpoint.VLM`), which the attack may change."""
    benchmark: Benchmark
    work: Path
    """Folder for scratch files, removed after the attack."""
    seed: int
    instruction: str = ""
    original: Callable[[], Any] | None = None
    """Opens the model before unlearning, or None where it is not known."""
    gold: Callable[[], Any] | None = None
    """Opens the gold model, or None without one."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Result of one variant of an attack."""

    variant: str
    """Form of the attack, such as its learning rate or its prompt; the same for model and gold."""
    recovered: Mapping[str, float]
    """Entity -> share of the test questions that the forgotten information answers, in 0..1; empty if no answer can be judged."""
    degenerate: float
    """Share of degenerate answers: gibberish is no forgetting."""
    questions: int
    at: float | None = None
    """Position on the attack's curve (optimiser steps, draws), or None."""
    asked: Mapping[str, int] = field(default_factory=dict)
    """Entity -> test questions whose answers could be judged. Empty = not counted; receipts of deletion requests need it."""
    further: Mapping[str, float] = field(default_factory=dict)
    """Further figures of this attack, such as its control."""

    def __post_init__(self) -> None:
        """Reject shares outside of 0..1, NaN among them."""
        for name, share in {**self.recovered, "degenerate": self.degenerate}.items():
            if not 0 <= share <= 1:
                raise UserError(f"The finding {self.variant!r} has the share {share} for {name}; expected 0 to 1.")

    @property
    def mean(self) -> float | None:
        """Mean over entities, or None without any."""
        return sum(self.recovered.values()) / len(self.recovered) if self.recovered else None


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Settings of one attack and its algorithm.

    Abstract: one final subclass per file in attacks/. What is fitted and what is tested must not overlap.
    """

    needs: ClassVar[Literal["answers", "weights"]] = "answers"
    """Access assumed: questions to the model, or its weights."""
    finds: ClassVar[Literal["answers", "traces"]] = "answers"
    """What counts as success: answers that give the forgotten away, or traces inside the model, which nobody has to read."""
    axis: ClassVar[str] = ""
    """Meaning of `Finding.at`, empty for attacks without a curve."""

    def __post_init__(self) -> None:
        """Reject NaN and infinite settings."""
        require_finite(self, "attack")

    @abstractmethod
    def run(self, victim: Victim) -> Iterator[Finding] | Sequence[Finding]:
        """Attack, and return the findings in a fixed order.

        Raises:
            UserError: The data lack what the attack needs; the message says what.
        """

    def idle(self) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect beside the others (`attack.x`), each with what it counts with."""
        yield from ()

    def named_models(self) -> Iterator[str]:
        """Yield the models that the settings name. Other weights in their place make the attack anew."""
        yield from ()

    def quick(self) -> Self:
        """Return the attack with fewer variants, for a first look."""
        return self
