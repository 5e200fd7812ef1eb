"""UMU-Bench: 653 people, every question with its image and as text (NeurIPS 2025).

500 of them are fictitious, 153 real.

As cloned from the hub: `forget_R/`, `retain_(100-R)/`, `Real_Person_Set/` of parquet with `ID`, `image`, `Biography`, `MM_QA`, `UM_QA`,
`Classify`, `Cloze`, `Generation`. The last five are Python or JSON literals in text; their halves are called `unimodal` and
`muitimodal` (sic).

| rows | role | trained on | judged |
|---|---|---|---|
| forget_R | forget, forget_text | MM_QA with the image, UM_QA as text | Classify, Cloze, Generation, both halves |
| retain_(100-R) | retain, retain_text | the same | the same |
| Real_Person_Set | general | no | the same |

The i-th text question and the i-th image question are a pair (ids ending in `/text` and `/image`): `both.*` counts pairs.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from unsee.api.benchmark import Place
from unsee.api.example import Example, ImageSource, Kind, Role, Vocabulary
from unsee.data.arrow import ArrowTable, DatasetFolder, peek
from unsee.data.people import Profile, overlaps, pool, same_images
from unsee.data.question_templates import SENTENCE, lettered, name_forms, require_options
from unsee.data.records import Gathered, Record, RecordBenchmark, require_any
from unsee.errors import UserError, short_repr

ONLY: Final = "Please **ONLY** provide the correct answer without any explanation"
REAL: Final = ("Real_Person_Set", "real_person")
HALVES: Final = {"image": ("muitimodal", "multimodal"), "text": ("unimodal",)}
"""Names of the two halves of a task in the data; the misspelt one is as published."""

_TASKS: Final = ("Classify", "Cloze", "Generation")
_ROLES: Final = {
    Role.FORGET: {"image": Role.FORGET, "text": Role.FORGET_TEXT},
    Role.RETAIN: {"image": Role.RETAIN, "text": Role.RETAIN_TEXT},
    Role.GENERAL: {"image": Role.GENERAL, "text": Role.GENERAL},
}


@dataclass(frozen=True, kw_only=True)
class UmuSettings:
    """Settings of UMU-Bench."""

    ratio: Literal[5, 10, 15] = 5
    """Percentage of people in the forget set."""
    sets: tuple[Literal["forget", "retain", "real"], ...] = ("forget", "retain", "real")
    """Evaluated sets; others may be missing."""
    tasks: tuple[Literal["classification", "generation", "cloze"], ...] = ("classification", "generation", "cloze")
    """Evaluated tasks."""
    train: tuple[Literal["image", "text"], ...] = ("image", "text")
    """Halves of the training pairs for unlearning."""
    strict: bool = True
    """False: unreadable rows and items are skipped and counted; undecodable images always stop a run."""
    protocol: Literal["corrected", "released"] = "corrected"
    """released: options requested and scored by their text, with both published rules."""

    def __post_init__(self) -> None:
        """Reject an evaluation of nothing."""
        require_any("benchmark.sets", self.sets)
        require_any("benchmark.tasks", self.tasks)


class Umu(RecordBenchmark):
    """UMU-Bench from a local clone or the hub."""

    name: ClassVar[str] = "umu"
    layout: ClassVar[str] = "folders forget_5, forget_10 or forget_15 of parquet with MM_QA and UM_QA (UMU-Bench)"
    settings_type: ClassVar[type] = UmuSettings
    hub: ClassVar[tuple[str, ...]] = ("linbojunzi/UMU-bench", "chengyewang/UMU-bench")
    likelihood: ClassVar[bool] = True

    def __init__(self, place: Place | str, settings: UmuSettings | None = None) -> None:
        """Store the location. No data are read yet."""
        self.settings: UmuSettings = settings or UmuSettings()
        self.dataset = DatasetFolder(place)
        self.place = self.dataset.place
        self._people: dict[str, Profile] = {}

    @classmethod
    def fits(cls, place: Path) -> bool:
        """Tell whether a forget split with this benchmark's columns exists."""
        return any({"MM_QA", "UM_QA"} & peek(place, f"forget_{ratio}") for ratio in (5, 10, 15))

    def vocabulary(self) -> Vocabulary:
        """Return all names, with pairs enabled."""
        self.require()
        released_measures = ("choice.text_exact", "choice.text_nearest") if self.settings.protocol == "released" else ()
        return pool(self._people, measures=("both", *released_measures))

    def warnings(self) -> Sequence[str]:
        """Return differences from the published data."""
        gathered = self.gathered
        return [*self.dataset.warnings, *same_images(gathered.train), *gathered.gaps()]

    @cached_property
    def gathered(self) -> Gathered:
        """Read the training pairs of both sides and the evaluation questions."""
        gathered, ratio = Gathered(strict=self.settings.strict), self.settings.ratio
        sides = {
            Role.FORGET: self._open(5 * ratio, f"forget_{ratio}"),
            Role.RETAIN: self._open(500 - 5 * ratio, f"retain_{100 - ratio}"),
        }
        with gathered.reading("the splits", vital=True):
            everybody = self.dataset.rows("Full_Set").names() if self.dataset.has("Full_Set") else None
            overlaps(sides[Role.FORGET].names(), sides[Role.RETAIN].names(), everybody)
        for role, rows in sides.items():
            self._gather(gathered, rows, role, judged=role.value in self.settings.sets)
        if "real" in self.settings.sets:
            self._gather(gathered, self._open(153, *REAL), Role.GENERAL, judged=True)
        return gathered

    def _open(self, published: int, *spellings: str) -> ArrowTable:
        rows = self.dataset.rows(*spellings, published=published)
        rows.require("ID", "image", *_TASKS, *([] if spellings == REAL else ["MM_QA", "UM_QA"]))
        return rows

    def _gather(self, gathered: Gathered, rows: ArrowTable, role: Role, *, judged: bool) -> None:
        """Collect training pairs and questions of each person in a folder."""
        for row, cells in enumerate(rows.records("ID", "Biography", "MM_QA", "UM_QA", *_TASKS)):
            record = Record(cells)
            with gathered.reading(f"{rows.where(row)} (ID {cells['ID']})"):
                entity = record.text("ID") if role is not Role.GENERAL else f"real/{record.text('ID')}"
                person = _Person(
                    entity, role, gathered.cell(rows.image(row)), self._people.setdefault(entity, _profile(record))
                )
                train_examples = [] if role is Role.GENERAL else list(self._pairs(record, person))
                eval_examples = list(self._questions(record, person, rows.name)) if judged else []
                gathered.train += train_examples
                gathered.judged += eval_examples

    def _pairs(self, record: Record, person: _Person) -> Iterator[Example]:
        for half, column in (("image", "MM_QA"), ("text", "UM_QA")):
            if half not in self.settings.train:
                continue
            qa_pairs = _literal(record, column)
            questions, answers = _texts(qa_pairs, "question", column), _texts(qa_pairs, "answer", column)
            if questions.keys() != answers.keys():
                raise UserError(f"{column} has questions {', '.join(questions)} but answers {', '.join(answers)}.")
            for key, question in questions.items():
                yield person.example(f"train/{person.entity}/{key}", half, Kind.OPEN, question, answers[key])

    def _questions(self, record: Record, person: _Person, split: str) -> Iterator[Example]:
        makers = {
            "classification": ("Classify", self._choice),
            "cloze": ("Cloze", _cloze),
            "generation": ("Generation", _generation),
        }
        for task in self.settings.tasks:
            column, make = makers[task]
            halves = {half: _half(_literal(record, column), names, column) for half, names in HALVES.items()}
            if halves["image"].keys() != halves["text"].keys():
                raise UserError(f"{column}: the halves have other questions, so they make no pairs.")
            for half, items in halves.items():
                for key, item in items.items():
                    kind, question, answer, options = make(item)
                    yield person.example(f"{split}/{person.entity}/{task}/{key}", half, kind, question, answer, options)

    def _choice(self, item: Record) -> tuple[Kind, str, str, tuple[str, ...]]:
        options, answer = require_options(item.mapping("options"), item.text("answer"))
        question = item.text("question")
        if self.settings.protocol == "released":
            return Kind.CHOICE, f"{question}\nSelect answer in {list(options)}", answer, options
        return Kind.CHOICE, lettered(question, options), answer, options


@dataclass(frozen=True)
class _Person:
    entity: str
    role: Role
    image: ImageSource
    profile: Profile

    def example(
        self, name: str, half: str, kind: Kind, question: str, answer: str, options: tuple[str, ...] = ()
    ) -> Example:
        """Return a question about the person, with the image or as text alone."""
        return Example(
            id=f"{name}/{half}", role=_ROLES[self.role][half], question=question, answer=answer, kind=kind, options=options,
            image=self.image if half == "image" else None, entity=self.entity, private=self.profile.private,
        )  # fmt: skip


def _literal(record: Record, column: str) -> dict[str, Any]:
    """Return a cell's value, from JSON or, as published, a Python literal (never evaluated)."""
    value = record.raw(column)
    if isinstance(value, Mapping):
        return dict(value)
    text = record.text(column)
    try:
        literal = json.loads(text)
    except (ValueError, RecursionError):
        literal = _python(text, column)
    if not isinstance(literal, dict):
        raise UserError(f"{column} must be an object with named fields, got {short_repr(text)}.")
    return literal


def _python(text: str, column: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise UserError(f"{column} is neither JSON nor a Python literal: {short_repr(text)}.") from error


def _texts(qa_pairs: Mapping[str, Any], part: str, column: str) -> dict[str, str]:
    items = qa_pairs.get(part)
    if not isinstance(items, Mapping) or not items:
        raise UserError(f"{column} must hold {part!r}: an object with one text for each pair, got {short_repr(items)}.")
    record = Record(items, prefix=f"{column}.{part}.")
    return {str(key): record.text(str(key)) for key in items}


def _half(cell: Mapping[str, Any], names: Sequence[str], column: str) -> dict[str, Record]:
    half = next((name for name in names if name in cell), names[0])
    items = cell.get(half)
    if not isinstance(items, Mapping) or not items:
        raise UserError(f"{column} has no half {' or '.join(names)}; it has {', '.join(map(str, cell)) or 'nothing'}.")
    for key, item in items.items():
        if not isinstance(item, Mapping):
            raise UserError(
                f"{column}.{half}.{key} must be an object with question and answer, got {short_repr(item)}."
            )
    return {str(key): Record(item, prefix=f"{column}.{half}.{key}.") for key, item in items.items()}


def _cloze(item: Record) -> tuple[Kind, str, str, tuple[str, ...]]:
    return Kind.CLOZE, f"{item.text('question')}\n{ONLY}", item.text("answer"), ()


def _generation(item: Record) -> tuple[Kind, str, str, tuple[str, ...]]:
    return Kind.OPEN, f"{item.text('question')}\n{SENTENCE}", item.text("answer"), ()


def _profile(record: Record) -> Profile:
    """Return the person: the biography's `Name` in JSON, a Python literal or text [inferred]."""
    if not record.has("Biography"):
        return Profile()
    try:
        biography = _literal(record, "Biography")
    except UserError:
        return Profile()
    name = str(biography.get("Name") or biography.get("name") or "").strip()
    return Profile(name=name, private={"name": name_forms(name)} if name else {})
