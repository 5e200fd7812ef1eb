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
        retain_answers = retain_targets(session, self.retain_weight)
        targets = answers_about_others(session)

        def objective(forget: Batch, retain: Batch | None) -> Iterator[Parts]:
            other_nll = answer_nll(*answer_logits(session.model, forget))
            yield {"loss": other_nll, "other_nll": other_nll}
            yield from retain_term(session, retain, self.retain_weight)

        minimise(session, objective, forget=targets, retain=retain_answers)


def answers_about_others(session: Session) -> list[Target]:
    """Return forget questions with the original model's answers about retain images."""
    forget = session.of(Role.FORGET)
    donors = [example for example in session.of(Role.RETAIN) if example.image is not None]
    if not donors:
        raise UserError("RANDOM takes its answers from retain images, but the data have none; add retain images.")
    donor_examples = _choose(forget, donors, session.seed)
    requests = [Prompt(example.question, donor.image) for example, donor in zip(forget, donor_examples, strict=True)]
    responses = start_answers(session, requests, progress="other answers")
    return [
        Target(example=example, token_ids=response.token_ids, ended=response.ended)
        for example, response in zip(forget, responses, strict=True)
    ]


def _choose(forget: Sequence[Example], donors: Sequence[Example], seed: int) -> list[Example]:
    """Return a donor of another entity per forget example: first a person, then an image."""
    images = by_key((donor.entity or donor.id, donor) for donor in donors)
    donor_examples = []
    for example in forget:
        other_entities = [entity for entity in images if entity != example.entity]
        if not other_entities:
            raise UserError(
                f"RANDOM answers forget example {example.id!r} as for another person, but all retain images show "
                f"{example.entity!r} too; add retain images of others."
            )
        entity_donors = images[other_entities[seed_of(seed, "other", example.id) % len(other_entities)]]
        donor_examples.append(entity_donors[seed_of(seed, "image", example.id) % len(entity_donors)])
    return donor_examples
