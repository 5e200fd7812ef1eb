"""Packing of several questions about one image into one row.

The image and other common tokens are computed once, forward and backward. A packed row is the common prefix, followed by
the rest of each row. The rests are masked from each other, and each continues the position ids of the prefix, so every token
computes what it computes in a row of its own. Example, two questions about an image of two tokens:

    row 1        <img> <img>   q1  a1
    row 2        <img> <img>           q2  q2' a2
    packed       <img> <img> | q1  a1 | q2  q2' a2       7 tokens instead of 9
    positions      0     1   | 2   3  | 2   3   4
    q2 attends to both <img> and itself, never to q1 and a1

It applies to language models with plain causal attention through `sdpa` and rotary positions known to
`unsee.models.positions`; others keep one row per question.
Shapes: b packed rows, t tokens, r rows before packing, a answer positions (right-aligned), v vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import pad

from unsee.compat.models import attention, unwrapped
from unsee.losses import IGNORE
from unsee.models.auto import image_token_id
from unsee.models.padding import is_sequence, merge
from unsee.models.positions import KEYS, THREE, alike, positions
from unsee.utils.grouping import by_key

PER_TOKEN: Final = frozenset({"input_ids", "attention_mask", "labels", "mm_token_type_ids"})
"""Per-token inputs that can be packed; rows with others (token types) stay as they are."""
FIXED: Final = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary position types whose angles do not depend on the row length."""


@dataclass(frozen=True)
class Packed:
    """Rows packed by image, left-padded."""

    inputs: dict[str, Tensor]
    """Model inputs, with position ids and the attention mask [b, 1, t, t]."""
    rows: list[dict[str, Tensor]]
    """The packed rows themselves, unpadded."""
    images: list[str]
    """Image key of each packed row."""
    row_ra: Tensor
    """Packed row that predicts an answer token."""
    place_ra: Tensor
    """Position in that row, counted in the packed batch."""
    labels_ra: Tensor
    """Answer tokens, -100 before short answers."""

    def to(self, device: torch.device) -> Packed:
        """Return the same on another device (rows stay where they are)."""
        inputs = {key: value.to(device, non_blocking=True) for key, value in self.inputs.items()}
        answers = [values.to(device, non_blocking=True) for values in (self.row_ra, self.place_ra, self.labels_ra)]
        return Packed(inputs, self.rows, self.images, *answers)

    @cached_property
    def kept_positions(self) -> Tensor:
        """Return the positions at which any packed row needs logits, ascending."""
        return self.place_ra[self.labels_ra != IGNORE].unique()

    def answers(self, logits_bkv: Tensor) -> Tensor:
        """Return logits_rav from the logits at the kept positions."""
        return logits_bkv[
            self.row_ra, torch.searchsorted(self.kept_positions, self.place_ra).clamp(max=len(self.kept_positions) - 1)
        ]


def saving(rows: Sequence[Mapping[str, Tensor]], images: Sequence[str], image_token: int) -> int:
    """Return how many tokens packing saves, or 0 if the rows cannot be packed."""
    if any(_per_token(row) - PER_TOKEN for row in rows):
        return 0
    saved_tokens = 0
    for group in _by_image(images):
        saved_tokens += (len(group) - 1) * _shared_length([rows[index] for index in group], image_token)
    return saved_tokens


def pack(rows: Sequence[Mapping[str, Tensor]], images: Sequence[str], image_token: int, pad_id: int) -> Packed:
    """Pack all rows about one image behind one prefix. Rows without an image stay separate.

    Args:
        rows: Encoded targets, unpadded, with `labels`.
        images: Content hash of each row's image; empty for none.
        image_token: Id of the image placeholder, which ends the prefix that rows share.
        pad_id: Id of the padding token.
    """
    groups = _by_image(images)
    chains = [_Chain.of([rows[index] for index in group], image_token) for group in groups]
    width = max(len(chain.ids) for chain in chains)
    packed = [
        {**chain.first, "input_ids": chain.ids[None], "attention_mask": torch.ones(1, len(chain.ids)).long()}
        for chain in chains
    ]
    inputs = {key: value for key, value in merge(packed, pad_id).items() if key != "attention_mask"}
    pad_widths = [width - len(chain.ids) for chain in chains]
    position_ids = alike(
        [pad(chain.positions, (pad_width, 0)) for chain, pad_width in zip(chains, pad_widths, strict=True)]
    )
    inputs["position_ids"] = torch.stack(position_ids, dim=1).squeeze(0)
    inputs["attention_mask"] = torch.stack(
        [chain.mask(pad_width) for chain, pad_width in zip(chains, pad_widths, strict=True)]
    )[:, None]
    answer_length = max(int((row["labels"] != IGNORE).sum()) for row in rows)
    row_ra, place_ra = torch.zeros(len(rows), answer_length).long(), torch.zeros(len(rows), answer_length).long()
    labels_ra = torch.full((len(rows), answer_length), IGNORE)
    for b, (members, chain) in enumerate(zip(groups, chains, strict=True)):
        for number, r in enumerate(members):
            labels, predictors = chain.answer(number)
            row_ra[r], labels_ra[r, -len(labels) :], place_ra[r, -len(labels) :] = b, labels, predictors + pad_widths[b]
    return Packed(inputs, packed, [images[group[0]] for group in groups], row_ra, place_ra, labels_ra)


def packable(model: Module) -> int | None:
    """Return the image token id if rows of this model can be packed, else None."""
    inner = unwrapped(model)
    config, text_config = inner.config, inner.config.get_text_config()
    settings = text_config.to_dict()
    image_token = image_token_id(model)
    rotary = settings.get("rope_parameters") or {}
    supported = (
        attention(text_config) == "sdpa"
        and not settings.get("sliding_window")
        and set(settings.get("layer_types") or ["full_attention"]) == {"full_attention"}
        and rotary.get("rope_type") in FIXED
        and ("mrope_section" not in rotary or config.model_type in THREE)
        and (config.model_type in THREE or not _arguments(inner.__class__.forward) & KEYS)
        and not settings.get("cross_attention_layers")
        and keeps_logits(inner)
    )
    return image_token if supported else None


def keeps_logits(model: Module) -> bool:
    """Tell whether the model can compute logits at chosen positions only."""
    return "logits_to_keep" in _arguments(unwrapped(model).__class__.forward)


@cache
def _arguments(forward: Any) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)


@dataclass(frozen=True)
class _Chain:
    """One packed row."""

    first: dict[str, Tensor]
    """Inputs of the image."""
    ids: Tensor
    positions: Tensor
    segments: Tensor
    """0 = prefix, n = rest of the n-th row."""
    shared: int
    labels: tuple[Tensor, ...]
    """Labels of each row before packing, one per token."""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Tensor]], image_token: int) -> _Chain:
        shared = _shared_length(rows, image_token) if len(rows) > 1 else rows[0]["input_ids"].shape[1]
        suffixes = [row["input_ids"][0, shared:] for row in rows]
        ids = [rows[0]["input_ids"][0, :shared], *suffixes]
        position_rows = alike([positions(row) for row in rows])
        position_parts = [position_rows[0][:, :shared], *(position_row[:, shared:] for position_row in position_rows)]
        segments = [torch.full((len(part),), number) for number, part in enumerate(ids)]
        image_inputs = {key: value for key, value in rows[0].items() if not is_sequence(rows[0], key)}
        labels = tuple(row["labels"][0] for row in rows)
        return cls(image_inputs, torch.cat(ids), torch.cat(position_parts, dim=1), torch.cat(segments), shared, labels)

    def mask(self, pad_width: int) -> Tensor:
        """Return the attention mask, with `pad_width` padded positions that attend to themselves only."""
        same_segment = self.segments[:, None] == self.segments[None, :]
        mask_tt = (same_segment | (self.segments == 0)[None, :]).tril()
        return pad(mask_tt, (pad_width, 0, pad_width, 0)) | torch.eye(len(mask_tt) + pad_width, dtype=torch.bool)

    def answer(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the answer tokens of a row and the positions that predict them."""
        labels = self.labels[number]
        predictors = (labels != IGNORE).nonzero().flatten() - 1
        start = self.shared + sum(len(row_labels) - self.shared for row_labels in self.labels[:number])
        return labels[predictors + 1], torch.where(
            predictors < self.shared, predictors, predictors - self.shared + start
        )


def _per_token(row: Mapping[str, Tensor]) -> set[str]:
    return {key for key in row if is_sequence(row, key)}


def _by_image(images: Sequence[str]) -> list[list[int]]:
    """Group rows by image. Every row without one is its own group."""
    return list(by_key((image or index, index) for index, image in enumerate(images)).values())


def _shared_length(rows: Sequence[Mapping[str, Tensor]], image_token: int) -> int:
    """Return the length of the common prefix, without answers, or 0 if it lacks the image."""
    limits = [int((row["labels"][0] != IGNORE).nonzero()[0]) for row in rows]
    first_ids = rows[0]["input_ids"][0]
    shared = min(limits)
    for row in rows[1:]:
        ids = row["input_ids"][0]
        length = min(len(first_ids), len(ids), shared)
        differences = (first_ids[:length] != ids[:length]).nonzero()
        shared = int(differences[0]) if len(differences) else length
    image_counts = [int((row["input_ids"][0, shared:] == image_token).sum()) for row in rows]
    return 0 if any(image_counts) else shared
