# ruff: noqa: ARG002 - torch dictates what an optimizer's methods are given.
"""ZeRO-3 training with DeepSpeed.

Weights, gradients and moments are sharded; a batch has one backward pass of the summed loss.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import Optimizer

from unsee.api import Session, Training
from unsee.api.request import Target
from unsee.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Zero:
    """Model prepared by DeepSpeed.

    Objectives call the original model, on whose layers DeepSpeed has hooks.
    """

    def __init__(self, model: Module, optimizer: Optimizer, training: Training) -> None:
        """Shard the weights. From here on the optimizer steps through `steps` only."""
        try:
            import deepspeed
        except ImportError as error:
            raise UserError('configs/zero3.yaml needs DeepSpeed: pip install "unsee[deepspeed]".') from error
        self.engine: Any = deepspeed.initialize(model=model, optimizer=optimizer, config=settings(training))[0]
        self.inner = optimizer
        self.steps = _Steps(optimizer, self.engine.step)

    def backward(self, loss: Tensor) -> None:
        """Backpropagate the loss of a batch. The optimizer step comes next."""
        self.engine.backward(loss)

    def grad_norm(self) -> float:
        """Return the gradient norm of the last step, before clipping.

        NaN where DeepSpeed took no step: it skips gradients that overflow, and keeps the norm of the step before.
        """
        norm = self.engine.get_global_grad_norm() if self.engine.was_step_applied() else None
        return math.nan if norm is None else float(norm)

    def save(self, folder: str) -> None:
        """Write a checkpoint for the same number of processes."""
        self.engine.save_checkpoint(folder, tag="zero", exclude_frozen_parameters=True)

    def load(self, folder: str) -> None:
        """Restore a checkpoint written by `save`."""
        checkpoint_path, _ = self.engine.load_checkpoint(folder, tag="zero", load_module_strict=False)
        self.steps.param_groups = self.inner.param_groups
        if checkpoint_path is None:
            raise UserError(f"{folder} holds no ZeRO-3 checkpoint of as many processes; start anew in another --out.")


class _Steps(Optimizer):
    """Optimizer for the schedule: parameter groups of the inner one, steps by DeepSpeed."""

    def __init__(self, inner: Optimizer, forward: Callable[[], None]) -> None:
        super().__init__([Parameter(torch.zeros(1))], inner.defaults)
        self.param_groups = inner.param_groups
        self.forward = forward

    def step(self, closure: Any = None) -> Any:
        """Delegate the step to DeepSpeed."""
        self.forward()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing, since DeepSpeed clears gradients with the step."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Do nothing, since DeepSpeed reads the learning rate from its own groups."""


def settings(training: Training) -> dict[str, Any]:
    """Return DeepSpeed's settings. Offloading follows the launcher's config file."""
    zero: dict[str, Any] = {"stage": 3}
    for part, name in (("optimizer", "OPTIMIZER"), ("param", "PARAM")):
        device = os.environ.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{name}_DEVICE", "none")
        if device != "none":
            zero[f"offload_{part}"] = {"device": device}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": training.clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }


def require_possible(session: Session, targets: Sequence[Target]) -> None:
    """Raise for settings that ZeRO-3 does not support."""
    if session.training.accumulate > 1:
        raise UserError(
            "ZeRO-3 accumulates batches only for models called through DeepSpeed, which objectives do not do. Set "
            "training.accumulate=1 and a larger training.batch_size, or use configs/fsdp2.yaml."
        )
    if len({target.example.image is not None for target in targets}) > 1:
        raise UserError(
            "With ZeRO-3 every row, or none, must have an image: processes gather the weights of each layer together, and "
            "rows without an image skip the vision tower. Leave such rows out, or use configs/fsdp2.yaml."
        )
