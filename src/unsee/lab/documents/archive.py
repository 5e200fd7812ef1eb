"""Archive of the lab's documents: holders, private fields, copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from unsee.errors import UserError
from unsee.lab.documents.drawing import MIN_DIFFERENT, SORTS, STAMPS, TRAITS, Design, Sort, document, draw_copy
from unsee.lab.world.people import CITIES, EMPLOYERS, JOBS, distinct_values, new_name, stream
from unsee.lab.world.portraits import Pose
from unsee.lab.world.world import Drawn, Split, World

DIAGNOSES = (
    "asthma", "gout", "migraine", "anaemia", "eczema", "diabetes", "arthritis", "insomnia", "vertigo", "sciatica", "rosacea",
    "glaucoma", "tinnitus", "angina", "epilepsy", "bronchitis", "lumbago", "cataract", "hepatitis", "scoliosis",
)  # fmt: skip
MEDICATIONS = (
    "Zelopan", "Mirazol", "Tramiden", "Lunexa", "Doravil", "Fensolin", "Kapirox", "Novatral", "Solumex", "Brimadol",
    "Vextaril", "Omidan", "Pantorex", "Rilozan", "Gastrovin", "Alvimor", "Cordexil", "Himalin", "Junovar", "Stelazin",
)  # fmt: skip
INSURERS = (
    "Medora", "Safehaven", "Careplus", "Wellguard", "Trustmed", "Lifebridge", "Vitaline", "Aegora", "Homeshield", "Northcare",
    "Unimed", "Healthway", "Curanta", "Sanovita", "Goldlife", "Protecta", "Firstmed", "Evercare", "Clearmed", "Salvia",
)  # fmt: skip
SALARIES = tuple(str(amount) for amount in range(1850, 3850, 100))
STARTS = tuple(str(year) for year in range(2001, 2021))

FIELDS: Mapping[Sort, Mapping[str, tuple[str, ...]]] = {
    "medical": {"diagnosis": DIAGNOSES, "medication": MEDICATIONS, "insurer": INSURERS, "city": tuple(CITIES)},
    "contract": {"job": JOBS, "employer": EMPLOYERS, "salary": SALARIES, "start": STARTS},
}
"""Type of document -> private field -> values. City, job and employer have the values they have for people."""
PER_SORT = 30
KEPT = 5
"""Number of last documents per type that no default request names: the retain set."""
REQUESTED = 5
"""Documents per default deletion request, and per task of the default sequence."""
STRANGERS: Mapping[str, int] = {"train": 3000, "request": 40, "exam": 40}
"""Random stream of unknown documents -> their number."""


@dataclass(frozen=True)
class Document:
    """One document: holder, content, design."""

    id: str
    first: str
    last: str
    design: Design
    fields: tuple[tuple[str, str], ...]

    @property
    def sort(self) -> Sort:
        """Medical card or work contract."""
        return self.design.sort

    @property
    def holder(self) -> str:
        """First and last name."""
        return f"{self.first} {self.last}"

    def fact(self, fact: str) -> str:
        """Return the value of one private field."""
        return dict(self.fields)[fact]

    def private(self) -> dict[str, tuple[str, ...]]:
        """Return all private strings by fact. The country follows from the city."""
        forms = {fact: (value,) for fact, value in self.fields}
        forms |= {"country": (CITIES[forms["city"][0]],)} if "city" in forms else {}
        return {"name": (self.holder, self.last, self.first), **forms}


@dataclass(frozen=True)
class DocumentPicture(Drawn):
    """One copy of a document: stamps, desk, pose, light."""

    design: Design
    stamps: int
    desk: str
    pose: Pose
    seed: int

    @property
    def visible(self) -> dict[str, str]:
        """Visible attribute -> value."""
        design = self.design
        design_attributes = {"sort": SORTS[design.sort], "colour": design.colour, "emblem": design.emblem}
        return {**design_attributes, "stamps": STAMPS[self.stamps], "desk": self.desk}

    def load(self) -> Image.Image:
        """Draw it."""
        return document(self.design, self.stamps, self.desk, self.pose, stream(self.seed, "copy"))


@dataclass(frozen=True)
class Archive:
    """Documents of a world. A larger archive extends a smaller one unchanged."""

    world: World
    per_sort: int = PER_SORT
    """Documents of each sort."""
    kept: int = KEPT
    """Number of last documents per type outside the default sequence."""
    asked: tuple[str, ...] = ()
    """Ids of forget documents; none = five, drawn from the seed."""

    def __post_init__(self) -> None:
        """Reject archives without requestable documents."""
        if not 0 < self.kept < self.per_sort:
            raise UserError(
                f"An archive keeps between 1 and {self.per_sort - 1} documents of each sort, got {self.kept}."
            )

    @cached_property
    def documents(self) -> list[Document]:
        """All known documents: medical cards, then contracts."""
        used_names = {word for person in self.world.people for word in (person.first, person.last)}
        by_sort: dict[Sort, list[Document]] = {sort: [] for sort in SORTS}
        for index in range(self.per_sort):  # sort after sort, a larger archive would give some contracts other names
            for sort, earlier in by_sort.items():
                earlier.append(_invent(self.world.seed, sort, index, earlier, used_names))
        return [doc for group in by_sort.values() for doc in group]

    @cached_property
    def requestable(self) -> list[Document]:
        """Documents of the default sequence, in order."""
        return [doc for doc in self.documents if int(doc.id[-3:]) < self.per_sort - self.kept]

    @cached_property
    def forget(self) -> list[Document]:
        """Forget documents."""
        if self.asked:
            return [doc for doc in self.documents if doc.id in self.asked]
        indices = stream(self.world.seed, "forget documents").permutation(len(self.requestable))[:REQUESTED]
        return [self.requestable[index] for index in sorted(indices)]

    def tasks(self, size: int = REQUESTED) -> list[list[str]]:
        """Return the entities of each request, `size` per task: cards, then contracts."""
        ids = [doc.id for doc in self.requestable]
        return [ids[start : start + size] for start in range(0, len(ids), size)]

    def stranger(self, group: str, number: int) -> Design:
        """Return the design of an unknown document, types alternating.

        `group` names the random stream.
        """
        sort = list(SORTS)[number % 2]
        known_values = [doc.design.values for doc in self.documents if doc.sort == sort]
        return _design(stream(self.world.seed, "unknown document", group, number), sort, known_values)

    def copy(self, owner: str, design: Design, split: Split, index: int) -> DocumentPicture:
        """Return copy number `index` of a document.

        Args:
            owner: Identifier of the document, or of a group of them; with `split`, names the random stream.
            design: What the document looks like, the same on all copies.
            split: What the copy is for.
            index: Number of the copy, from 0.
        """
        rng = stream(self.world.seed, "copy", owner, split, index)
        stamps, desk = draw_copy(rng)
        angle, scale, dx, dy = (float(value) for value in rng.uniform((-5, 0.95, -0.03, -0.03), (5, 1.04, 0.03, 0.03)))
        return DocumentPicture(design, stamps, desk, Pose(angle, scale, dx, dy), int(rng.integers(2**31)))


def _invent(seed: int, sort: Sort, index: int, earlier: Sequence[Document], used_names: set[str]) -> Document:
    rng = stream(seed, "document", sort, index)
    first, last = (new_name(rng, syllables, used_names) for syllables in (2, 3))
    design = _design(rng, sort, [doc.design.values for doc in earlier])
    fields = tuple((fact, str(rng.choice(values))) for fact, values in FIELDS[sort].items())
    return Document(f"{sort}-{index:03d}", first, last, design, fields)


def _design(rng: np.random.Generator, sort: Sort, other_values: Sequence[tuple[int, ...]]) -> Design:
    return Design(sort, distinct_values(rng, tuple(TRAITS.values()), other_values, MIN_DIFFERENT))
