"""Your own folder: a table or LLaVA-style conversations, with the images they name."""

from __future__ import annotations

import json
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from unsee.api.benchmark import Benchmark, Hub, NoSettings, Place
from unsee.api.example import Example, ImageFile, Kind, Role, Vocabulary
from unsee.api.lazy import Lazy
from unsee.errors import UserError, unknown_name
from unsee.metrics.scripts import bounded
from unsee.rowstore import digest64, open_rows, repeats
from unsee.tables import SUFFIXES, find_table, tables_at, unreadable

COLUMNS: Final = ("image", "question", "answer", "entity", "role", "private")
"""Columns every table must have; cells of image, entity and private may be empty where they mean nothing."""
ALIASES: Final = {
    "delete": Role.FORGET,
    "remove": Role.FORGET,
    "forget_seen": Role.FORGET,
    "seen": Role.FORGET,
    "forget_unseen": Role.UNSEEN,
    "test": Role.UNSEEN,
    "keep": Role.RETAIN,
    "harmless": Role.BENIGN,
    "unknown": Role.STRANGER,
    "other": Role.GENERAL,
}
"""Other words for the roles."""

_TEXT_ROLE: Final = {Role.FORGET: Role.FORGET_TEXT, Role.RETAIN: Role.RETAIN_TEXT}
_SPLITS: Final = {"": "both", "both": "both", "train": "train", "eval": "eval", "test": "eval", "validation": "eval"}
_TRAIN, _EVAL = 1, 2
"""Bits of what a row is used for."""
_JUDGED_ONLY: Final = (Role.UNSEEN, Role.STRANGER)
_OF_TARGETS: Final = (Role.FORGET, Role.FORGET_TEXT, Role.UNSEEN)


@dataclass(frozen=True, kw_only=True)
class _Row:
    number: int
    example: Example
    split: str


class Folder(Benchmark):
    """A folder with `data.jsonl`, `.json`, `.csv` or `.parquet` and images; docs/own_data.md describes the columns."""

    name = "folder"
    layout = f"one table ({', '.join(SUFFIXES)}), named data or the only one in its folder"
    generic = True

    def __init__(self, place: Place | str, settings: NoSettings | None = None) -> None:
        """Read the table at once, so that a wrong layout is said before anything else happens."""
        if isinstance(place, Hub):
            raise UserError(
                f"--benchmark folder reads files: fetch {place} with `hf download` first and give the folder."
            )
        self.settings = settings or NoSettings()
        self.table = find_table(Path(place))
        self._rows = open_rows(self.table)
        if not self._rows:
            raise UserError(f"{self.table} has no rows.")
        self._talk = _is_talk(self._rows, self.table.name)

    @classmethod
    def fits(cls, place: Path) -> bool:
        """Tell whether there is a table, or several of which none is named."""
        return bool(tables_at(place))

    def examples(self, split: Literal["train", "eval"]) -> Sequence[Example]:
        """Return the rows of a split; rows of unseen images and strangers are never trained on."""
        survey = self._survey
        if survey.faults:
            raise UserError(_listed(survey.faults, self.table))
        wanted = _TRAIN if split == "train" else _EVAL
        places = array("Q", (place for place, use in enumerate(survey.uses) if use & wanted))
        rows = self._all
        found = Lazy(len(places), lambda index: rows[places[index]].example)
        return list(found) if isinstance(rows, list) else found

    def vocabulary(self) -> Vocabulary:
        """Return all names, private values and visible values that occur in the folder."""
        names: dict[str, dict[str, None]] = {}
        facts: dict[str, dict[str, None]] = {}
        visible: dict[str, dict[str, None]] = {}
        for row in self._all:
            for fact, forms in row.example.private.items():
                place = names.setdefault(row.example.entity, {}) if fact == "name" else facts.setdefault(fact, {})
                place.update(dict.fromkeys(forms))
            for attribute, value in row.example.visible.items():
                visible.setdefault(attribute, {})[value.casefold()] = None
        return Vocabulary(
            names={entity: tuple(forms) for entity, forms in names.items()},
            facts={fact: tuple(forms) for fact, forms in facts.items()},
            visible={attribute: {value: bounded(value) for value in values} for attribute, values in visible.items()},
        )

    def problems(self) -> Sequence[str]:
        """Return everything that is wrong with the table and its images, row by row."""
        found, fine, broken = list(self._survey.faults), set[int](), dict[int, str]()
        for row in self._all:
            if isinstance(row.example.image, ImageFile):
                path = row.example.image.path
                digest = digest64(str(path))
                if digest not in fine and digest not in broken:
                    why = unreadable(path)
                    broken.update({digest: why} if why else {})
                    fine.update(() if why else (digest,))
                if digest in broken:
                    found.append((row.number, f"image {path} {broken[digest]}."))
        return [f"row {number}: {what}" for number, what in sorted(found, key=lambda fault: fault[0])]

    @cached_property
    def _all(self) -> Sequence[_Row]:
        """The rows that could be read: a list if the table is small, else made from disk when they are asked for."""
        places, private = self._survey.places, self._survey.private

        def row(index: int) -> _Row:
            place, turn = places[2 * index], places[2 * index + 1]
            return _shared(_row(place + 1, self._cells(place)[turn], self.table.parent), private)

        found = Lazy(len(places) // 2, row)
        return list(found) if isinstance(self._rows, list) else found

    def _cells(self, place: int) -> list[dict[str, Any]]:
        """Return the cells of a row, one set for each question and answer of a conversation."""
        return _turns(self._rows[place]) if self._talk else [self._rows[place]]

    @cached_property
    def _survey(self) -> _Survey:
        """Read every row once, and keep what is true of the whole table."""
        found = _Survey()
        for place in range(len(self._rows)):
            try:
                for turn, cells in enumerate(self._cells(place)):
                    found.add(place, turn, _row(place + 1, cells, self.table.parent))
            except UserError as error:
                found.faults.append((place + 1, str(error)))
        for first, later in repeats(found.ids):
            name = _text(self._cells(found.places[2 * later])[found.places[2 * later + 1]], "id")
            name = name or f"row-{found.places[2 * later] + 1}"
            found.faults.append(
                (
                    found.places[2 * later] + 1,
                    f"id {name!r} is taken by row {found.places[2 * first] + 1}; ids must differ.",
                )
            )
        return found


@dataclass
class _Survey:
    """What is known of a table after one pass: a few bytes a row, and the private strings of each entity."""

    places: array[int] = field(default_factory=lambda: array("Q"))
    """Row and turn of each example, one after the other."""
    uses: array[int] = field(default_factory=lambda: array("B"))
    """Whether an example is trained on and judged."""
    ids: array[int] = field(default_factory=lambda: array("Q"))
    private: dict[str, dict[str, dict[str, None]]] = field(default_factory=dict)
    """Entity -> fact -> forms, whichever of its rows they were written in."""
    faults: list[tuple[int, str]] = field(default_factory=list)
    """Row number and what is wrong with it."""

    def add(self, place: int, turn: int, row: _Row) -> None:
        """Note a row that could be read."""
        example = row.example
        trained = row.split in ("both", "train") and example.role not in _JUDGED_ONLY
        self.places.extend((place, turn))
        self.uses.append(_TRAIN * trained + _EVAL * (row.split in ("both", "eval")))
        self.ids.append(digest64(example.id))
        if example.entity:
            facts = self.private.setdefault(example.entity, {})
            for fact, forms in example.private.items():
                facts.setdefault(fact, {}).update(dict.fromkeys(forms))


def _listed(faults: Sequence[tuple[int, str]], table: Path, most: int = 10) -> str:
    lines = [f"row {number}: {what}" for number, what in faults[:most]]
    more = [f"... and {len(faults) - most} more (unsee check lists all)"] if len(faults) > most else []
    return "\n  ".join([f"{table} cannot be used:", *lines, *more])


def _is_talk(rows: Sequence[dict[str, Any]], table: str) -> bool:
    """Tell whether the rows are conversations; raise if a column is missing."""
    columns = {column for row in rows for column in row}
    talk = "conversations" in columns
    needed = ("conversations", "role") if talk else COLUMNS
    missing = [column for column in needed if column not in columns]
    if missing:
        raise UserError(
            f"{table} has no column {', '.join(map(repr, missing))}. It needs {', '.join(needed)}; "
            f"it has {', '.join(sorted(columns))}.{_separated(columns)}"
        )
    return talk


def _separated(columns: Collection[str]) -> str:
    """Return a hint if the table was written with another separator than the comma, as spreadsheets do in some countries."""
    only = next(iter(columns), "")
    used = next((mark for mark in ";\t|" if len(columns) == 1 and mark in only), "")
    return f" Its columns are separated by {used!r}; save it with commas." if used else ""


def _turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one set of cells per question and answer of a conversation; the image belongs to all of them."""
    said = row.get("conversations")
    shape = "conversations must be a list of {from: human, value} and {from: gpt, value} in turn"
    if not isinstance(said, list) or not said or len(said) % 2 or not all(isinstance(turn, dict) for turn in said):
        raise UserError(f"{shape}, got {said!r:.80}.")
    speakers = [turn.get("from", turn.get("role")) for turn in said]
    texts = [turn.get("value", turn.get("content")) for turn in said]
    asked = all(speaker in ("human", "user") for speaker in speakers[::2])
    answered = all(speaker in ("gpt", "assistant") for speaker in speakers[1::2])
    if not asked or not answered or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{shape}, got speakers {speakers}.")
    rest = {key: value for key, value in row.items() if key != "conversations"}
    ids = [_text(row, "id")] if len(said) == 2 else [f"{_text(row, 'id')}#{turn}" for turn in range(len(said) // 2)]
    return [
        {**rest, "id": name if _text(row, "id") else "", "question": question.replace("<image>", ""), "answer": answer}
        for name, question, answer in zip(ids, texts[::2], texts[1::2], strict=True)
    ]


def _row(number: int, cells: Mapping[str, Any], folder: Path) -> _Row:
    image = _image(cells, folder)
    role = _role(_text(cells, "role"), has_image=image is not None)
    split = _text(cells, "split").casefold()
    if split not in _SPLITS:
        raise unknown_name("split", split, [name for name in _SPLITS if name])
    example = Example(
        id=_text(cells, "id") or f"row-{number}",
        role=role,
        question=_text(cells, "question"),
        answer=_text(cells, "answer"),
        image=image,
        entity=_text(cells, "entity"),
        kind=_kind(cells, role),
        fact=_text(cells, "fact"),
        private=_private(cells),
        visible=_visible(cells),
        options=tuple(_strings(cells, "options")),
        chain=_text(cells, "chain"),
        paraphrase=_text(cells, "paraphrase"),
        perturbed=tuple(_strings(cells, "perturbed")),
    )
    _demand(example, _SPLITS[split])
    return _Row(number=number, example=example, split=_SPLITS[split])


def _demand(example: Example, split: str) -> None:
    """Raise if a cell that this role needs is empty."""
    if not example.question:
        raise UserError("the question is empty.")
    if not example.answer and example.role not in _JUDGED_ONLY:
        raise UserError("the answer is empty.")
    if not example.entity and example.role in _OF_TARGETS:
        raise UserError(f"the entity is empty; a row of role {example.role} must say who or what it is about.")
    if split == "train" and example.role in _JUDGED_ONLY:
        raise UserError(f"rows of role {example.role} are never trained on; leave split empty or write eval.")
    if example.kind is Kind.CHOICE and example.answer not in list("ABCDEFGHIJ"[: len(example.options)]):
        raise UserError(f"a choice answer is the letter of one of its options, got {example.answer!r}.")


def _text(cells: Mapping[str, Any], column: str) -> str:
    value = cells.get(column)
    if value is None:
        return ""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value).strip()
    raise UserError(f"{column} must be text, got {value!r:.80}.")


def _image(cells: Mapping[str, Any], folder: Path) -> ImageFile | None:
    """Return the image named by the row, relative to the table; None if the cell is empty."""
    value = cells.get("image")
    if isinstance(value, list) and len(value) <= 1:
        value = value[0] if value else None
    if value is not None and not isinstance(value, str):
        raise UserError(f"image must be one path, got {value!r:.80}.")
    if not value or not value.strip():
        return None
    path = folder / value.strip()
    if not path.is_file():
        raise UserError(f"image {path} is missing.")
    return ImageFile(path)


def _role(word: str, *, has_image: bool) -> Role:
    spoken = word.casefold().replace("-", "_").replace(" ", "_")
    known = {role.value: role for role in Role} | ALIASES
    if not spoken:
        raise UserError(f"the role is empty; expected one of {', '.join(role.value for role in Role)}.")
    if spoken not in known:
        raise unknown_name("role", word, known)
    role = known[spoken]
    if not has_image and role in (Role.UNSEEN, Role.STRANGER, Role.BENIGN):
        raise UserError(f"a row of role {role} needs an image.")
    if has_image and role in _TEXT_ROLE.values():
        raise UserError(f"a row of role {role} has no image by definition, but one is given.")
    return role if has_image else _TEXT_ROLE.get(role, role)


def _kind(cells: Mapping[str, Any], role: Role) -> Kind:
    word = _text(cells, "kind").casefold()
    if not word:
        return Kind.GENERAL if role is Role.GENERAL else Kind.FACT if _text(cells, "fact") else Kind.OPEN
    if word not in set(Kind):
        raise unknown_name("kind", word, [kind.value for kind in Kind])
    return Kind(word)


def _decoded(cells: Mapping[str, Any], column: str) -> Any:
    """Return the cell, with JSON in a text cell read."""
    value = cells.get(column)
    if isinstance(value, str) and value.strip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except json.JSONDecodeError as error:
            raise UserError(f"{column} looks like JSON but is not: {error}") from error
    return value


def _strings(cells: Mapping[str, Any], column: str) -> list[str]:
    return _split(_decoded(cells, column), column)


def _split(value: Any, column: str) -> list[str]:
    if value is None:
        return []
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [str(value)]
    items = value.split(";") if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str | int | float) for item in items):
        raise UserError(f"{column} must be text separated by ';', a list of texts or a mapping, got {value!r:.80}.")
    return [text for text in (str(item).strip() for item in items) if text]


def _private(cells: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return fact -> forms, "name" first; of a plain list the first string is the name, the others are "other"."""
    value = _decoded(cells, "private")
    if isinstance(value, Mapping):
        forms = {str(fact): tuple(_split(item, "private")) for fact, item in value.items()}
    else:
        listed = _split(value, "private")
        forms = {"name": tuple(listed[:1]), "other": tuple(listed[1:])}
    ordered = sorted(forms.items(), key=lambda item: item[0] != "name")
    return {fact: texts for fact, texts in ordered if texts}


def _visible(cells: Mapping[str, Any]) -> dict[str, str]:
    value = _decoded(cells, "visible")
    if value is None or value == "":
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f'visible must be a mapping such as {{"hair": "red"}}, got {value!r:.80}.')
    return {str(attribute): str(item) for attribute, item in value.items() if item not in (None, "")}


def _shared(row: _Row, known: Mapping[str, Mapping[str, Mapping[str, None]]]) -> _Row:
    """Return the row with the private strings of its entity, whichever of its rows they were written in."""
    facts = known.get(row.example.entity, {})
    if not facts:
        return row
    ordered = sorted(facts, key=lambda fact: fact != "name")
    private = {fact: tuple(facts[fact]) for fact in ordered}
    return _Row(number=row.number, example=replace(row.example, private=private), split=row.split)
