"""BG-only: PUBG without its forgetting term, an ablation (arXiv 2506.02541) [inferred]."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from unsee.api import Session, Trial
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch, collate
from unsee.methods.common.guidance import Guide, Guided, forget_questions
from unsee.training.targets import own_answers, retain_targets
from unsee.training.trainer import Parts, minimise, retain_term


@dataclass(frozen=True, kw_only=True)
class BGOnly(Guided):
    """L = guidance_weight * L_BG: distil the instructed original model into itself."""

    trial: ClassVar[Trial] = Trial(settings={"rollouts": 2})

    def unlearn(self, session: Session) -> None:
        """Minimise the guidance term."""
        retain_answers = retain_targets(session, self.retain_weight)
        examples = forget_questions(session, self.queries)
        guide = Guide(session, examples, self)
        guided_examples = [example for example in examples if guide.targets[example.id]]

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            rollout_batch = collate(session, guide.pick(forget))
            guidance_kl = guide.loss(rollout_batch.targets, *answer_logits(session.model, rollout_batch))
            yield {"loss": self.guidance_weight * guidance_kl, "guidance_kl": guidance_kl}
            yield from retain_term(session, retain, self.retain_weight)

        minimise(session, objective, forget=own_answers(guided_examples), retain=retain_answers, questions=examples)
