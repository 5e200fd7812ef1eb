"""Checkpoints of lab training, so that `unsee train` resumes to the same weights."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import nn

from unsee.utils.files import atomic_writer
from unsee.utils.terminal import note_once

STAGES: Final = ("vision", "language")
EVERY: Final = 25
"""Steps between two checkpoints; a stage has at least four."""


class Optimizer(Protocol):
    """Several optimizers with one step."""

    parts: list[Any]


class Checkpoint:
    """State of one training in one file. Disabled without a file."""

    def __init__(self, file: Path | None = None, every: int = EVERY) -> None:
        """Read the state of an interrupted call. `every` is the number of steps between states."""
        self.file, self.every = file, every
        self.state: dict[str, Any] | None = None
        if file is not None and file.is_file():
            try:
                self.state = torch.load(file, weights_only=True)
            except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
                note_once(f"the checkpoint {file} cannot be read ({str(error)[:200]}); training starts anew.")

    def begin(
        self, stage: str, modules: Sequence[nn.Module], optimizer: Optimizer, rng: np.random.Generator, steps: int
    ) -> int:
        """Restore a stage and return its finished steps.

        Args:
            stage: Stage about to start, one of `STAGES`.
            modules: What it trains, restored in place; the first is the model.
            optimizer: Optimizer of the stage, restored in place.
            rng: Random stream of the stage, restored in place.
            steps: Steps of the stage, returned if a later stage had begun.
        """
        if self.state is None or STAGES.index(self.state["stage"]) < STAGES.index(stage):
            return 0
        modules[0].load_state_dict(self.state["modules"][0])
        if self.state["stage"] != stage:
            return steps
        for module, weights in zip(modules[1:], self.state["modules"][1:], strict=True):
            module.load_state_dict(weights)
        for part, state in zip(optimizer.parts, self.state["optimizer"], strict=True):
            part.load_state_dict(state)
        rng.bit_generator.state = json.loads(self.state["rng"])
        torch.random.set_rng_state(self.state["torch"])
        return int(self.state["step"])

    def keep(
        self,
        stage: str,
        modules: Sequence[nn.Module],
        optimizer: Optimizer,
        rng: np.random.Generator,
        step: int,
        steps: int,
    ) -> None:
        """Write the state after `step` of `steps` if due.

        Args:
            stage: Stage that the step belongs to, one of `STAGES`.
            modules: What it trains, in the order of `begin`.
            optimizer: Optimizer of the stage.
            rng: Random stream of the stage.
            step: Steps done. Due is every `every`-th, each quarter of a short stage, and the last.
            steps: Steps of the stage.
        """
        if self.file is None or (step % max(1, min(self.every, steps // 4)) and step != steps):
            return
        state = {
            "stage": stage,
            "step": step,
            "modules": [module.state_dict() for module in modules],
            "optimizer": [part.state_dict() for part in optimizer.parts],
            "rng": json.dumps(rng.bit_generator.state),
            "torch": torch.random.get_rng_state(),
        }
        with atomic_writer(self.file) as stream:
            # By name: an interruption within a write to a Python stream would come out as torch's RuntimeError.
            torch.save(state, stream.name)
