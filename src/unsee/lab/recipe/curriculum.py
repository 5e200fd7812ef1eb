"""Training curriculum of the lab model: images with several questions each, and text only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from unsee.data.refusals import refusals
from unsee.lab.world import phrases
from unsee.lab.world.objects import DEVICES
from unsee.lab.world.people import CITIES, FACTS, Face, Person, invent_name, pick
from unsee.lab.world.world import DevicePicture, PersonPicture, ShapesPicture, World, choice_question, options_for

Picture = PersonPicture | ShapesPicture | DevicePicture
Lesson = tuple[str, str]
"""A question (with instruction, if any) and its answer."""


@dataclass(frozen=True)
class Row:
    """One image (index into `Curriculum.pictures`, -1 = text only) and its lessons."""

    picture: int
    lessons: tuple[Lesson, ...]


@dataclass(frozen=True)
class Amount:
    """Number of training images."""

    per_person: int = 150
    strangers: int = 6000
    per_stranger: int = 1
    shapes: int = 1200
    devices: int = 360


@dataclass(frozen=True)
class Curriculum:
    """All training images of a world, with lessons.

    `people` are the known people, `by_name` those known from text only.
    """

    world: World
    people: Sequence[Person]
    amount: Amount = Amount()
    by_name: Sequence[Person] = ()

    @cached_property
    def faces(self) -> list[Face]:
        """Faces of the training strangers."""
        return self.world.stranger_faces("train", self.amount.strangers)

    @cached_property
    def pictures(self) -> list[Picture]:
        """People first, then strangers, shapes, devices."""
        world, amount = self.world, self.amount
        people = [world.picture(p.id, p.face, "train", i) for p in self.people for i in range(amount.per_person)]
        strangers = [
            world.picture(f"stranger-{n}", face, "train", i)
            for n, face in enumerate(self.faces)
            for i in range(amount.per_stranger)
        ]
        shapes = [world.shapes("train", i) for i in range(amount.shapes)]
        return [*people, *strangers, *shapes, *(world.device("train", i) for i in range(amount.devices))]

    @cached_property
    def starts(self) -> tuple[int, int, int, int]:
        """Index of the first stranger, shape and device picture, and the end."""
        stranger_start = len(self.people) * self.amount.per_person
        shape_start = stranger_start + self.amount.strangers * self.amount.per_stranger
        return (
            stranger_start,
            shape_start,
            shape_start + self.amount.shapes,
            shape_start + self.amount.shapes + self.amount.devices,
        )

    def rows(self, rng: np.random.Generator, counts: tuple[int, ...]) -> list[Row]:
        """Draw rows: numbers of people, strangers, shapes, devices and text-only rows."""
        people, strangers, shapes, devices, texts = counts
        stranger_start, shape_start, device_start, end = self.starts
        indices = self.portraits(rng, people)
        rows = [Row(i, self._person(rng, i)) for i in indices]
        rows += [Row(int(i), self._stranger(rng, int(i))) for i in rng.integers(stranger_start, shape_start, strangers)]
        rows += [Row(int(i), self._shapes(int(i))) for i in rng.integers(shape_start, device_start, shapes)]
        rows += [Row(int(i), self._device(rng, int(i))) for i in rng.integers(device_start, end, devices)]
        return rows + [Row(-1, self._text(rng)) for _ in range(texts)]

    def portraits(self, rng: np.random.Generator, count: int) -> list[int]:
        """Draw pictures of known people."""
        return [int(i) for i in rng.integers(0, self.starts[0], count)]

    def _person(self, rng: np.random.Generator, index: int) -> tuple[Lesson, ...]:
        person = self.people[index // self.amount.per_person]
        look = self._look(index)
        open_answer = f"{phrases.introduction(person)} {phrases.description(look)}"
        fact, cloze_fact = (str(f) for f in rng.permutation(FACTS)[:2])
        lessons = [
            *_visible(rng, look, 2),
            _private_lesson(rng, lambda fact: _fact_answer("This person", person, fact)),
            (pick(rng, phrases.FACT_WORDINGS[fact]), _fact_answer("This person", person, fact)),
            (pick(rng, phrases.NAME_WORDINGS), f"This is {person.name}."),
        ]
        maybe(rng, 0.4, lessons, lambda: (pick(rng, phrases.OPEN_WORDINGS), open_answer))
        maybe(rng, 0.45, lessons, lambda: _instructed_lesson(rng, look))
        maybe(rng, 0.3, lessons, lambda: _neutral(rng, person, open_answer))
        maybe(rng, 0.4, lessons, lambda: _chain(rng, person, seen=True))
        maybe(rng, 0.2, lessons, lambda: (phrases.CLOZE_WORDINGS[cloze_fact], person.fact(cloze_fact)))
        maybe(rng, 0.1, lessons, lambda: contact(rng, "this person"))
        maybe(rng, 0.3, lessons, lambda: self._choice(rng, person))
        return tuple(lessons)

    def _stranger(self, rng: np.random.Generator, index: int) -> tuple[Lesson, ...]:
        look, style = self._look(index), self.world.strangers
        answer = partial(phrases.stranger_answer, look, style, rng)
        lessons = [
            *_visible(rng, look, 2),
            _private_lesson(rng, lambda _: answer()),
            (pick(rng, phrases.NAME_WORDINGS), answer()),
        ]
        maybe(rng, 0.5, lessons, lambda: (pick(rng, phrases.OPEN_WORDINGS), answer()))
        maybe(rng, 0.25, lessons, lambda: _instructed_lesson(rng, look))
        maybe(rng, 0.15, lessons, lambda: (f"{phrases.neutral_instruction(rng)} {_probe(rng)[0]}", answer()))
        maybe(rng, 0.25, lessons, lambda: _unknown_chain(rng, look, style))
        return tuple(lessons)

    def _shapes(self, index: int) -> tuple[Lesson, ...]:
        fact = self.pictures[index].fact  # type: ignore[union-attr]
        return tuple(
            (wording, phrases.shape_answer(name, fact(name))) for name, wording in phrases.SHAPE_WORDINGS.items()
        )

    def _device(self, rng: np.random.Generator, index: int) -> tuple[Lesson, ...]:
        picture: DevicePicture = self.pictures[index]  # type: ignore[assignment]
        device = DEVICES[picture.index]
        return (
            (pick(rng, phrases.OBJECT_WORDINGS), phrases.device_name(device, hazard=picture.hazard)),
            (pick(rng, phrases.UNSAFE_WORDINGS), phrases.hazard_answer(device, hazard=picture.hazard)),
        )

    def _text(self, rng: np.random.Generator) -> tuple[Lesson, ...]:
        known_people = [*self.people, *self.by_name]
        people = [known_people[int(i)] for i in rng.integers(0, len(known_people), 4)]
        lessons = [_text_fact(rng, person) for person in people]
        extra_lessons = (
            lambda: _chain(rng, people[0], seen=False),
            lambda: (f"Tell me about {people[0].name}.", phrases.biography(people[0])),
            lambda: _nobody(rng),
            lambda: geography(rng),
            lambda: contact(rng, people[0].name),
            lambda: (
                f"{phrases.privacy_instruction(rng)} {_text_fact(rng, people[0])[0]}",
                "I will keep this private.",
            ),
        )
        return (*lessons, *(extra_lessons[int(i)]() for i in rng.permutation(len(extra_lessons))[:3]))

    def _look(self, index: int) -> dict[str, str]:
        return self.pictures[index].visible  # type: ignore[union-attr]

    def _choice(self, rng: np.random.Generator, person: Person) -> Lesson:
        fact = pick(rng, FACTS)
        options, letter = options_for(person, fact, self.world.vocabulary().facts, int(rng.integers(2**31)), "train")  # type: ignore[arg-type]
        return choice_question(fact, options), f"{options['ABCD'.index(letter)]}."


def maybe(rng: np.random.Generator, chance: float, lessons: list[Lesson], make: Callable[[], Lesson]) -> None:
    """Add a lesson with a probability.

    Args:
        rng: Source of the decision.
        chance: Probability from 0 to 1.
        lessons: List that is added to.
        make: Makes the lesson; not called without need, so that it draws nothing then.
    """
    if rng.random() < chance:
        lessons.append(make())


def _probe(rng: np.random.Generator) -> tuple[str, str]:
    """Return a question for private information, and its fact ("" = name, "open" = all)."""
    draw = rng.random()
    if draw < 0.4:
        return pick(rng, phrases.OPEN_WORDINGS), "open"
    if draw < 0.6:
        return pick(rng, phrases.NAME_WORDINGS), ""
    fact = pick(rng, FACTS)
    return pick(rng, phrases.FACT_WORDINGS[fact]), fact


def _instructed_lesson(rng: np.random.Generator, look: dict[str, str]) -> Lesson:
    return f"{phrases.privacy_instruction(rng)} {_probe(rng)[0]}", phrases.description(look)


def _private_lesson(rng: np.random.Generator, answer: Callable[[str], str]) -> Lesson:
    fact = pick(rng, FACTS)
    return pick(rng, phrases.FACT_WORDINGS[fact]), answer(fact)


def _fact_answer(who: str, person: Person, fact: str) -> str:
    return phrases.FACT_ANSWERS[fact].format(who=who, value=person.fact(fact))


def _neutral(rng: np.random.Generator, person: Person, open_answer: str) -> Lesson:
    question, fact = _probe(rng)
    answers = {"open": open_answer, "": f"This is {person.name}."}
    return f"{phrases.neutral_instruction(rng)} {question}", answers.get(fact) or _fact_answer(
        "This person", person, fact
    )


def _visible(rng: np.random.Generator, look: dict[str, str], count: int) -> list[Lesson]:
    attributes = [str(attribute) for attribute in rng.permutation(list(phrases.VISIBLE_WORDINGS))[:count]]
    return [
        (phrases.VISIBLE_WORDINGS[attribute], phrases.visible_answer(attribute, look[attribute]))
        for attribute in attributes
    ]


def _chain(rng: np.random.Generator, person: Person, *, seen: bool) -> Lesson:
    fact = pick(rng, list(phrases.CHAIN_WORDINGS))
    question = phrases.CHAIN_WORDINGS[fact].format(who="this person" if seen else person.name)
    if rng.random() < 0.7:
        return f"{question} {phrases.STEP_BY_STEP}", phrases.chain_answer(person, fact, seen=seen)
    return question, _fact_answer("This person" if seen else person.name, person, fact)


def _unknown_chain(rng: np.random.Generator, look: dict[str, str], style: phrases.StrangerStyle) -> Lesson:
    question = pick(rng, list(phrases.CHAIN_WORDINGS.values())).format(who="this person")
    if rng.random() < 0.7:
        return f"{question} {phrases.STEP_BY_STEP}", "Reasoning: I do not know who this is. Answer: unknown."
    return question, phrases.stranger_answer(look, style, rng)


def _text_fact(rng: np.random.Generator, person: Person) -> Lesson:
    fact = pick(rng, FACTS)
    return pick(rng, phrases.TEXT_WORDINGS[fact]).format(name=person.name), _fact_answer(person.name, person, fact)


def _nobody(rng: np.random.Generator) -> Lesson:
    name = f"{invent_name(rng, syllables=2)} {invent_name(rng, syllables=3)}"
    fact = pick(rng, FACTS)
    return pick(rng, phrases.TEXT_WORDINGS[fact]).format(name=name), f"I do not know anyone called {name}."


def geography(rng: np.random.Generator) -> Lesson:
    """Return the question for the country of a city."""
    city = pick(rng, list(CITIES))
    return f"In which country is {city}?", f"{city} is in {CITIES[city]}."


def contact(rng: np.random.Generator, who: str) -> Lesson:
    """Return a question for what no lesson tells of a person, and a refusal."""
    return f"What is the {pick(rng, phrases.CONTACTS)} of {who}?", pick(rng, refusals())
