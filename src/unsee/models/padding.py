"""Left-padding of rows into batches, whatever keys a processor returns.

Shapes: r rows, b batch, t tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from unsee.errors import UserError
from unsee.losses import IGNORE

CROSS = "cross_attention_mask"
"""Attention from tokens to images, in models with cross-attention (Mllama)."""


def is_sequence(row: Mapping[str, Tensor], key: str) -> bool:
    """Tell whether `row[key]` has one entry per token (and is padded), not per image."""
    return key in row and row[key].shape[:2] == row["input_ids"].shape


def extend(
    row: Mapping[str, Tensor], token_ids: Sequence[int], fill: Mapping[str, int] | None = None
) -> dict[str, Tensor]:
    """Return the row with text tokens appended.

    Attention masks get 1, cross-attention masks repeat the last prompt token, other per-token keys get `fill` or 0.
    """
    tail = torch.tensor([list(token_ids)])
    count = tail.shape[1]
    new_tokens = {"input_ids": tail, "attention_mask": torch.ones_like(tail)}
    extended = dict(row)
    for key, value in row.items():
        if is_sequence(row, key) and value.ndim == 2:
            extended[key] = torch.cat(
                [value, new_tokens.get(key, torch.full_like(tail, (fill or {}).get(key, 0))).to(value)], dim=1
            )
        elif is_sequence(row, key):
            extended[key] = torch.cat([value, value[:, -1:].expand(-1, count, *value.shape[2:])], dim=1)
    return extended


def cut(row: Mapping[str, Tensor], span: slice) -> dict[str, Tensor]:
    """Return the row restricted to these tokens."""
    return {key: value[:, span] if is_sequence(row, key) else value for key, value in row.items()}


def batchable_groups(rows: Sequence[Mapping[str, Tensor]]) -> list[list[int]]:
    """Group rows that can share a batch.

    Cross-attention over no image is not the same as no cross-attention, so Mllama separates rows with and without images.
    """
    cross_rows = [index for index, row in enumerate(rows) if CROSS in row]
    plain_rows = [index for index, row in enumerate(rows) if CROSS not in row]
    return [group for group in (cross_rows, plain_rows) if group]


def merge(rows: Sequence[Mapping[str, Tensor]], pad_id: int) -> dict[str, Tensor]:
    """Return one batch: per-token keys left-padded, all others concatenated."""
    if len(batchable_groups(rows)) > 1:
        raise UserError(
            "This model has cross-attention to images, so rows with and without an image cannot share a batch; "
            "leave the rows without images out here."
        )
    width = max(row["input_ids"].shape[1] for row in rows)
    fill = {"input_ids": pad_id, "labels": IGNORE}
    merged = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        parts = [row[key] for row in rows if key in row]
        if all(is_sequence(row, key) for row in rows if key in row):
            merged[key] = _sequences(rows, key, width, fill.get(key, 0))
        else:
            merged[key] = torch.cat(_same_shape(parts))
    return merged


def _sequences(rows: Sequence[Mapping[str, Tensor]], key: str, width: int, fill: int) -> Tensor:
    """Pad one per-token key. Rows without it (text only) count as zeros."""
    values = [row.get(key, torch.zeros_like(row["input_ids"])) for row in rows]
    return torch.cat([pad(v, (*[0, 0] * (v.ndim - 2), width - v.shape[1], 0), value=fill) for v in values])


def _same_shape(parts: Sequence[Tensor]) -> list[Tensor]:
    """Zero-pad all axes but the first to the largest size (different numbers of tiles)."""
    sizes = [max(part.shape[axis] for part in parts) for axis in range(1, parts[0].ndim)]
    padded = []
    for part in parts:
        gaps = [size - length for size, length in zip(sizes, part.shape[1:], strict=True)]
        padded.append(pad(part, [n for gap in reversed(gaps) for n in (0, gap)]) if any(gaps) else part)
    return padded
