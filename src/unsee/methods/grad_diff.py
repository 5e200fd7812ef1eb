"""Gradient difference: ascend on the forget answers, descend on the retain answers, in one step (mmunlearner.md 5)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unsee.api import Method, Session
from unsee.batching import Batch, answer_logits
from unsee.losses import answer_nll
from unsee.targets import forget_targets, retain_targets
from unsee.training import minimise, required


@dataclass(frozen=True, kw_only=True)
class GradDiff(Method):
    """L = -alpha * CE(forget) + CE(retain), token means."""

    alpha: float = 1.0
    """Weight of the forget term."""

    def unlearn(self, session: Session) -> None:
        """Minimise the difference."""

        def objective(forget: Batch, retain: Batch | None) -> dict[str, Tensor]:
            forget_nll = answer_nll(*answer_logits(session.model, forget))
            retain_nll = answer_nll(*answer_logits(session.model, required(retain)))
            loss = retain_nll - self.alpha * forget_nll
            return {"loss": loss, "forget_nll": forget_nll, "retain_nll": retain_nll}

        minimise(session, objective, forget=forget_targets(session), retain=retain_targets(session))
