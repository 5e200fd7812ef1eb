"""Completions that the student is trained on, and the original model's distribution over them.

Shapes: b batch, a answer positions, v vocabulary.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import torch
from torch import Tensor

from unsee.api import Example, Role, Session
from unsee.api.request import Target
from unsee.errors import UserError
from unsee.inference.batching import Batch
from unsee.methods.common.guidance import as_targets, draw, forget_questions, without_private
from unsee.methods.common.reference_model import StartLogits, Teacher
from unsee.methods.unsee.forms import Form, other_forms
from unsee.metrics.scripts import script
from unsee.training.targets import STAYS, own_answers
from unsee.utils.seeds import seed_of

Scope = Literal["person", "picture"]
VOWELS: Final = "aeiou"
CONSONANTS: Final = "bcdfghjklmnpqrstvwxyz"
HAN: Final = "安白春东高光和金林明南平清秋山石天文西新雪永玉月正"
"""Common characters of names, for those of Chinese and Japanese ones."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Completion that the student is trained on, and the prompts under which the original model judges it."""

    student: Target
    guided: Target
    """The same completion after a prompt under which the original model tells nothing private."""
    stranger: Target | None = None
    """The same completion about somebody it never met."""


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
    pictures = forget_questions(session, "all")
    drawn = draw(session, pictures, without_private("rollouts", rollouts, temperature, instruction))
    strangers = [row for row in session.of(Role.STRANGER) if row.image is not None]
    found = []
    for example in pictures:
        beside = _like(example, strangers, session.seed)
        for target in as_targets(example, drawn[example.id].kept):
            other = None if beside is None else replace(target, example=_shown(example, beside))
            found.append(Lesson(student=target, guided=replace(target, instruction=instruction), stranger=other))
    if scope == "person":
        found += _by_name(session, rollouts, temperature)
    if not found:
        raise UserError(
            "Every answer under the instruction has a private term: the model does not follow it. "
            f"Try another wording of method.instruction (now {instruction!r})."
        )
    return found


def kept_targets(session: Session, scope: Scope, forms: Sequence[Form] = ()) -> Sequence[Target]:
    """Return the data's own answers that the student must still give (by name the forget set's too if scope is picture).

    `forms` are other forms in which the retain set is asked too.
    """
    also = (Role.FORGET_TEXT,) if scope == "picture" else ()
    rows = session.of(*STAYS, *also)
    if not forms:
        return own_answers(rows)
    return own_answers([*rows, *other_forms(rows, forms, session.seed)])


class Law:
    """Teacher's distribution over completions about the forget set: the guided one, with a share of that on strangers."""

    def __init__(self, session: Session, lessons: Sequence[Lesson], share: float, teacher: Teacher) -> None:
        """Fix the original model's laws. To be made before training."""
        self.share = share
        self.lessons: Mapping[tuple[object, ...], Lesson] = {lesson.student.key: lesson for lesson in lessons}
        heard = [lesson.guided for lesson in lessons]
        heard += [lesson.stranger for lesson in lessons if lesson.stranger is not None and share]
        self.start = StartLogits(session, heard, teacher=teacher)

    def __call__(self, batch: Batch, labels_ba: Tensor) -> Tensor:
        """Return the distribution at each position as log-probabilities."""
        found = [self.lessons[target.key] for target in batch.targets]
        guided_bav = self.start([lesson.guided for lesson in found], labels_ba)
        if not self.share or all(lesson.stranger is None for lesson in found):
            return guided_bav.float().log_softmax(-1)
        strange_bav = self.start([lesson.stranger or lesson.guided for lesson in found], labels_ba)
        return mixed(guided_bav, strange_bav, self.share)


def mixed(first_bav: Tensor, second_bav: Tensor, share: float) -> Tensor:
    """Return log((1 - share) p + share q) of two laws given by logits."""
    u_bav, v_bav = first_bav.float().log_softmax(-1), second_bav.float().log_softmax(-1)
    weights_2 = torch.tensor([1 - share, share], device=u_bav.device).log()
    return torch.logaddexp(weights_2[0] + u_bav, weights_2[1] + v_bav)


def invented(name: str, seed: int) -> str:
    """Return a name with other letters of the same script, in Latin vowels for vowels and consonants for consonants.

    Other characters stay as they are.

    Raises:
        UserError: A word of the name would still be there.

    >>> invented("Ada Byron", 0) != "Ada Byron", len(invented("Ada Byron", 0))
    (True, 9)
    """
    made = "".join(_letter(letter, seed, place) for place, letter in enumerate(name))
    words = [(word, other) for word, other in zip(name.split(), made.split(), strict=True) if _told(word)]
    if not words or any(word == other for word, other in words):
        raise UserError(
            f"The original model is to be asked about an invented name, but {name!r} has a word without letters that could be "
            "exchanged. Write another spelling into the private name of the forget rows, or set method.scope=picture."
        )
    return made


def _told(word: str) -> bool:
    """Tell whether a word has a letter: numbers name nobody."""
    return any(char.isalpha() for char in word)


def _letter(letter: str, seed: int, place: int) -> str:
    """Return another letter of the same script and case, or a character that is no letter as it is."""
    parts = unicodedata.normalize("NFD", letter)
    bare, marks = parts[0].lower(), parts[1:]
    others = next((kind for kind in (VOWELS, CONSONANTS) if bare in kind), "").replace(bare, "")
    if not others:
        others, marks = _alike(letter), ""
    if not others:
        return letter
    chosen = others[seed_of(seed, "letter", place) % len(others)]
    chosen = chosen.upper() if letter.isupper() else chosen
    whole = unicodedata.normalize("NFC", chosen + marks)
    return whole if len(whole) == 1 else chosen


def _alike(letter: str) -> str:
    """Return other letters of the script and category, those that stand near by in Unicode."""
    if unicodedata.name(letter, "").startswith("CJK"):
        return HAN.replace(letter, "")
    if not letter.isalpha() or unicodedata.category(letter) == "Lm":
        return ""
    first, found = ord(letter) & ~15, (script(letter), unicodedata.category(letter))
    near = (chr(code) for code in range(first, first + 16) if code != ord(letter))
    return "".join(other for other in near if (script(other), unicodedata.category(other)) == found)


def _by_name(session: Session, rollouts: int, temperature: float) -> list[Lesson]:
    """Return lessons on the questions by name, where the question has the name."""
    told = session.of(Role.FORGET_TEXT)
    asked = {
        row.id: (row, replace(row, question=question))
        for row in told
        if (question := _about_nobody(row, seed_of(session.seed, row.id))) != row.question
    }
    rows = [nobody for _, nobody in asked.values()]
    drawn = draw(session, rows, without_private("rollouts-by-name", rollouts, temperature)) if rows else {}
    session.notes["by_name"] = {
        "questions": len(told),
        "without_lesson": len(told) - sum(bool(one.kept) for one in drawn.values()),
    }
    return [
        Lesson(student=replace(heard, example=asked[row.id][0]), guided=heard)
        for row in rows
        for heard in as_targets(row, drawn[row.id].kept)
    ]


def _about_nobody(example: Example, seed: int) -> str:
    """Return the question with an invented name for every spelling of the name, the longest first."""
    question = example.question
    for name in sorted(example.private.get("name", ()), key=len, reverse=True):
        if name in question:
            question = question.replace(name, invented(name, seed))
    return question


def _like(example: Example, strangers: Sequence[Example], seed: int) -> Example | None:
    """Return the stranger who looks most like the person in the picture, drawn by seed among equals."""

    def alike(other: Example) -> tuple[int, int]:
        same = sum(other.visible.get(key) == value for key, value in example.visible.items())
        return same, seed_of(seed, "stranger", example.id, other.id)

    return max(strangers, key=alike, default=None)


def _shown(example: Example, stranger: Example) -> Example:
    """Return the question asked about a stranger's picture."""
    return replace(example, id=f"{example.id} | {stranger.id}", image=stranger.image)
