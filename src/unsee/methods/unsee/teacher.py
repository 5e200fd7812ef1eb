"""Completions for the student's training, and the original model's distribution over them.

Shapes: b batch, a answer positions, v vocabulary.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Final, Literal

import torch
from torch import Tensor

from unsee.api import Example, Role, Session
from unsee.api.request import Target
from unsee.errors import UserError
from unsee.inference.batching import Batch
from unsee.methods.common.guidance import UNSEEN_SCRIPT, as_targets, draw, forget_questions, without_private
from unsee.methods.common.reference_model import StartLogits, Teacher
from unsee.methods.unsee.forms import Form, other_forms
from unsee.metrics.scripts import script, whole_matches
from unsee.training.targets import STAYS, own_answers
from unsee.utils.seeds import seed_of

Scope = Literal["person", "picture"]
VOWELS: Final = "aeiou"
CONSONANTS: Final = "bcdfghjklmnpqrstvwxyz"
HAN: Final = "安白春东高光和金林明南平清秋山石天文西新雪永玉月正"
"""Common characters of names, for those of Chinese and Japanese ones."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Completion for the student's training, and the prompts of the original model for it."""

    student: Target
    guided: Target
    """The same completion after a prompt under which the original model tells nothing private."""
    stranger: Target | None = None
    """The same completion about a person unknown to the original model."""


def lessons(session: Session, scope: Scope, instruction: str, rollouts: int, temperature: float) -> list[Lesson]:
    """Return the lessons about the forget set. To be called before training.

    Pictures: answers under the privacy instruction. Text: answers to the same question about an invented name.

    Args:
        session: Model, examples and settings of the run.
        scope: person = forget names in text too, picture = answers about pictures only.
        instruction: Privacy instruction, under which the original model answers about pictures.
        rollouts: Responses per question.
        temperature: Sampling temperature; 0 = greedy, one response.

    Raises:
        UserError: Every answer under the instruction has a private term.
    """
    image_questions = forget_questions(session, "all")
    samples = draw(session, image_questions, without_private("rollouts", rollouts, temperature, instruction))
    strangers = [row for row in session.of(Role.STRANGER) if row.image is not None]
    collected = []
    for example in image_questions:
        stranger = _lookalike(example, strangers, session.seed)
        for target in as_targets(example, samples[example.id].kept):
            stranger_target = None if stranger is None else replace(target, example=_with_stranger(example, stranger))
            collected.append(
                Lesson(student=target, guided=replace(target, instruction=instruction), stranger=stranger_target)
            )
    if scope == "person":
        collected += _by_name(session, rollouts, temperature)
    if not collected:
        raise UserError(
            "Every answer under the instruction has a private term: the model does not follow it. "
            f"Try another wording of method.instruction (now {instruction!r}).{UNSEEN_SCRIPT}"
        )
    return collected


def with_name_share(lessons: Sequence[Lesson], share: float) -> list[Lesson]:
    """Repeat the lessons by name in turn until they are at least this share of all.

    >>> from types import SimpleNamespace as N
    >>> text, image = (N(student=N(example=N(image=source))) for source in (None, "a.png"))
    >>> len(with_name_share([image] * 6 + [text], 0.25)), len(with_name_share([image] * 6 + [text] * 3, 0.25))
    (8, 9)
    """
    by_name = [lesson for lesson in lessons if lesson.student.example.image is None]
    by_picture = len(lessons) - len(by_name)
    missing = math.ceil(share / (1 - share) * by_picture) - len(by_name) if by_name else 0
    return [*lessons, *islice(cycle(by_name), max(missing, 0))]


def kept_targets(session: Session, scope: Scope, forms: Sequence[Form] = ()) -> Sequence[Target]:
    """Return the data's own answers that the student must still give.

    With scope picture, these include the forget set's answers by name. `forms` are other forms of the questions to add.
    """
    extra_roles = (Role.FORGET_TEXT,) if scope == "picture" else ()
    rows = session.of(*STAYS, *extra_roles)
    if not forms:
        return own_answers(rows)
    return own_answers([*rows, *other_forms(rows, forms, session.seed)])


class TeacherDistribution:
    """Teacher's distribution over completions about the forget set.

    It is the guided one, mixed with a share of that on strangers.
    """

    def __init__(self, session: Session, lessons: Sequence[Lesson], share: float, teacher: Teacher) -> None:
        """Prepare the original model's logits. To be made before training."""
        self.share = share
        self.lessons: Mapping[tuple[object, ...], Lesson] = {lesson.student.key: lesson for lesson in lessons}
        teacher_targets = [lesson.guided for lesson in lessons]
        teacher_targets += [lesson.stranger for lesson in lessons if lesson.stranger is not None and share]
        self.start = StartLogits(session, teacher_targets, teacher=teacher)

    def __call__(self, batch: Batch, labels_ba: Tensor) -> Tensor:
        """Return the distribution at each position as log-probabilities."""
        batch_lessons = [self.lessons[target.key] for target in batch.targets]
        guided_bav = self.start([lesson.guided for lesson in batch_lessons], labels_ba)
        if not self.share or all(lesson.stranger is None for lesson in batch_lessons):
            return guided_bav.float().log_softmax(-1)
        stranger_bav = self.start([lesson.stranger or lesson.guided for lesson in batch_lessons], labels_ba)
        return mixed_logprobs(guided_bav, stranger_bav, self.share)


def mixed_logprobs(first_bav: Tensor, second_bav: Tensor, share: float) -> Tensor:
    """Return log((1 - share) p + share q) of two distributions given by logits."""
    u_bav, v_bav = first_bav.float().log_softmax(-1), second_bav.float().log_softmax(-1)
    weights_2 = torch.tensor([1 - share, share], device=u_bav.device).log()
    return torch.logaddexp(weights_2[0] + u_bav, weights_2[1] + v_bav)


def invent_name(name: str, seed: int) -> str:
    """Return a name with other letters of the same script.

    In Latin, vowels replace vowels and consonants replace consonants. Other characters stay as they are.

    Raises:
        UserError: A word of the name would stay unchanged.

    >>> invent_name("Ada Byron", 0) != "Ada Byron", len(invent_name("Ada Byron", 0))
    (True, 9)
    """
    invented_name = "".join(_letter(letter, seed, index) for index, letter in enumerate(name))
    words = [
        (word, new_word)
        for word, new_word in zip(name.split(), invented_name.split(), strict=True)
        if _has_letter(word)
    ]
    if not words or any(word == new_word for word, new_word in words):
        raise UserError(
            f"The original model is to be asked about an invented name, but {name!r} has a word without letters that could be "
            "exchanged. Write another spelling into the private name of the forget rows, or set method.scope=picture."
        )
    return invented_name


def _has_letter(word: str) -> bool:
    """Return whether a word has a letter: numbers identify nobody."""
    return any(char.isalpha() for char in word)


def _letter(letter: str, seed: int, index: int) -> str:
    """Return another letter of the same script and case, or a non-letter unchanged."""
    decomposed = unicodedata.normalize("NFD", letter)
    bare, marks = decomposed[0].lower(), decomposed[1:]
    alternatives = next((letters for letters in (VOWELS, CONSONANTS) if bare in letters), "").replace(bare, "")
    if not alternatives:
        alternatives, marks = _alike(letter), ""
    if not alternatives:
        return letter
    replacement = alternatives[seed_of(seed, "letter", index) % len(alternatives)]
    replacement = replacement.upper() if letter.isupper() else replacement
    composed = unicodedata.normalize("NFC", replacement + marks)
    return composed if len(composed) == 1 else replacement


def _alike(letter: str) -> str:
    """Return other letters of the same script and category, near by in Unicode."""
    if unicodedata.name(letter, "").startswith("CJK"):
        return HAN.replace(letter, "")
    if not letter.isalpha() or unicodedata.category(letter) == "Lm":
        return ""
    block_start, properties = ord(letter) & ~15, (script(letter), unicodedata.category(letter))
    neighbours = (chr(code) for code in range(block_start, block_start + 16) if code != ord(letter))
    return "".join(
        neighbour for neighbour in neighbours if (script(neighbour), unicodedata.category(neighbour)) == properties
    )


def _by_name(session: Session, rollouts: int, temperature: float) -> list[Lesson]:
    """Return lessons on the questions by name, where the question has the name."""
    examples = session.of(Role.FORGET_TEXT)
    questions = {
        row.id: (row, replace(row, question=question))
        for row in examples
        if (question := _about_nobody(row, seed_of(session.seed, row.id))) != row.question
    }
    renamed_rows = [question_row for _, question_row in questions.values()]
    samples = (
        draw(session, renamed_rows, without_private("rollouts-by-name", rollouts, temperature)) if renamed_rows else {}
    )
    session.notes["by_name"] = {
        "questions": len(examples),
        "without_lesson": len(examples) - sum(bool(sample.kept) for sample in samples.values()),
    }
    return [
        Lesson(student=replace(target, example=questions[row.id][0]), guided=target)
        for row in renamed_rows
        for target in as_targets(row, samples[row.id].kept)
    ]


def _about_nobody(example: Example, seed: int) -> str:
    """Return the question with an invented name for each spelling as a whole word, ignoring case only if none matches."""
    question, names = example.question, example.private.get("name", ())
    matches = whole_matches(question, names) or whole_matches(question, names, ignore_case=True)
    for match in reversed(matches):
        question = question[: match.start()] + invent_name(match[0], seed) + question[match.end() :]
    return question


def _lookalike(example: Example, strangers: Sequence[Example], seed: int) -> Example | None:
    """Return the stranger who looks most like the person, ties broken by seed."""

    def alike(stranger: Example) -> tuple[int, int]:
        matching = sum(stranger.visible.get(key) == value for key, value in example.visible.items())
        return matching, seed_of(seed, "stranger", example.id, stranger.id)

    return max(strangers, key=alike, default=None)


def _with_stranger(example: Example, stranger: Example) -> Example:
    """Return the question asked about a stranger's picture."""
    return replace(example, id=f"{example.id} | {stranger.id}", image=stranger.image)
