"""Deletion requests in order, from a file or generated from the data."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unicodedata import normalize

from unsee import config
from unsee.api import Benchmark, Role
from unsee.errors import UserError, short_repr, unknown_name
from unsee.utils.parsing import read_text
from unsee.workflows.continual.settings import Course

_KEYS: Final = ("id", "entities", "rows", "relation")
_PARTS: Final = ("requests", "retain")
_OF_ENTITIES: Final = (Role.FORGET, Role.FORGET_TEXT, Role.RETAIN, Role.RETAIN_TEXT)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One deletion request."""

    id: str
    targets: tuple[str, ...]
    """Entities, or ids of single rows."""
    relation: str = "random"
    """Relation to the request before, from the file; `random` for generated requests."""


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """All requests in order, and the retain entities."""

    tasks: tuple[Task, ...]
    retain: tuple[str, ...] = ()
    """Retain entities; none = all that no request names."""

    def targets(self, first: int = 0, last: int | None = None) -> tuple[str, ...]:
        """Return the targets of requests `first` to `last` (exclusive, from 0)."""
        return tuple(name for task in self.tasks[first:last] for name in task.targets)


def tasks_of(data: Benchmark, course: Course) -> Tasks:
    """Return the course's requests on this data, in order."""
    listed = _read(Path(course.requests)) if course.requests else _cut(entities_of(data), course.tasks, course.per_task)
    _require_disjoint(listed, data)
    tasks = list(listed.tasks)
    if course.order:
        random.Random(f"order/{course.order}").shuffle(tasks)
    return Tasks(tasks=tuple(tasks), retain=listed.retain)


def entities_of(data: Benchmark) -> list[str]:
    """Return the entities that can be requested: forget first, others in fixed order."""
    roles: dict[str, set[Role]] = {}
    for row in data.examples("train"):
        if row.entity and row.role in _OF_ENTITIES:
            roles.setdefault(row.entity, set()).add(row.role)
    forget_entities = [entity for entity, entity_roles in roles.items() if Role.FORGET in entity_roles]
    retain_entities = sorted(
        entity
        for entity, entity_roles in roles.items()
        if Role.RETAIN in entity_roles and Role.FORGET not in entity_roles
    )
    random.Random("entities").shuffle(retain_entities)
    return [*forget_entities, *retain_entities]


def _cut(entities: Sequence[str], count: int, size: int) -> Tasks:
    """Split the first entities into requests of equal size."""
    if count * size >= len(entities):
        raise UserError(
            f"{count} requests of {size} entities need more than {count * size} entities, so that somebody is kept; "
            f"the data have {len(entities)} with images."
        )
    width = len(str(count))
    groups = [entities[start * size : (start + 1) * size] for start in range(count)]
    return Tasks(tasks=tuple(Task(id=f"r{n:0{width}}", targets=tuple(group)) for n, group in enumerate(groups, 1)))


def _read(file: Path) -> Tasks:
    """Read a file of requests: a list, or a mapping with `requests` and `retain`."""
    if not file.is_file():
        raise UserError(f"No file of requests at {file}.")
    values = config.parse_yaml(read_text(file), where=str(file))
    if isinstance(values, list):
        values = {"requests": values}
    if not isinstance(values, Mapping) or not isinstance(values.get("requests"), list) or not values["requests"]:
        raise UserError(f"{file} must hold a list of requests, or a mapping with `requests` and perhaps `retain`.")
    for key in values:
        if key not in _PARTS:
            raise unknown_name(f"part of {file}", str(key), _PARTS)
    tasks = tuple(_task(value, number, file) for number, value in enumerate(values["requests"], 1))
    return Tasks(tasks=tasks, retain=_names(values.get("retain", ()), f"{file}: retain"))


def _task(value: Any, number: int, file: Path) -> Task:
    """Parse one request: entities, or a mapping with `entities`, `rows`, `id`, `relation`."""
    location = f"{file}: request {number}"
    fields = value if isinstance(value, Mapping) else {"entities": value}
    if unknown_keys := [str(key) for key in fields if key not in _KEYS]:
        raise UserError(f"{location} has {', '.join(unknown_keys)}; a request has {', '.join(_KEYS)}.")
    targets = (*_names(fields.get("entities", ()), location), *_names(fields.get("rows", ()), location))
    if not targets:
        raise UserError(f"{location} names nobody; give `entities` or `rows`.")
    name = fields.get("id", f"r{number}")
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
        raise UserError(f"{location}: `id` must be text or a number that is not empty, got {short_repr(name)}.")
    return Task(id=str(name), targets=targets, relation=str(fields.get("relation", "not stated")))


def _names(value: Any, location: str) -> tuple[str, ...]:
    names = [value] if isinstance(value, str | int) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str | int) for name in names):
        raise UserError(f"{location}: expected a list of names, got {short_repr(value)}.")
    return tuple(str(name) for name in names)


def _require_disjoint(tasks: Tasks, data: Benchmark) -> None:
    """Raise if requests overlap in ids, targets or images, or with the retain set."""
    owners: dict[str, str] = {}
    for task in tasks.tasks:
        for name in task.targets:
            if name in owners:
                raise UserError(f"{name!r} is in the requests {owners[name]!r} and {task.id!r}; name it once.")
            owners[name] = task.id
    _require_distinct_ids(tasks)
    if shared_names := sorted(set(tasks.retain) & owners.keys()):
        raise UserError(f"{', '.join(shared_names)} is to be forgotten and to be kept; decide for one.")
    _require_own_images(owners, data)


def _require_distinct_ids(tasks: Tasks) -> None:
    """Raise if two ids are equal up to case or the encoding of accents."""
    ids_by_key: dict[str, str] = {}
    for task in tasks.tasks:
        key = normalize("NFC", normalize("NFC", task.id).casefold())
        if key in ids_by_key:
            raise UserError(
                f"Two requests have the same id, {short_repr(ids_by_key[key])} and {short_repr(task.id)}; ids must differ."
            )
        ids_by_key[key] = task.id


def _require_own_images(owners: Mapping[str, str], data: Benchmark) -> None:
    """Raise if an image belongs to two requests, or to one and the retain set."""
    first_rows: dict[str, tuple[str, str, str]] = {}
    for row in data.examples("train"):
        if row.image is None or row.role not in (Role.FORGET, Role.RETAIN):
            continue
        owner = owners.get(row.entity, owners.get(row.id, ""))
        first_id, first_owner, first_entity = first_rows.setdefault(row.image.key, (row.id, owner, row.entity))
        if owner != first_owner and row.entity != first_entity:
            raise UserError(f"Rows {first_id!r} and {row.id!r} show the same image, but belong to different requests.")
