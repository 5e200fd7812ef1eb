"""PUBG, Post-Unlearning Behavior Guidance (Kim, Yang, Jung, arXiv 2506.02541).

Settings marked [inferred] are ours where the paper is silent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from unsee.api import Method, Needs, Session, Trial
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch, collate
from unsee.losses import Direction, Reduction, ga_loss
from unsee.methods.common.guidance import INSTRUCTION, GuidanceSettings, Guide, forget_questions, undesired_targets
from unsee.methods.common.reference_model import Teacher
from unsee.training.targets import retain_targets
from unsee.training.trainer import Parts, minimise, retain_term


@dataclass(frozen=True, kw_only=True)
class PUBG(Method):
    """L = L_GA + guidance_weight * L_BG: unlearn private answers, teach private-safe ones."""

    trial: ClassVar[Trial] = Trial(settings={"undesired": "dataset", "rollouts": 2})

    guidance_weight: float = 1.0
    """Lambda, the weight of the behaviour-guidance term [inferred]."""
    forget_weight: float = 1.0
    """Weight of the forgetting term; 0 = guidance only."""
    retain_weight: float = 0.0
    """Weight of the cross-entropy on the retain answers; 0 = the paper's form."""
    instruction: str = INSTRUCTION
    """In-context instruction c of the teacher (the original model) [inferred]."""
    rollouts: int = 5
    """J, guidance rollouts per image and question [inferred]."""
    temperature: float = 1.0
    """Sampling temperature of rollouts; 0 = greedy, one rollout [inferred]."""
    undesired: Literal["self", "dataset"] = "self"
    """Answers to unlearn: the original model's own revealing ones, or those of the data [inferred]."""
    responses: int = 5
    """K, revealing responses per image and question if `undesired` is self [inferred]."""
    queries: Literal["all", "open"] = "all"
    """Train on all questions for private information, or only on open ones (the paper's single query)."""
    reduction: Reduction = "token_mean"
    """Of both terms: mean or sum over an answer's tokens [inferred]."""
    kl_direction: Direction = "forward"
    """forward = KL(teacher || model), the paper's."""
    ga_floor: float | None = None
    """Samples below this mean token log-likelihood contribute no gradient; null = off [inferred]."""
    teacher: Teacher = "auto"
    """Source of teacher logits: kept in memory, recomputed, or as memory allows."""

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return replace(super().needs(), rows=2, teacher=True, generates=True)

    def unlearn(self, session: Session) -> None:
        """Minimise the joint loss."""
        examples = forget_questions(session, self.queries)
        targets = undesired_targets(session, examples, self.undesired, self.responses)
        guide = Guide(session, examples, self._guidance())

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            guided = collate(session, [*forget.targets, *guide.pick(forget)], forget.index)
            logits_bav, labels_ba = answer_logits(session.model, guided)
            size = len(forget.targets)
            forget_log_p = ga_loss(logits_bav[:size], labels_ba[:size], self.reduction, self.ga_floor)
            guidance_kl = guide.loss(guided.targets[size:], logits_bav[size:], labels_ba[size:])
            loss = self.forget_weight * forget_log_p + self.guidance_weight * guidance_kl
            yield {"loss": loss, "forget_log_p": forget_log_p, "guidance_kl": guidance_kl}
            yield from retain_term(session, retain, self.retain_weight)

        minimise(session, objective, forget=targets, retain=retain_targets(session, self.retain_weight))

    def _guidance(self) -> GuidanceSettings:
        return GuidanceSettings(
            instruction=self.instruction,
            rollouts=self.rollouts,
            temperature=self.temperature,
            kl_direction=self.kl_direction,
            reduction=self.reduction,
            teacher=self.teacher,
        )
