"""Weights partitioned by DeepSpeed (ZeRO-3), recognised by its attributes.

The plain way is configs/fsdp2.yaml or configs/ddp.yaml.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def is_partitioned(weight: Tensor) -> bool:
    """Tell whether DeepSpeed has partitioned the weight."""
    return "ds_id" in vars(weight)


def full_weight(weight: Tensor) -> Tensor:
    """All-gather a copy of a partitioned weight. Collective: every rank must call it."""
    import deepspeed

    with deepspeed.zero.GatheredParameters([weight]):
        return weight.detach().clone()


def local_part(weight: Any) -> Tensor:
    """Return this rank's part of a partitioned weight."""
    part: Tensor = weight.ds_tensor
    return part
