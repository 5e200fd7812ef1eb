"""Simple negative preference optimisation (SimNPO, Fan et al., arXiv 2410.07163)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unsee.api import Method, Session, Training
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logprob
from unsee.inference.batching import Batch
from unsee.losses import simnpo_loss
from unsee.methods.common.idle import idle_term
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import Parts, minimise, retain_term


@dataclass(frozen=True, kw_only=True)
class SimNPO(Method):
    """Lower the mean token likelihood of the forget answers, with a vanishing gradient and no reference model."""

    beta: float = 4.5
    """Inverse temperature; open-unlearning's default [code]."""
    margin: float = 0.0
    """Mean negative log-likelihood from which the gradient fades."""
    forget_weight: float = 1.0
    """Weight of the forget term; open-unlearning: 0.125 beside a retain weight of 1 [code]."""
    retain_weight: float = 0.0
    """Weight of the cross-entropy on the retain answers."""

    def __post_init__(self) -> None:
        """Reject a beta of 0, by which the loss would divide."""
        super().__post_init__()
        if self.beta <= 0:
            raise UserError(f"method.beta must be above 0, got {self.beta}.")

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        yield from idle_term(self.forget_weight, "forget_weight", ("beta", "margin"))

    def unlearn(self, session: Session) -> None:
        """Minimise the SimNPO loss on the forget answers."""

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            logp_b = answer_logprob(session.model, forget).mean_b
            simnpo = simnpo_loss(logp_b, self.beta, self.margin)
            yield {"loss": self.forget_weight * simnpo, "simnpo": simnpo, "forget_log_p": logp_b.mean()}
            yield from retain_term(session, retain, self.retain_weight)

        minimise(session, objective, forget=forget_targets(session), retain=retain_targets(session, self.retain_weight))
