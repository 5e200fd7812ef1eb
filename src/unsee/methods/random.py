"""RANDOM: training on the original model's answers about others (arXiv 2506.02541).

Details are [inferred]; the idea is that of llm_unlearn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from unsee.api import Example, Kind, Method, Needs, Role, Session
from unsee.api.request import Completion, Prompt, Target
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import answer_nll
from unsee.methods.common.guidance import UNSEEN_SCRIPT, start_answers
from unsee.training.stop_rule import is_leak_free, private_rows
from unsee.training.targets import retain_targets
from unsee.training.trainer import Parts, minimise, retain_term
from unsee.utils.grouping import by_key
from unsee.utils.seeds import seed_of
from unsee.utils.terminal import note_once

TRIES = 20
"""Other people about whom a question is asked before its row is left out: as many as PUBG has rounds [inferred]."""


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

        minimise(session, objective, forget=targets, retain=retain_answers, questions=session.of(Role.FORGET))


def answers_about_others(session: Session) -> list[Target]:
    """Return forget questions with the original model's answers about retain images.

    An answer with a private string of the row itself would teach it: the next person is taken, and without any the row is left
    out [inferred].

    Raises:
        UserError: The data have no retain image of another person, or every answer has a private string.
    """
    forget = session.of(Role.FORGET)
    donors = [example for example in session.of(Role.RETAIN) if example.image is not None]
    if not donors:
        raise UserError("RANDOM takes its answers from retain images, but the data have none; add retain images.")
    answers, passed_over = _safe_answers(session, forget, _choose(forget, donors, session.seed))
    session.notes["other_answers"] = {
        "questions": len(forget),
        "passed_over": passed_over,
        "left_out": len(forget) - len(answers),
    }
    _tell_left_out(len(forget), len(answers))
    return [
        Target(example=forget[index], token_ids=response.token_ids, ended=response.ended)
        for index, response in sorted(answers.items())
    ]


def _safe_answers(
    session: Session, forget: Sequence[Example], donors_by_row: Sequence[Sequence[Example]]
) -> tuple[dict[int, Completion], int]:
    """Return index of a row -> answer about the first donor without its private strings, and how many donors were passed over."""
    private_by_id = {row.id: row for row in private_rows(forget, frozenset(Kind))}
    answers: dict[int, Completion] = {}
    pending, passed_over = list(range(len(forget))), 0
    for turn in range(TRIES):
        pending = [index for index in pending if index not in answers and turn < len(donors_by_row[index])]
        if not pending:
            break
        requests = [
            Prompt(forget[index].question, donors_by_row[index][turn].image, session.instruction) for index in pending
        ]
        responses = start_answers(session, requests, progress="other answers")
        safe_answers = {
            index: response
            for index, response in zip(pending, responses, strict=True)
            if is_leak_free(response.text, private_by_id.get(forget[index].id, forget[index]))
        }
        passed_over += len(pending) - len(safe_answers)
        answers.update(safe_answers)
    return answers, passed_over


def _tell_left_out(questions: int, answered: int) -> None:
    """Tell how many rows have no answer about another person, or raise if none has one."""
    if questions and not answered:
        raise UserError(
            "Every answer of the original model about other people has a private string of the forget row, so it would teach "
            f"what is to be forgotten. Add retain images of people with other facts, or choose another method.{UNSEEN_SCRIPT}"
        )
    if answered < questions:
        note_once(
            f"random: {questions - answered} of {questions} forget rows are not trained on, for what the original model says about "
            f"others has their private strings, too. Add retain images of people with other facts.{UNSEEN_SCRIPT}"
        )


def _choose(forget: Sequence[Example], donors: Sequence[Example], seed: int) -> list[list[Example]]:
    """Return a donor of each other entity per forget example, in the order in which they are tried.

    The first is drawn by the seed, first a person, then an image; the others follow it in the order of the data.
    """
    images = by_key((donor.entity or donor.id, donor) for donor in donors)
    donors_by_row = []
    for example in forget:
        other_entities = [entity for entity in images if entity != example.entity]
        if not other_entities:
            raise UserError(
                f"RANDOM answers forget example {example.id!r} as for another person, but all retain images show "
                f"{example.entity!r} too; add retain images of others."
            )
        first, image = seed_of(seed, "other", example.id), seed_of(seed, "image", example.id)
        places = [(first + turn) % len(other_entities) for turn in range(min(TRIES, len(other_entities)))]
        tried_images = [images[other_entities[place]] for place in places]
        donors_by_row.append([entity_images[image % len(entity_images)] for entity_images in tried_images])
    return donors_by_row
