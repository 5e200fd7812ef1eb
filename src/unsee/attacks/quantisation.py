"""Quantisation: weights rounded to 8 or 4 bits (arXiv 2410.16454, arXiv 2605.24614)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn import Linear

from unsee.api import Attack, Finding, Victim
from unsee.api.finite import require_values
from unsee.evaluation.recovery import probed_rows, recovery
from unsee.models.quantized_base import experts


@dataclass(frozen=True, kw_only=True)
class Quantisation(Attack):
    """Round the weights of linear layers and experts to the nearest of 2^bits levels.

    Small updates fall below half a level, so that the original's weights come back. Symmetric, one scale per group of
    input features (of experts: of their last axis); embeddings, norms and the output layer stay as they are, as in common
    4-bit formats [inferred].
    """

    needs: ClassVar[Literal["answers", "weights"]] = "weights"

    bits: tuple[int, ...] = (8, 4)
    """Bits per weight."""
    group: int = 64
    """Input features that share a scale; the whole row where it cannot be divided."""
    images: int = 2
    """Test images per entity and question."""

    def __post_init__(self) -> None:
        """Reject bits without a level beside 0."""
        super().__post_init__()
        require_values(self, "attack", bits=2, group=1, images=0)

    def quick(self) -> Self:
        """Return 4 bits only."""
        return replace(self, bits=(4,), images=1)

    def run(self, victim: Victim) -> Iterator[Finding]:
        """Ask a rounded copy."""
        rows = probed_rows(victim.benchmark, self.images)
        for bits in self.bits:
            yield recovery(self._copy(victim, bits), rows, f"{bits} bits")

    def _copy(self, victim: Victim, bits: int) -> Any:
        """Return a copy of the model with rounded weights."""
        loaded = victim.open()
        output_layer = loaded.model.get_output_embeddings()
        with torch.no_grad():
            layers = [
                module for module in loaded.model.modules() if isinstance(module, Linear) and module is not output_layer
            ]
            for weight in (*(layer.weight for layer in layers), *experts(loaded.model)):
                weight.copy_(rounded(weight, bits, self.group))
        return loaded


def rounded(weight_oi: Tensor, bits: int, group: int) -> Tensor:
    """Return the weights rounded to the nearest level.

    Shapes: o output features (of experts: experts and output features), i input features, g groups.

    >>> rounded(torch.tensor([[1.0, 0.3, 0.1, -1.0]]), 2, 4).tolist()
    [[1.0, 0.0, 0.0, -1.0]]
    """
    levels = 2 ** (bits - 1) - 1
    size = group if weight_oi.shape[-1] % group == 0 else weight_oi.shape[-1]
    grouped_ogi = weight_oi.float().unflatten(-1, (-1, size))
    scale_og1 = grouped_ogi.abs().amax(-1, keepdim=True).clamp_min(1e-12) / levels
    return (torch.round(grouped_ogi / scale_og1) * scale_og1).flatten(-2).to(weight_oi.dtype)
