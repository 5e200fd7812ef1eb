"""Your own folder: a table or LLaVA-style conversations, with the images they name."""

from __future__ import annotations

import io
import re
import unicodedata
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Final, Literal

from unsee.api.benchmark import Benchmark, Hub, Place
from unsee.api.example import OF_TARGETS, Example, ImageBytes, ImageFile, ImageSource, Kind, Role, Vocabulary
from unsee.api.lazy import Lazy
from unsee.data.assignment import EXAMPLE, Rules
from unsee.data.assignment import read as read_assignment
from unsee.data.layouts import (
    COLUMNS,
    MARK,
    READ,
    ROLES,
    Layout,
    layout_of,
    picture_of,
    require_pictures,
    role_of,
)
from unsee.data.question_templates import lettered
from unsee.data.row_store import digest64, repeats
from unsee.data.sources import HELD_OUT, INFO, TRAINED, Source, fits, open_source
from unsee.data.tables import SUFFIXES, is_file, table_warnings, undecodable, unreadable
from unsee.errors import UserError, first_names, list_message, nearest, short_repr, unknown_name
from unsee.metrics.scripts import whole_word_pattern
from unsee.utils.parsing import is_empty, parse_json, text_fault

_TEXT_ROLE: Final = {Role.FORGET: Role.FORGET_TEXT, Role.RETAIN: Role.RETAIN_TEXT}
_SPLITS: Final = {"": "both", "both": "both", **dict.fromkeys(TRAINED, "train"), **dict.fromkeys(HELD_OUT, "eval")}
_TRAIN, _EVAL = 1, 2
"""Bits of the uses of a row: for training, for evaluation."""
_JUDGED_ONLY: Final = (Role.UNSEEN, Role.STRANGER)
_TEXTS: Final = ("id", "question", "answer", "entity", "fact", "chain", "paraphrase")
_INFINITE: Final = (float("inf"), float("-inf"))


@dataclass(frozen=True, kw_only=True)
class _Row:
    number: int
    example: Example
    split: str


@dataclass(frozen=True, kw_only=True)
class FolderSettings:
    """Settings for reading a folder that does not describe its own layout."""

    fields: Mapping[str, str] = field(default_factory=dict)
    """Column of unsee -> column of the table: `{"image": "image_path"}`; what is missing is guessed, and shown."""
    roles: str = ""
    """File that says who is to be forgotten (docs/own_data.md)."""
    dataset: str = ""
    """Name in a `dataset_info.json` of LLaMA-Factory that holds several."""


class Folder(Benchmark):
    """Table, shards or image folder of one's own, in one of several layouts.

    docs/own_data.md describes columns and layouts.
    """

    name = "folder"
    layout = f"one table ({', '.join(SUFFIXES)}), named data or the only one in its folder; or as docs/own_data.md says"
    settings_type = FolderSettings
    generic = True
    settings: FolderSettings

    def __init__(self, place: Place | Source | str, settings: FolderSettings | None = None) -> None:
        """Read the table at once, so that a wrong layout is reported first."""
        self.settings = settings or FolderSettings()
        source = place if isinstance(place, Source) else _open_place(place, self.settings.dataset)
        self.table, self.base, self._rows = source.file, source.base, source.rows
        if not self._rows:
            raise UserError(f"{self.table} has no rows.")
        columns = {str(column) for row in self._rows for column in row}
        self._layout = layout_of(columns, self.settings.fields, source.fields)
        self._rules: Rules | None = None
        if self.settings.roles:
            assignment = read_assignment(Path(self.settings.roles))
            self._rules = Rules(assignment, self._readable(), partial(_image, folder=self.base))
        self._notes = source.notes
        _require_columns(self._layout, source, rules=self._rules is not None)

    @classmethod
    def fits(cls, place: Path) -> bool:
        """Tell whether there is a table, several unnamed tables, or another program's layout."""
        return fits(place)

    def examples(self, split: Literal["train", "eval"]) -> Sequence[Example]:
        """Return the rows of a split. Held-out images and strangers are never trained on."""
        survey = self._survey
        if survey.faults:
            lines = [f"row {number}: {fault}" for number, fault in survey.faults]
            head = "; ".join([f"{self.table} cannot be used", *self._guess_notes()])
            raise UserError(list_message(f"{head}:", lines, 10, " (unsee check lists all)"))
        use_bit = _TRAIN if split == "train" else _EVAL
        indices = array("Q", (index for index, use in enumerate(survey.uses) if use & use_bit))
        rows = self._all
        examples = Lazy(len(indices), lambda index: rows[indices[index]].example)
        return list(examples) if isinstance(rows, list) else examples

    def idle(self) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect on these data."""
        if not (self.base / INFO).is_file():
            yield "benchmark.dataset", f"in a folder with {INFO}, and these data have none"

    def vocabulary(self) -> Vocabulary:
        """Return all names, private and visible values in the folder."""
        names: dict[str, dict[str, None]] = {}
        facts: dict[str, dict[str, None]] = {}
        visible: dict[str, dict[str, None]] = {}
        for row in self._all:
            for fact, forms in row.example.private.items():
                known_forms = names.setdefault(row.example.entity, {}) if fact == "name" else facts.setdefault(fact, {})
                known_forms.update(dict.fromkeys(forms))
            for attribute, value in row.example.visible.items():
                visible.setdefault(attribute, {})[value.casefold()] = None
        return Vocabulary(
            names={entity: tuple(forms) for entity, forms in names.items()},
            facts={fact: tuple(forms) for fact, forms in facts.items()},
            visible={
                attribute: {value: whole_word_pattern(value) for value in values}
                for attribute, values in visible.items()
            },
        )

    def problems(self) -> Sequence[str]:
        """Return all faults of the table and its images, row by row."""
        if self._rules is not None and (rule_problems := self._rules.problems()):
            return rule_problems
        verdicts = _Verdicts()
        broken = [(index + 1, fault) for index, image in self._images() if (fault := verdicts.of(image))]
        faults = [*self._survey.faults, *broken]
        lines = [f"row {number}: {fault}" for number, fault in sorted(faults, key=lambda fault: fault[0])]
        if self._survey.faults:
            lines[-1] = "; ".join([lines[-1], *self._guess_notes()])
        return lines

    def warnings(self) -> Sequence[str]:
        """Return unusual encodings, and columns that are not read."""
        guess_notes = [f"{note}." for note in self._guess_notes()]
        rule_notes = self._rules.warnings() if self._rules else []
        return [*table_warnings(self.table), *self._notes, *guess_notes, *rule_notes, *_unread(self._layout)]

    def _guess_notes(self) -> list[str]:
        """Return a line on the columns that are read under another name than theirs, if there are any."""
        guesses = [f"column {theirs} is read as {ours}" for ours, theirs in self._layout.guessed.items()]
        return [f"{', '.join(guesses)}; say --fields OURS=YOURS, or rename it, if that is wrong"] if guesses else []

    @cached_property
    def _all(self) -> Sequence[_Row]:
        """All readable rows: a list if the table is small, else read from disk on access."""
        places, private = self._survey.places, self._survey.private

        def row(index: int) -> _Row:
            row_index, turn = places[2 * index], places[2 * index + 1]
            return _with_private(_row(row_index + 1, self._cells(row_index)[turn], self.base), private)

        rows = Lazy(len(places) // 2, row)
        return list(rows) if isinstance(self._rows, list) else rows

    def _images(self) -> Iterator[tuple[int, ImageSource | None]]:
        """Yield index and image of the readable rows. Large tables are reread for the image only."""
        if isinstance(self._rows, list):
            yield from ((row.number - 1, row.example.image) for row in self._all)
            return
        places = self._survey.places
        for row_index, turn in zip(places[::2], places[1::2], strict=True):
            yield row_index, _image(self._cells(row_index)[turn], self.base)

    def _cells(self, row_index: int) -> list[dict[str, Any]]:
        """Return the cells of a row, one set per question and answer of a conversation."""
        cells = self._layout.rows(self._rows[row_index], f"row-{row_index + 1}")
        return cells if self._rules is None else self._rules.apply(cells)

    def _readable(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the cells of all rows that can be read. `problems` reports the others."""
        for row_index, row in enumerate(self._rows):
            try:
                cells = self._layout.rows(row, f"row-{row_index + 1}")
            except UserError:
                continue
            yield cells

    @cached_property
    def _survey(self) -> _Survey:
        """Read every row once and collect facts about the whole table."""
        survey = _Survey()
        for row_index in range(len(self._rows)):
            try:
                for turn, cells in enumerate(self._cells(row_index)):
                    survey.add(row_index, turn, _row(row_index + 1, cells, self.base))
            except UserError as error:
                survey.faults.append((row_index + 1, str(error)))
        for first, later in repeats(survey.ids):
            row_id = _text(self._cells(survey.places[2 * later])[survey.places[2 * later + 1]], "id")
            row_id = row_id or f"row-{survey.places[2 * later] + 1}"
            survey.faults.append(
                (
                    survey.places[2 * later] + 1,
                    f"id {short_repr(row_id)} is taken by row {survey.places[2 * first] + 1}; ids must differ.",
                )
            )
        return survey


def _open_place(place: Place | str, dataset: str) -> Source:
    return open_source(place if isinstance(place, Hub) else Path(place), dataset)


class _Verdicts:
    """Decodability of images, each tested once, in a few bytes per image."""

    def __init__(self) -> None:
        self._fine: set[int] = set()
        self._broken: dict[int, str] = {}

    def of(self, image: ImageSource | None) -> str:
        """Return why the image is unusable, or empty if it is fine."""
        if not isinstance(image, ImageFile | ImageBytes):
            return ""
        digest = digest64(str(image.path) if isinstance(image, ImageFile) else image.key)
        if digest not in self._fine and digest not in self._broken:
            if fault := _undecodable(image):
                self._broken[digest] = fault
            else:
                self._fine.add(digest)
        return self._broken.get(digest, "")


def _undecodable(image: ImageFile | ImageBytes) -> str:
    if isinstance(image, ImageFile):
        reason = unreadable(image.path)
        return f"image {image.path} {reason}." if reason else ""
    reason = undecodable(io.BytesIO(image.data))
    return f"the image in the table {reason}." if reason else ""


@dataclass
class _Survey:
    """Facts about a table after one pass: a few bytes per row, private strings per entity."""

    places: array[int] = field(default_factory=lambda: array("Q"))
    """Row and turn of each example."""
    uses: array[int] = field(default_factory=lambda: array("B"))
    """Whether an example is for training and for evaluation."""
    ids: array[int] = field(default_factory=lambda: array("Q"))
    private: dict[str, dict[str, dict[str, None]]] = field(default_factory=dict)
    """Entity -> fact -> forms, from any of its rows."""
    faults: list[tuple[int, str]] = field(default_factory=list)
    """Row number and fault."""

    def add(self, row_index: int, turn: int, row: _Row) -> None:
        """Add a readable row."""
        example = row.example
        trainable = row.split in ("both", "train") and example.role not in _JUDGED_ONLY
        self.places.extend((row_index, turn))
        self.uses.append(_TRAIN * trainable + _EVAL * (row.split in ("both", "eval")))
        self.ids.append(digest64(example.id))
        if example.entity:
            facts = self.private.setdefault(example.entity, {})
            for fact, forms in example.private.items():
                facts.setdefault(fact, {}).update(dict.fromkeys(forms))


def _require_columns(layout: Layout, source: Source, *, rules: bool) -> None:
    """Raise if a column is missing that neither the layout nor a rule replaces."""
    by_rule = ("entity", "role", "private") if rules else ("entity", "private") if layout.talk else ()
    missing = [column for column in COLUMNS if column not in by_rule and not layout.has(column)]
    if not missing:
        return
    assignable = [column for column in missing if column in ("entity", "role", "private")]
    hint = f" Who is to be forgotten can also be said by rule: --roles FILE with\n{EXAMPLE}" if assignable else ""
    notes = f" Of this folder: {'; '.join(source.notes)}." if source.notes else ""
    raise UserError(
        f"{source.file} has no column {', '.join(map(short_repr, missing))}. It needs {', '.join(COLUMNS)}; "
        f"it has {first_names(sorted(layout.columns), 12)}.{notes}{_rename_hint(missing, layout.columns)}{hint}"
    )


def _rename_hint(missing: Sequence[str], columns: Collection[str]) -> str:
    """Return the clause on columns that may be the missing ones under another name, each for one of them."""
    others = sorted(column for column in columns if column not in COLUMNS)
    offered: dict[str, str] = {}
    for column in missing:
        for candidate in _similar_columns(column, [other for other in others if other not in offered])[:1]:
            offered[candidate] = column
    fields = ",".join(f"{column}={candidate}" for candidate, column in offered.items())
    clause = "".join(f" Is {candidate!r} meant for {column!r}?" for candidate, column in offered.items())
    return f"{clause} Say --fields {fields}." if offered else ""


def _similar_columns(name: str, columns: Iterable[str]) -> list[str]:
    """Return columns whose name resembles or contains `name` (`image_path`)."""
    folded_names = {column: column.casefold().replace("-", "_").strip() for column in columns}
    containing = [column for column, folded in folded_names.items() if name in folded.split("_")]
    return containing + [column for column, folded in folded_names.items() if nearest(name, [folded])]


def _unread(layout: Layout) -> list[str]:
    """Return a line on columns that are not read, with the nearest known names."""
    lines = []
    for column in layout.unread():
        suggestions = nearest(column.casefold().strip(), READ)
        lines.append(f"{short_repr(column, 40)}{f' (did you mean {suggestions[0]}?)' if suggestions else ''}")
    if not lines:
        return []
    return [f"nothing is read from column {first_names(lines, 12)}. The columns are described in docs/own_data.md."]


def _row(number: int, raw_cells: Mapping[str, Any], folder: Path) -> _Row:
    cells = {column: value for column, value in raw_cells.items() if not is_empty(value)}
    image = _image(cells, folder)
    role = _role(_text(cells, "role"), has_image=image is not None)
    split = _text(cells, "split").casefold()
    if split not in _SPLITS:
        raise unknown_name("split", split, [name for name in _SPLITS if name])
    example = Example(
        id=_text(cells, "id") or f"row-{number}",
        role=role,
        question=_question(cells),
        answer=_text(cells, "answer"),
        image=image,
        entity=_text(cells, "entity"),
        kind=_kind(cells, role),
        fact=_text(cells, "fact"),
        private=_private(cells),
        visible=_visible(cells),
        options=_options(cells),
        chain=_text(cells, "chain"),
        accepted=tuple(_strings(cells, "accepted")),
        paraphrase=_text(cells, "paraphrase"),
        perturbed=tuple(_strings(cells, "perturbed")),
    )
    _demand(example, _SPLITS[split])
    _require_plain(example)
    return _Row(number=number, example=_with_options(example), split=_SPLITS[split])


def _demand(example: Example, split: str) -> None:
    """Raise if a cell required by this role is empty."""
    if not example.question:
        raise UserError("the question is empty.")
    if not example.answer and example.role not in _JUDGED_ONLY:
        raise UserError("the answer is empty.")
    if not example.entity and example.role in OF_TARGETS:
        raise UserError(f"the entity is empty; a row of role {example.role} must say who or what it is about.")
    if split == "train" and example.role in _JUDGED_ONLY:
        raise UserError(f"rows of role {example.role} are never trained on; leave split empty or write eval.")
    if example.accepted and example.kind is not Kind.GENERAL:
        raise UserError(
            f"accepted is for questions of kind general, and this one is of kind {example.kind}; leave it empty."
        )
    if example.kind is Kind.CHOICE:
        _require_choice(example)


def _require_choice(example: Example) -> None:
    """Raise unless the answer is the letter of an option."""
    options, answer = example.options, example.answer
    if len(options) > len(ascii_uppercase):
        raise UserError(f"a choice has at most {len(ascii_uppercase)} options (A to Z), got {len(options)}.")
    if answer in tuple(ascii_uppercase[: len(options)]):
        return _require_distinct(options)
    letters = [
        letter for letter, text in zip(ascii_uppercase, options, strict=False) if answer in (text, letter.lower())
    ]
    hint = f" Write {letters[0]!r}." if len(letters) == 1 else ""
    raise UserError(
        f"a choice answer is the letter of one of its options, got {short_repr(answer)} and {len(options)} options.{hint}"
    )


def _require_distinct(options: Sequence[str]) -> None:
    """Raise if two options are the same but for capitals: either letter would be right."""
    texts = [option.casefold() for option in options]
    if duplicates := [letter for letter, text in zip(ascii_uppercase, texts, strict=False) if texts.count(text) > 1]:
        raise UserError(f"options {' and '.join(duplicates)} are the same; write another text or leave the row out.")


def _with_options(example: Example) -> Example:
    """Append the options to a multiple-choice question, unless it lists them already."""
    if example.kind is not Kind.CHOICE or _lists(example.question, example.options):
        return example
    return replace(example, question=lettered(example.question, example.options, after=""))


def _lists(question: str, options: Sequence[str]) -> bool:
    """Tell whether the question lists each option with its letter ("A. baker", "(B) pilot")."""
    return all(
        re.search(rf"\b{letter}\W{{1,4}}{re.escape(option)}", question, re.IGNORECASE)
        for letter, option in zip(ascii_uppercase, options, strict=False)
    )


def _require_plain(example: Example) -> None:
    """Raise if a text of the row cannot be written, shown or tokenised."""
    texts = {
        **{name: vars(example)[name] for name in _TEXTS},
        "options": " ".join(example.options),
        "accepted": " ".join(example.accepted),
        "perturbed": " ".join(example.perturbed),
        "private": " ".join((*example.private, *(form for forms in example.private.values() for form in forms))),
        "visible": " ".join((*example.visible, *example.visible.values())),
    }
    for name, text in texts.items():
        if fault := text_fault(text):
            raise UserError(f"{name} {fault}; remove it.")
    if MARK in example.answer:
        raise UserError(
            f"the answer holds {MARK}, which stands for a picture in prompts; remove it or write it otherwise."
        )


def _text(cells: Mapping[str, Any], column: str) -> str:
    value = cells.get(column)
    if is_empty(value):
        return ""
    if isinstance(value, str | int | float) and not isinstance(value, bool) and value not in _INFINITE:
        return str(value).strip()
    raise UserError(f"{column} must be text, got {short_repr(value)}.")


def _question(cells: Mapping[str, Any]) -> str:
    """Return the question without image placeholders, since images always come first."""
    question = _text(cells, "question")
    if MARK in question:
        require_pictures(question.count(MARK), len(_pictures(cells)))
    return question.replace(MARK, "").strip()


def _pictures(cells: Mapping[str, Any]) -> list[Any]:
    """Return the image named in `image` or `images`: none or one."""
    pictures: list[Any] = []
    for column in ("image", "images"):
        value = _decoded(cells, column) if column == "images" else cells.get(column)
        items = value if isinstance(value, list | tuple) else [value]
        pictures += [item for item in items if not is_empty(item) and item not in pictures]
    if len(pictures) > 1:
        raise UserError(
            f"image must be one path, got {len(pictures)}: {short_repr(pictures)}. A question is asked about one picture; "
            "write a row for each picture."
        )
    return pictures


def _image(cells: Mapping[str, Any], folder: Path) -> ImageFile | ImageBytes | None:
    """Return the row's image, from a relative path or a Parquet cell. None without one."""
    pictures = _pictures(cells)
    value = pictures[0] if pictures else None
    if isinstance(value, Mapping) and value.keys() <= {"bytes", "path"}:  # how `datasets` writes images
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        if fault := text_fault(value):
            raise UserError(f"image {fault}.")
        value = picture_of(value.strip())
    if isinstance(value, bytes):
        return ImageBytes(value)
    if is_empty(value):
        return None
    if not isinstance(value, str):
        raise UserError(f"image must be one path, got {short_repr(value)}.")
    return ImageFile(_located(value, folder))


def _located(name: str, folder: Path) -> Path:
    """Return the file that a path means, also one written on Windows or a Mac."""
    spellings = (name, name.replace("\\", "/"), unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
    for spelling in dict.fromkeys(spellings):
        if is_file(folder / spelling):
            return folder / spelling
    raise UserError(f"image {folder / name} is missing.")


def _role(word: str, *, has_image: bool) -> Role:
    if not word:
        raise UserError(f"the role is empty; expected one of {', '.join(role.value for role in Role)}.")
    role = role_of(word)
    if role is None:
        raise unknown_name("role", word, ROLES)
    if not has_image and role in (Role.UNSEEN, Role.STRANGER, Role.BENIGN):
        raise UserError(f"a row of role {role} needs an image.")
    if has_image and role in _TEXT_ROLE.values():
        raise UserError(f"a row of role {role} has no image by definition, but one is given.")
    return role if has_image else _TEXT_ROLE.get(role, role)


def _kind(cells: Mapping[str, Any], role: Role) -> Kind:
    word = _text(cells, "kind").casefold()
    if not word:
        if _options(cells):
            raise UserError("there are options but no kind; write kind choice, or leave the options out.")
        return Kind.GENERAL if role is Role.GENERAL else Kind.FACT if _text(cells, "fact") else Kind.OPEN
    if word not in set(Kind):
        raise unknown_name("kind", word, [kind.value for kind in Kind])
    return Kind(word)


def _decoded(cells: Mapping[str, Any], column: str) -> Any:
    """Return the cell, parsed if it is JSON text."""
    value = cells.get(column)
    if isinstance(value, str) and value.strip()[:1] in ("{", "["):
        try:
            return parse_json(value, column)
        except UserError as error:
            raise UserError(f"{column} looks like JSON but is not: {error}") from error
    return value


def _strings(cells: Mapping[str, Any], column: str) -> list[str]:
    return [text for text in _split(_decoded(cells, column), column) if text]


def _options(cells: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the options in letter order. An empty one is an error, as it would shift letters."""
    value = _decoded(cells, "options")
    if isinstance(value, Mapping):
        if sorted(value) != list(ascii_uppercase[: len(value)]):
            raise UserError(
                f'options as a mapping must be named by letter, {{"A": ..., "B": ...}}, got {short_repr(value)}.'
            )
        value = [value[letter] for letter in sorted(value)]
    options = _split(value, "options")
    if "" in options:
        raise UserError(
            f"option {ascii_uppercase[options.index('') % 26]} is empty; write its text or leave the row out."
        )
    return tuple(options)


def _split(value: Any, column: str) -> list[str]:
    """Return the texts of a cell, empty ones as ""."""
    if is_empty(value):
        return []
    items = value.split(";") if isinstance(value, str) else value if isinstance(value, list) else [value]
    if not all(
        is_empty(item) or (isinstance(item, str | int | float) and not isinstance(item, bool)) for item in items
    ):
        raise UserError(f"{column} must be text, texts separated by ';', or a list of texts, got {short_repr(value)}.")
    return ["" if is_empty(item) else str(item).strip() for item in items]


def _private(cells: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return fact -> forms, "name" first. In a plain list the first string is the name."""
    value = _decoded(cells, "private")
    if isinstance(value, Mapping):
        forms = {str(fact): tuple(_split(item, f"private.{fact}")) for fact, item in value.items()}
    else:
        strings = [text for text in _split(value, "private") if text]
        forms = {"name": tuple(strings[:1]), "other": tuple(strings[1:])}
    ordered_forms = sorted(forms.items(), key=lambda item: item[0] != "name")
    nonempty_forms = {fact: tuple(text for text in texts if text) for fact, texts in ordered_forms}
    return {fact: texts for fact, texts in nonempty_forms.items() if texts}


def _visible(cells: Mapping[str, Any]) -> dict[str, str]:
    value = _decoded(cells, "visible")
    if is_empty(value):
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f'visible must be a mapping such as {{"hair": "red"}}, got {short_repr(value)}.')
    texts = {str(attribute): _text(value, attribute) for attribute in value}
    return {attribute: text for attribute, text in texts.items() if text}


def _with_private(row: _Row, private_by_entity: Mapping[str, Mapping[str, Mapping[str, None]]]) -> _Row:
    """Return the row with all private strings of its entity, from any row."""
    facts = private_by_entity.get(row.example.entity, {})
    if not facts:
        return row
    ordered_facts = sorted(facts, key=lambda fact: fact != "name")
    private = {fact: tuple(facts[fact]) for fact in ordered_facts}
    return _Row(number=row.number, example=replace(row.example, private=private), split=row.split)
