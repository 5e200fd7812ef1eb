"""Left-padded batches out of single rows, whatever keys a processor returns. Shapes: r rows, b batch, t tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

IGNORE = -100
"""Label of positions that carry no target."""


def is_sequence(row: Mapping[str, Tensor], key: str) -> bool:
    """Tell whether `row[key]` has one entry per token (then it is padded), as opposed to per image."""
    return key in row and row[key].shape == row["input_ids"].shape


def extend(row: Mapping[str, Tensor], token_ids: Sequence[int]) -> dict[str, Tensor]:
    """Return the row with text tokens appended; masks get 1, token types and other per-token keys 0."""
    tail = torch.tensor([list(token_ids)])
    fill = {"input_ids": tail, "attention_mask": torch.ones_like(tail)}
    return {
        key: torch.cat([value, fill.get(key, torch.zeros_like(tail)).to(value.dtype)], dim=1)
        if is_sequence(row, key)
        else value
        for key, value in row.items()
    }


def merge(rows: Sequence[Mapping[str, Tensor]], pad_id: int) -> dict[str, Tensor]:
    """Return one batch: per-token keys padded on the left, all other keys stacked along their first axis."""
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
    """Pad one per-token key; rows that lack it (text-only rows without image types) count as zeros."""
    values = [row.get(key, torch.zeros_like(row["input_ids"])) for row in rows]
    return torch.cat([pad(value, (width - value.shape[1], 0), value=fill) for value in values])


def _same_shape(parts: Sequence[Tensor]) -> list[Tensor]:
    """Zero-pad all but the first axis at the end to the largest size (image tiles of different number)."""
    sizes = [max(part.shape[axis] for part in parts) for axis in range(1, parts[0].ndim)]
    padded = []
    for part in parts:
        missing = [size - have for size, have in zip(sizes, part.shape[1:], strict=True)]
        padded.append(pad(part, [n for room in reversed(missing) for n in (0, room)]) if any(missing) else part)
    return padded
