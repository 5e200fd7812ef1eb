"""One unlearning run in progress: everything a method may use."""

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
    """A model, the examples by role, and the settings; methods change `model` in place.

    `model` is the loaded model; under LoRA it is a PeftModel whose adapter-off state is the start model.
    """

    model: Module
    processor: Any
    family: Family
    examples: Mapping[Role, Sequence[Example]]
    training: Training
    seed: int
    out: Path
    """Folder of the run; methods may keep files (rollouts, caches) below `out / "work"`."""
    resume: bool = False
    instruction: str = ""
    """Text put before every question at inference time; set by methods that steer by prompt."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row per logged step: step, epoch, loss parts, gradient norm, checks (written to log.jsonl)."""
    benchmark: Benchmark | None = None
    """The data that the examples are of. What it judges is no training data: only what repeats published code may look at it."""
    callbacks: Sequence[TrainerCallback] = ()
    """Callbacks of the user, whose `on_*` events the training fires."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Facts about the run that belong in its record: stop reason, drop rates, trainable parameter count, ..."""

    def of(self, *roles: Role) -> Sequence[Example]:
        """Return the training examples of these roles, in order; large data are read from disk as they are asked for."""
        return joined([self.examples.get(role, ()) for role in roles])
