"""Gradient difference: ascend on the forget answers, descend on the retain answers, in one step (mmunlearner.md 5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unsee.api import Method, Session
from unsee.batching import Batch, answer_logits
from unsee.losses import answer_nll
from unsee.targets import forget_targets, retain_targets
from unsee.training import Parts, minimise, required, retain_term


@dataclass(frozen=True, kw_only=True)
class GradDiff(Method):
    """L = -alpha * CE(forget) + CE(retain), token means."""

    alpha: float = 1.0
    """Weight of the forget term."""

    def unlearn(self, session: Session) -> None:
        """Minimise the difference."""

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            forget_nll = answer_nll(*answer_logits(session.model, forget))
            yield {"loss": -self.alpha * forget_nll, "forget_nll": forget_nll}
            yield from retain_term(session, required(retain), 1.0)

        minimise(session, objective, forget=forget_targets(session), retain=retain_targets(session))
