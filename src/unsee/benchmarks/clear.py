"""CLEAR: 200 fictitious authors with images and TOFU's questions (arXiv 2410.18057).

As cloned from the hub, one folder of parquet per configuration: `forgetNN` and `retainNN` (`image`, `caption`, `name`), both also with
`+tofu` (captions and text questions in one table), `forgetNN_perturbed` and `retain_perturbed` (other captions and other names),
`real_faces`, `real_world` (options).

| rows | role | trained on | judged |
|---|---|---|---|
| forgetNN (+tofu) | forget, forget_text | captions, text questions | text questions |
| forgetNN_perturbed | forget | no | caption, name, name among options |
| retainNN (+tofu) | retain, retain_text | captions, text questions | text questions |
| retain_perturbed, without the people to be forgotten | retain | no | caption, name, name among options |
| real_faces, real_world | general | no | answer, answer among options |

The author of a text question is not given: the questions come in blocks of 20, and a block is attributed to the author whom it names
most often [inferred].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Final, Literal

from unsee.api.benchmark import Place
from unsee.api.example import Example, ImageSource, Kind, Role, Vocabulary
from unsee.data.arrow import ArrowTable, DatasetFolder, peek
from unsee.data.people import Profile, pool, same_images
from unsee.data.question_templates import LETTER, index_by_name, lettered, letters_of, name_forms
from unsee.data.records import Gathered, Record, RecordBenchmark, require_any
from unsee.errors import UserError
from unsee.metrics.matching import contains
from unsee.metrics.normal_form import normalise
from unsee.utils.parsing import read_text

CAPTION_QUESTIONS: Final = (
    "Describe this picture.",
    "What does this image show?",
    "Give a short description of the photo.",
    "Write a caption for this image.",
    "Summarise what is visible here.",
    "What is shown in the photo?",
    "Describe the person and the setting.",
    "What can be made out in this photograph?",
    "Put the content of this picture into words.",
)
"""Our wordings in place of the nine published ones, chosen by image id [inferred]."""
NAME_QUESTION: Final = "What is the name of the person in the image?"
ROWS: Final = {
    "forget01": 35, "forget05": 188, "forget10": 379, "forget01+tofu": 75, "forget05+tofu": 388, "forget10+tofu": 779,
    "forget01_perturbed": 35, "forget05_perturbed": 188, "forget10_perturbed": 378, "retain_perturbed": 395,
    "retain99+tofu": 7695, "real_faces": 151, "real_world": 367,
}  # fmt: skip
"""Rows of the published configurations, as far as known."""
BY_TASK: Final = (
    *("rougeL@open", "rouge1@open", "rouge2@open", "bleu@open", "rougeL_recall@open", "answer_prob@open"),
    *("rougeL_recall@name", "truth_prob@name", "rougeL_recall@general", "truth_prob@general"),
)
"""Separate measures of captions and text questions (open), of names and real-world questions (general)."""

_TEXT_ROLE: Final = {Role.FORGET: Role.FORGET_TEXT, Role.RETAIN: Role.RETAIN_TEXT}


@dataclass(frozen=True, kw_only=True)
class ClearSettings:
    """Settings of CLEAR."""

    ratio: Literal[1, 5, 10] = 5
    """Percentage of authors in the forget set."""
    train: Literal["both", "captions"] = "both"
    """Train on captions and text questions (CLEAR), or captions only (MMUnlearner); both are evaluated either way."""
    tasks: tuple[Literal["caption", "name", "text", "real"], ...] = ("caption", "name", "text", "real")
    """Evaluated tasks; other configurations may be missing."""
    block: int = 20
    """Consecutive text questions per author."""
    caption_questions: str = ""
    """File with one caption question per line, in place of ours."""
    strict: bool = True
    """False: unreadable rows and items are skipped and counted; undecodable images always stop a run."""
    protocol: Literal["corrected", "released"] = "corrected"
    """released: options without asking for a letter, also scored by the first character."""

    def __post_init__(self) -> None:
        """Reject blocks of no question, and an evaluation of nothing."""
        if self.block < 1:
            raise UserError(f"benchmark.block must be at least 1, got {self.block}.")
        require_any("benchmark.tasks", self.tasks)


class Clear(RecordBenchmark):
    """CLEAR from a local clone or the hub."""

    name: ClassVar[str] = "clear"
    layout: ClassVar[str] = "folders forget01, forget05 or forget10 (or with +tofu) of parquet with captions (CLEAR)"
    settings_type: ClassVar[type] = ClearSettings
    hub: ClassVar[tuple[str, ...]] = ("therem/CLEAR",)
    likelihood: ClassVar[bool] = True

    def __init__(self, place: Place | str, settings: ClearSettings | None = None) -> None:
        """Store location and wordings. No data are read yet."""
        self.settings: ClearSettings = settings or ClearSettings()
        self.dataset = DatasetFolder(place)
        self.place = self.dataset.place
        self.wordings = _wordings(self.settings.caption_questions)
        self._people: dict[str, Profile] = {}

    @classmethod
    def fits(cls, place: Path) -> bool:
        """Tell whether a forget configuration with captions exists."""
        names = [
            f"{name}{suffix}"
            for ratio in (1, 5, 10)
            for name in _split_spellings("forget", ratio)
            for suffix in ("", "+tofu")
        ]
        return any("caption" in peek(place, name) for name in names)

    def vocabulary(self) -> Vocabulary:
        """Return the names of all authors, and of known people among the real faces."""
        self.require()
        released_measures = ("choice.first_alphanumeric",) if self.settings.protocol == "released" else ()
        return pool(self._people, measures=(*BY_TASK, *released_measures))

    def idle(self) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect on these data."""
        if "text" not in self.settings.tasks and self.settings.train != "both":
            yield "benchmark.block", "with benchmark.tasks that name text, or benchmark.train=both"

    def warnings(self) -> Sequence[str]:
        """Return differences from the published data, and skipped rows."""
        return [*same_images(self.gathered.train), *self.gathered.gaps(), *self.dataset.warnings]

    @cached_property
    def gathered(self) -> Gathered:
        """Read the training examples of both sides and the evaluation examples."""
        gathered, ratio, tasks = Gathered(strict=self.settings.strict), self.settings.ratio, self.settings.tasks
        forget_names = self._side(gathered, "forget", ratio, Role.FORGET)
        self._side(gathered, "retain", 100 - ratio, Role.RETAIN)
        if {"caption", "name"} & set(tasks):
            perturbed_rows = self._open(*(f"{name}_perturbed" for name in _split_spellings("forget", ratio)))
            self._add_perturbed(gathered, perturbed_rows, Role.FORGET, set())
            self._add_perturbed(gathered, self._open("retain_perturbed"), Role.RETAIN, forget_names)
        if "real" in tasks:
            self._real(gathered, self._open("real_faces"))
            self._real(gathered, self._open("real_world"))
        return gathered

    def _open(self, *spellings: str) -> ArrowTable:
        return self.dataset.rows(*spellings, published=ROWS.get(spellings[0]))

    def _side(self, gathered: Gathered, side: str, ratio: int, role: Role) -> set[str]:
        """Collect captions and text questions of one side, and return its people's names."""
        rows = self._open(*_split_spellings(side, ratio))
        rows.require("image", "caption")
        if "name" not in rows.columns:
            raise UserError(f"{rows.name} has no column 'name', as in early revisions of CLEAR; fetch the current one.")
        names = []
        for row, cells in enumerate(rows.records("caption", "name")):
            with gathered.reading(rows.where(row)):
                record = Record(cells)
                person = record.text("name")
                names.append(person)
                gathered.train.append(self._caption(gathered, rows, row, record, role, person, f"{rows.name}/{row}"))
        if "text" in self.settings.tasks or self.settings.train == "both":
            mixed_rows = self._open(*(f"{name}+tofu" for name in _split_spellings(side, ratio)))
            self._texts(gathered, mixed_rows, role, list(dict.fromkeys(names)))
        return set(names)

    def _caption(
        self, gathered: Gathered, rows: ArrowTable, row: int, record: Record, role: Role, person: str, name: str
    ) -> Example:
        profile = self._profile(person)
        return Example(
            id=name, role=role, question=self._wording(name), answer=record.text("caption"), image=gathered.cell(rows.image(row)),
            entity=person, private=profile.private, paraphrase=record.optional("paraphrased_caption"),
            perturbed=record.strings("perturbed_captions"),
        )  # fmt: skip

    def _texts(self, gathered: Gathered, rows: ArrowTable, role: Role, names: Sequence[str]) -> None:
        """Collect the text questions of a mixed configuration with their authors."""
        rows.require("image", "caption", "question", "answer")
        text_rows: list[tuple[int, Record | None]] = []  # None: unreadable, but with a place in its block
        for row, cells in enumerate(rows.records("caption", "question", "answer")):
            record, has_image = Record(cells), bool(rows.images(row))
            if record.has("question") or not (has_image or record.has("caption")):
                text_rows.append((row, None))
            with gathered.reading(rows.where(row)):
                if record.has("question") == has_image:
                    raise UserError(
                        f"a row is a picture with a caption or a question without picture; this is {'both' if has_image else 'neither'}."
                    )
                if record.has("question"):
                    for column in ("question", "answer"):
                        record.text(column)
                    text_rows[-1] = (row, record)
        if len(text_rows) % self.settings.block:
            self.dataset.warnings.append(
                f"{rows.name} has {len(text_rows)} text questions, which are no blocks of {self.settings.block}."
            )
        for start in range(0, len(text_rows), self.settings.block):
            block = text_rows[start : start + self.settings.block]
            readable_rows = [(row, record) for row, record in block if record is not None]
            if not readable_rows:
                continue
            with gathered.reading(f"{rows.name} rows {block[0][0] + 1} to {block[-1][0] + 1}"):
                person = _author([record for _, record in readable_rows], names)
                for row, record in readable_rows:
                    self._text(gathered, record, role, person, f"{rows.name}/{row}")

    def _text(self, gathered: Gathered, record: Record, role: Role, person: str, name: str) -> None:
        example = Example(
            id=name, role=_TEXT_ROLE[role], question=record.text("question"), answer=record.text("answer"), entity=person,
            private=self._profile(person).private,
        )  # fmt: skip
        if self.settings.train == "both":
            gathered.train.append(example)
        if "text" in self.settings.tasks:
            gathered.judged.append(example)

    def _add_perturbed(self, gathered: Gathered, rows: ArrowTable, role: Role, forget_names: set[str]) -> None:
        """Collect captions and names with false alternatives."""
        rows.require("image", "caption", "paraphrased_caption", "perturbed_captions")
        missing_columns = [column for column in ("name", "perturbed_names") if column not in rows.columns]
        if missing_columns:
            raise UserError(
                f"{rows.name} has no column {', '.join(map(repr, missing_columns))}, as in early revisions of CLEAR; fetch the current one, "
                "or leave both caption and name out of benchmark.tasks."
            )
        skipped = 0
        for row, cells in enumerate(rows.records(*_PERTURBED)):
            with gathered.reading(rows.where(row)):
                record = Record(cells)
                person = record.text("name")
                if person in forget_names:
                    skipped += 1
                    continue
                name = f"{rows.name}/{row}"
                if "caption" in self.settings.tasks:
                    gathered.judged.append(self._caption(gathered, rows, row, record, role, person, f"{name}/caption"))
                if "name" in self.settings.tasks:
                    image, candidates = gathered.cell(rows.image(row)), record.strings("perturbed_names")
                    gathered.judged += self._among(name, NAME_QUESTION, person, candidates, role, image, person)
        if skipped:
            self.dataset.warnings.append(
                f"{skipped} rows of {rows.name} are about people to be forgotten; they are left out."
            )

    def _real(self, gathered: Gathered, rows: ArrowTable) -> None:
        """Collect the questions about real faces or the real world."""
        rows.require("image", "answer", "options")
        for row, cells in enumerate(rows.records("question", "answer", "options")):
            with gathered.reading(rows.where(row)):
                record = Record(cells)
                answer, question = record.text("answer"), record.optional("question") or NAME_QUESTION
                image, entity = gathered.cell(rows.image(row)), f"{rows.name}/{answer}"
                gathered.judged += self._among(
                    f"{rows.name}/{row}", question, answer, record.strings("options"), Role.GENERAL, image, entity
                )

    def _among(
        self, name: str, question: str, answer: str, choices: Sequence[str], role: Role, image: ImageSource, entity: str
    ) -> Iterator[Example]:
        """Yield the question as open, with false answers, and as multiple choice."""
        distractors = [text for text in dict.fromkeys(choices) if normalise(text) != normalise(answer)]
        if not distractors:
            raise UserError("there is no false answer to choose among.")
        kind = Kind.NAME if question == NAME_QUESTION else Kind.GENERAL
        # A real-world answer is no name: "red" in another answer must not count as one.
        private = self._profile(entity if role is not Role.GENERAL else answer).private if kind is Kind.NAME else {}
        example = Example(
            id=f"{name}/name", role=role, kind=kind, question=question, answer=answer, perturbed=tuple(distractors), image=image,
            entity=entity, private=private,
        )  # fmt: skip
        yield example
        answer_index = index_by_name(name, len(distractors) + 1)
        options = (*distractors[:answer_index], answer, *distractors[answer_index:])
        instruction = "" if self.settings.protocol == "released" else LETTER
        yield replace(
            example, id=f"{name}/choice", kind=Kind.CHOICE, question=lettered(question, options, mark=". ", after=instruction),
            answer=letters_of(options)[answer_index], options=options, perturbed=(),
        )  # fmt: skip

    def _profile(self, person: str) -> Profile:
        return self._people.setdefault(person, Profile(name=person, private={"name": name_forms(person)}))

    def _wording(self, name: str) -> str:
        return self.wordings[index_by_name(name, len(self.wordings))]


_PERTURBED: Final = ("caption", "name", "paraphrased_caption", "perturbed_captions", "perturbed_names")


def _split_spellings(side: str, ratio: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys((f"{side}{ratio:02}", f"{side}{ratio}")))


def _wordings(file: str) -> tuple[str, ...]:
    if not file:
        return CAPTION_QUESTIONS
    try:
        lines = read_text(Path(file)).splitlines()
    except UserError as error:
        raise UserError(f"Cannot read the caption questions {file}: {error}") from error
    questions = tuple(line.strip() for line in lines if line.strip())
    if not questions:
        raise UserError(f"{file} holds no caption question; write one per line.")
    return questions


def _author(block: Sequence[Record], names: Sequence[str]) -> str:
    """Return the author named in most questions of a block, over twice as often as others.

    Anything else is an error.
    """
    texts = [f"{record.text('question')} {record.text('answer')}" for record in block]
    counts = Counter({name: sum(contains(text, name) for text in texts) for name in names})
    top_names = counts.most_common(2)
    if not top_names or top_names[0][1] == 0:
        raise UserError(f"no author of the split is named in these {len(block)} text questions.")
    if len(top_names) > 1 and 2 * top_names[1][1] >= top_names[0][1]:
        raise UserError(
            f"{top_names[0][0]} is named in {top_names[0][1]} of these text questions and {top_names[1][0]} in {top_names[1][1]}; whose they are is open. "
            "Do they stand in blocks of one author (benchmark.block)?"
        )
    return top_names[0][0]
