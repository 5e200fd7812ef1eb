"""Direct preference optimisation towards refusals (DPO, arXiv 2305.18290; IdkDPO in TOFU, arXiv 2401.06121)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from unsee.api import Method, Needs, Session
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logprob
from unsee.inference.batching import Batch, collate
from unsee.losses import dpo_loss
from unsee.methods.common.reference_model import StartLogprobs
from unsee.methods.common.refusal_targets import refusal_targets
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import Parts, minimise, retain_term


@dataclass(frozen=True, kw_only=True)
class DPO(Method):
    """Prefer a refusal to the forget answer, both relative to the reference model."""

    beta: float = 0.1
    """Inverse temperature."""
    refusals: str = ""
    """Text file with one refusal per line, or SafeEraser's prompt.json; empty = the built-in list."""
    retain_weight: float = 0.0
    """Weight of the cross-entropy on the retain answers; open-unlearning: 1 [code]."""

    def __post_init__(self) -> None:
        """Reject a beta of 0, by which the loss would divide."""
        super().__post_init__()
        if self.beta <= 0:
            raise UserError(f"method.beta must be above 0, got {self.beta}.")

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return replace(super().needs(), rows=2, likelihoods=True)

    def unlearn(self, session: Session) -> None:
        """Minimise the DPO loss on pairs of refusal and forget answer."""
        retain_answers = retain_targets(session, self.retain_weight)
        targets, refusals = forget_targets(session), refusal_targets(session, self.refusals)
        refusals_by_key = {target.key: refusal for target, refusal in zip(targets, refusals, strict=True)}
        start = StartLogprobs(session, [*targets, *refusals])

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            refusal_batch = collate(
                session, [refusals_by_key[target.key] for target in forget.targets], forget.index, forget.places
            )
            rejected_b = answer_logprob(session.model, forget).sum_b - start(forget)
            chosen_b = answer_logprob(session.model, refusal_batch).sum_b - start(refusal_batch)
            dpo = dpo_loss(chosen_b, rejected_b, self.beta)
            yield {"loss": dpo, "dpo": dpo, "margin": (chosen_b - rejected_b).mean()}
            yield from retain_term(session, retain, self.retain_weight)

        minimise(session, objective, forget=targets, retain=retain_answers)
