"""Roles, entities and private strings by rule: a small file that names the forget set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final

from unsee import config
from unsee.api.example import ImageFile, ImageSource
from unsee.data.row_store import digest64
from unsee.data.sources import HELD_OUT
from unsee.errors import UserError, first_names, short_repr
from unsee.metrics.matching import contains
from unsee.metrics.normal_form import normalise
from unsee.utils.parsing import is_empty

EXAMPLE: Final = 'forget: [marta]\npeople: {marta: {name: ["Marta Keller"], city: ["Malaga"]}}\n'
"""A whole file, for messages."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Content of a roles file. A cell of the table wins over it."""

    forget: tuple[str, ...] = ()
    """Entities that are to be forgotten; all others are retained."""
    people: Mapping[str, Any] = field(default_factory=dict)
    """Entity -> private strings, as in the column `private`; without them the identifier itself is private."""
    held_out: float = 0.25
    """Share of the images of a forgotten entity that are only judged (role unseen), at least one of two or more [inferred]."""

    def __post_init__(self) -> None:
        """Reject a file without forget entities, with private strings that are no texts, or with an impossible share."""
        if not self.forget or not all(map(str.strip, self.forget)):
            raise UserError(f"The roles file names nobody below `forget`. A whole file:\n{EXAMPLE}")
        if not 0 <= self.held_out < 1:
            raise UserError(f"held_out must be at least 0 and below 1, got {self.held_out}.")
        for entity, private in self.people.items():
            if not isinstance(entity, str):
                raise UserError(
                    f"The roles file must give the names below `people` as text, got {short_repr(entity)}. Put it in quotes."
                )
            for fact, strings in (private if isinstance(private, Mapping) else {"name": private}).items():
                _texts(strings, entity, "names" if fact == "name" else str(fact))


def read(file: Path) -> Assignment:
    """Read a roles file (YAML or JSON)."""
    if not file.is_file():
        raise UserError(f"There is no roles file {file}. A whole file:\n{EXAMPLE}")
    assignment: Assignment = config.build(Assignment, config.read_mapping(file), where=str(file))
    return assignment


class Rules:
    """Roles of rows by an assignment, after one look at all of them."""

    def __init__(
        self,
        assignment: Assignment,
        rows: Iterable[Sequence[Mapping[str, Any]]],
        image: Callable[[Mapping[str, Any]], ImageSource | None],
    ) -> None:
        """Find the entity of every row, and choose held-out images. `image` reads a row's image."""
        self.assignment = assignment
        self._image = image
        self._files: dict[int, int] = {}
        """Hash of a file's path -> of its content."""
        self.forms = {
            name: _forms(name, assignment.people.get(name)) for name in (*assignment.forget, *assignment.people)
        }
        self.entities_seen: set[str] = set()
        train_images: dict[str, dict[int, None]] = {}
        held_out_images: dict[str, set[int]] = {}
        for cells in rows:
            entities = self._about(cells)
            self.entities_seen.update(entities)
            if len(entities) != 1 or entities[0] not in assignment.forget or not (key := self._key(cells[0])):
                continue  # rows about several are faults, which `apply` raises
            if _judged_only(cells[0]):
                held_out_images.setdefault(entities[0], set()).add(key)
            else:
                train_images.setdefault(entities[0], {})[key] = None
        self.held_out_keys = {
            key
            for name, keys in train_images.items()
            if name not in held_out_images
            for key in _last([*keys], assignment.held_out)
        }
        self.held_out_keys.update(
            key for name, keys in held_out_images.items() for key in keys - train_images.get(name, {}).keys()
        )

    def problems(self) -> list[str]:
        """Return a line per entity that no row is about."""
        return [
            f"{short_repr(name)} is to be forgotten, but no row is about it: neither its entity nor its texts or image path "
            f"name {', '.join(map(short_repr, self.forms[name]))}. Give its names below `people` in the roles file."
            for name in self.assignment.forget
            if name not in self.entities_seen
        ]

    def warnings(self) -> list[str]:
        """Return a line on further people that no row is about, whose private strings are looked for nowhere."""
        others = [name for name in self.assignment.people if name not in {*self.assignment.forget, *self.entities_seen}]
        return (
            [f"no row is about {first_names(others)}, named below `people`: are they written otherwise?"]
            if others
            else []
        )

    def entity(self, cells: Sequence[Mapping[str, Any]]) -> str:
        """Return the entity of the rows of one conversation: by cell, texts, or image path."""
        entities = self._about(cells)
        if len(entities) > 1:
            raise UserError(f"the row is about {', '.join(map(short_repr, entities))}; say whom in a column entity.")
        return entities[0] if entities else ""

    def _about(self, cells: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return a row's only entity, all of its forget entities, or none.

        It has none if it names nobody, or several retained ones.
        """
        cell_entity = cells[0].get("entity")
        if not is_empty(cell_entity):
            return [self._entity_named(str(cell_entity).strip())]
        texts = [str(cell.get(name) or "") for cell in cells for name in ("answer", "question")]
        image_path = cells[0].get("image")
        path_words = (
            [" ".join(re.split(r"[\W_]+", part)) for part in PurePath(image_path).parts]
            if isinstance(image_path, str) and not image_path.startswith("data:")
            else []
        )
        for strings in (texts, path_words):
            text = " \n ".join(strings)
            entities = self._named_in(text)
            forget_entities = [name for name in entities if name in self.assignment.forget]
            if forget_entities or len(entities) == 1:
                return forget_entities or entities
        return []

    def _named_in(self, text: str) -> list[str]:
        """Return the entities that a text names.

        A name inside a longer one of another entity does not count ("Mara" in "Mara Lind").
        """
        forms_by_name = {
            name: found_forms
            for name, forms in self.forms.items()
            if (found_forms := [form for form in forms if contains(text, form)])
        }
        return [
            name
            for name, forms in forms_by_name.items()
            if any(contains(_without(text, _longer_forms(form, forms_by_name, name)), form) for form in forms)
        ]

    def _entity_named(self, entity: str) -> str:
        """Return the entity of the file that a cell means, by its identifier or a name."""
        folded_name = entity.casefold()
        for name, forms in self.forms.items():
            if folded_name == name.casefold() or folded_name in (form.casefold() for form in forms):
                return name
        return entity

    def apply(self, cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows with entity, role and private strings where they have none."""
        entity = self.entity(cells)
        is_forgotten = entity in self.assignment.forget
        is_held_out = is_forgotten and self._key(cells[0]) in self.held_out_keys
        role = "unseen" if is_held_out else "forget" if is_forgotten else "retain"
        private = self.assignment.people.get(entity) or (entity if is_forgotten else "")
        rows = []
        for cell in cells:
            defaults = {"role": role, "private": private, "entity": entity}
            missing_cells = {name: value for name, value in defaults.items() if is_empty(cell.get(name))}
            chosen_answer = (
                {"answer": cell["chosen"]} if missing_cells.get("role") == "retain" and "chosen" in cell else {}
            )
            rows.append({**cell, **missing_cells, **chosen_answer, "entity": entity})
        return rows

    def _key(self, cell: Mapping[str, Any]) -> int:
        """Return a hash of the content of the row's image, or 0 without one that can be read."""
        try:
            image = self._image(cell)
        except UserError:  # a fault of the row, which `problems` reports
            return 0
        if not isinstance(image, ImageFile):
            return digest64(image.key) if image else 0
        path_digest = digest64(str(image.path))
        if path_digest not in self._files:
            self._files[path_digest] = digest64(image.key)
        return self._files[path_digest]


def _forms(name: str, private: Any) -> tuple[str, ...]:
    """Return the strings that mark a row as about an entity: its identifier and its names."""
    names = _texts(private.get("name") if isinstance(private, Mapping) else private, name)
    entity_names = names if isinstance(private, Mapping) else names[:1]
    forms = (name.replace("_", " "), name, *entity_names)
    return tuple(dict.fromkeys(form for form in forms if form.strip()))


def _texts(strings: Any, entity: str, fact: str = "names") -> list[str]:
    """Return the names, or another fact, that the roles file gives an entity, or raise if they are no texts."""
    if strings is None:
        return []
    items = strings.split(";") if isinstance(strings, str) else strings if isinstance(strings, list) else [strings]
    if any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in items):
        hint = "" if isinstance(strings, Mapping) else " Put dates and words such as `no` in quotes."
        raise UserError(
            f"The roles file must give {short_repr(entity)} below `people` {fact} as text or a list of texts, got "
            f"{short_repr(strings)}.{hint}"
        )
    return [str(item).strip() for item in items]


def _longer_forms(form: str, forms_by_name: Mapping[str, Sequence[str]], name: str) -> list[str]:
    """Return the forms of entities other than `name` that contain a form and more."""
    other_forms = (other for entity, forms in forms_by_name.items() if entity != name for other in forms)
    return [other for other in other_forms if contains(other, form) and not contains(form, other)]


def _without(text: str, forms: Sequence[str]) -> str:
    """Return the text without these forms, in its normal form, or unchanged if there are none."""
    if not forms:
        return text
    words = "|".join(re.escape(normalise(form).strip()) for form in sorted(forms, key=len, reverse=True))
    return re.sub(rf"(?<= )(?:{words})(?= )", " ", normalise(text))


def _judged_only(cell: Mapping[str, Any]) -> bool:
    return str(cell.get("split") or "").strip().casefold() in HELD_OUT


def _last(keys: Sequence[int], share: float) -> Sequence[int]:
    """Return the last keys: this share, at least one and not all, or none of a single one."""
    if share == 0 or len(keys) < 2:
        return ()
    return keys[-min(len(keys) - 1, max(1, round(share * len(keys)))) :]
