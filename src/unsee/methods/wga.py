"""Weighted gradient ascent (WGA, Wang et al., arXiv 2502.19301)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unsee.api import Method, Session
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import weighted_ga_loss
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import Parts, minimise, retain_term


@dataclass(frozen=True, kw_only=True)
class WGA(Method):
    """Lower the likelihood of forget tokens in proportion to how likely they still are."""

    beta: float = 1.0
    """Exponent of the token probability in the weight; 0 = gradient ascent."""
    retain_weight: float = 1.0
    """Weight of the cross-entropy on the retain answers; 0 = none."""

    def __post_init__(self) -> None:
        """Reject a beta by which the weights have no bound."""
        super().__post_init__()
        if self.beta < 0:
            raise UserError(
                f"method.beta must not be negative, got {self.beta}: the weight of a token would grow without bound as it gets "
                "unlikely. Set 0 for gradient ascent."
            )

    def unlearn(self, session: Session) -> None:
        """Minimise the weighted log-likelihood of the forget answers."""

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            weighted_log_p = weighted_ga_loss(*answer_logits(session.model, forget), self.beta, 0.0)
            yield {"loss": weighted_log_p, "weighted_log_p": weighted_log_p}
            yield from retain_term(session, retain, self.retain_weight)

        minimise(session, objective, forget=forget_targets(session), retain=retain_targets(session, self.retain_weight))
