"""Self-distillation with adjusted logits (UNDIAL, Dong et al., arXiv 2402.10052)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unsee.api import Method, Needs, Session, Training
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import undial_loss
from unsee.methods.common.idle import idle_term
from unsee.methods.common.reference_model import StartLogits, Teacher
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import Parts, minimise, retain_term


@dataclass(frozen=True, kw_only=True)
class Undial(Method):
    """Distil the reference model with the logit of every forget token lowered."""

    gamma: float = 10.0
    """Amount by which the true token's logit is lowered; 0 = self-distillation."""
    forget_weight: float = 1.0
    """Weight of the distillation."""
    retain_weight: float = 0.0
    """Weight of the cross-entropy on the retain answers; OPEN-MMUNLEARNING: 1 [paper]."""
    teacher: Teacher = "auto"
    """Source of reference logits: kept in memory, recomputed, or as memory allows."""

    def __post_init__(self) -> None:
        """Reject a gamma by which the answer would be taught."""
        super().__post_init__()
        if self.gamma < 0:
            raise UserError(
                f"method.gamma must not be negative, got {self.gamma}: the true token's logit is lowered by it. The default is 10."
            )

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return Needs(retain=int(bool(self.retain_weight)), teacher=True)

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        yield from idle_term(self.forget_weight, "forget_weight", ("gamma", "teacher"))

    def unlearn(self, session: Session) -> None:
        """Minimise the cross-entropy to the adjusted reference distribution."""
        targets, retain_answers = forget_targets(session), retain_targets(session, self.retain_weight)
        start = StartLogits(session, targets, teacher=self.teacher)

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            logits_bav, labels_ba = answer_logits(session.model, forget)
            undial = undial_loss(start(forget.targets, labels_ba), logits_bav, labels_ba, self.gamma)
            yield {"loss": self.forget_weight * undial, "undial": undial}
            yield from retain_term(session, retain, self.retain_weight)

        minimise(session, objective, forget=targets, retain=retain_answers)
