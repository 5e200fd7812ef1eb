"""An opened vision-language model with what is needed to ask it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsee.api.fast_paths import FAST, Engine

if TYPE_CHECKING:
    from torch.nn import Module

    from unsee.api.family import Family


@dataclass(frozen=True, kw_only=True)
class VLM:
    """Model, processor and family that belong together."""

    model: Module
    """A checkpoint is opened in eval mode, with adapters merged."""
    processor: Any
    family: Family
    instruction: str = ""
    """Text that precedes every question; empty unless the run steers by prompt."""
    base: str | None = None
    """Base named in an adapter folder; None for whole checkpoints."""
    engine: Engine = FAST
    """Which fast paths its batches take."""
