"""In which precision a run computes."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Module

from unsee.api import Training


def half(training: Training) -> bool:
    """Tell whether to compute under bf16 autocast."""
    if training.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return training.precision == "bf16"


def autocast(model: Module, training: Training) -> Any:
    """Return the context in which the training run computes, for what is computed outside of it and compared with it."""
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=half(training))
