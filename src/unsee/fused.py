"""A linear layer and its LoRA adapter as one function: y = x W' + b + s (x A') B', summed up where y lies.

peft computes the two branches apart, scales one and adds them: four passes over tensors as large as the output, forward and
backward, and a copy of the input in the adapter's precision that autograd keeps. Shapes: n rows (batch and tokens), i inputs,
o outputs, r rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import Identity, Linear, Module
from torch.nn.functional import linear

from unsee import devices, engine


@contextmanager
def fused(model: Module) -> Iterator[None]:
    """Let the model's LoRA layers compute in one function within the block, wherever that says the same.

    Not with dropout, several adapters or peft's variants of LoRA, nor on weights spread over processes; those compute as ever.
    """
    wanted = engine.current().fused_adapters and devices.sharding() == "none"
    layers = [module for module in model.modules() if type(module) is LoraLinear] if wanted else []
    for layer in layers:
        layer.__class__ = _Fused
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = LoraLinear


class _Fused(LoraLinear):
    """A LoRA layer that computes in one function where it can."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return what the layer returns."""
        name = None if args or kwargs else _only(self, x)
        if name is None:
            return super().forward(x, *args, **kwargs)
        base: Any = self.get_base_layer()
        a_ri, b_or = self.lora_A[name].weight, self.lora_B[name].weight
        found: Tensor = _Sum.apply(x, base.weight, base.bias, a_ri, b_or, self.scaling[name])  # type: ignore[no-untyped-call]
        return found


_Fused.__name__ = LoraLinear.__name__


def _only(layer: Any, x: Tensor) -> str | None:
    """Return the name of the one adapter of a plain LoRA layer that is to be trained; None if anything is not plain."""
    base = layer.get_base_layer()
    if (
        x.ndim < 2
        or not torch.is_grad_enabled()
        or layer.disable_adapters
        or layer.merged
        or len(layer.active_adapters) != 1
    ):
        return None
    name: str = layer.active_adapters[0]
    if name not in layer.lora_A or name in layer.lora_variant or layer.lora_B[name].bias is not None:
        return None
    quiet = isinstance(layer.lora_dropout[name], Identity) or not layer.training
    plain = type(base) is Linear and "forward" not in vars(base) and not base.weight.requires_grad
    return (
        name if quiet and plain and _computed_in(x, layer.lora_A[name].weight) == base.weight.dtype == x.dtype else None
    )


def _computed_in(x: Tensor, weight: Tensor) -> torch.dtype:
    """Return the precision in which the adapter computes."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


class _Sum(torch.autograd.Function):
    """y = x W' + b + s (x A') B', with gradients for x, A and B."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, w_oi: Tensor, bias_o: Tensor | None, a_ri: Tensor, b_or: Tensor, scale: float
    ) -> Tensor:
        """Return y, shaped like x but for the last axis."""
        with torch.autocast(x.device.type, enabled=False):
            x_ni = x.flatten(0, -2)
            y_no = linear(x_ni, w_oi, bias_o)
            inner_nr = x_ni @ a_ri.t().to(x.dtype)
            y_no.addmm_(inner_nr, b_or.t().to(x.dtype), alpha=scale)
        ctx.save_for_backward(x, w_oi, a_ri, b_or, inner_nr)
        ctx.scale = scale
        return y_no.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Return the gradients for x, A and B, the latter in their own precision."""
        x, w_oi, a_ri, b_or, inner_nr = ctx.saved_tensors
        grad_no, x_ni = grad.flatten(0, -2), x.flatten(0, -2)
        inner_grad_nr = (grad_no @ b_or.to(x.dtype)).mul_(ctx.scale)
        b_grad_or = (grad_no.t() @ inner_nr).mul_(ctx.scale).to(b_or.dtype)
        a_grad_ri = (inner_grad_nr.t() @ x_ni).to(a_ri.dtype)
        x_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = (grad_no @ w_oi).addmm_(inner_grad_nr, a_ri.to(x.dtype)).view_as(x)
        return x_grad, None, None, a_grad_ri, b_grad_or, None
