"""Gradient ascent on the forget answers (arXiv 2506.02541, RWKU `ga/trainer.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unsee.api import Method, Session, Training
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import Reduction, ga_loss
from unsee.methods.common.prompt_decouple import Pairing, decouple_partners, decouple_term, idle_pairing
from unsee.training.targets import forget_targets
from unsee.training.trainer import Parts, minimise


@dataclass(frozen=True, kw_only=True)
class GA(Method):
    """Lower the log-likelihood of the forget answers, without a retain term."""

    reduction: Reduction = "token_mean"
    """Mean over an answer's tokens, or their sum (the literal reading of the formula)."""
    ga_floor: float | None = None
    """Samples below this mean token log-likelihood contribute no gradient; null = off [inferred]."""
    prompt_decouple_weight: float = 0.0
    """Weight of Prompt Decouple, the cross-entropy on the normal answers of role benign; 0 = off, SafeEraser: 0.5 [code]."""
    prompt_decouple_pairing: Pairing = "paired"
    """paired = the harmless image of the same entity and question [inferred], random = any, as SafeEraser's trainer [code]."""

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        yield from idle_pairing(self.prompt_decouple_weight)

    def unlearn(self, session: Session) -> None:
        """Descend on the mean log-likelihood of the forget answers."""
        targets = forget_targets(session)
        partners = decouple_partners(session, targets, self.prompt_decouple_weight, self.prompt_decouple_pairing)

        def objective(forget: Batch, _: Batch | None) -> Iterator[Parts]:
            logits_bav, labels_ba = answer_logits(session.model, forget)
            log_p = ga_loss(logits_bav, labels_ba, self.reduction, self.ga_floor)
            yield {"loss": log_p, "forget_log_p": log_p}
            yield from decouple_term(session, forget, partners, self.prompt_decouple_weight)

        minimise(session, objective, forget=targets)
