"""Activation checkpointing of transformers models, whose methods were renamed in 5.24.

The plain way is `training.gradient_checkpointing=false`.
"""

from __future__ import annotations

from typing import Any

from torch.nn import Module


def checkpoint_activations(model: Module) -> None:
    """Enable activation checkpointing, with gradients through frozen layers to adapters."""
    any_model: Any = model
    renamed = hasattr(model, "activation_checkpointing_enable")
    enable = any_model.activation_checkpointing_enable if renamed else any_model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    any_model.enable_input_require_grads()


def keep_activations(model: Module) -> None:
    """Undo `checkpoint_activations`."""
    any_model: Any = model
    renamed = hasattr(model, "activation_checkpointing_disable")
    disable = any_model.activation_checkpointing_disable if renamed else any_model.gradient_checkpointing_disable
    disable()
    any_model.disable_input_require_grads()
