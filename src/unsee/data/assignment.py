"""Roles, entities and private strings by rule: a small file that names the forget set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any, Final

from unsee import config
from unsee.api.example import ImageFile
from unsee.data.cells import all_pictures, image_of, is_name, path_of, text_of
from unsee.data.layouts import KEPT_ANSWER
from unsee.data.row_store import digest64
from unsee.data.sources import HELD_OUT, TRAINED
from unsee.errors import UserError, first_names, short_repr
from unsee.metrics.matching import contains
from unsee.metrics.normal_form import normalise
from unsee.utils.parsing import as_text, as_texts, is_empty

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
            for fact, strings in (private if isinstance(private, Mapping) else {"name": private}).items():
                _texts(strings, entity, "names" if is_name(fact) else str(fact))


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
        rows: Callable[[], Iterable[Sequence[Mapping[str, Any]]]],
        folder: Path,
    ) -> None:
        """Find the entity of every row, and choose held-out images.

        `rows` gives the rows anew at each call, `folder` is that of relative image paths.
        """
        self.assignment = assignment
        names = _forget_names(assignment)
        self.people = {names.get(name, name): private for name, private in assignment.people.items()}
        self._folder = folder
        self._folders = tuple(dict.fromkeys((folder.absolute(), folder.resolve())))
        self._shared_parts = _shared_parts(self._outside_paths(cells[0] for cells in rows()))
        """First parts of all absolute paths outside the folder, which tell nothing about a row."""
        self._files: dict[int, int] = {}
        """Hash of a file's path -> of its content."""
        self.forms = {name: _forms(name, None) for name in assignment.forget}
        for identifier, private in assignment.people.items():
            name = names.get(identifier, identifier)
            self.forms[name] = tuple(dict.fromkeys((*_forms(name, private), *_forms(identifier, private))))
        self._meant: dict[str, list[str]] = {}
        """Cell `entity` -> the entities of the file that it may mean."""
        self.entities_seen: set[str] = set()
        images = _Images()
        for cells in rows():
            with suppress(UserError):  # faults of the row, which `apply` raises
                entities = self._about(cells)
                self.entities_seen.update(entities)
                if len(entities) == 1 and entities[0] in assignment.forget and (key := self._key(cells[0])):
                    images.add(entities[0], key, text_of(cells[0], "split").casefold())
        self.held_out_keys = images.held_out(assignment.held_out)

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
        others = [name for name in self.people if name not in {*self.assignment.forget, *self.entities_seen}]
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
        if cell_entity := text_of(cells[0], "entity"):
            return [self._entity_named(cell_entity)]
        texts = [as_text(cell.get(name)) or "" for cell in cells for name in ("answer", "question")]
        path_words = [
            " ".join(re.split(r"[\W_]+", part)) for path in _paths(cells[0]) for part in self._telling_parts(path)
        ]
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
        """Return the entity of the file that a cell means, by its identifier or a name, or the cell if it means none."""
        if entity not in self._meant:
            self._meant[entity] = _meant(entity, self.forms)
        names = self._meant[entity]
        if len(names) > 1:
            raise UserError(
                f"the entity {short_repr(entity)} may be {' or '.join(map(short_repr, names))}; write which of them."
            )
        return names[0] if names else entity

    def _outside_paths(self, cells: Iterable[Mapping[str, Any]]) -> Iterator[PurePath]:
        """Yield the absolute paths of the rows' pictures that lie outside the folder."""
        for cell in cells:
            with suppress(UserError):  # faults of the row, which `apply` raises
                for path in _paths(cell):
                    if path.is_absolute() and not any(path.is_relative_to(folder) for folder in self._folders):
                        yield path

    def _telling_parts(self, path: PurePath) -> tuple[str, ...]:
        """Return the parts of a picture's path that may name somebody: those below the data's folder."""
        for folder in self._folders:
            if path.is_relative_to(folder):
                return path.relative_to(folder).parts
        return path.parts[len(self._shared_parts) :] if path.is_absolute() else path.parts

    def apply(self, cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows with entity, role and private strings where they have none."""
        entity = self.entity(cells)
        is_forgotten = entity in self.assignment.forget
        is_held_out = is_forgotten and self._key(cells[0]) in self.held_out_keys
        role = "unseen" if is_held_out else "forget" if is_forgotten else "retain"
        private = self.people.get(entity) or (entity if is_forgotten else "")
        rows = []
        for cell in cells:
            defaults = {"role": role, "private": private, "entity": entity}
            missing_cells = {name: value for name, value in defaults.items() if is_empty(cell.get(name))}
            rows.append({**cell, **missing_cells, "entity": entity})
        if rows[-1]["role"] == "retain" and is_empty(cells[-1].get("role")) and KEPT_ANSWER in cells[-1]:
            rows[-1]["answer"] = cells[-1][KEPT_ANSWER]
        return rows

    def _key(self, cell: Mapping[str, Any]) -> int:
        """Return a hash of the content of the row's image, or 0 without one that can be read."""
        try:
            image = image_of(cell, self._folder)
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
    if isinstance(private, Mapping):
        entity_names = [text for fact, strings in private.items() if is_name(fact) for text in _texts(strings, name)]
    else:
        entity_names = _texts(private, name)[:1]
    forms = (name.replace("_", " "), name, *entity_names)
    return tuple(dict.fromkeys(form for form in forms if form.strip()))


def _texts(strings: Any, entity: str, fact: str = "names") -> list[str]:
    """Return the names, or another fact, that the roles file gives an entity, or raise if they are no texts."""
    if strings is None:
        return []
    texts = as_texts(strings, ";")
    if texts is None or (isinstance(strings, list) and None in strings):
        hint = "" if isinstance(strings, Mapping) else " Put words such as `true` in quotes."
        raise UserError(
            f"The roles file must give {short_repr(entity)} below `people` {fact} as text or a list of texts, got "
            f"{short_repr(strings)}.{hint}"
        )
    return texts


def _forget_names(assignment: Assignment) -> dict[str, str]:
    """Return identifier below `people` -> how `forget` calls that entity.

    Raises:
        UserError: It is unclear who is meant.
    """
    forms = {name: _forms(name, private) for name, private in assignment.people.items()}
    forget_names: dict[str, str] = {}
    for name in assignment.forget:
        names = _meant(name, forms)
        if len(names) > 1:
            raise UserError(
                f"The roles file forgets {short_repr(name)}, who may be {' or '.join(map(short_repr, names))} below `people`. "
                "Write which of them."
            )
        if names and forget_names.setdefault(names[0], name) != name:
            raise UserError(
                f"The roles file forgets {short_repr(forget_names[names[0]])} and {short_repr(name)}, who are one below "
                f"`people` ({short_repr(names[0])}). Write one of them."
            )
    return forget_names


def _meant(word: str, forms_by_name: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the entities that a word may mean: that identifier, else those of the same normal form, else by a name."""
    if word in forms_by_name:
        return [word]
    key = _folded(word)
    by_identifier = [name for name in forms_by_name if _folded(name) == key]
    return by_identifier or [name for name, forms in forms_by_name.items() if key in map(_folded, forms)]


def _folded(word: str) -> str:
    """Return the normal form of a word, or the word in lower case if that has no letter or digit."""
    words = normalise(word).strip()
    return words or word.casefold()


def _paths(cell: Mapping[str, Any]) -> list[PurePath]:
    """Return the paths of a row's pictures."""
    paths = [path_of(picture).replace("\\", "/") for picture in all_pictures(cell)]
    return [PurePath(path) for path in paths if path]


def _shared_parts(paths: Iterable[PurePath]) -> tuple[str, ...]:
    """Return the first parts that all paths share, without their file names."""
    shared: tuple[str, ...] | None = None
    for path in paths:
        folders = path.parts[:-1]
        pairs = zip(folders if shared is None else shared, folders, strict=False)
        shared = tuple(part for part, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return shared or ()


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


@dataclass
class _Images:
    """Pictures of those who are to be forgotten, by their keys: entity -> keys in the order of the rows."""

    free: dict[str, dict[int, None]] = field(default_factory=dict)
    """Of rows for both uses."""
    trained: dict[str, set[int]] = field(default_factory=dict)
    """Of rows marked for training."""
    judged: dict[str, set[int]] = field(default_factory=dict)
    """Of rows that are only judged."""

    def add(self, entity: str, key: int, split: str) -> None:
        """Add the picture of a row of a split."""
        if split in HELD_OUT:
            self.judged.setdefault(entity, set()).add(key)
        elif split in TRAINED:
            self.trained.setdefault(entity, set()).add(key)
        else:
            self.free.setdefault(entity, {})[key] = None

    def held_out(self, share: float) -> set[int]:
        """Return the keys of what is never trained on: of those who have no judged pictures, a share of the free ones."""
        keys = {
            key
            for name, names_keys in self.free.items()
            if name not in self.judged
            for key in _last([key for key in names_keys if key not in self.trained.get(name, ())], share)
        }
        return keys.union(
            key
            for name, judged in self.judged.items()
            for key in judged - self.free.get(name, {}).keys() - self.trained.get(name, set())
        )


def _last(keys: Sequence[int], share: float) -> Sequence[int]:
    """Return the last keys: this share, at least one and not all, or none of a single one."""
    if share == 0 or len(keys) < 2:
        return ()
    return keys[-min(len(keys) - 1, max(1, round(share * len(keys)))) :]
