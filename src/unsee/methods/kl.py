"""KL minimisation: gradient ascent, and KL to the reference on retain (arXiv 2502.11051)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unsee.api import Method, Needs, Session, Training
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import Direction, ga_loss, kl_loss
from unsee.methods.common.idle import idle_term
from unsee.methods.common.prompt_decouple import Pairing, decouple_partners, decouple_term, idle_pairing
from unsee.methods.common.reference_model import StartLogits, Teacher
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import Parts, minimise, plan_batches, required


@dataclass(frozen=True, kw_only=True)
class KL(Method):
    """L = -CE(forget) + weight * KL(retain) on answer positions, token means."""

    weight: float = 1.0
    """Weight of the KL term."""
    ga_floor: float | None = None
    """Forget samples below this mean token log-likelihood contribute no gradient, as in `ga`; null = off [inferred]."""
    kl_direction: Direction = "forward"
    """forward = KL(reference || model), reverse = KL(model || reference)."""
    teacher: Teacher = "auto"
    """Source of reference logits: kept in memory, recomputed, or as memory allows."""
    prompt_decouple_weight: float = 0.0
    """Weight of Prompt Decouple, the cross-entropy on the normal answers of role benign; 0 = off, SafeEraser: 1 [code]."""
    prompt_decouple_pairing: Pairing = "paired"
    """paired = the harmless image of the same entity and question [inferred], random = any, as SafeEraser's trainer [code]."""

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return Needs(retain=1, teacher=True)

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        yield from idle_pairing(self.prompt_decouple_weight)
        yield from idle_term(self.weight, "weight", ("kl_direction", "teacher"))

    def unlearn(self, session: Session) -> None:
        """Minimise the sum of both terms."""
        retain_answers = retain_targets(session)
        targets = forget_targets(session)
        partners = decouple_partners(session, targets, self.prompt_decouple_weight, self.prompt_decouple_pairing)
        start = StartLogits(session, plan_batches(session, targets, retain_answers).met(), teacher=self.teacher)

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            retain_batch = required(retain)
            log_p = ga_loss(*answer_logits(session.model, forget), floor=self.ga_floor)
            yield {"loss": log_p, "forget_nll": -log_p}
            logits_bav, labels_ba = answer_logits(session.model, retain_batch)
            retain_kl = kl_loss(start(retain_batch.targets, labels_ba), logits_bav, labels_ba, self.kl_direction)
            yield {"loss": self.weight * retain_kl, "retain_kl": retain_kl}
            yield from decouple_term(session, forget, partners, self.prompt_decouple_weight)

        minimise(session, objective, forget=targets, retain=retain_answers)
