"""Lower bound: the bare forward and backward passes of a loss, and an AdamW step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unsee.api import Session
from unsee.api.request import Target
from unsee.inference.batching import collate
from unsee.losses import IGNORE
from unsee.training.precision import autocast


class Bare:
    """Model, fused AdamW and prepared batches: pixels to cross-entropy, nothing else."""

    def __init__(self, session: Session) -> None:
        """Take over the session's model."""
        self.session = session
        self.model: Any = session.model
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, lr=session.training.lr, weight_decay=0.0, fused=True)

    def made(self, batches: Sequence[Sequence[Target]]) -> list[tuple[dict[str, Tensor], Tensor]]:
        """Return inputs and labels, outside of the timing."""
        made = [collate(self.session, batch) for batch in batches if batch]
        return [(dict(batch.inputs), batch.labels_bt) for batch in made]

    def step(self, passes: Sequence[tuple[dict[str, Tensor], Tensor]]) -> None:
        """Run one optimiser step on the sum of the passes."""
        self.model.train()
        for inputs, labels_bt in passes:
            width = int((labels_bt != IGNORE).any(0).sum())
            with autocast(self.model, self.session.training):
                logits_bav = self.model(**inputs, logits_to_keep=width + 1, use_cache=False).logits[:, :-1]
            cross_entropy(logits_bav.flatten(0, 1).float(), labels_bt[:, -width:].flatten()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
