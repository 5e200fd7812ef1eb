"""BG-only: PUBG without its forgetting term, an ablation (arXiv 2506.02541) [inferred]."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from unsee.api import Method, Needs, Session, Trial
from unsee.api.request import Target
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch, collate
from unsee.losses import Direction, Reduction
from unsee.methods.common.guidance import INSTRUCTION, GuidanceSettings, Guide, forget_questions
from unsee.methods.common.reference_model import Teacher
from unsee.training.targets import retain_targets
from unsee.training.trainer import Parts, minimise, retain_term


@dataclass(frozen=True, kw_only=True)
class BGOnly(Method):
    """L = guidance_weight * L_BG: distil the instructed original model into itself."""

    trial: ClassVar[Trial] = Trial(settings={"rollouts": 2})

    guidance_weight: float = 1.0
    """Weight of the behaviour-guidance term."""
    retain_weight: float = 0.0
    """Weight of the cross-entropy on the retain answers."""
    instruction: str = INSTRUCTION
    """In-context instruction of the teacher (the original model)."""
    rollouts: int = 5
    """Guidance answers drawn per image and question."""
    temperature: float = 1.0
    """Sampling temperature of rollouts; 0 = greedy, one rollout."""
    queries: Literal["all", "open"] = "all"
    """Train on all questions for private information, or only on open ones."""
    reduction: Reduction = "token_mean"
    """Mean or sum over an answer's tokens."""
    kl_direction: Direction = "forward"
    """forward = KL(teacher || model)."""
    teacher: Teacher = "auto"
    """Source of teacher logits: kept in memory, recomputed, or as memory allows."""

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return replace(super().needs(), teacher=True, generates=True)

    def unlearn(self, session: Session) -> None:
        """Minimise the guidance term."""
        examples = forget_questions(session, self.queries)
        settings = GuidanceSettings(
            instruction=self.instruction,
            rollouts=self.rollouts,
            temperature=self.temperature,
            kl_direction=self.kl_direction,
            reduction=self.reduction,
            teacher=self.teacher,
        )
        guide = Guide(session, examples, settings)
        guided = [example for example in examples if guide.targets[example.id]]

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            picked = collate(session, guide.pick(forget))
            guidance_kl = guide.loss(picked.targets, *answer_logits(session.model, picked))
            yield {"loss": self.guidance_weight * guidance_kl, "guidance_kl": guidance_kl}
            yield from retain_term(session, retain, self.retain_weight)

        targets = [Target(example=example) for example in guided]
        minimise(session, objective, forget=targets, retain=retain_targets(session, self.retain_weight))
