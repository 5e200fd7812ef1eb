"""State of one unlearning run: model, examples, settings, log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsee.api.example import Example, Role
from unsee.api.lazy import concatenated
from unsee.api.training import Training
from unsee.api.vlm import VLM

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import TrainerCallback

    from unsee.api.benchmark import Benchmark
    from unsee.api.family import Family
    from unsee.api.fast_paths import Engine


@dataclass(kw_only=True)
class Session:
    """Model, examples by role and settings of a run. Methods change `model` in place."""

    vlm: VLM
    """Model, processor, family and instruction. Under LoRA the adapter-off state of the model is the original model."""
    examples: Mapping[Role, Sequence[Example]]
    training: Training
    seed: int
    out: Path
    """Run folder; methods may keep files (rollouts, caches) below `out / "work"`."""
    resume: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row per logged step: step, epoch, loss parts, gradient norm, checks (written to log.jsonl)."""
    benchmark: Benchmark | None = None
    """Source of the examples. Its evaluation split is for reproductions of published code only, never for training."""
    callbacks: Sequence[TrainerCallback] = ()
    """User callbacks, whose `on_*` events are fired during training."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Facts for the run's record: stop reason, drop rates, number of trainable parameters, ..."""

    @property
    def model(self) -> Module:
        """The model that is being unlearned."""
        return self.vlm.model

    @model.setter
    def model(self, model: Module) -> None:
        self.vlm = replace(self.vlm, model=model)

    @property
    def processor(self) -> Any:
        """Processor of the model."""
        return self.vlm.processor

    @property
    def family(self) -> Family:
        """Family of the model."""
        return self.vlm.family

    @property
    def instruction(self) -> str:
        """Text that precedes every question at inference, set by prompt-based methods."""
        return self.vlm.instruction

    @instruction.setter
    def instruction(self, instruction: str) -> None:
        self.vlm = replace(self.vlm, instruction=instruction)

    @property
    def engine(self) -> Engine:
        """Which fast paths the run's batches take."""
        return self.vlm.engine

    @engine.setter
    def engine(self, engine: Engine) -> None:
        self.vlm = replace(self.vlm, engine=engine)

    def of(self, *roles: Role) -> Sequence[Example]:
        """Return the training examples of these roles, in order. Large data stay on disk."""
        return concatenated([self.examples.get(role, ()) for role in roles])
