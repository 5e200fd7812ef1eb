"""Base models whose linear layers are held in 8 or 4 bits (QLoRA, arXiv 2305.14314).

nf4 is bitsandbytes' 4-bit NormalFloat with doubly quantised scales, int8 torchao's 8-bit weights with one scale per output
feature. Both run on CPUs and GPUs, and neither package is required. Only adapters train on such a base: its own weights
are never updated, so their gradients are neither needed nor defined.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import Conv1d, Conv2d, Conv3d, Linear, Module, Parameter

from unsee.api import Quantization
from unsee.compat.models import unwrapped
from unsee.errors import UserError

PACKAGES: Final = {"nf4": "bitsandbytes", "int8": "torchao"}
"""Package that holds the weights, by kind."""
_MARK: Final = "quantized_as"
"""Attribute of a model with quantised layers."""
_BLOCK: Final = 64
"""nf4: weights that share a scale."""
_OUTER: Final = 256
"""nf4: scales that share a scale of theirs."""


def require(kind: Quantization) -> None:
    """Raise unless the package for a kind is installed."""
    if kind != "none" and find_spec(PACKAGES[kind]) is None:
        raise UserError(
            f"quantization={kind} needs {PACKAGES[kind]}, which is not installed. Install it with "
            f"`pip install {PACKAGES[kind]}` (or unsee[quantization]), or leave quantization out."
        )


def quantize(model: Any, kind: Quantization, device: torch.device) -> None:
    """Hold the weights of all linear layers but the output head in few bits, and move the model to the device.

    The layers move one by one, so that the device never holds the whole model in full.

    Raises:
        UserError: The package is missing, or most weights are no linear layers' but experts'.
    """
    require(kind)
    for name, layer in _layers(model):
        model.set_submodule(name, _quantized(layer, kind, device))
    model.to(device)
    if kind == "nf4":
        model.is_loaded_in_4bit = True  # read by PEFT
    setattr(model, _MARK, kind)


def round_trip(model: Any, kind: Quantization) -> None:
    """Replace the weights of the same layers by their dequantised values, in their own dtype."""
    require(kind)
    for _, layer in _layers(model):
        quantized_layer = _quantized(layer, kind, layer.weight.device)
        layer.weight = Parameter(_in_full(quantized_layer.weight).to(layer.weight.dtype), requires_grad=False)


def kind_of(model: Any) -> Quantization:
    """Return how the layers of a model (or of an adapter's base) are held."""
    kind: Quantization = getattr(unwrapped(model), _MARK, "none")
    return kind


def held_bytes(model: Any, kind: Quantization) -> tuple[int, int]:
    """Return the bytes of the quantised weights, and of the largest layer dequantised.

    A pass dequantises one layer at a time.
    """
    total = sum(weight.nbytes for weight in model.parameters())
    largest = 0
    for _, layer in _layers(model) if kind != "none" else ():
        total += _packed_bytes(kind, *layer.weight.shape) - layer.weight.nbytes
        largest = max(largest, layer.weight.nbytes)
    return total, largest


def _packed_bytes(kind: Quantization, rows: int, columns: int) -> int:
    """Return the bytes of a quantised matrix with its scales.

    >>> _packed_bytes("int8", 2, 128), _packed_bytes("nf4", 2, 128)
    (264, 140)
    """
    if kind == "int8":
        return rows * columns + 4 * rows
    scales = -(-rows * columns // _BLOCK)
    return -(-rows * columns // 2) + scales + 4 * -(-scales // _OUTER) + 4


def _layers(model: Any) -> list[tuple[str, Linear]]:
    """Return the frozen linear layers of a model by name, but for the output head."""
    head = model.get_output_embeddings()
    linear_layers = [(name, module) for name, module in model.named_modules() if isinstance(module, Linear)]
    layers = [(name, layer) for name, layer in linear_layers if layer is not head and ".lora_" not in name]
    linear_count, expert_count = (
        sum(weight.numel() for weight in weights) for weights in ((layer.weight for _, layer in layers), experts(model))
    )
    if expert_count > linear_count:
        raise UserError(
            f"quantization would leave {expert_count / (expert_count + linear_count):.0%} of the weights in full: those of the experts, which "
            f"{type(model).__name__} holds in one tensor per layer. Leave quantization out, or take a model without experts."
        )
    return layers


def experts(model: Module) -> list[Parameter]:
    """Return the weights of experts that are held in one tensor [experts, ..., ...] instead of linear layers."""
    convolutions = (Conv1d, Conv2d, Conv3d)
    weights = [
        weight
        for module in model.modules()
        if not isinstance(module, convolutions)
        for weight in module.parameters(False)
    ]
    return [weight for weight in weights if weight.ndim == 3 and min(weight.shape) > 1]


def _quantized(layer: Linear, kind: Quantization, device: torch.device) -> Module:
    """Return a layer with quantised weights on the device."""
    if kind == "nf4":
        return _in_four_bits(layer, device)
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantized_layer = Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    quantized_layer.weight = Parameter(layer.weight.detach().to(device), requires_grad=False)
    quantized_layer.bias = (
        None if layer.bias is None else Parameter(layer.bias.detach().to(device), requires_grad=False)
    )
    quantize_(quantized_layer, Int8WeightOnlyConfig())
    return quantized_layer


def _in_four_bits(layer: Linear, device: torch.device) -> Module:
    import bitsandbytes

    bnb_nn: Any = bitsandbytes.nn
    quantized_layer = bnb_nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=False,
        compute_dtype=layer.weight.dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    quantized_layer.weight = bnb_nn.Params4bit(
        layer.weight.detach(),
        requires_grad=False,
        blocksize=_BLOCK,
        compress_statistics=True,
        quant_type="nf4",
        module=quantized_layer,
    )
    quantized_layer.bias = None if layer.bias is None else Parameter(layer.bias.detach(), requires_grad=False)
    moved: Module = quantized_layer.to(device)
    return moved


def _in_full(weight: Any) -> Tensor:
    """Return a quantised weight as a plain tensor."""
    if hasattr(weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        plain: Tensor = dequantize_4bit(weight.data, weight.quant_state)
        return plain
    full: Tensor = weight.dequantize()
    return full
