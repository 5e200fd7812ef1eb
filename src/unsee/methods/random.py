"""RANDOM: training on the original model's answers about others (arXiv 2506.02541).

Details are [inferred]; the idea is that of llm_unlearn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from unsee.api import Example, Method, Needs, Role, Session
from unsee.api.request import Prompt, Target
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import answer_nll
from unsee.methods.common.guidance import start_answers
from unsee.training.targets import retain_targets
from unsee.training.trainer import Parts, minimise, retain_term
from unsee.utils.grouping import by_key
from unsee.utils.seeds import seed_of


@dataclass(frozen=True, kw_only=True)
class Random(Method):
    """Cross-entropy on the original model's greedy answer about a random retain image."""

    retain_weight: float = 0.0
    """Weight of the cross-entropy on the retain answers."""

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return replace(super().needs(), generates=True)

    def unlearn(self, session: Session) -> None:
        """Minimise the cross-entropy on answers about other people."""
        kept = retain_targets(session, self.retain_weight)
        targets = answers_about_others(session)

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            other_nll = answer_nll(*answer_logits(session.model, forget))
            yield {"loss": other_nll, "other_nll": other_nll}
            yield from retain_term(session, retain, self.retain_weight)

        minimise(session, objective, forget=targets, retain=kept)


def answers_about_others(session: Session) -> list[Target]:
    """Return forget questions with the original model's answers about retain images."""
    forget = session.of(Role.FORGET)
    donors = [example for example in session.of(Role.RETAIN) if example.image is not None]
    if not donors:
        raise UserError("RANDOM takes its answers from retain images, but the data have none; add retain images.")
    chosen = _choose(forget, donors, session.seed)
    requests = [Prompt(asked.question, donor.image) for asked, donor in zip(forget, chosen, strict=True)]
    said = start_answers(session, requests, progress="other answers")
    return [
        Target(example=asked, token_ids=answer.token_ids, ended=answer.ended)
        for asked, answer in zip(forget, said, strict=True)
    ]


def _choose(forget: Sequence[Example], donors: Sequence[Example], seed: int) -> list[Example]:
    """Return a donor of another entity per forget example: first a person, then an image."""
    images = by_key((donor.entity or donor.id, donor) for donor in donors)
    chosen = []
    for asked in forget:
        others = [entity for entity in images if entity != asked.entity]
        theirs = images[others[seed_of(seed, "other", asked.id) % len(others)]]
        chosen.append(theirs[seed_of(seed, "image", asked.id) % len(theirs)])
    return chosen
