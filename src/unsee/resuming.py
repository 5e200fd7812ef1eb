"""What a run needs to go on where it was cut off, whatever the number of processes: whole moments, random streams, checkpoints."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.optim import Optimizer

from unsee import devices
from unsee.sharding import joined, spread_like
from unsee.watch import COMPLETE


def joined_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of an optimizer with all tensors whole."""
    moments = {
        index: {name: joined(value) if isinstance(value, Tensor) else value for name, value in one.items()}
        for index, one in state["state"].items()
    }
    return {**state, "state": moments}


def spread_state(optimizer: Optimizer) -> None:
    """Spread the moments in an optimizer as its weights are."""
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                state[name] = spread_like(value, weight)


def random_state() -> dict[str, Any]:
    """Return the state of every random stream of this process."""
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),  # noqa: NPY002 - what the Trainer restores
        "cpu": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        several = devices.world() > 1
        state["cuda"] = torch.cuda.get_rng_state_all() if several else torch.cuda.get_rng_state()
    return state


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to the end, if any."""
    complete = [marker.parent for marker in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
