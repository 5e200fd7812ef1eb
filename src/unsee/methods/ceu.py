"""Cross-entropy unlearning (CEU, Yang, arXiv 2503.01224)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unsee.api import Method, Session
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import ceu_loss
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import Parts, minimise, retain_term


@dataclass(frozen=True, kw_only=True)
class CEU(Method):
    """Train the forget tokens towards the model's own distribution without the true token. Bounded, unlike gradient ascent."""

    retain_weight: float = 0.0
    """Weight of the cross-entropy on the retain answers."""

    def unlearn(self, session: Session) -> None:
        """Minimise the cross-entropy to the distribution without the true token."""

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            ceu = ceu_loss(*answer_logits(session.model, forget))
            yield {"loss": ceu, "ceu": ceu}
            yield from retain_term(session, retain, self.retain_weight)

        minimise(session, objective, forget=forget_targets(session), retain=retain_targets(session, self.retain_weight))
