"""Saturation-importance reweighting (SatImp, Yang et al., arXiv 2505.11953)."""

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
class SatImp(Method):
    """Lower the likelihood of forget tokens that are likely, but not yet certain."""

    beta1: float = 5.0
    """Exponent of the token probability p; open-unlearning's default [code]."""
    beta2: float = 1.0
    """Exponent of 1 - p; open-unlearning's default [code]."""
    retain_weight: float = 1.0
    """Weight of the cross-entropy on the retain answers; 0 = none. Ours [inferred]: open-unlearning has 1 : .1 (forget : retain)
    in its class and .1 : 1 in its settings file [code]."""

    def __post_init__(self) -> None:
        """Reject exponents by which the weights have no bound."""
        super().__post_init__()
        for name in ("beta1", "beta2"):
            if getattr(self, name) < 0:
                raise UserError(
                    f"method.{name} must not be negative, got {getattr(self, name)}: the weight of a token would grow without "
                    "bound. Set 0 to leave the factor out."
                )

    def unlearn(self, session: Session) -> None:
        """Minimise the weighted log-likelihood of the forget answers."""

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            weighted_log_p = weighted_ga_loss(*answer_logits(session.model, forget), self.beta1, self.beta2)
            yield {"loss": weighted_log_p, "weighted_log_p": weighted_log_p}
            yield from retain_term(session, retain, self.retain_weight)

        minimise(session, objective, forget=forget_targets(session), retain=retain_targets(session, self.retain_weight))
