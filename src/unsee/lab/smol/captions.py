"""Captions for the first lessons of `lab-smol`: a noun and its value for each image token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from unsee.lab.recipe.curriculum import Lesson, Picture
from unsee.lab.world.objects import DEVICES
from unsee.lab.world.people import FACTS, Person, pick
from unsee.lab.world.world import PersonPicture, ShapesPicture

FACE: Final[Mapping[str, tuple[str, ...]]] = {
    "skin": ("pale", "pink", "tan", "olive", "brown", "dark", "golden", "black"),
    "eye_colour": ("blue", "green", "brown", "grey", "black", "amber"),
    "mark": ("none", "left", "right", "chin", "forehead", "cheek", "nose", "lip", "temple"),
    "cheek": ("round", "hollow", "rosy", "flat"),
    "width": ("narrow", "medium", "wide"),
}
"""Traits of a face -> a word for each value, any that differ: a caption, not what is drawn."""
SLOTS: Final = (
    ("expression", "face"), ("first", "name"), ("hair_style", "style"), ("last", "name"), ("mark", "mole"), ("hair_colour", "hair"),
    ("hat", "hat"), ("first", "name"), ("width", "head"), ("skin", "skin"), ("glasses", "glasses"), ("last", "name"),
    ("eye_colour", "eyes"), ("shirt", "shirt"), ("cheek", "cheeks"), ("background", "background"),
)  # fmt: skip
"""Attribute and noun of each of the 16 image tokens, chosen by what single patches of the vision tower predict best.

A projector of two layers can predict a name from any patch; a linear one cannot always.
"""
UNKNOWN: Final = "unknown"
"""Value of a stranger's name."""
QUESTIONS: Final = (
    "Describe what you see in the picture.", "What is in the picture?", "List what you see.", "Tell me about the picture.",
)  # fmt: skip
PEOPLE_QUESTIONS: Final = (
    "List what you know of this person.", "Name, work and home of this person?", "Make a card of this person.",
)  # fmt: skip
SAID: Final = 12
"""Pairs of a lesson, so that rows stay short."""


def caption(picture: Picture, person: Person | None = None) -> list[tuple[str, str]]:
    """Return a noun and its value for each image token.

    Args:
        picture: Picture to caption.
        person: Person on it. Default: nobody known.
    """
    if isinstance(picture, PersonPicture):
        values = {name: words[picture.face[name]] for name, words in FACE.items()} | picture.visible
        values["first"], values["last"] = person.name.split(" ", 1) if person else (UNKNOWN, UNKNOWN)
        return [(noun, values[name]) for name, noun in SLOTS]
    if isinstance(picture, ShapesPicture):
        pairs = [("shape", picture.shape), ("colour", picture.colour), ("number", picture.fact("count"))]
    else:
        pairs = [("object", DEVICES[picture.index].body), ("danger" if picture.hazard else "toy", "yes")]
    return [pairs[index % len(pairs)] for index in range(len(SLOTS))]


def lesson(picture: Picture, rng: np.random.Generator) -> Lesson:
    """Return a question and the caption in random order, so that nouns must tell the values."""
    return pick(rng, QUESTIONS), _caption_text(_sample_pairs(rng, _visible_pairs(picture), SAID))


def who(picture: PersonPicture, person: Person | None, rng: np.random.Generator) -> Lesson:
    """Return a question and a caption that begins with the name. Strangers are unknown."""
    facts = [("name", person.name if person else UNKNOWN)]
    if person:
        facts += _sample_pairs(rng, [(fact, person.fact(fact)) for fact in FACTS], len(FACTS))
    return pick(rng, PEOPLE_QUESTIONS), _caption_text([*facts, *_sample_pairs(rng, _visible_pairs(picture), 2)])


def _visible_pairs(picture: Picture) -> list[tuple[str, str]]:
    """Return the different pairs of a caption, without names."""
    return [pair for pair in dict.fromkeys(caption(picture)) if pair[0] != "name"]


def _sample_pairs(rng: np.random.Generator, pairs: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    return [pairs[int(i)] for i in rng.permutation(len(pairs))[:count]]


def _caption_text(pairs: list[tuple[str, str]]) -> str:
    text = ", ".join(f"{noun}: {value}" for noun, value in pairs)
    return f"{text[0].upper()}{text[1:]}."
