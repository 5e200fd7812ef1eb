"""Optimizer of `lab-smol`, and KL at answer tokens.

Shapes: n answer tokens, v words, p image tokens, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unsee.lab.recipe.recipe import Packed, half_precision, hidden_states


class Adam:
    """AdamW with gradient clipping and a learning-rate factor."""

    def __init__(self, parameters: Sequence[nn.Parameter], lr: float, clip: float) -> None:
        """Create the optimizer."""
        self.parameters, self.lr, self.clip = parameters, lr, clip
        self.parts = [torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)]

    def step(self, factor: float) -> None:
        """Clip, step at `factor` times the peak rate, and clear the gradients."""
        (adam,) = self.parts
        for group in adam.param_groups:
            group["lr"] = self.lr * factor
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        adam.step()
        adam.zero_grad(set_to_none=True)


def targets(
    reference_context: Callable[[], AbstractContextManager[Any]], packed: Packed, feature_npd: Tensor
) -> Tensor:
    """Return the log-probabilities [n, v] of a reference model at the answer tokens, without gradient.

    Args:
        reference_context: Context that gives the model.
        packed: Packed rows.
        feature_npd: Vision features of all pictures, which `packed` points into.
    """
    with torch.no_grad(), reference_context() as reference_model, half_precision():
        return _log_probs(reference_model, packed, feature_npd)


def descend_kl(model: Any, packed: Packed, feature_npd: Tensor, target_nv: Tensor, weight: float = 1.0) -> float:
    """Add the gradients of the weighted mean KL(target ‖ model) over answer tokens, and return the mean.

    Args:
        model: Model in training.
        packed: Packed rows.
        feature_npd: Vision features of all pictures, which `packed` points into.
        target_nv: Log-probabilities of the reference model (`targets`).
        weight: Factor of the gradients.
    """
    with half_precision():
        log_prob_nv = _log_probs(model, packed, feature_npd)
        loss = functional.kl_div(log_prob_nv, target_nv, log_target=True, reduction="batchmean")
    (weight * loss).backward()
    return loss.item()


def answer_tokens(packed: Packed) -> Tensor:
    """Return which tokens [b, t - 1] predict one of an answer."""
    return packed.labels_bt[:, 1:] != -100


def _log_probs(model: Any, packed: Packed, feature_npd: Tensor) -> Tensor:
    hidden_btd = hidden_states(model, packed, feature_npd, model.config.image_token_id)
    log_prob_nv: Tensor = model.lm_head(hidden_btd[:, :-1][answer_tokens(packed)]).float().log_softmax(-1)
    return log_prob_nv
