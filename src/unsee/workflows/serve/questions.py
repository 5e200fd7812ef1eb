"""Pictures, entities and questions of a run that the page offers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from unsee.api import PROBES, Example, ImageFile, ImageSource, Kind, Response, Role, Vocabulary
from unsee.api.example import Question
from unsee.data.open import open_benchmark
from unsee.errors import UserError, short_repr
from unsee.evaluation.evaluate import VOCABULARY, read_answers, read_vocabulary
from unsee.report.page import ROLES
from unsee.report.printable import printable
from unsee.scoring.conditions import FORGOTTEN
from unsee.utils.grouping import by_key, evenly, merged_forms

ROWS: Final = 5000
"""Most rows that are read, evenly spread over the data."""
PICTURES: Final = 60
"""Most pictures in the gallery per role."""
READY: Final = 12
"""Most ready questions per picture and entity, and for pictures of one's own."""
LONGEST: Final = 2000
"""Most characters in a question."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Picture of the gallery."""

    image: ImageSource
    rows: Sequence[Example]
    """The questions about it."""

    @property
    def role(self) -> Role:
        """Role of its first question."""
        return self.rows[0].role


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Rows of the data by picture and entity."""

    rows: Sequence[Example] = ()
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    total: int = 0
    """Rows in the data."""

    @cached_property
    def pictures(self) -> Sequence[Picture]:
        """The gallery: at most `PICTURES` pictures per role, held-out ones first."""
        rows_by_image = by_key((image.key, (image, row)) for row in self.rows if (image := row.image) is not None)
        pictures = [Picture(image=pairs[0][0], rows=[row for _, row in pairs]) for pairs in rows_by_image.values()]
        by_role = by_key((picture.role, picture) for picture in pictures)
        return [picture for role in ROLES for picture in evenly(by_role.get(Role(role), []), PICTURES)]

    def picture(self, index: int) -> Picture:
        """Return a picture of the gallery, or raise UserError if there is none of this number."""
        if not 0 <= index < len(self.pictures):
            raise UserError(f"There is no picture {index}; the gallery has {len(self.pictures)}.")
        return self.pictures[index]

    @cached_property
    def entities(self) -> Mapping[str, Sequence[Example]]:
        """Rows of each entity, those to be forgotten first."""
        rows = sorted(self.rows, key=lambda row: row.role not in FORGOTTEN)
        return by_key((row.entity, row) for row in rows if row.entity)

    def private_of(self, entity: str) -> dict[str, tuple[str, ...]]:
        """Return fact -> surface forms of an entity, from all its rows."""
        return merged_forms(private for row in self.entities[entity] for private in row.private.items())

    def name_of(self, entity: str) -> str:
        """Return the first form of an entity's name, else its identifier."""
        return next(iter(self.private_of(entity).get("name", ())), entity)

    def example(
        self, question: str, *, picture: int | None = None, upload: ImageSource | None = None, entity: str = ""
    ) -> Example:
        """Return a question with all that is known for judging its answer.

        Known is what the rows of the picture, or else of the entity say. With neither, nothing is: role and kind are GENERAL.

        Args:
            question: Question of 1 to `LONGEST` characters.
            picture: Index of a picture of the data. Ignored with an upload.
            upload: Picture of your own.
            entity: Whom the question is about, if no picture of the data says so. Empty: nobody.

        Raises:
            UserError: The question is empty or too long, or picture or entity do not exist.
        """
        if not question.strip() or len(question) > LONGEST:
            raise UserError(f"Expected a question of 1 to {LONGEST} characters, got {len(question)}.")
        if picture is not None and upload is None:
            return self._of_picture(self.picture(picture).rows, question)
        if entity and entity not in self.entities:
            raise UserError(f"There is nobody called {short_repr(entity)} in the data of the run.")
        if entity:
            return self._of_entity(entity, question, upload)
        return Example(id="own", role=Role.GENERAL, kind=Kind.GENERAL, question=question, answer="", image=upload)

    def _of_picture(self, rows: Sequence[Example], question: str) -> Example:
        """Return the row with this question about its picture, else an open question about it."""
        row = next((row for row in rows if row.question == question), None)
        return row or _open_question(rows[0], question)

    def _of_entity(self, entity: str, question: str, upload: ImageSource | None) -> Example:
        """Return the question about an entity.

        What is visible in another picture of it is not known.
        """
        rows = self.entities[entity]
        matches = (row for row in rows if row.question == question and (row.kind in PROBES or upload is None))
        row = next(matches, None) or _open_question(rows[0], question)
        role = (
            Role.STRANGER if row.role is Role.STRANGER else _role(forgotten=row.role in FORGOTTEN, image=bool(upload))
        )
        return replace(row, id="own", role=role, image=upload, visible={}, private=self.private_of(entity))

    def content(self) -> dict[str, Any]:
        """Return pictures, entities and ready questions as plain values for the page."""
        indices = {entity: index for index, entity in enumerate(self.entities)}
        pictures = [
            {
                "role": ROLES[picture.role],
                "entity": indices.get(picture.rows[0].entity, -1),
                "questions": _questions(picture.rows),
            }
            for picture in self.pictures
        ]
        entities = [
            {
                "id": entity,
                "name": printable(self.name_of(entity)),
                "forgotten": rows[0].role in FORGOTTEN,
                "questions": _questions(row for row in rows if row.image is None),
            }
            for entity, rows in self.entities.items()
        ]
        ready_questions = _questions(row for row in self.rows if row.image is not None and row.kind in PROBES)
        return {
            "pictures": pictures,
            "entities": entities,
            "ready": ready_questions,
            "rows": len(self.rows),
            "total": self.total,
            "longest": LONGEST,
        }


def read(folder: Path, data: str, benchmark: str | Mapping[str, Any]) -> Catalogue:
    """Return the questions of a run: its judged answers if it has any, else of its data.

    `data` given (or a run without judged answers): the evaluation rows of these data. Neither: an empty catalogue.

    Raises:
        UserError: The data or the judged answers are not readable.
    """
    if not data and (folder / VOCABULARY).is_file():
        answers = read_answers(folder)
        rows = [_row(folder, response) for response in evenly(answers, ROWS)]
        return Catalogue(rows=rows, vocabulary=read_vocabulary(folder / VOCABULARY), total=len(answers))
    if not data:
        return Catalogue()
    opened_data = open_benchmark(data, benchmark)
    examples = opened_data.examples("eval")
    return Catalogue(rows=evenly(examples, ROWS), vocabulary=opened_data.vocabulary(), total=len(examples))


def _row(folder: Path, response: Response) -> Example:
    """Return the question of a judged answer, whose picture must be there still."""
    if response.image and not (folder / response.image).is_file():
        raise UserError(
            f"The picture of the judged answer {short_repr(response.id)} is gone: {folder / response.image}. "
            "Give --data with the pictures and questions."
        )
    question = {part.name: getattr(response, part.name) for part in fields(Question)}
    return Example(**question, image=ImageFile(folder / response.image) if response.image else None)


def _open_question(row: Example, question: str) -> Example:
    """Return an open question about the entity and picture of a row, of which only that is known."""
    kind = Kind.OPEN if row.entity else Kind.GENERAL
    return Example(
        id="own", role=row.role, question=question, answer="", kind=kind, entity=row.entity, private=row.private,
        visible=row.visible, image=row.image,
    )  # fmt: skip


def _role(*, forgotten: bool, image: bool) -> Role:
    """Return the role of a question about an entity. A picture of one's own is a held-out one."""
    if forgotten:
        return Role.UNSEEN if image else Role.FORGET_TEXT
    return Role.RETAIN if image else Role.RETAIN_TEXT


def _questions(rows: Iterable[Example]) -> list[str]:
    """Return the first different questions."""
    return list(dict.fromkeys(row.question for row in rows))[:READY]
