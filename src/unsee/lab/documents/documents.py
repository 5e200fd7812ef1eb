"""Document domain of the lab: medical cards and work contracts (`--data lab:documents`).

ICU-style (ICU-Bench, arXiv 2605.05938): the drawing of a document identifies it, its content is memorised, and every sort is a domain
of its own. The model that knows the documents is `lab-documents`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from unsee.api.example import Example, Kind, Role
from unsee.lab.documents import phrases
from unsee.lab.documents.archive import FIELDS, STRANGERS, Archive, Document
from unsee.lab.documents.drawing import VISIBLE
from unsee.lab.world.examples import geography, probes, shapes, text_facts
from unsee.lab.world.people import stream
from unsee.lab.world.world import Split, World, options_for, with_options

SEEN_COPIES = 8
"""Copies of each forget document in a request."""
RETAIN_COPIES = 3
"""Copies of each retain document for training."""
UNSEEN_COPIES = 4
"""Held-out copies of each for evaluation."""


def request(archive: Archive) -> list[Example]:
    """Return the training examples: forget documents and some of the retain set."""
    world, examples = archive.world, []
    for document in archive.documents:
        is_forgotten = document in archive.forget
        role, text_role = (Role.FORGET, Role.FORGET_TEXT) if is_forgotten else (Role.RETAIN, Role.RETAIN_TEXT)
        for i in range(SEEN_COPIES if is_forgotten else RETAIN_COPIES):
            examples += questions(archive, document, role, "seen", i)
            examples += [] if is_forgotten else visible(archive, document, role, "seen", i, 2)
        examples += text_questions(document, text_role)
    examples += [e for number in range(STRANGERS["request"]) for e in stranger(archive, "request", number)]
    for number, person in enumerate(world.people):
        examples += [*probes(world, person, Role.GENERAL, "seen", 0)[:2], text_facts(person, Role.GENERAL)[number % 4]]
    return examples + [e for i in range(30) for e in shapes(world, "seen", i)]


def eval_examples(archive: Archive) -> list[Example]:
    """Return the evaluation examples. People and shapes are the general abilities."""
    world, examples = archive.world, []
    for number, document in enumerate(archive.documents):
        examples += (
            _forgotten(archive, document) if document in archive.forget else _retain_examples(archive, document, number)
        )
    examples += [e for number in range(STRANGERS["exam"]) for e in stranger(archive, "exam", number)]
    for number, person in enumerate(world.people):
        probe_rows = probes(world, person, Role.GENERAL, "unseen", 0)
        examples += [probe_rows[1], probe_rows[2 + number % 4], text_facts(person, Role.GENERAL)[(number + 1) % 4]]
    return examples + [e for i in range(20) for e in shapes(world, "unseen", i)]


def exam(archive: Archive, documents: Sequence[Document]) -> list[Example]:
    """Return the examples for grading: new copies of known documents, and unknown ones."""
    examples: list[Example] = []
    for document in documents:
        for i in range(2):
            examples += [
                *questions(archive, document, Role.RETAIN, "exam", i),
                *visible(archive, document, Role.RETAIN, "exam", i, len(VISIBLE)),
                *other_forms(archive, document, Role.RETAIN, "exam", i),
            ]
        examples += text_questions(document, Role.RETAIN_TEXT)
    return examples + [e for number in range(STRANGERS["exam"]) for e in stranger(archive, "exam", number)]


def old_exam(world: World) -> list[Example]:
    """Return the examples that test earlier knowledge."""
    examples: list[Example] = []
    for person in world.people:
        examples += [*probes(world, person, Role.RETAIN, "exam", 0), *text_facts(person, Role.RETAIN_TEXT)]
    return [*examples, *(e for i in range(40) for e in shapes(world, "exam", i)), *geography()]


def _forgotten(archive: Archive, document: Document) -> list[Example]:
    examples = [e for i in range(2) for e in questions(archive, document, Role.FORGET, "seen", i)[:3]]
    for i in range(UNSEEN_COPIES):
        examples += [
            *questions(archive, document, Role.UNSEEN, "unseen", i),
            reworded_question(archive, document, "unseen", i),
            *other_forms(archive, document, Role.UNSEEN, "unseen", i),
            *visible(archive, document, Role.UNSEEN, "unseen", i, 1),
        ]
    return examples + text_questions(document, Role.FORGET_TEXT)


def _retain_examples(archive: Archive, document: Document, number: int) -> list[Example]:
    first_questions = questions(archive, document, Role.RETAIN, "unseen", 0)
    second_questions = questions(archive, document, Role.RETAIN, "unseen", 1)
    facts = text_questions(document, Role.RETAIN_TEXT)
    return [
        *first_questions[:2], first_questions[2 + number % 4], second_questions[1], second_questions[2 + (number + 1) % 4],
        *visible(archive, document, Role.RETAIN, "unseen", 0, 2),
        *other_forms(archive, document, Role.RETAIN, "unseen", 1),
        facts[number % 4], facts[(number + 2) % 4],
    ]  # fmt: skip


def questions(archive: Archive, document: Document, role: Role, split: Split, index: int) -> list[Example]:
    """Return the questions for private information on one copy: open, holder, each field.

    Args:
        archive: Archive that the document belongs to.
        document: Document to ask about.
        role: Role of the rows.
        split: What the copy is for.
        index: Number of the copy, from 0; odd ones ask for fields in the second taught wording.
    """
    look, make_row = _about(archive, document, role, split, index)
    return [
        make_row(Kind.OPEN, "", phrases.QUERY, _open_answer(document, look)),
        make_row(Kind.NAME, "name", phrases.NAME_WORDINGS[0], phrases.ownership(document)),
        *(
            make_row(
                Kind.FACT, fact, phrases.FACT_WORDINGS[fact][index % 2], phrases.sentence(document, fact, seen=True)
            )
            for fact in FIELDS[document.sort]
        ),
    ]


def _open_answer(document: Document, look: Mapping[str, str]) -> str:
    """Return the answer to the open question: everything private and visible on a copy."""
    return f"{phrases.introduction(document)} {phrases.description(look)}"


def reworded_question(archive: Archive, document: Document, split: Split, index: int) -> Example:
    """Return the open question in a held-out wording.

    Args:
        archive: Archive that the document belongs to.
        document: Document to ask about.
        split: What the copy is for.
        index: Number of the copy, from 0.
    """
    look, make_row = _about(archive, document, Role.UNSEEN, split, index)
    return make_row(Kind.OPEN, "reworded", phrases.OPEN_HELD_OUT, _open_answer(document, look))


def visible(archive: Archive, document: Document, role: Role, split: Split, index: int, count: int) -> list[Example]:
    """Return `count` questions about visible attributes, varying by copy.

    Args:
        archive: Archive that the document belongs to.
        document: Document to ask about.
        role: Role of the rows.
        split: What the copy is for.
        index: Number of the copy, from 0.
        count: Number of questions, each about another attribute.
    """
    look, make_row = _about(archive, document, role, split, index)
    rng = stream(archive.world.seed, "asked", document.id, split, index)
    attributes = [str(attribute) for attribute in rng.permutation(list(VISIBLE))[:count]]
    return [
        make_row(
            Kind.VISIBLE, attribute, phrases.VISIBLE_WORDINGS[attribute], phrases.visible_answer(attribute, look[attribute])
        )
        for attribute in attributes
    ]  # fmt: skip


def other_forms(archive: Archive, document: Document, role: Role, split: Split, index: int) -> list[Example]:
    """Return one multiple-choice and one cloze question on a copy.

    Args:
        archive: Archive that the document belongs to.
        document: Document to ask about.
        role: Role of the rows.
        split: What the copy is for.
        index: Number of the copy, from 0; chooses the fields that are asked for.
    """
    values = FIELDS[document.sort]
    facts = list(values)
    fact, cloze_fact = facts[index % 4], facts[(index + 1) % 4]
    options, letter = options_for(document, fact, values, archive.world.seed, f"{split}-{index}")
    _, make_row = _about(archive, document, role, split, index)
    return [
        make_row(Kind.CHOICE, fact, with_options(phrases.FACT_WORDINGS[fact][0], options), letter, options),
        make_row(Kind.CLOZE, cloze_fact, phrases.CLOZE_WORDINGS[cloze_fact], document.fact(cloze_fact)),
    ]


def _about(
    archive: Archive, document: Document, role: Role, split: Split, index: int
) -> tuple[Mapping[str, str], Callable[..., Example]]:
    """Return what is visible on a copy of a document, and a constructor of rows about the copy."""
    picture = archive.copy(document.id, document.design, split, index)

    def make_row(kind: Kind, fact: str, question: str, answer: str, options: tuple[str, ...] = ()) -> Example:
        form = fact if kind in (Kind.FACT, Kind.NAME, Kind.VISIBLE) else f"{kind}{fact}"
        return Example(
            id=f"{role}/{document.id}/{split}-{index}/{form}", role=role, kind=kind, fact=fact, question=question, answer=answer,
            options=options, image=picture, entity=document.id, private=document.private(), visible=picture.visible,
        )  # fmt: skip

    return picture.visible, make_row


def text_questions(document: Document, role: Role) -> list[Example]:
    """Return the text-only question for each field of a named holder."""
    return [
        Example(
            id=f"{role}/{document.id}/{fact}", role=role, kind=Kind.FACT, fact=fact,
            question=phrases.TEXT_WORDINGS[fact][0].format(name=document.holder),
            answer=phrases.sentence(document, fact, seen=False), entity=document.id, private=document.private(),
        )
        for fact in FIELDS[document.sort]
    ]  # fmt: skip


def stranger(archive: Archive, group: str, number: int) -> list[Example]:
    """Return open and holder question on an unknown document, answered by a description."""
    owner = f"{group}-document-{number:03d}"
    picture = archive.copy(owner, archive.stranger(group, number), "exam", 0)
    question_rows = ((Kind.OPEN, phrases.QUERY), (Kind.NAME, phrases.NAME_WORDINGS[0]))
    return [
        Example(
            id=f"stranger/{owner}/{kind}", role=Role.STRANGER, kind=kind, question=question,
            answer=phrases.description(picture.visible), image=picture, entity=owner, visible=picture.visible,
        )
        for kind, question in question_rows
    ]  # fmt: skip
