"""MLLMU-Bench: 500 fictitious people and 153 celebrities (arXiv 2410.22108).

As cloned from the hub: `forget_R/`, `retain_(100-R)/`, `Full_Set/`, `ft_Data/`, `Test_Set/`, `Retain_Set/`, parquet shards each.
Training pairs are in the column `metadata`, which the split folders of the hub lack: the pairs of `ft_Data` are joined to the
people of the split by their IDs, or by the content of the images.

| judged set | rows | role | with image, and as text alone |
|---|---|---|---|
| forget | forget_R | forget, forget_text | multiple choice, cloze, generation |
| test | Test_Set, people of forget_R, all their images | unseen | with image only: its text questions are those of forget_R [inferred] |
| retain | retain_(100-R) | retain, retain_text | all three |
| real | Retain_Set | general | all three |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from unsee.api.benchmark import Place
from unsee.api.example import Example, ImageSource, Kind, Role, Vocabulary
from unsee.data.arrow import ArrowTable, DatasetFolder, peek
from unsee.data.people import SHOWN, Profile, overlaps, pool, same_images
from unsee.data.question_templates import (
    BLANK,
    SENTENCE,
    blanked,
    index_by_name,
    lettered,
    name_forms,
    require_options,
)
from unsee.data.records import Gathered, Record, RecordBenchmark, require_any
from unsee.errors import UserError, first_names, short_repr
from unsee.utils.parsing import BLANKS, as_text, as_texts, is_empty

TASKS: Final = ("Classification_Task", "Generation_Task", "Mask_Task")
_RELEASED: Final = ("choice.first_character", "choice.first_alphanumeric", "cloze.substring", "bleu.released@open")
"""Measures of the published tables: MLLMU-Bench's own letter rule and that of MMUnlearner's run."""
OVERLAP: Final = ("rougeL@open", "rouge1@open", "rouge2@open", "bleu@open")
"""Measures of the generation task; clozes, which share its role, are excluded."""
ROWS: Final = {"Full_Set": 500, "ft_Data": 500, "Retain_Set": 153, "Test_Set": 500}
"""Rows of the published folders."""

_OWN: Final = {"Classification_Task", "Mask_Task"}
"""Columns that distinguish it from other benchmarks with such folders."""
_TEXT_ROLE: Final = {Role.FORGET: Role.FORGET_TEXT, Role.RETAIN: Role.RETAIN_TEXT, Role.GENERAL: Role.GENERAL}
_ABOUT: Final = ("ID", "biography", "question", "answer", *TASKS)


@dataclass(frozen=True, kw_only=True)
class MllmuSettings:
    """Settings of MLLMU-Bench."""

    ratio: Literal[5, 10, 15] = 5
    """Percentage of people in the forget set."""
    sets: tuple[Literal["forget", "test", "retain", "real"], ...] = ("forget", "test", "retain", "real")
    """Evaluated sets; others may be missing."""
    tasks: tuple[Literal["classification", "generation", "cloze"], ...] = ("classification", "generation", "cloze")
    """Evaluated tasks."""
    train_pairs: Literal["metadata", "tasks"] = "metadata"
    """Training data: the published pairs, or the split's evaluation questions about the image (which flatters results)."""
    join: Literal["content", "row_order"] = "content"
    """Matching of ft_Data rows without ID to people: by equal images in Full_Set, or by row number."""
    strict: bool = True
    """False: unreadable rows and items are skipped and counted; undecodable images always stop a run."""
    protocol: Literal["corrected", "released"] = "corrected"
    """released: also the published scoring (first character, substring), one test image per person, `____` as two blanks."""

    def __post_init__(self) -> None:
        """Reject an evaluation of nothing."""
        require_any("benchmark.sets", self.sets)
        require_any("benchmark.tasks", self.tasks)


class Mllmu(RecordBenchmark):
    """MLLMU-Bench from a local clone or the hub."""

    name: ClassVar[str] = "mllmu"
    layout: ClassVar[str] = "folders forget_5, forget_10 or forget_15 of parquet with Mask_Task (MLLMU-Bench)"
    settings_type: ClassVar[type] = MllmuSettings
    hub: ClassVar[tuple[str, ...]] = ("MLLMMU/MLLMU-Bench",)
    likelihood: ClassVar[bool] = True

    def __init__(self, place: Place | str, settings: MllmuSettings | None = None) -> None:
        """Store the location. No data are read yet."""
        self.settings: MllmuSettings = settings or MllmuSettings()
        self.dataset = DatasetFolder(place)
        self.place = self.dataset.place
        self._people: dict[str, Profile] = {}
        self._biographies: dict[str, Mapping[str, Any]] = {}

    @classmethod
    def fits(cls, place: Path) -> bool:
        """Tell whether a forget split with this benchmark's tasks exists."""
        return any(_OWN & peek(place, *_split_spellings("forget", ratio)) for ratio in (5, 10, 15))

    def vocabulary(self) -> Vocabulary:
        """Return all names and other biography values."""
        self.require()
        released_measures = _RELEASED if self.settings.protocol == "released" else ()
        return pool(self._people, measures=(*OVERLAP, *released_measures))

    def idle(self) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect on these data."""
        if self.settings.train_pairs == "tasks":
            yield "benchmark.join", "with benchmark.train_pairs=metadata"

    def warnings(self) -> Sequence[str]:
        """Return differences from the published data, and costs of the settings."""
        gathered = self.gathered
        warnings = [*self.dataset.warnings, *same_images(gathered.train)]
        warnings += gathered.gaps()
        if self.settings.train_pairs == "tasks":
            warnings.append(
                "train_pairs=tasks trains on questions that are judged: what is measured is not what was forgotten."
            )
        return warnings

    @cached_property
    def gathered(self) -> Gathered:
        """Read the training pairs of both splits and the evaluation questions."""
        gathered = Gathered(strict=self.settings.strict)
        forget, retain = self._split("forget", self.settings.ratio), self._split("retain", 100 - self.settings.ratio)
        with gathered.reading("the splits", vital=True):
            self._compare(forget.names(), retain.names())
        for rows, role in ((forget, Role.FORGET), (retain, Role.RETAIN)):
            self._train(gathered, rows, role)
        forget_ids = set(forget.names())
        for name in self.settings.sets:
            match name:
                case "forget":
                    self._judge(gathered, forget, Role.FORGET)
                case "retain":
                    self._judge(gathered, retain, Role.RETAIN)
                case "test":
                    self._judge(gathered, self._open("Test_Set"), Role.UNSEEN, forget_ids)
                case "real":
                    self._judge(gathered, self._open("Retain_Set"), Role.GENERAL)
        if gathered.strict and 100 * gathered.left_out > gathered.items:
            gathered.faults.append(f"{gathered.gaps()[0]} That is more than one in a hundred.")
        return gathered

    def _open(self, *spellings: str) -> ArrowTable:
        return self.dataset.rows(*spellings, published=ROWS.get(spellings[0]))

    def _split(self, side: str, ratio: int) -> ArrowTable:
        rows = self.dataset.rows(*_split_spellings(side, ratio), published=5 * ratio)
        rows.require("image", "ID", *TASKS)
        return rows

    def _compare(self, forget: Sequence[str], retain: Sequence[str]) -> None:
        """Raise if the two sides overlap, or together are not all people."""
        everybody = self._open("Full_Set").names() if self.dataset.has("Full_Set") else None
        overlaps(forget, retain, everybody)

    def _train(self, gathered: Gathered, rows: ArrowTable, role: Role) -> None:
        """Collect the training pairs of one side."""
        if self.settings.train_pairs == "tasks":
            return self._train_on_tasks(gathered, rows, role)
        people = dict.fromkeys(rows.names())
        source = rows if "metadata" in rows.columns else self._open_pairs(rows)
        owners = rows.names() if source is rows else self._owners(source)
        seen_owners: set[str] = set()
        for row, (owner, cells) in enumerate(zip(owners, source.records("metadata"), strict=True)):
            if owner not in people:
                continue
            with gathered.reading(f"{source.where(row)} (ID {owner})"):
                if not owner:
                    raise UserError("ID is empty.")
                if owner in seen_owners:
                    raise UserError(f"person {owner} has a second row of training pairs.")
                seen_owners.add(owner)
                pairs = _told_about(gathered.complete(_listed_pairs(Record(cells)), "Question", "Answer"), "Answer")
                gathered.train += _train_examples(
                    pairs, owner, role, gathered.cell(source.image(row)), self._person(rows, owner)
                )
        if missing := [name for name in people if name and name not in seen_owners]:
            gathered.faults.append(
                f"{source.name} has no training pairs for people {first_names(missing, SHOWN)} of {rows.name}."
            )
        return None

    def _train_on_tasks(self, gathered: Gathered, rows: ArrowTable, role: Role) -> None:
        for row, cells in enumerate(rows.records(*_ABOUT)):
            record = Record(cells)
            with gathered.reading(f"{rows.where(row)} (ID {cells.get('ID')})"):
                owner = record.text("ID")
                image, profile = gathered.cell(rows.image(row)), self._person(rows, owner)
                pairs = [(record.text("question"), record.text("answer"))] if record.has("question") else []
                image_items = [item for item in _generation_items(gathered, record) if _with_image(item)]
                pairs += _told_about(image_items, "Ground_Truth")
                gathered.train += _train_examples(pairs, owner, role, image, profile)

    def _open_pairs(self, rows: ArrowTable) -> ArrowTable:
        if not self.dataset.has("ft_Data"):
            raise UserError(
                f"There are no training pairs: {rows.name} has no column metadata and there is no ft_Data. Fetch ft_Data of the "
                "data set, or baseline_train_split, or set benchmark.train_pairs=tasks to train on the evaluation questions."
            )
        source = self._open("ft_Data")
        source.require("image", "metadata")
        return source

    def _owners(self, source: ArrowTable) -> list[str]:
        """Return the person ID of each row of ft_Data.

        Its column, else the IDs inside its pairs, else the person with the same image.
        """
        if "ID" in source.columns:
            return source.names()
        pair_ids = [_id_inside(cells) for cells in source.records("metadata")]
        if all(pair_ids):
            return pair_ids
        full = self._open("Full_Set")
        names = full.names()
        if self.settings.join == "row_order":
            return [name or (names[row] if row < len(names) else "") for row, name in enumerate(pair_ids)]
        name_by_digest = {_digest(full, row): name for row, name in enumerate(names)}
        return [name or name_by_digest.get(_digest(source, row), "") for row, name in enumerate(pair_ids)]

    def _judge(self, gathered: Gathered, rows: ArrowTable, role: Role, allowed_owners: set[str] | None = None) -> None:
        """Collect the questions of one set, only about `allowed_owners` if given."""
        column = "images" if "images" in rows.columns else "image"
        rows.require(column, "ID", *TASKS)
        seen_owners = set()
        for row, cells in enumerate(rows.records(*_ABOUT)):
            record = Record(cells)
            with gathered.reading(f"{rows.where(row)} (ID {cells.get('ID')})"):
                owner = record.text("ID")
                if allowed_owners is not None and owner not in allowed_owners:
                    continue
                if owner in seen_owners:
                    raise UserError(f"ID {owner} occurs twice.")
                seen_owners.add(owner)
                images = [gathered.cell(image) for image in rows.images(row, column)]
                gathered.judged += self._questions(
                    gathered, record, rows.name, owner, role, self._person_images(images, owner, rows)
                )
        if missing := sorted((allowed_owners or set()) - seen_owners):
            gathered.faults.append(
                f"{rows.name} has no row for people {first_names(missing, SHOWN)}, who are to be forgotten."
            )

    def _person_images(self, images: Sequence[ImageSource], owner: str, rows: ArrowTable) -> Sequence[ImageSource]:
        """Return a person's images: all, or, as published, one at random (here: by ID)."""
        if not images:
            raise UserError(f"the image of {owner} in {rows.name} is empty.")
        if self.settings.protocol == "released" and len(images) > 1:
            return [images[index_by_name(owner, len(images))]]
        return images

    def _questions(
        self, gathered: Gathered, record: Record, split: str, owner: str, role: Role, images: Sequence[ImageSource]
    ) -> Iterator[Example]:
        entity = f"real/{owner}" if role is Role.GENERAL else owner
        profile = self._people.setdefault(entity, _profile(record))
        for item in self._items(gathered, record):
            for number, image in enumerate(images if item.with_image else [None]):
                if image is None and role not in _TEXT_ROLE:
                    continue
                yield Example(
                    id=f"{split}/{owner}/{item.name}" + (f"/{number}" if len(images) > 1 else ""),
                    role=role if image is not None else _TEXT_ROLE[role],
                    question=item.question, answer=item.answer, kind=item.kind, options=item.options,
                    image=image, entity=entity, private=profile.private,
                )  # fmt: skip

    def _items(self, gathered: Gathered, record: Record) -> Iterator[_Item]:
        if "classification" in self.settings.tasks:
            task = record.part("Classification_Task")
            yield from _read_each(gathered, task.parts("Image_Textual_Questions"), partial(_choice, with_image=True))
            yield from _read_each(gathered, task.parts("Pure_Text_Questions"), partial(_choice, with_image=False))
        if "cloze" in self.settings.tasks:
            pairwise = self.settings.protocol == "released"
            yield from _read_each(gathered, record.parts("Mask_Task"), partial(_cloze, pairwise=pairwise))
        if "generation" in self.settings.tasks:
            yield from _read_each(gathered, _generation_items(gathered, record), _generation)

    def _person(self, rows: ArrowTable, owner: str) -> Profile:
        """Return the profile of a person of a split."""
        if owner not in self._people:
            if owner not in self._biographies:
                self._biographies |= {as_text(cells["ID"]) or "": cells for cells in rows.records("ID", "biography")}
            self._people[owner] = _profile(Record(self._biographies[owner]))
        return self._people[owner]


@dataclass(frozen=True, kw_only=True)
class _Item:
    """One question of a task."""

    name: str
    kind: Kind
    with_image: bool
    question: str
    answer: str
    options: tuple[str, ...] = ()


def _split_spellings(side: str, ratio: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys((f"{side}_{ratio}", f"{side}_{ratio:02}", f"{side}{ratio}")))


def _id_inside(cells: Mapping[str, Any]) -> str:
    """Return the only ID in the pairs of a row, else empty."""
    try:
        ids = {pair.optional("ID") for pair in Record(cells).parts("metadata")} - {""}
    except UserError:
        return ""  # reported with its row where the pairs are read
    return ids.pop() if len(ids) == 1 else ""


def _digest(rows: ArrowTable, row: int) -> str:
    images = rows.images(row)
    return images[0].key if images else ""


def _profile(record: Record) -> Profile:
    """Return the private strings: name, and every plain biography value as a fact [inferred]."""
    texts_by_fact = {
        key.strip().casefold(): [text for text in as_texts(value) or () if text and text.casefold() not in BLANKS]
        for key, value in record.mapping("biography").items()
        if not is_empty(value)
    }
    names = texts_by_fact.pop("name", [])
    private = {"name": tuple(dict.fromkeys(form for name in names for form in name_forms(name)))} if names else {}
    private |= {fact: tuple(texts) for fact, texts in texts_by_fact.items() if texts}
    return Profile(name=names[0] if names else "", private=private)


def _listed_pairs(record: Record) -> list[Record]:
    pairs = record.parts("metadata")
    if not pairs:
        raise UserError("metadata holds no pair of Question and Answer.")
    return pairs


def _told_about(items: Sequence[Record], answer: str) -> list[tuple[str, str]]:
    return [(item.text("Question"), item.text(answer)) for item in items]


def _train_examples(
    pairs: Sequence[tuple[str, str]], owner: str, role: Role, image: ImageSource, profile: Profile
) -> list[Example]:
    return [
        Example(
            id=f"train/{owner}/{number}", role=role, question=question, answer=answer, image=image, entity=owner,
            private=profile.private,
        )
        for number, (question, answer) in enumerate(pairs, 1)
    ]  # fmt: skip


def _read_each(gathered: Gathered, items: Sequence[Record], make: Callable[[Record, int], _Item]) -> Iterator[_Item]:
    """Yield the parsed items. Faults are recorded per item."""
    for number, item in enumerate(items, 1):
        with gathered.part(item.field_label("").rstrip(".")):
            yield make(item, number)


def _choice(item: Record, number: int, *, with_image: bool) -> _Item:
    options, answer = require_options(item.mapping("Options"), item.text("Correct_Answer"))
    return _Item(
        name=f"classification/{'image' if with_image else 'pure'}/{number}",
        kind=Kind.CHOICE, with_image=with_image, answer=answer, options=options,
        question=lettered(item.text("Question"), options),
    )  # fmt: skip


def _cloze(item: Record, number: int, *, pairwise: bool) -> _Item:
    sentence = item.text("Question")
    if "__" not in sentence:
        raise UserError(f"Question has no blank (__): {short_repr(sentence)}.")
    return _Item(
        name=f"cloze/{number}", kind=Kind.CLOZE, with_image=_with_image(item), answer=item.text("Ground_Truth"),
        question=f"{blanked(sentence, pairwise=pairwise)}\n{BLANK}",
    )  # fmt: skip


def _generation_items(gathered: Gathered, record: Record) -> list[Record]:
    return gathered.complete(record.parts("Generation_Task"), "Question", "Ground_Truth")


def _generation(item: Record, number: int) -> _Item:
    return _Item(
        name=f"generation/{number}", kind=Kind.OPEN, with_image=_with_image(item), answer=item.text("Ground_Truth"),
        question=f"{item.text('Question')}\n{SENTENCE}",
    )  # fmt: skip


def _with_image(item: Record) -> bool:
    """Tell whether a question is about the image. An unknown type is an error."""
    kind = item.text("Type").casefold()
    if kind.startswith("image"):
        return True
    if "text" in kind:
        return False
    raise UserError(f"{item.field_label('Type')} must be Image_Textual or Pure_Text, got {item.text('Type')!r}.")
