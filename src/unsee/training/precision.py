"""Numeric precision of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import Module

from unsee.api import Training


def half(training: Training) -> bool:
    """Tell whether to use bf16 autocast."""
    if training.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return training.precision == "bf16"


def autocast(model: Module, training: Training) -> Any:
    """Return the autocast context of training, for computations compared with it."""
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=half(training))


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Flush denormals to 0 for the block.

    Tiny gradients of examples that are already fitted slow a CPU down several times.
    """
    flushed = bool(torch.tensor(1e-310, dtype=torch.float64) + torch.tensor(1e-310, dtype=torch.float64) == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
