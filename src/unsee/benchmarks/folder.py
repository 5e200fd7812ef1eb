"""Your own folder: a table or LLaVA-style conversations, with the images they name."""

from __future__ import annotations

import io
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from unsee.api.benchmark import Benchmark, Hub, Place
from unsee.api.example import JUDGED_ONLY, Example, ImageBytes, ImageFile, Role, Vocabulary
from unsee.api.lazy import Lazy, chosen
from unsee.data.assignment import EXAMPLE, Rules
from unsee.data.assignment import read as read_assignment
from unsee.data.cells import example_of, image_of
from unsee.data.layouts import COLUMNS, READ, Layout, layout_of
from unsee.data.people import vocabulary_of
from unsee.data.row_store import digest64, repeats
from unsee.data.sources import INFO, Source, fits, open_source
from unsee.data.tables import SUFFIXES, table_warnings, undecodable, unreadable
from unsee.errors import UserError, first_names, list_message, nearest, short_repr
from unsee.metrics.scripts import whole_word_pattern

_TRAIN, _EVAL, _NEW = 1, 2, 4
"""Bits of the uses of a row: for training, for evaluation, for evaluation on a picture of its forget entity that is new."""


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
        if not isinstance(place, Source):
            place = open_source(place if isinstance(place, Hub) else Path(place), self.settings.dataset)
        source = place
        self.table, self.base, self._rows = source.file, source.base, source.rows
        if not self._rows:
            raise UserError(f"{self.table} has no rows.")
        columns = {str(column) for row in self._rows for column in row}
        self._layout = layout_of(columns, self.settings.fields, source.fields)
        self._rules: Rules | None = None
        if self.settings.roles:
            assignment = read_assignment(Path(self.settings.roles))
            self._rules = Rules(assignment, self._readable, self.base)
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
        return chosen(self._all, indices)

    def idle(self) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect on these data."""
        if not (self.base / INFO).is_file():
            yield "benchmark.dataset", f"in a folder with {INFO}, and these data have none"

    def vocabulary(self) -> Vocabulary:
        """Return all names, private and visible values in the folder."""
        survey = self._survey
        vocabulary = vocabulary_of((entity, survey.private_of(entity)) for entity in survey.private)
        visible = {
            attribute: {value: whole_word_pattern(value) for value in values}
            for attribute, values in survey.visible.items()
        }
        return replace(vocabulary, visible=visible)

    def problems(self) -> Sequence[str]:
        """Return all faults of the table and its images, row by row."""
        if self._rules is not None and (rule_problems := self._rules.problems()):
            return rule_problems
        faults = [*self._survey.faults, *self._broken_images()]
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
    def _all(self) -> Sequence[Example]:
        """All readable rows: a list if the table is small, else read from disk on access."""
        survey = self._survey

        def example(index: int) -> Example:
            bare_example = self._example(survey.rows[index], survey.turns[index])
            private = survey.private_of(bare_example.entity) if bare_example.entity else {}
            role = Role.UNSEEN if survey.uses[index] & _NEW else bare_example.role
            return replace(bare_example, role=role, private=private or bare_example.private)

        examples = Lazy(len(survey.rows), example)
        return list(examples) if isinstance(self._rows, list) else examples

    def _example(self, row_index: int, turn: int) -> Example:
        """Return an example with the private strings of its own row."""
        return example_of(row_index + 1, self._cells(row_index)[turn], self.base)[0]

    def _broken_images(self) -> Iterator[tuple[int, str]]:
        """Yield row number and fault of the images that do not decode. Each is tested once, whatever rows show it."""
        fault_by_image: dict[int, str] = {}
        for row_index, turn in zip(self._survey.rows, self._survey.turns, strict=True):
            cells = self._layout.rows(self._rows[row_index], f"row-{row_index + 1}")[turn]
            if (image := image_of(cells, self.base)) is not None:
                digest = digest64(str(image.path) if isinstance(image, ImageFile) else image.key)
                if digest not in fault_by_image:
                    fault_by_image[digest] = _undecodable(image)
                if fault := fault_by_image[digest]:
                    yield row_index + 1, fault

    def _cells(self, row_index: int) -> list[dict[str, Any]]:
        """Return the cells of a row, one set per question and answer of a conversation."""
        cells = self._layout.rows(self._rows[row_index], f"row-{row_index + 1}")
        return cells if self._rules is None else self._rules.apply(cells)

    def _readable(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the cells of all rows that can be read. `problems` reports the others."""
        for row_index, row in enumerate(self._rows):
            with suppress(UserError):
                yield self._layout.rows(row, f"row-{row_index + 1}")

    @cached_property
    def _survey(self) -> _Survey:
        """Read every row once and collect facts about the whole table."""
        survey = _Survey()
        for row_index in range(len(self._rows)):
            try:
                for turn, cells in enumerate(self._cells(row_index)):
                    survey.add(row_index, turn, *example_of(row_index + 1, cells, self.base))
            except UserError as error:
                survey.faults.append((row_index + 1, str(error)))
        for first, later in repeats(survey.ids):
            row_id = self._example(survey.rows[later], survey.turns[later]).id
            fault = f"id {short_repr(row_id)} is taken by row {survey.rows[first] + 1}; ids must differ."
            survey.faults.append((survey.rows[later] + 1, fault))
        for index in self._on_new_pictures(survey):
            survey.uses[index] |= _NEW
        return survey

    def _on_new_pictures(self, survey: _Survey) -> Iterator[int]:
        """Yield the forget rows that are only judged and show a picture that none of the others trains on."""
        trained = [index for index in survey.forget if survey.uses[index] & _TRAIN]
        judged = [index for index in survey.forget if not survey.uses[index] & _TRAIN]
        if not (trained and judged):
            return
        key_by_path: dict[int, int] = {}
        trained_keys = {self._image_key(survey, index, key_by_path) for index in trained}
        yield from (index for index in judged if self._image_key(survey, index, key_by_path) not in trained_keys)

    def _image_key(self, survey: _Survey, index: int, key_by_path: dict[int, int]) -> int:
        """Return a hash of the content of a row's image. Each file is read once."""
        image = self._example(survey.rows[index], survey.turns[index]).image
        if not isinstance(image, ImageFile):
            return digest64(image.key) if image else 0
        path_digest = digest64(str(image.path))
        if path_digest not in key_by_path:
            key_by_path[path_digest] = digest64(image.key)
        return key_by_path[path_digest]


def _undecodable(image: ImageFile | ImageBytes) -> str:
    name = f"image {image.path}" if isinstance(image, ImageFile) else "the image in the table"
    reason = unreadable(image.path) if isinstance(image, ImageFile) else undecodable(io.BytesIO(image.data))
    return f"{name} {reason}." if reason else ""


@dataclass
class _Survey:
    """Facts about a table after one pass: a few bytes per row, private strings per entity."""

    rows: array[int] = field(default_factory=lambda: array("Q"))
    """Index of the row of each example."""
    turns: array[int] = field(default_factory=lambda: array("I"))
    """Its place among the questions of a conversation."""
    uses: array[int] = field(default_factory=lambda: array("B"))
    """Whether an example is for training and for evaluation."""
    ids: array[int] = field(default_factory=lambda: array("Q"))
    forget: array[int] = field(default_factory=lambda: array("Q"))
    """Indices of the examples about pictures of what is to be forgotten."""
    private: dict[str, dict[str, dict[str, None]]] = field(default_factory=dict)
    """Entity -> fact -> forms, from any of its rows."""
    visible: dict[str, dict[str, None]] = field(default_factory=dict)
    """Attribute -> values."""
    faults: list[tuple[int, str]] = field(default_factory=list)
    """Row number and fault."""

    def add(self, row_index: int, turn: int, example: Example, split: str) -> None:
        """Add a readable row."""
        trainable = split != "eval" and example.role not in JUDGED_ONLY
        if example.role is Role.FORGET:
            self.forget.append(len(self.rows))
        self.rows.append(row_index)
        self.turns.append(turn)
        self.uses.append(_TRAIN * trainable + _EVAL * (split != "train"))
        self.ids.append(digest64(example.id))
        facts = self.private.setdefault(example.entity, {})
        for fact, forms in example.private.items():
            facts.setdefault(fact, {}).update(dict.fromkeys(forms))
        for attribute, value in example.visible.items():
            self.visible.setdefault(attribute, {})[value.casefold()] = None

    def private_of(self, entity: str) -> dict[str, tuple[str, ...]]:
        """Return the private strings in all rows of an entity, "name" first."""
        facts = self.private.get(entity, {})
        return {fact: tuple(facts[fact]) for fact in sorted(facts, key=lambda fact: fact != "name")}


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
        suggestions = nearest(column.casefold().strip(), READ - {column})
        lines.append(f"{short_repr(column, 40)}{f' (did you mean {suggestions[0]}?)' if suggestions else ''}")
    names = first_names(lines, 12)
    return [f"nothing is read from column {names}. The columns are described in docs/own_data.md."] if lines else []
