"""Deletion request (JSON) on other data: forget, retain, and entities without a role."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from unsee import config
from unsee.api import Benchmark, Example, Kind, Role, Vocabulary
from unsee.api.benchmark import Hub, NoSettings, Place
from unsee.api.example import OF_TARGETS
from unsee.api.idle import require_effect
from unsee.data.open import open_benchmark
from unsee.errors import UserError, did_you_mean, nearest, short_repr, unknown_name
from unsee.utils.files import atomic_write_json
from unsee.utils.grouping import by_key, evenly

SUFFIX: Final = ".request.json"
OF_KEPT: Final = (Role.RETAIN, Role.RETAIN_TEXT)
OF_ENTITIES: Final = (*OF_TARGETS, *OF_KEPT)
_NOTHING_PRIVATE: Final = (Kind.VISIBLE, Kind.GENERAL)
"""Kinds without private information; skipped for entities of the forget set."""
_KEPT_AS: Final = {Role.FORGET: Role.RETAIN, Role.UNSEEN: Role.RETAIN, Role.FORGET_TEXT: Role.RETAIN_TEXT}


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Content of a request file: roles of entities, amounts of training and evaluation data."""

    data: str
    """Data of the entities, as for `--data`."""
    benchmark: Mapping[str, Any] = field(default_factory=dict)
    """Layout and settings, as in a run file; empty = detect."""
    forget: tuple[str, ...] = ()
    """Forget entities, or ids of single rows."""
    aside: tuple[str, ...] = ()
    """Entities or rows without a role: earlier and later requests."""
    retain: tuple[str, ...] = ()
    """Retain entities; none = all others."""
    retain_share: Literal["all", "none", "sample"] = "all"
    """Retain data (strangers and general questions included) for training."""
    retain_rows: int = 0
    """Rows in a sample."""
    retain_seed: int = 0
    """Seed of the sample."""
    kinds: tuple[str, ...] = ()
    """Evaluated kinds of question; none = all."""
    limit: int = 0
    """Evaluation questions per entity and kind, with and without image, evenly spread; 0 = all."""
    retain_limit: int = 0
    """Evaluation questions per retain role and kind; 0 = all."""

    def __post_init__(self) -> None:
        """Reject amounts that no request could mean, and unknown kinds."""
        for kind in self.kinds:
            if kind not in set(Kind):
                raise unknown_name("kind of question", kind, [known.value for known in Kind])
        least = {"retain_rows": int(self.retain_share == "sample"), "limit": 0, "retain_limit": 0}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                where = " with retain_share: sample" if minimum else ""
                raise UserError(f"{name} must be at least {minimum}{where}, got {getattr(self, name)}.")

    def idle(self) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect beside the others."""
        if self.retain_share != "sample":
            for name in ("retain_rows", "retain_seed"):
                yield name, "with retain_share: sample"


class Request(Benchmark):
    """Other data with new roles.

    Rows about forget entities keep their text, ids and images.
    """

    name: ClassVar[str] = "request"
    layout: ClassVar[str] = f"a file *{SUFFIX}, written by `unsee continual`"

    def __init__(self, place: Place | Roles, settings: NoSettings | None = None) -> None:
        """Read the request file and open its data."""
        self.settings = settings or NoSettings()
        self.roles = place if isinstance(place, Roles) else read(place)
        self.base = open_benchmark(self.roles.data, self.roles.benchmark)
        vars(self).update(likelihood=self.base.likelihood)

    @classmethod
    def fits(cls, place: Path) -> bool:
        """Tell whether the file is a request file."""
        return place.is_file() and place.name.endswith(SUFFIX)

    def examples(self, split: Literal["train", "eval"]) -> Sequence[Example]:
        """Return the rows of a split in data order, with new roles."""
        return self._role_rows[split]

    @cached_property
    def _role_rows(self) -> dict[str, Sequence[Example]]:
        """Rows of each split that have a role."""
        train_rows, eval_rows = ([self._cast(row, split) for row in self._rows[split]] for split in ("train", "eval"))
        return {
            "train": self._sample_retain([row for row in train_rows if row is not None]),
            "eval": self._limit_eval([row for row in eval_rows if row is not None]),
        }

    def vocabulary(self) -> Vocabulary:
        """Return the vocabulary of the data."""
        return self.base.vocabulary()

    def suggested(self, method: str) -> Mapping[str, Any]:
        """Return the suggestions of the data."""
        return self.base.suggested(method)

    def problems(self) -> Sequence[str]:
        """Return the faults of the data, or else names that are unknown or have two roles."""
        if problems := self.base.problems():
            return problems
        return [*self._unknown_names(), *self._roles_at_odds()]

    def _unknown_names(self) -> list[str]:
        known_names = {name for rows in self._rows.values() for row in rows for name in (row.entity, row.id)}
        requested_names = (*self.roles.forget, *self.roles.aside, *self.roles.retain)
        return [
            f"{short_repr(name)} is neither an entity nor the id of a row of {self.roles.data}."
            f"{did_you_mean(nearest(name, known_names - {''}))}"
            for name in requested_names
            if name not in known_names
        ]

    def _roles_at_odds(self) -> list[str]:
        return [
            f"{short_repr(name)} is named in {first} and in {second}; leave it in one of them."
            for first, second in combinations(self._names_by_role, 2)
            for name in sorted(self._names_by_role[first] & self._names_by_role[second])
        ]

    def warnings(self) -> Sequence[str]:
        """Return the warnings of the data."""
        return self.base.warnings()

    @cached_property
    def _rows(self) -> dict[str, Sequence[Example]]:
        """Rows of each split, with everything about all requested entities."""
        requested_names = self._names_by_role["forget"] | self._names_by_role["aside"]
        entities = dict.fromkeys(row.entity for row in self.base.examples("train") if row.entity in requested_names)
        benchmark = self.base.about(tuple(entities))
        return {"train": benchmark.examples("train"), "eval": benchmark.examples("eval")}

    @cached_property
    def _names_by_role(self) -> dict[str, frozenset[str]]:
        """Entities and rows that the request names, by role."""
        return {role: frozenset(getattr(self.roles, role)) for role in ("forget", "aside", "retain")}

    @cached_property
    def _train_images(self) -> frozenset[str]:
        """Images that unlearning may train on."""
        return frozenset(row.image.key for row in self._rows["train"] if row.image)

    @cached_property
    def _partly_requested(self) -> frozenset[str]:
        """Entities with single requested rows, whose other rows have no role."""
        requested_names = self._names_by_role["forget"] | self._names_by_role["aside"]
        rows = (row for split in self._rows.values() for row in split)
        return frozenset(row.entity for row in rows if row.id in requested_names and row.entity)

    def _cast(self, example: Example, split: str) -> Example | None:
        """Return the row in its role, or None without one."""
        names = {example.entity, example.id} - {""}
        if names & self._names_by_role["forget"]:
            return self._forgotten(example, split)
        if names & self._names_by_role["aside"] or example.entity in self._partly_requested:
            return None
        if example.role not in OF_ENTITIES:
            return example
        if self.roles.retain and example.entity not in self._names_by_role["retain"]:
            return None
        return replace(example, role=_KEPT_AS.get(example.role, example.role))

    def _forgotten(self, example: Example, split: str) -> Example | None:
        if example.role not in OF_KEPT:
            return example
        if example.kind in _NOTHING_PRIVATE:
            return None
        if example.image is None:
            return replace(example, role=Role.FORGET_TEXT)
        is_held_out = split == "eval" and example.image.key not in self._train_images
        return replace(example, role=Role.UNSEEN if is_held_out else Role.FORGET)

    def _sample_retain(self, rows: list[Example]) -> list[Example]:
        """Return the retain rows for training."""
        if self.roles.retain_share == "all":
            return rows
        retain_indices = [index for index, row in enumerate(rows) if row.role not in (*OF_TARGETS, Role.BENIGN)]
        count = 0 if self.roles.retain_share == "none" else min(self.roles.retain_rows, len(retain_indices))
        dropped_indices = set(retain_indices) - set(
            random.Random(f"retain/{self.roles.retain_seed}").sample(retain_indices, count)
        )
        return [row for index, row in enumerate(rows) if index not in dropped_indices]

    def _limit_eval(self, rows: list[Example]) -> list[Example]:
        """Return the evaluation rows, evenly spread over each group."""

        def group(row: Example) -> tuple[object, ...]:
            return row.role, row.kind, bool(row.image), (row.entity or row.id) if row.role in OF_TARGETS else ""

        kinds = self.roles.kinds
        groups = by_key((group(row), index) for index, row in enumerate(rows) if not kinds or row.kind in kinds)
        limits = {True: self.roles.limit, False: self.roles.retain_limit}
        chosen_indices = {
            index
            for key, indices in groups.items()
            for index in evenly(indices, limits[key[0] in OF_TARGETS] or len(rows))
        }
        return [row for index, row in enumerate(rows) if index in chosen_indices]


def read(place: Path | Hub) -> Roles:
    """Read a request file."""
    if isinstance(place, Hub):
        raise UserError(f"A request is a file *{SUFFIX} here, not a data set on the hub ({place}).")
    values = config.read_mapping(place)
    roles: Roles = config.build(Roles, values, where=str(place))
    require_effect({"": roles}, roles.idle())
    return roles


def write(roles: Roles, place: Path) -> Path:
    """Write a request file."""
    atomic_write_json(place, config.plain(vars(roles)))
    return place
