"""Hidden states averaged over spans of teacher-forced texts.

Shapes: b rows, t tokens, d width of the model, s spans, k layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from unsee.api import Session
from unsee.api.request import Target
from unsee.inference.batching import collate
from unsee.inference.vision_cache import with_features
from unsee.methods.common.layer_states import layer_outputs, without_logits
from unsee.methods.common.reference_model import as_start

BATCH: Final = 32
"""Texts per forward pass."""
PROMPT_END: Final = (-1, 0)
"""Span of the prompt's last token."""

Span = tuple[int, int]
"""First token and the one after the last, relative to the start of the answer."""


@dataclass(frozen=True)
class ForcedAnswer:
    """Teacher-forced answer with the spans of interest."""

    target: Target
    """Target with `token_ids` and without EOS."""
    spans: tuple[Span, ...]


def span_means(session: Session, texts: Sequence[ForcedAnswer], layers: Sequence[int]) -> list[Tensor]:
    """Return the original model's mean states of each text, by span and layer.

    Each is [s, k, d], on the CPU.
    """
    order = sorted(range(len(texts)), key=lambda index: _length(texts[index]))
    means_by_index: dict[int, Tensor] = {}
    with as_start(session.model), layer_outputs(session.model, layers) as outputs_btd:
        for start in range(0, len(order), BATCH):
            indices = order[start : start + BATCH]
            for rows, batch in collate(session, [texts[index].target for index in indices]).kinds:
                inputs = with_features(session.model, batch.rows, batch.images, batch.inputs, batch.engine)
                session.model(**inputs, **without_logits(session.model), use_cache=False)
                states_btkd = torch.stack([outputs_btd[layer] for layer in layers], dim=2)
                means_by_index.update(
                    (indices[row], _means(states, texts[indices[row]]))
                    for row, states in zip(rows, states_btkd, strict=True)
                )
    return [means_by_index[index] for index in range(len(texts))]


def _means(states_tkd: Tensor, text: ForcedAnswer) -> Tensor:
    """Average over each span. Answers are right-aligned in the batch."""
    begin = len(states_tkd) - len(text.target.token_ids or ())
    return torch.stack([states_tkd[begin + a : begin + b].float().mean(0) for a, b in text.spans]).cpu()


def _length(text: ForcedAnswer) -> tuple[bool, int]:
    """Return a sort key of text length, without encoding."""
    example, token_ids = text.target.example, text.target.token_ids or ()
    return example.image is not None, len(example.question) + len(text.target.instruction) + 4 * len(token_ids)
