"""Gradient ascent: minimise the likelihood of the forget answers (pubg.md 3.1, 6; RWKU `ga/trainer.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unsee.api import Method, Session
from unsee.batching import Batch, answer_logits
from unsee.losses import Reduction, ga_loss
from unsee.targets import forget_targets
from unsee.training import minimise


@dataclass(frozen=True, kw_only=True)
class GA(Method):
    """Lower the log-likelihood of the forget answers; nothing holds the rest of the model."""

    reduction: Reduction = "token_mean"
    """Mean over an answer's tokens, or their sum (the literal reading of the formula)."""
    ga_floor: float | None = None
    """Samples whose mean token log-likelihood is below this push no further; null = off [inferred]."""

    def unlearn(self, session: Session) -> None:
        """Descend on the mean log-likelihood of the forget answers."""

        def objective(forget: Batch, _: Batch | None) -> dict[str, Tensor]:
            logits_bav, labels_ba = answer_logits(session.model, forget)
            log_p = ga_loss(logits_bav, labels_ba, self.reduction, self.ga_floor)
            return {"loss": log_p, "forget_log_p": log_p}

        minimise(session, objective, forget=forget_targets(session))
