"""Embedded world as a benchmark, or a lab folder.

`lab`, `lab:hazards`, `lab:documents` and `lab:english` are its deletion requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Final, Literal

from unsee.api import Benchmark, Example, Vocabulary
from unsee.api.benchmark import Hub, NoSettings, Place
from unsee.errors import UserError, unknown_name
from unsee.lab.documents import documents, phrases
from unsee.lab.documents.archive import Archive, Document
from unsee.lab.smol import examples as english
from unsee.lab.world import examples as people
from unsee.lab.world import hazards
from unsee.lab.world.people import Person
from unsee.lab.world.settings import ENGLISH, SUGGESTED
from unsee.lab.world.world import World
from unsee.utils.parsing import read_object

WORLD_FILE = "world.json"
"""File beside a trained lab model with the arguments of its World."""

REQUESTS: Final[Mapping[str, ModuleType]] = {
    "people": people,
    "hazards": hazards,
    "documents": documents,
    "english": english,
}
"""Deletion request -> module with its `request` and `eval_examples`."""


class Lab(Benchmark):
    """Embedded world with one deletion request: people, documents, or hazards."""

    name: ClassVar[str] = "lab"
    layout: ClassVar[str] = f"a folder with {WORLD_FILE}"

    def __init__(
        self, place: Place | None = None, settings: NoSettings | None = None, *, request: str = "people"
    ) -> None:
        """Open the default world, or the one described in `place / "world.json"`."""
        self.settings = settings or NoSettings()
        if isinstance(place, Hub):
            raise UserError(f"The lab is made here, not fetched: give --data lab or a folder, not {place}.")
        if request not in REQUESTS:
            raise unknown_name("deletion request of the lab", request, REQUESTS)
        self.request = request
        if place is None:
            self.world = english.world() if request == "english" else World()
        else:
            self.world = _read(place / WORLD_FILE)
        if self.world.language == "english":
            self.request = "english"
        self.archive = Archive(self.world)

    @classmethod
    def fits(cls, place: Path) -> bool:
        """Tell whether the folder describes a world."""
        return (place / WORLD_FILE).is_file()

    def examples(self, split: Literal["train", "eval"]) -> Sequence[Example]:
        """Return the deletion request ("train") or the evaluation examples ("eval")."""
        module = REQUESTS[self.request]
        subject = self.archive if self.request == "documents" else self.world
        examples: Sequence[Example] = module.request(subject) if split == "train" else module.eval_examples(subject)
        return examples

    def vocabulary(self) -> Vocabulary:
        """Return all names and values of the world."""
        if self.request == "documents":
            return phrases.vocabulary(self.archive)
        if self.request == "english":
            return english.vocabulary(self.world)
        return hazards.vocabulary(self.world) if self.request == "hazards" else self.world.vocabulary()

    def about(self, entities: Sequence[str]) -> Lab:
        """Return the same world with these people or documents as forget set, else itself."""
        subjects: Sequence[Person | Document] = (
            self.archive.documents if self.request == "documents" else self.world.people
        )
        if not entities or not set(entities) <= {subject.id for subject in subjects}:
            return self
        lab = Lab(None, self.settings, request=self.request)
        lab.world = self.world if self.request == "documents" else replace(self.world, chosen=tuple(entities))
        lab.archive = Archive(self.world, asked=tuple(entities))
        return lab

    def suggested(self, method: str) -> Mapping[str, Any]:
        """Return the training settings for the lab model."""
        if self.request == "english":
            return ENGLISH
        return SUGGESTED.get(method, SUGGESTED["default"])


def _read(file: Path) -> World:
    try:
        return World(**read_object(file))
    except (UserError, ValueError, TypeError) as error:
        raise UserError(
            f"{file} does not describe a lab world ({error}); train one with `unsee train lab --out DIR`."
        ) from error
