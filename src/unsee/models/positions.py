"""Position ids: sequential, or time, height and width within an image (Qwen-VL).

Shapes: t tokens, p = 1, or 3 for time, height and width (Qwen2-VL, arXiv 2409.12191, section 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Final

import torch
from torch import Tensor

from unsee.models.padding import is_sequence

THREE: Final = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"})
"""Model types with the 3D positions computed here."""
KEYS: Final = frozenset({"image_grid_thw", "mm_token_type_ids"})
"""Inputs of such models: patches per image, and token types."""


def positions(row: Mapping[str, Tensor]) -> Tensor:
    """Return the position ids [p, t] of one unpadded row.

    Text continues after the longer side of an image.
    """
    if "image_grid_thw" not in row or not is_sequence(row, "mm_token_type_ids"):
        return torch.arange(row["input_ids"].shape[1])[None]
    kinds, counts = row["mm_token_type_ids"][0].unique_consecutive(return_counts=True)
    grids = iter(row["image_grid_thw"].tolist())
    parts, start = [], 0
    for is_image, count in zip(kinds.tolist(), counts.tolist(), strict=True):
        position_ids, size = _image(next(grids), count) if is_image else (torch.arange(count).expand(3, -1), count)
        parts.append(position_ids + start)
        start += size
    return torch.cat(parts, dim=1)


def _image(grid: list[int], tokens: int) -> tuple[Tensor, int]:
    """Return time, height and width of each image token, and the offset of what follows."""
    frames, height, width = grid
    merge = isqrt(frames * height * width // tokens)
    sides = (torch.arange(frames), torch.arange(height // merge), torch.arange(width // merge))
    return torch.stack(torch.meshgrid(*sides, indexing="ij")).flatten(1), max(height, width) // merge


def alike(rows: list[Tensor]) -> list[Tensor]:
    """Return the position ids [p, ...] of several rows with equal numbers of dimensions."""
    axes = max(len(row) for row in rows)
    return [row.expand(axes, *row.shape[1:]) for row in rows]
