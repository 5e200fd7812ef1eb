"""Worst shifts of hidden states within a small ball: latent adversarial training.

Sheshadri et al., arXiv 2407.15549.
Shapes: b rows, t tokens, d width of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import Module

from unsee.compat.probes import trying
from unsee.errors import TrainingError

_STRIDE: Final = 2.5
"""Sum of all steps' lengths, in radii, so that a shift can turn round on its way (Madry et al., arXiv 1706.06083, section 5)."""


class Latent:
    """Additive shifts of a layer's output, one per forward pass with gradients.

    They are stored in the order of the passes.
    """

    def __init__(self, layer: Module, radius: float) -> None:
        """Start without shifts.

        Args:
            layer: Module whose output, or its first entry, is a tensor [b, t, d].
            radius: Largest length of a shift, as a share of the length of the state that it is added to.
        """
        self.layer, self.radius = layer, radius
        self.shifts_btd: list[Tensor] = []
        self.limits_bt1: list[Tensor] = []
        self._pass = 0

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Add the shifts in the passes of the block, 0 in a pass not met before."""
        self._pass = 0
        with self.layer.register_forward_hook(self._add):
            yield

    def attack(self, backpropagate: Callable[[], object], steps: int) -> None:
        """Raise the loss of `backpropagate` by projected gradient ascent on the shifts.

        Every step goes along the gradient of a state's shift, whatever its length.

        Raises:
            TrainingError: The loss does not depend on the layer's output.
        """
        for _ in range(steps):
            with self.applied():
                backpropagate()
            grads = [shift.grad for shift in self.shifts_btd]
            if all(grad is None for grad in grads):
                raise TrainingError(
                    "training.robust=lat: the forget terms do not depend on the layer whose states it shifts. Choose an "
                    "earlier one by training.robust_layer."
                )
            for shift_btd, limit_bt1, grad_btd in zip(self.shifts_btd, self.limits_bt1, grads, strict=True):
                if grad_btd is not None:
                    shift_btd.data = _ascend(shift_btd.data, grad_btd, limit_bt1, _STRIDE / steps)
                shift_btd.grad = None

    def _add(self, _: Module, __: Any, output: Any) -> Any:
        if trying() or not torch.is_grad_enabled():
            return None
        states_btd = output if isinstance(output, Tensor) else output[0]
        if self._pass == len(self.shifts_btd):
            detached_btd = states_btd.detach().float()
            self.shifts_btd.append(torch.zeros_like(detached_btd).requires_grad_())
            self.limits_bt1.append(self.radius * vector_norm(detached_btd, dim=-1, keepdim=True))
        moved_btd = states_btd + self.shifts_btd[self._pass].to(states_btd.dtype)
        self._pass += 1
        return moved_btd if isinstance(output, Tensor) else (moved_btd, *output[1:])


def _ascend(shift_btd: Tensor, grad_btd: Tensor, limit_bt1: Tensor, stride: float) -> Tensor:
    """Return shifts after an ascent step of `stride` radii, projected back into their balls.

    A shift whose gradient is 0 does not move.
    >>> _ascend(torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[0.0, 4.0]]]), torch.tensor([[[2.0]]]), 0.5)
    tensor([[[0., 1.]]])
    """
    norm_bt1 = vector_norm(grad_btd, dim=-1, keepdim=True)
    unit_btd = torch.where(norm_bt1 > 0, grad_btd / norm_bt1, 0.0)
    moved_btd = shift_btd + stride * limit_bt1 * unit_btd
    length_bt1 = vector_norm(moved_btd, dim=-1, keepdim=True)
    return torch.where(length_bt1 > limit_bt1, moved_btd * (limit_bt1 / length_bt1), moved_btd)
