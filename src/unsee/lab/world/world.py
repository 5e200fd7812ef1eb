"""World of the lab: people, images, default deletion request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from PIL import Image

from unsee.api.example import Vocabulary
from unsee.errors import UserError
from unsee.lab.world import objects, phrases
from unsee.lab.world.people import Face, Person, identifier, invent_people, invent_strangers, stream
from unsee.lab.world.phrases import StrangerStyle
from unsee.lab.world.portraits import Pose, draw_pose, draw_visible, portrait

RENDERER = "1"
"""Version of the drawing, part of every image key."""
Split = Literal["train", "seen", "unseen", "exam", "final"]
"""`train`: training; `seen`: shown in a deletion request; `unseen`: held out; `exam`: grading of the recipe.

`final`: grading of a finished model whose recipe was chosen on `exam`.
"""


class Drawn:
    """Picture drawn from its fields."""

    @property
    def key(self) -> str:
        """Hash of everything drawn."""
        return hashlib.sha256(f"lab/{RENDERER}/{self!r}".encode()).hexdigest()


@dataclass(frozen=True)
class PersonPicture(Drawn):
    """Portrait: face, visible attributes, pose."""

    face: Face
    look: tuple[tuple[str, str], ...]
    pose: Pose

    @property
    def visible(self) -> dict[str, str]:
        """Visible attribute -> value."""
        return dict(self.look)

    def load(self) -> Image.Image:
        """Draw it."""
        return portrait(self.face, self.visible, self.pose)


@dataclass(frozen=True)
class ShapesPicture(Drawn):
    """One to four equal shapes."""

    shape: str
    colour: str
    count: int
    seed: int

    def load(self) -> Image.Image:
        """Draw it."""
        return objects.shapes(self.shape, self.colour, self.count, stream(self.seed, "shapes"))

    def fact(self, fact: str) -> str:
        """Return shape, colour or count as a word."""
        return {"shape": self.shape, "colour": self.colour, "count": objects.COUNTS[self.count - 1]}[fact]


@dataclass(frozen=True)
class DevicePicture(Drawn):
    """A fictional hazard or its harmless look-alike."""

    index: int
    hazard: bool
    seed: int

    def load(self) -> Image.Image:
        """Draw it."""
        return objects.device(self.index, hazard=self.hazard, rng=stream(self.seed, "device"))


@dataclass(frozen=True)
class World:
    """Small world from a seed. Equal arguments give equal worlds.

    More people or strangers leave all others unchanged.
    """

    seed: int = 0
    size: int = 50
    """Number of people."""
    forget_share: float = 0.1
    """Share of the people in the default deletion request."""
    strangers: StrangerStyle = "describe"
    """Style of answers about strangers."""
    first: int = 0
    """Number of the first person: the people of a larger world from there on."""
    chosen: tuple[str, ...] = ()
    """Identifiers of the forget entities; () draws `forget_share` of all."""

    language: Literal["lab", "english"] = "lab"
    """Wordings: few and exact, or the many of a model that spoke English before."""

    def __post_init__(self) -> None:
        """Reject worlds without anybody to forget or to retain."""
        object.__setattr__(self, "chosen", tuple(self.chosen))
        if self.language not in ("lab", "english"):
            raise UserError(f"The language of a lab world is lab or english, got {self.language!r}.")
        if self.size < 4:
            raise UserError(f"A lab world needs at least 4 people, got {self.size}.")
        if not 0 < self.forget_share < 1:
            raise UserError(f"forget_share must lie between 0 and 1, got {self.forget_share}.")
        if round(self.size * self.forget_share) == self.size:
            raise UserError(f"forget_share {self.forget_share} of {self.size} people leaves nobody to retain.")
        if unknown := set(self.chosen).difference(map(identifier, range(self.first, self.first + self.size))):
            raise UserError(f"This lab world has nobody called {', '.join(sorted(unknown))}.")

    @cached_property
    def people(self) -> list[Person]:
        """All people that the `lab` model is trained on."""
        return invent_people(self.seed, self.first + self.size)[self.first :]

    @cached_property
    def forget(self) -> list[Person]:
        """Forget entities (never shown to `lab-gold`)."""
        if self.chosen:
            return [person for person in self.people if person.id in self.chosen]
        count = max(1, round(self.size * self.forget_share))
        indices = stream(self.seed, "forget").permutation(self.size)[:count]
        return [self.people[index] for index in sorted(indices)]

    @cached_property
    def retain(self) -> list[Person]:
        """Retain entities."""
        forget_ids = {person.id for person in self.forget}
        return [person for person in self.people if person.id not in forget_ids]

    def stranger_faces(self, group: str, count: int) -> list[Face]:
        """Return faces of strangers. `train` and `exam` groups share none."""
        return invent_strangers(self.seed, count, self.people, group=group)

    def vocabulary(self) -> Vocabulary:
        """Return all names and values of this world."""
        return phrases.vocabulary(self.people)

    def picture(self, owner: str, face: Face, split: Split, index: int) -> PersonPicture:
        """Return image number `index` of a face.

        Args:
            owner: Identifier of the person with the face; with `split`, names the random stream.
            face: Traits, the same on all images.
            split: What the image is for.
            index: Number of the image, from 0.
        """
        rng = stream(self.seed, "picture", owner, split, index)
        return PersonPicture(face, tuple(draw_visible(rng).items()), draw_pose(rng))

    def shapes(self, split: Split, index: int) -> ShapesPicture:
        """Return one image of shapes."""
        rng = stream(self.seed, "shapes", split, index)
        shape, colour = str(rng.choice(objects.SHAPES)), str(rng.choice(list(objects.SHAPE_COLOURS)))
        return ShapesPicture(shape, colour, int(rng.integers(1, 5)), int(rng.integers(2**31)))

    def device(self, split: Split, index: int) -> DevicePicture:
        """Return one image of a device: hazards at even, look-alikes at odd indices."""
        rng = stream(self.seed, "device", split, index)
        return DevicePicture((index // 2) % len(objects.DEVICES), index % 2 == 0, int(rng.integers(2**31)))


class Known(Protocol):
    """Entity with private facts."""

    @property
    def id(self) -> str:
        """Identifier of the entity."""
        ...

    def fact(self, fact: str) -> str:
        """Return one fact by name."""
        ...


def options_for(
    person: Known, fact: str, values: Mapping[str, tuple[str, ...]], seed: int, tag: str
) -> tuple[tuple[str, ...], str]:
    """Return four options in random order, and the letter of the true one.

    Args:
        person: Person or document that the fact belongs to.
        fact: Name of the fact.
        values: Fact -> its possible values, at least four.
        seed: Seed of the world.
        tag: Names the random stream, together with person and fact.
    """
    rng = stream(seed, "options", person.id, fact, tag)
    true_value = person.fact(fact)
    wrong_values = [
        str(value) for value in rng.permutation([value for value in values[fact] if value != true_value])[:3]
    ]
    position = int(rng.integers(4))
    options = (*wrong_values[:position], true_value, *wrong_values[position:])
    return options, "ABCD"[position]


def choice_question(fact: str, options: tuple[str, ...]) -> str:
    """Return the multiple-choice question about one fact."""
    return with_options(phrases.FACT_WORDINGS[fact][0], options)


def with_options(question: str, options: tuple[str, ...], instruction: str = "Answer with one of them.") -> str:
    """Return a question with its options A to D and the instruction how to answer."""
    option_list = " ".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
    return f"{question} {option_list} {instruction}"
