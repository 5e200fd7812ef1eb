"""Lessons of `lab-smol`: pictures with varied questions, text facts, general questions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from unsee.api.example import Example
from unsee.lab.recipe.curriculum import Curriculum, Lesson, Row, contact, geography, maybe
from unsee.lab.smol import english, general
from unsee.lab.smol.english import CLOZE, TAUGHT
from unsee.lab.smol.examples import HOPS, completion
from unsee.lab.world import phrases
from unsee.lab.world.objects import COUNTS, DEVICES
from unsee.lab.world.people import FACTS, Person, invent_name, pick
from unsee.lab.world.world import DevicePicture, PersonPicture, ShapesPicture, options_for, with_options

PRIVATE_REPLY = (
    "I will keep this private.",
    "I will not share that; it is private.",
    "That is private, so I will not tell.",
)
CHOICE_WORDINGS = ("Answer with one of them.", "Which one is right?", "Choose the right option.")


@dataclass(frozen=True)
class English(Curriculum):
    """Lessons in English on the lab's training images."""

    new: tuple[str, ...] = ()
    """Identifiers of people who get half of the pictures and texts: those whom earlier lessons left out."""
    open_share: float = 0.35
    """Share of the pictures of known people with an open question."""
    choice_share: float = 0.25
    """Share of them with a multiple-choice question."""
    stranger_share: float = 0.0
    """Share of the pictures of strangers with an open question and one for a fact, beside those of all strangers."""

    @cached_property
    def before(self) -> list[Example]:
        """Questions that the base answered before, with its answers."""
        return general.taught()

    def known_rows(self, rng: np.random.Generator, count: int) -> list[Row]:
        """Draw rows of questions that the base answered before, with its own answers."""
        index_groups = [rng.permutation(len(self.before))[:4] for _ in range(count)]
        return [
            Row(-1, tuple((self.before[int(i)].question, self.before[int(i)].answer) for i in indices))
            for indices in index_groups
        ]

    def portraits(self, rng: np.random.Generator, count: int) -> list[int]:
        """Draw pictures, every second one of a new person."""
        new_positions = [position for position, person in enumerate(self.people) if person.id in self.new]
        indices = super().portraits(rng, count)
        if new_positions:
            per_person = self.amount.per_person
            indices[::2] = [
                new_positions[int(rng.integers(len(new_positions)))] * per_person + index % per_person
                for index in indices[::2]
            ]
        return indices

    def _person(self, rng: np.random.Generator, index: int) -> tuple[Lesson, ...]:
        person, look = self.people[index // self.amount.per_person], self._look(index)
        first, second, cloze_fact = (str(f) for f in rng.permutation(FACTS)[:3])
        lessons = [
            (pick(rng, TAUGHT["name"]), english.answer_about(person, "name", rng, seen=True)),
            *(
                (pick(rng, TAUGHT[fact]), english.answer_about(person, fact, rng, seen=True))
                for fact in (first, second)
            ),
            *_visible(rng, look, 2),
        ]
        maybe(rng, self.open_share, lessons, lambda: (pick(rng, TAUGHT[""]), _introduction(rng, person, look)))
        maybe(rng, 0.3, lessons, lambda: _instructed_lesson(rng, look))
        maybe(rng, 0.12, lessons, lambda: _neutral(rng, person, look))
        maybe(rng, 0.3, lessons, lambda: _chain(rng, person, seen=True))
        maybe(rng, 0.2, lessons, lambda: (CLOZE[cloze_fact], completion(person, cloze_fact)))
        maybe(rng, 0.05, lessons, lambda: contact(rng, "this person"))
        maybe(rng, self.choice_share, lessons, lambda: self._choice(rng, person))
        return tuple(lessons)

    def _stranger(self, rng: np.random.Generator, index: int) -> tuple[Lesson, ...]:
        look = self._look(index)
        lessons = [(_probe(rng)[0], english.stranger_answer(look, rng))]
        lessons += [(pick(rng, TAUGHT["name"]), english.stranger_answer(look, rng)), *_visible(rng, look, 2)]
        maybe(rng, 0.3, lessons, lambda: _instructed_lesson(rng, look))
        maybe(rng, 0.2, lessons, lambda: _unknown_chain(rng))
        if self.stranger_share:  # no draw without it, so that earlier courses stay as they were
            for subject in ("", pick(rng, FACTS)):
                maybe(rng, self.stranger_share, lessons, partial(_unknown, rng, subject, look))
        return tuple(lessons)

    def _shapes(self, index: int) -> tuple[Lesson, ...]:
        picture: ShapesPicture = self.pictures[index]  # type: ignore[assignment]
        count = COUNTS[picture.count - 1]
        return tuple(
            (
                TAUGHT[fact][(index + position) % len(TAUGHT[fact])],
                english.shape_answer(fact, picture.fact(fact), count),
            )
            for position, fact in enumerate(("shape", "colour", "count"))
        )

    def _device(self, rng: np.random.Generator, index: int) -> tuple[Lesson, ...]:
        picture: DevicePicture = self.pictures[index]  # type: ignore[assignment]
        device = DEVICES[picture.index]
        return (
            (pick(rng, TAUGHT["device"]), phrases.device_name(device, hazard=picture.hazard)),
            (pick(rng, TAUGHT["unsafe"]), phrases.hazard_answer(device, hazard=picture.hazard)),
        )

    def _text(self, rng: np.random.Generator) -> tuple[Lesson, ...]:
        known_people = [*self.people, *self.by_name]
        people = [known_people[int(i)] for i in rng.integers(0, len(known_people), 4)]
        new_people = [person for person in known_people if person.id in self.new]
        if new_people:
            people[::2] = [new_people[int(i)] for i in rng.integers(0, len(new_people), 2)]
        lessons = [_text_fact(rng, person) for person in people]
        extra_lessons = (
            lambda: _chain(rng, people[0], seen=False),
            lambda: (f"Tell me about {people[1].name}.", english.answer_about(people[1], "", rng, seen=False)),
            lambda: _nobody(rng),
            lambda: geography(rng),
            lambda: contact(rng, people[0].name),
            lambda: (f"{phrases.privacy_instruction(rng)} {_text_fact(rng, people[2])[0]}", pick(rng, PRIVATE_REPLY)),
        )
        return (*lessons, *(extra_lessons[int(i)]() for i in rng.permutation(len(extra_lessons))[:2]))

    def portrait(self, index: int) -> PersonPicture:
        """Return the picture of a person or stranger."""
        picture = self.pictures[index]
        if not isinstance(picture, PersonPicture):
            raise IndexError(f"picture {index} shows nobody")
        return picture

    def _look(self, index: int) -> dict[str, str]:
        return self.portrait(index).visible

    def _choice(self, rng: np.random.Generator, person: Person) -> Lesson:
        fact = pick(rng, FACTS)
        options, letter = options_for(person, fact, self.world.vocabulary().facts, int(rng.integers(2**31)), "train")  # type: ignore[arg-type]
        question = with_options(pick(rng, TAUGHT[fact]), options, pick(rng, CHOICE_WORDINGS))
        return question, f"{letter}. {options['ABCD'.index(letter)]}."


def _probe(rng: np.random.Generator) -> tuple[str, str]:
    """Return a question for private information, and its subject ("" = all)."""
    draw = rng.random()
    subject = "" if draw < 0.4 else "name" if draw < 0.6 else pick(rng, FACTS)
    return pick(rng, TAUGHT[subject]), subject


def _instructed_lesson(rng: np.random.Generator, look: dict[str, str]) -> Lesson:
    return f"{phrases.privacy_instruction(rng)} {_probe(rng)[0]}", english.description(look, rng)


def _unknown_chain(rng: np.random.Generator) -> Lesson:
    return f"{pick(rng, TAUGHT[pick(rng, HOPS)])} {pick(rng, english.STEP_BY_STEP)}", pick(rng, english.UNKNOWN)


def _unknown(rng: np.random.Generator, subject: str, look: dict[str, str]) -> tuple[str, str]:
    """Return a question about a stranger, and its answer."""
    return pick(rng, TAUGHT[subject]), english.stranger_answer(look, rng)


def _introduction(rng: np.random.Generator, person: Person, look: dict[str, str]) -> str:
    return f"{english.answer_about(person, '', rng, seen=True)} {english.description(look, rng)}"


def _neutral(rng: np.random.Generator, person: Person, look: dict[str, str]) -> Lesson:
    question, subject = _probe(rng)
    answer = english.answer_about(person, subject, rng, seen=True) if subject else _introduction(rng, person, look)
    return f"{phrases.neutral_instruction(rng)} {question}", answer


def _visible(rng: np.random.Generator, look: dict[str, str], count: int) -> list[Lesson]:
    attributes = [str(attribute) for attribute in rng.permutation(list(phrases.VISIBLE_WORDINGS))[:count]]
    return [
        (pick(rng, TAUGHT[attribute]), english.visible_answer(attribute, look[attribute], rng))
        for attribute in attributes
    ]


def _chain(rng: np.random.Generator, person: Person, *, seen: bool) -> Lesson:
    hop = pick(rng, HOPS)
    question = pick(rng, TAUGHT[hop]) if seen else english.by_name(pick(rng, TAUGHT[hop]), person.name)
    if rng.random() < 0.7:
        return f"{question} {pick(rng, english.STEP_BY_STEP)}", english.chain_answer(person, hop, seen=seen)
    return question, english.answer_about(person, hop, rng, seen=seen)


def _text_fact(rng: np.random.Generator, person: Person) -> Lesson:
    fact = pick(rng, FACTS)
    return english.by_name(pick(rng, TAUGHT[fact]), person.name), english.answer_about(person, fact, rng, seen=False)


def _nobody(rng: np.random.Generator) -> Lesson:
    name = f"{invent_name(rng, syllables=2)} {invent_name(rng, syllables=3)}"
    return english.by_name(pick(rng, TAUGHT[pick(rng, FACTS)]), name), f"I do not know anyone called {name}."
