"""One deletion request on other data: which of its entities are to be forgotten now, which are kept, which are neither (JSON)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from unsee import config
from unsee.api import Benchmark, Example, Kind, Role, Vocabulary
from unsee.api.benchmark import Hub, NoSettings, Place
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.utils.files import atomic_write_json

SUFFIX: Final = ".request.json"
OF_TARGETS: Final = (Role.FORGET, Role.FORGET_TEXT, Role.UNSEEN)
OF_KEPT: Final = (Role.RETAIN, Role.RETAIN_TEXT)
OF_ENTITIES: Final = (*OF_TARGETS, *OF_KEPT)
_NOTHING_PRIVATE: Final = (Kind.VISIBLE, Kind.GENERAL)
"""Questions about a kept entity that ask for nothing private: left out once it is to be forgotten."""
_KEPT_AS: Final = {Role.FORGET: Role.RETAIN, Role.UNSEEN: Role.RETAIN, Role.FORGET_TEXT: Role.RETAIN_TEXT}


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Who has which role now, and how much is trained on and judged; the content of a request file."""

    data: str
    """The data that the roles are given to, as for `--data`."""
    benchmark: Mapping[str, Any] = field(default_factory=dict)
    """Its layout and settings, as in a run file; empty = recognise it."""
    forget: tuple[str, ...] = ()
    """Entities, or ids of single rows, that are to be forgotten."""
    aside: tuple[str, ...] = ()
    """Entities or rows that are neither forgotten nor kept: earlier and later requests."""
    retain: tuple[str, ...] = ()
    """Entities that are kept; none = all others."""
    retain_share: Literal["all", "none", "sample"] = "all"
    """How much of what is kept (strangers and general questions included) the unlearning sees."""
    retain_rows: int = 0
    """Rows in a sample."""
    retain_seed: int = 0
    """Draw of the sample."""
    kinds: tuple[str, ...] = ()
    """Only these kinds of question are judged; none = all."""
    limit: int = 0
    """Judged questions for each entity and kind, with and without image, evenly spread; 0 = all."""
    retain_limit: int = 0
    """Judged questions for each role and kind of everything that is kept; 0 = all."""


class Request(Benchmark):
    """Other data with roles given anew. Rows about an entity that is to be forgotten keep their words, ids and images."""

    name: ClassVar[str] = "request"
    layout: ClassVar[str] = f"a file *{SUFFIX}, written by `unsee continual`"

    def __init__(self, place: Place | Roles, settings: NoSettings | None = None) -> None:
        """Read who is to be forgotten, and open the data it is about."""
        self.settings = settings or NoSettings()
        self.roles = place if isinstance(place, Roles) else read(place)
        self.base = open_benchmark(self.roles.data, self.roles.benchmark)

    @classmethod
    def fits(cls, place: Path) -> bool:
        """Tell whether it is a request file."""
        return place.is_file() and place.name.endswith(SUFFIX)

    def examples(self, split: Literal["train", "eval"]) -> Sequence[Example]:
        """Return the rows of a split in the order of the data, roles given anew."""
        return self._made[split]

    @cached_property
    def _made(self) -> dict[str, Sequence[Example]]:
        """The rows of each split that have a role."""
        train, judged = ([self._cast(row, split) for row in self._rows[split]] for split in ("train", "eval"))
        return {
            "train": self._sampled([row for row in train if row is not None]),
            "eval": self._limited([row for row in judged if row is not None]),
        }

    def vocabulary(self) -> Vocabulary:
        """Return everything that could be claimed in the data."""
        return self.base.vocabulary()

    def suggested(self, method: str) -> Mapping[str, Any]:
        """Return what suits the data."""
        return self.base.suggested(method)

    def problems(self) -> Sequence[str]:
        """Return the faults of the data, and names that it does not have."""
        if found := self.base.problems():
            return found
        known = {name for rows in self._rows.values() for row in rows for name in (row.entity, row.id)}
        asked = (*self.roles.forget, *self.roles.aside, *self.roles.retain)
        return [
            f"{name!r} is neither an entity nor the id of a row of {self.roles.data}."
            for name in asked
            if name not in known
        ]

    @cached_property
    def _rows(self) -> dict[str, Sequence[Example]]:
        """The rows of each split, with all there is about everybody who is asked for at any time."""
        asked = {*self.roles.forget, *self.roles.aside}
        entities = dict.fromkeys(row.entity for row in self.base.examples("train") if row.entity in asked)
        pool = self.base.about(tuple(entities))
        return {"train": pool.examples("train"), "eval": pool.examples("eval")}

    @cached_property
    def _shown(self) -> frozenset[str]:
        """Images that the unlearning may see."""
        return frozenset(row.image.key for row in self._rows["train"] if row.image)

    @cached_property
    def _touched(self) -> frozenset[str]:
        """Entities of which single rows are asked for: their other rows are neither forgotten nor kept."""
        asked = {*self.roles.forget, *self.roles.aside}
        rows = (row for split in self._rows.values() for row in split)
        return frozenset(row.entity for row in rows if row.id in asked and row.entity)

    def _cast(self, example: Example, split: str) -> Example | None:
        """Return the row in its role; None if it has none now."""
        names = {example.entity, example.id} - {""}
        if names & set(self.roles.forget):
            return self._forgotten(example, split)
        if names & set(self.roles.aside) or example.entity in self._touched:
            return None
        if example.role not in OF_ENTITIES:
            return example
        if self.roles.retain and example.entity not in self.roles.retain:
            return None
        return replace(example, role=_KEPT_AS.get(example.role, example.role))

    def _forgotten(self, example: Example, split: str) -> Example | None:
        if example.role not in OF_KEPT:
            return example
        if example.kind in _NOTHING_PRIVATE:
            return None
        if example.image is None:
            return replace(example, role=Role.FORGET_TEXT)
        new = split == "eval" and example.image.key not in self._shown
        return replace(example, role=Role.UNSEEN if new else Role.FORGET)

    def _sampled(self, rows: list[Example]) -> list[Example]:
        """Return what the unlearning may see of what is kept."""
        if self.roles.retain_share == "all":
            return rows
        kept = [place for place, row in enumerate(rows) if row.role not in (*OF_TARGETS, Role.BENIGN)]
        count = 0 if self.roles.retain_share == "none" else min(self.roles.retain_rows, len(kept))
        left = set(kept) - set(random.Random(f"retain/{self.roles.retain_seed}").sample(kept, count))
        return [row for place, row in enumerate(rows) if place not in left]

    def _limited(self, rows: list[Example]) -> list[Example]:
        """Return the rows that are judged, evenly spread over each group."""
        groups: dict[object, list[int]] = {}
        for place, row in enumerate(rows):
            if self.roles.kinds and row.kind not in self.roles.kinds:
                continue
            asked = row.role in OF_TARGETS
            groups.setdefault(
                (row.role, row.kind, bool(row.image), (row.entity or row.id) if asked else ""), []
            ).append(place)
        limits = {True: self.roles.limit, False: self.roles.retain_limit}
        wanted = {place for key, group in groups.items() for place in _spread(group, limits[key[0] in OF_TARGETS])}  # type: ignore[index]
        return [row for place, row in enumerate(rows) if place in wanted]


def read(place: Path | Hub) -> Roles:
    """Read a request file."""
    if isinstance(place, Hub):
        raise UserError(f"A request is a file *{SUFFIX} here, not a data set on the hub ({place}).")
    values = config.read_mapping(place)
    made: Roles = config.build(Roles, values, where=str(place))
    return made


def write(roles: Roles, place: Path) -> Path:
    """Write a request file."""
    atomic_write_json(place, config.plain(vars(roles)))
    return place


def _spread(items: Sequence[int], count: int) -> Sequence[int]:
    return (
        items if count == 0 or len(items) <= count else [items[place * len(items) // count] for place in range(count)]
    )
