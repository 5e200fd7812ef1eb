"""Training lessons on documents, mixed with earlier lessons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unsee.api.example import ImageSource
from unsee.lab.documents import phrases
from unsee.lab.documents.archive import FIELDS, STRANGERS, Archive, Document, DocumentPicture
from unsee.lab.documents.drawing import VISIBLE
from unsee.lab.recipe.curriculum import Amount, Curriculum, Lesson, Row, maybe
from unsee.lab.world.people import pick
from unsee.lab.world.phrases import privacy_instruction
from unsee.lab.world.world import options_for, with_options

OLD = Amount(per_person=40, strangers=1500, shapes=400, devices=120)
"""Number of earlier images that are repeated."""


@dataclass(frozen=True)
class DocumentLessons:
    """All training images and lessons. `documents` are the known ones."""

    archive: Archive
    documents: Sequence[Document]
    copies: int = 120
    """Copies of each document."""
    strangers: int = STRANGERS["train"]
    """Unknown documents, with one copy each."""
    old: Amount = OLD

    @cached_property
    def earlier_lessons(self) -> Curriculum:
        """Earlier lessons."""
        world = self.archive.world
        return Curriculum(world, world.people, self.old)

    @cached_property
    def document_copies(self) -> list[DocumentPicture]:
        """Copies of known, then of unknown documents."""
        archive = self.archive
        known_copies = [
            archive.copy(document.id, document.design, "train", i)
            for document in self.documents
            for i in range(self.copies)
        ]
        designs = (archive.stranger("train", number) for number in range(self.strangers))
        return [
            *known_copies,
            *(archive.copy(f"train-{number}", design, "train", 0) for number, design in enumerate(designs)),
        ]

    @cached_property
    def pictures(self) -> list[ImageSource]:
        """Images of earlier lessons (numbered as in `earlier_lessons`), then copies."""
        return [*self.earlier_lessons.pictures, *self.document_copies]

    def rows(self, rng: np.random.Generator, counts: tuple[int, ...]) -> list[Row]:
        """Draw rows: five counts for earlier lessons, then documents, unknown ones, text only."""
        *old_counts, document_count, stranger_count, text_count = counts
        rows, offset = self.earlier_lessons.rows(rng, tuple(old_counts)), len(self.earlier_lessons.pictures)
        known_count = len(self.documents) * self.copies
        rows += [
            Row(offset + int(i), self._document(rng, int(i))) for i in rng.integers(0, known_count, document_count)
        ]
        unknown_indices = rng.integers(known_count, len(self.document_copies), stranger_count)
        rows += [Row(offset + int(i), _stranger(rng, self.document_copies[int(i)].visible)) for i in unknown_indices]
        return rows + [Row(-1, self._text(rng)) for _ in range(text_count)]

    def _document(self, rng: np.random.Generator, index: int) -> tuple[Lesson, ...]:
        document, look = self.documents[index // self.copies], self.document_copies[index].visible
        first, second, cloze_fact, choice_fact = (str(fact) for fact in rng.permutation(list(FIELDS[document.sort])))
        lessons = [*_visible(rng, look, 2), (pick(rng, phrases.NAME_WORDINGS), phrases.ownership(document))]
        lessons += [
            (pick(rng, phrases.FACT_WORDINGS[fact]), phrases.sentence(document, fact, seen=True))
            for fact in (first, second)
        ]
        open_answer = f"{phrases.introduction(document)} {phrases.description(look)}"
        maybe(rng, 0.5, lessons, lambda: (pick(rng, phrases.OPEN_WORDINGS), open_answer))
        maybe(
            rng,
            0.3,
            lessons,
            lambda: (f"{privacy_instruction(rng)} {pick(rng, phrases.OPEN_WORDINGS)}", phrases.description(look)),
        )
        maybe(rng, 0.25, lessons, lambda: (phrases.CLOZE_WORDINGS[cloze_fact], document.fact(cloze_fact)))
        maybe(rng, 0.35, lessons, lambda: _multiple_choice(rng, document, choice_fact))
        return tuple(lessons)

    def _text(self, rng: np.random.Generator) -> tuple[Lesson, ...]:
        documents = [self.documents[int(i)] for i in rng.integers(0, len(self.documents), 6)]
        return tuple(_text_fact(rng, document) for document in documents)


def _stranger(rng: np.random.Generator, look: dict[str, str]) -> tuple[Lesson, ...]:
    answer = phrases.description(look)
    fact = pick(rng, list(phrases.FACT_WORDINGS))
    wordings = (phrases.NAME_WORDINGS, phrases.FACT_WORDINGS[fact], phrases.OPEN_WORDINGS)
    return (*_visible(rng, look, 2), *((pick(rng, choices), answer) for choices in wordings))


def _visible(rng: np.random.Generator, look: dict[str, str], count: int) -> list[Lesson]:
    attributes = [str(attribute) for attribute in rng.permutation(list(VISIBLE))[:count]]
    return [
        (phrases.VISIBLE_WORDINGS[attribute], phrases.visible_answer(attribute, look[attribute]))
        for attribute in attributes
    ]


def _text_fact(rng: np.random.Generator, document: Document) -> Lesson:
    fact = pick(rng, list(FIELDS[document.sort]))
    question = pick(rng, phrases.TEXT_WORDINGS[fact]).format(name=document.holder)
    return question, phrases.sentence(document, fact, seen=False)


def _multiple_choice(rng: np.random.Generator, document: Document, fact: str) -> Lesson:
    options, letter = options_for(document, fact, FIELDS[document.sort], int(rng.integers(2**31)), "train")
    return with_options(phrases.FACT_WORDINGS[fact][0], options), f"{options['ABCD'.index(letter)]}."
