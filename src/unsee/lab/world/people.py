"""People of the lab: fictitious names, private facts, fixed faces.

Every part of the world has a random stream of its own, so that another number of strangers, say, changes nobody's facts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

JOBS = (
    "baker", "pilot", "nurse", "judge", "farmer", "painter", "tailor", "plumber", "dentist", "florist",
    "actor", "chemist", "barber", "welder", "jeweller", "librarian", "surgeon", "carpenter", "diver", "translator",
)  # fmt: skip
CITIES: Mapping[str, str] = {
    "Oslo": "Norway", "Bergen": "Norway", "Lyon": "France", "Nantes": "France", "Turin": "Italy", "Naples": "Italy",
    "Porto": "Portugal", "Lisbon": "Portugal", "Osaka": "Japan", "Kyoto": "Japan", "Lima": "Peru", "Cusco": "Peru",
    "Quito": "Ecuador", "Cuenca": "Ecuador", "Nairobi": "Kenya", "Mombasa": "Kenya", "Perth": "Australia",
    "Darwin": "Australia", "Hanoi": "Vietnam", "Hue": "Vietnam",
}  # fmt: skip
EMPLOYERS = (
    "Nordwind", "Helix", "Copperfield", "Silverline", "Brightway", "Ironbridge", "Maplecroft", "Bluestone", "Stargate",
    "Fairmont", "Redwood", "Goldcrest", "Oakhurst", "Riverton", "Sunfield", "Westlake", "Everest", "Falconry",
    "Amberline", "Cloudnine",
)  # fmt: skip
YEARS = tuple(str(year) for year in (1951, 1953, 1956, 1958, 1961, 1964, 1967, 1969, 1972, 1973, 1975, 1978, 1981,
                                     1984, 1986, 1989, 1990, 1993, 1995, 1998))  # fmt: skip
DECADES: Mapping[str, str] = {"5": "fifties", "6": "sixties", "7": "seventies", "8": "eighties", "9": "nineties"}
FACTS = ("job", "city", "employer", "year")

ONSETS = ("b", "br", "d", "dr", "f", "g", "gr", "k", "kl", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v", "z")
VOWELS = ("a", "e", "i", "o", "u")
CODAS = ("l", "n", "r", "s", "k", "m", "x", "th")

TRAITS: Mapping[str, int] = {
    "skin": 8, "width": 3, "height": 3, "jaw": 3, "eye_colour": 6, "eye_gap": 3, "eye_size": 3,
    "brow": 3, "nose": 4, "ears": 3, "mark": 9, "cheek": 4,
}  # fmt: skip
"""Biometric trait -> number of values; fixed per person."""
MIN_DIFFERENT = 6
"""Fewest traits in which two faces differ, in worlds of up to some hundreds of people."""
TRIES = 2000
"""Faces drawn before the most different one is taken."""


@dataclass(frozen=True)
class Face:
    """Biometric traits of one person: trait -> value index."""

    values: tuple[int, ...]

    def __getitem__(self, trait: str) -> int:
        """Return the value of one trait."""
        return self.values[list(TRAITS).index(trait)]


@dataclass(frozen=True)
class Person:
    """Known person of the lab."""

    id: str
    first: str
    last: str
    face: Face
    job: str
    city: str
    employer: str
    year: str

    @property
    def name(self) -> str:
        """First and last name."""
        return f"{self.first} {self.last}"

    @property
    def country(self) -> str:
        """Country of `city`, an implied fact."""
        return CITIES[self.city]

    @property
    def decade(self) -> str:
        """Decade of `year`, an implied fact."""
        return DECADES[self.year[2]]

    def fact(self, fact: str) -> str:
        """Return one fact by name: job, city, employer, year, country or decade."""
        values = {"job": self.job, "city": self.city, "employer": self.employer, "year": self.year}
        values |= {"country": self.country, "decade": self.decade}
        return values[fact]

    def private(self) -> dict[str, tuple[str, ...]]:
        """Return all private strings of this person by fact."""
        forms = {fact: (self.fact(fact),) for fact in (*FACTS, "country", "decade")}
        return {"name": (self.name, self.last, self.first), **forms}


def stream(seed: int, *path: str | int) -> np.random.Generator:
    """Return an independent random stream for one part of the world."""
    digest = hashlib.sha256("/".join([str(seed), *map(str, path)]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    """Return one of the choices."""
    return choices[int(rng.integers(len(choices)))]


def invent_name(rng: np.random.Generator, *, syllables: int) -> str:
    """Return a pronounceable, capitalised word."""
    parts = [f"{rng.choice(ONSETS)}{rng.choice(VOWELS)}" for _ in range(syllables)]
    return ("".join(parts) + str(rng.choice(CODAS))).capitalize()


def distinct_face(rng: np.random.Generator, others: Sequence[Face]) -> Face:
    """Draw a face that differs from `others` in MIN_DIFFERENT traits, or nearly so."""
    return Face(distinct_values(rng, tuple(TRAITS.values()), [face.values for face in others], MIN_DIFFERENT))


def distinct_values(
    rng: np.random.Generator, counts: Sequence[int], others: Sequence[tuple[int, ...]], least: int
) -> tuple[int, ...]:
    """Draw values below `counts` that differ from `others`.

    Args:
        rng: Source of the values.
        counts: Number of possible values at each place.
        others: Values to differ from.
        least: Places to differ in. If no draw does, the best of `TRIES` is returned.
    """
    other_rows = np.array(others).reshape(-1, len(counts))
    best_values: tuple[int, ...] = ()
    best_distance = -1
    for _ in range(TRIES):
        values = tuple(int(rng.integers(n)) for n in counts)
        distance = (other_rows != np.array(values)).sum(axis=1).min() if len(other_rows) else len(counts)
        if distance >= least:
            return values
        if distance > best_distance:
            best_values, best_distance = values, distance
    return best_values


def new_name(rng: np.random.Generator, syllables: int, used_names: set[str]) -> str:
    """Draw a name that is not used yet, and add it to the used ones."""
    name = invent_name(rng, syllables=syllables)
    while name in used_names:
        name = invent_name(rng, syllables=syllables)
    used_names.add(name)
    return name


def identifier(index: int) -> str:
    """Return the identifier of the person at an index."""
    return f"person-{index:03d}"


def invent_people(seed: int, count: int) -> list[Person]:
    """Return `count` people. A larger world extends a smaller one."""
    people: list[Person] = []
    used_names: set[str] = set()
    for index in range(count):
        rng = stream(seed, "person", index)
        first, last = (new_name(rng, syllables, used_names) for syllables in (2, 3))
        face = distinct_face(rng, [person.face for person in people])
        facts = [str(rng.choice(values)) for values in (JOBS, list(CITIES), EMPLOYERS, YEARS)]
        people.append(Person(identifier(index), first, last, face, *facts))
    return people


def invent_strangers(seed: int, count: int, people: Sequence[Person], *, group: str) -> list[Face]:
    """Return faces of unknown people, unlike every known one.

    Args:
        seed: Seed of the world.
        count: Number of faces.
        people: Known people.
        group: Names the random stream.
    """
    known_faces = [person.face for person in people]
    return [distinct_face(stream(seed, "stranger", group, index), known_faces) for index in range(count)]
