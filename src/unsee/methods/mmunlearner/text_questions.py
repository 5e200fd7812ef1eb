"""Text-only retain questions for the saliency mask, for data sets without any."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import Final, Literal

from unsee.api import Benchmark, Example, Kind, Role, Session
from unsee.errors import UserError

Source = Literal["facts", "released"]
TEXTS: Final = (Role.FORGET_TEXT, Role.RETAIN_TEXT)
_OF_IMAGE: Final = {Role.FORGET: Role.FORGET_TEXT, Role.RETAIN: Role.RETAIN_TEXT}
_SOMEBODY: Final = re.compile(r"\b(?:this|the) (?:person|individual)\b", re.IGNORECASE)


def with_texts(session: Session, source: Source) -> tuple[Session, str]:
    """Return the session for the mask, with text questions, and their source.

    facts: the training data's own; where they have none, those about images with the name in place of "this person".
    released: the questions of the evaluation, as in the published code; never trained on.
    """
    if source == "released":
        if session.benchmark is None:
            raise UserError(
                "p_text=released takes the questions that the data judge, and this session has only training data."
            )
        return _with(session, eval_text_questions(session.benchmark)), "judged questions"
    if session.of(*TEXTS):
        return session, "training data"
    return _with(session, named_questions(session.of(*_OF_IMAGE))), "training data, named"


def named_questions(examples: Sequence[Example]) -> list[Example]:
    """Return image examples as text questions, with "this person" replaced by the name.

    Those without such words are left out.
    """
    text_examples = []
    for example in examples:
        name = next(iter(example.private.get("name", ())), "")
        if name and example.image is not None and _SOMEBODY.search(example.question):
            question, answer = _with_name(example.question, name), _with_name(example.answer, name)
            role = _OF_IMAGE[example.role]
            text_examples.append(
                replace(example, id=f"{example.id}/named", role=role, image=None, question=question, answer=answer)
            )
    return text_examples


def _with_name(text: str, name: str) -> str:
    return _SOMEBODY.sub(lambda _: name, text)


def eval_text_questions(data: Benchmark) -> list[Example]:
    """Return the text-only multiple-choice questions that are judged, answered by option text.

    Without any, all text questions.

    The released code has MLLMU-Bench's Pure_Text_Questions and CLEAR's text rows. The options are left out of the question [inferred].
    """
    rows = [row for row in data.examples("eval") if row.role in TEXTS and row.image is None]
    choices = [row for row in rows if row.kind is Kind.CHOICE and row.answer in _letters(row.options)]
    return [_open(row) for row in choices] or rows


def _letters(options: Sequence[str]) -> tuple[str, ...]:
    return tuple(ascii_uppercase[: len(options)])


def _open(choice: Example) -> Example:
    """Return a multiple-choice question as an open one."""
    first_option = re.search(rf"\n\W?A\W*\s{re.escape(choice.options[0])}", choice.question)
    question = choice.question[: first_option.start()] if first_option else choice.question
    answer = choice.options[ascii_uppercase.index(choice.answer)]
    return replace(choice, question=question, answer=answer, kind=Kind.FACT, options=())


def _with(session: Session, rows: Sequence[Example]) -> Session:
    by_role = {role: [row for row in rows if row.role is role] for role in TEXTS}
    return replace(session, examples={**session.examples, **by_role})
