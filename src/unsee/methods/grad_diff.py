"""Gradient difference: ascent on forget, descent on retain answers (arXiv 2502.11051)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unsee.api import Method, Session, Training
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import ga_loss
from unsee.methods.common.idle import idle_term
from unsee.methods.common.prompt_decouple import Pairing, decouple_partners, decouple_term, idle_pairing
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import Parts, minimise, retain_term


@dataclass(frozen=True, kw_only=True)
class GradDiff(Method):
    """L = -alpha * CE(forget) + retain_weight * CE(retain), token means."""

    alpha: float = 1.0
    """Weight of the forget term."""
    ga_floor: float | None = None
    """Forget samples below this mean token log-likelihood contribute no gradient, as in `ga`; null = off [inferred]."""
    retain_weight: float = 1.0
    """Weight of the cross-entropy on the retain answers; SafeEraser: 0.5 beside Prompt Decouple, else 1 [code]."""
    prompt_decouple_weight: float = 0.0
    """Weight of Prompt Decouple, the cross-entropy on the normal answers of role benign; 0 = off, SafeEraser: 0.5 [code]."""
    prompt_decouple_pairing: Pairing = "paired"
    """paired = the harmless image of the same entity and question [inferred], random = any, as SafeEraser's trainer [code]."""

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        yield from idle_pairing(self.prompt_decouple_weight)
        yield from idle_term(self.alpha, "alpha", ("ga_floor",))

    def unlearn(self, session: Session) -> None:
        """Minimise the weighted difference."""
        targets = forget_targets(session)
        partners = decouple_partners(session, targets, self.prompt_decouple_weight, self.prompt_decouple_pairing)

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            log_p = ga_loss(*answer_logits(session.model, forget), floor=self.ga_floor)
            yield {"loss": self.alpha * log_p, "forget_nll": -log_p}
            yield from retain_term(session, retain, self.retain_weight)
            yield from decouple_term(session, forget, partners, self.prompt_decouple_weight)

        minimise(session, objective, forget=targets, retain=retain_targets(session, self.retain_weight))
