"""What an unlearning method is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unsee.api.finite import require_finite

if TYPE_CHECKING:
    from unsee.api.session import Session


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a training step of a method holds at once; read by the memory estimate, by nothing else."""

    trains: bool = True
    """Whether weights change at all."""
    rows: int = 1
    """Rows in one graph for each forget example of a batch."""
    retain: int = 0
    """Retain rows, in a graph of their own, for each forget example of a batch."""
    teacher: bool = False
    """Whether logits of the start model stand beside the model's own."""
    likelihoods: bool = False
    """Whether likelihoods under the start model are needed (the plain engine then holds a second model)."""
    generates: bool = False
    """Whether the start model answers the forget questions before the training."""
    before: float = 0.0
    """Bytes for each trained weight that are held before the training only (sums of a saliency sweep)."""
    beside: float = 0.0
    """Bytes for each trained weight that are held beside it all the time (masks, second moments)."""


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Settings of one method (its fields, the paper's defaults) and how to apply it. Abstract: one final subclass per file in methods/."""

    def __post_init__(self) -> None:
        """Refuse numbers that are NaN or infinite; subclasses with checks of their own call this first."""
        require_finite(self, "method")

    @abstractmethod
    def unlearn(self, session: Session) -> None:
        """Change `session.model` in place (or set `session.instruction`) so that the forget role is forgotten."""

    def needs(self) -> Needs:
        """Return what a step holds; here: one row an example, and as many of retain if `retain_weight` is set."""
        return Needs(retain=int(bool(vars(self).get("retain_weight", 0))))
