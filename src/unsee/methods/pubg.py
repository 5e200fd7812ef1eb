"""PUBG, Post-Unlearning Behavior Guidance (Kim, Yang, Jung, arXiv 2506.02541).

Settings marked [inferred] are ours where the paper is silent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from unsee.api import Needs, Session, Training, Trial
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch, collate
from unsee.losses import ga_loss
from unsee.methods.common.guidance import Guide, Guided, forget_questions, forget_rows, undesired_targets
from unsee.methods.common.idle import idle_term
from unsee.training.targets import retain_targets
from unsee.training.trainer import Parts, minimise, retain_term


@dataclass(frozen=True, kw_only=True)
class PUBG(Guided):
    """L = L_GA + guidance_weight * L_BG: unlearn private answers, teach private-safe ones."""

    trial: ClassVar[Trial] = Trial(settings={"undesired": "dataset", "rollouts": 2})

    forget_weight: float = 1.0
    """Weight of the forgetting term; 0 = guidance only."""
    undesired: Literal["self", "dataset"] = "self"
    """Answers to unlearn: the original model's own revealing ones, or those of the data [inferred]."""
    responses: int = 5
    """K, revealing responses per image and question if `undesired` is self [inferred]."""
    ga_floor: float | None = None
    """Samples below this mean token log-likelihood contribute no gradient; null = off [inferred]."""

    def __post_init__(self) -> None:
        """Reject a number of responses by which there would be nothing to unlearn."""
        super().__post_init__()
        if self.responses < 1:
            raise UserError(f"method.responses must be at least 1, got {self.responses}.")

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        guided = bool(self.guidance_weight)
        return replace(super().needs(), rows=1 + guided, teacher=guided, generates=guided or self.undesired == "self")

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect beside the others."""
        yield from super().idle(training)
        if self.undesired == "dataset":
            yield "method.responses", "with method.undesired=self"
        yield from idle_term(self.forget_weight, "forget_weight", ("ga_floor",))

    def unlearn(self, session: Session) -> None:
        """Minimise the joint loss."""
        retain_answers = retain_targets(session, self.retain_weight)
        questions, rows = forget_questions(session, self.queries), forget_rows(session, self.queries)
        targets = undesired_targets(session, rows, self.undesired, self.responses)
        guide = Guide(session, questions, self) if self.guidance_weight else None

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            rollouts = guide.pick(forget) if guide else []
            joint_batch = collate(session, [*forget.targets, *rollouts], forget.index)
            logits_bav, labels_ba = answer_logits(session.model, joint_batch)
            size = len(forget.targets)
            forget_log_p = ga_loss(logits_bav[:size], labels_ba[:size], self.reduction, self.ga_floor)
            parts = {"loss": self.forget_weight * forget_log_p, "forget_log_p": forget_log_p}
            if guide:
                guidance_kl = guide.loss(joint_batch.targets[size:], logits_bav[size:], labels_ba[size:])
                parts["loss"] = parts["loss"] + self.guidance_weight * guidance_kl
                parts["guidance_kl"] = guidance_kl
            yield parts
            yield from retain_term(session, retain, self.retain_weight)

        minimise(session, objective, forget=targets, retain=retain_answers, questions=questions)
