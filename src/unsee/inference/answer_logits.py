"""Logits and log-probabilities at answer positions, where the shift by one is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import pad

from unsee.compat.probes import proven
from unsee.inference import batching
from unsee.inference.batching import Batch
from unsee.inference.packing import keeps_logits, packable, saving
from unsee.inference.vision_cache import with_features
from unsee.losses import IGNORE, per_sample, token_logprobs


def answer_logits(model: Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return logits_bav and labels_ba of the answers: `logits[:, i]` predicts `labels[:, i]`.

    The only place where logits are shifted. Logits exist for the longest answer of the batch, not for the prompt;
    shorter answers are right-aligned and preceded by labels of -100. Rows of very different length take
    separate passes; features of a frozen vision tower are computed once per image (`unsee.inference.vision_cache`).
    """
    parts = batch.parts if batch.engine.split_batches else batch.kinds
    return in_order([rows for rows, _ in parts], [_answer_logits(model, part) for _, part in parts])


def in_order(part_rows: Sequence[Sequence[int]], outputs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return values [b, a, v] and labels [b, a] of the parts of a batch as one, padded on the left, in the batch's order.

    `part_rows` are the rows of each part in the batch.
    """
    if len(outputs) == 1:
        return outputs[0]
    width = max(labels_ba.shape[1] for _, labels_ba in outputs)
    values_bav = torch.cat([widened(values_bav, width) for values_bav, _ in outputs])
    labels_ba = torch.cat([widened(labels_ba, width, IGNORE) for _, labels_ba in outputs])
    order = torch.tensor([row for rows in part_rows for row in rows], device=labels_ba.device).argsort()
    return values_bav[order], labels_ba[order]


def _answer_logits(model: Module, batch: Batch) -> tuple[Tensor, Tensor]:
    image_token = packable(model) if batch.engine.shared_prefix else None
    if image_token is not None and _worth_packing(model, batch, image_token):
        return _packed_logits(model, batch, image_token)
    inputs = with_features(model, batch.rows, batch.images, batch.inputs, batch.engine)
    cut = batch.engine.answer_logits and keeps_logits(model) and _cutting_proven(model, batch)
    return _row_logits(model, batch, inputs, cut=cut)


def _row_logits(model: Module, batch: Batch, inputs: Mapping[str, Any], *, cut: bool) -> tuple[Tensor, Tensor]:
    """Return answer logits with one row per question. `cut`: compute none for prompts."""
    width = int((batch.labels_bt != IGNORE).any(0).sum())
    options = {"logits_to_keep": width + 1} if cut else {}
    output = model(**inputs, **options, use_cache=False)
    return output.logits[:, -width - 1 : -1], batch.labels_bt[:, -width:]


def _cutting_proven(model: Module, batch: Batch) -> bool:
    """Tell whether logits at answer positions alone equal those of the full sequence."""
    trial_batch = batch.plain([0])
    return proven(
        "answer_logits",
        model,
        lambda: _row_logits(model, trial_batch, trial_batch.inputs, cut=True)[0],
        lambda: _row_logits(model, trial_batch, trial_batch.inputs, cut=False)[0],
    )


def _worth_packing(model: Module, batch: Batch, image_token: int) -> bool:
    """Tell whether packing saves enough tokens and was found to preserve logits."""
    saved_tokens = saving(batch.rows, batch.images, image_token)
    return saved_tokens >= batching.WORTH_SPLITTING and _packing_proven(model, batch, image_token)


def _packing_proven(model: Module, batch: Batch, image_token: int) -> bool:
    """Tell whether two questions about one image have the same logits in one row as in two."""
    image = Counter(key for key in batch.images if key).most_common(1)[0][0]
    trial_batch = batch.plain([index for index, key in enumerate(batch.images) if key == image][:2])
    return proven(
        "packed_rows",
        model,
        lambda: _at_answers(*_packed_logits(model, trial_batch, image_token)),
        lambda: _at_answers(*_row_logits(model, trial_batch, trial_batch.inputs, cut=False)),
    )


def _at_answers(logits_bav: Tensor, labels_ba: Tensor) -> Tensor:
    """Return the logits at answer positions."""
    return logits_bav[labels_ba != IGNORE]


def _packed_logits(model: Module, batch: Batch, image_token: int) -> tuple[Tensor, Tensor]:
    """Return answer logits with all questions about an image in one row."""
    packed = batch.packed(image_token)
    inputs = with_features(model, packed.rows, packed.images, packed.inputs, batch.engine)
    output = model(**inputs, logits_to_keep=packed.kept_positions, use_cache=False)
    return packed.answers(output.logits), packed.labels_ra


def widened(values: Tensor, width: int, fill: float = 0.0) -> Tensor:
    """Pad the answer positions (axis 1) on the left with `fill`."""
    trailing = [0, 0] * (values.ndim - 2)
    return pad(values, [*trailing, width - values.shape[1], 0], value=fill)


@dataclass(frozen=True)
class AnswerLogprob:
    """Log-likelihood of answers."""

    token_ba: Tensor
    """Per token, 0 at padding."""
    sum_b: Tensor
    """Sum over the tokens of an answer."""
    mean_b: Tensor
    """Mean over the tokens of an answer."""


def answer_logprob(model: Module, batch: Batch) -> AnswerLogprob:
    """Return log-probabilities of the answers, EOS included: per token, sum and mean."""
    logits_bav, labels_ba = answer_logits(model, batch)
    token_ba = token_logprobs(logits_bav, labels_ba)
    return AnswerLogprob(
        token_ba, per_sample(token_ba, labels_ba, "sequence_sum"), per_sample(token_ba, labels_ba, "token_mean")
    )
