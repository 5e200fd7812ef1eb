"""Negative preference optimisation (NPO, Zhang et al., 2024, arXiv 2404.05868)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from unsee.api import Method, Needs, Session
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logprob
from unsee.inference.batching import Batch
from unsee.losses import npo_loss
from unsee.methods.common.reference_model import StartLogprobs
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import Parts, minimise, retain_term


@dataclass(frozen=True, kw_only=True)
class NPO(Method):
    """Lower the forget likelihood below the reference model's, with a vanishing gradient.

    Log-likelihoods are summed over an answer and compared sample by sample; the reference is the model before
    unlearning, not one tuned on retain data.
    """

    beta: float = 0.1
    """Inverse temperature; as it goes to 0 the loss becomes gradient ascent on summed log-likelihoods."""
    retain_weight: float = 0.0
    """Weight of the cross-entropy on the retain answers; 0 = plain NPO, as in the PUBG comparison."""

    def __post_init__(self) -> None:
        """Reject a beta of 0, by which the loss would divide."""
        super().__post_init__()
        if self.beta <= 0:
            raise UserError(f"method.beta must be above 0, got {self.beta}; gradient ascent itself is --method ga.")

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return replace(super().needs(), likelihoods=True)

    def unlearn(self, session: Session) -> None:
        """Minimise the NPO loss on the forget answers."""
        retain_answers = retain_targets(session, self.retain_weight)
        targets = forget_targets(session)
        start = StartLogprobs(session, targets)

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            logp_b = answer_logprob(session.model, forget).sum_b
            npo = npo_loss(logp_b, start(forget), self.beta)
            yield {"loss": npo, "npo": npo, "forget_log_p": logp_b.mean()}
            yield from retain_term(session, retain, self.retain_weight)

        minimise(session, objective, forget=targets, retain=retain_answers)
