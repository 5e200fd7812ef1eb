"""State of one unlearning run: model, examples, settings, log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsee.api.example import Example, Role
from unsee.api.lazy import joined
from unsee.api.training import Training

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import TrainerCallback

    from unsee.api.benchmark import Benchmark
    from unsee.api.family import Family


@dataclass(kw_only=True)
class Session:
    """Model, examples by role and settings of a run. Methods change `model` in place.

    `model` is the loaded model; under LoRA it is a PeftModel whose adapter-off state is the original model.
    """

    model: Module
    processor: Any
    family: Family
    examples: Mapping[Role, Sequence[Example]]
    training: Training
    seed: int
    out: Path
    """Run folder; methods may keep files (rollouts, caches) below `out / "work"`."""
    resume: bool = False
    instruction: str = ""
    """Text that precedes every question at inference; set by prompt-based methods."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row per logged step: step, epoch, loss parts, gradient norm, checks (written to log.jsonl)."""
    benchmark: Benchmark | None = None
    """Source of the examples. Its evaluation split is for reproductions of published code only, never for training."""
    callbacks: Sequence[TrainerCallback] = ()
    """User callbacks, whose `on_*` events are fired during training."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Facts for the run's record: stop reason, drop rates, number of trainable parameters, ..."""

    def of(self, *roles: Role) -> Sequence[Example]:
        """Return the training examples of these roles, in order. Large data stay on disk."""
        return joined([self.examples.get(role, ()) for role in roles])
