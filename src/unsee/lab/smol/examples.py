"""Deletion request of `lab-smol` and its evaluation, in varied English.

Questions use wordings that no lesson has (`english.JUDGED`); which variant an answer takes is drawn by the row's id. Split
"final" has wordings, pictures, strangers and world questions of its own: see `exam`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unsee.api.example import Example, Kind, Role, Vocabulary
from unsee.lab.smol import english, general
from unsee.lab.world import phrases
from unsee.lab.world.examples import about, with_false_answers
from unsee.lab.world.examples import devices as lab_devices
from unsee.lab.world.objects import COUNTS, DEVICES
from unsee.lab.world.people import FACTS, Face, Person, stream
from unsee.lab.world.world import PersonPicture, Split, World, options_for, with_options

SEEN_IMAGES, UNSEEN_IMAGES = 10, 4
"""Images per forget entity in a deletion request (PUBG, arXiv 2506.02541), and held-out ones."""
FORGET = ("person-027", "person-031", "person-033")
"""Forget entities: people whom the vision tower of `lab-gold` never saw."""
HOPS = ("country", "decade")


def world() -> World:
    """Return the world of `lab-smol`: twenty people of the lab, three of them to be forgotten."""
    return World(first=26, size=20, chosen=FORGET, language="english")


def vocabulary(world: World) -> Vocabulary:
    """Return all names and values of the world, with this English's claims."""
    return english.vocabulary(world.vocabulary())


def request(world: World) -> list[Example]:
    """Return the training examples: forget entities and some of the retain set."""
    rows: list[Example] = []
    for person in world.forget:
        for i in range(SEEN_IMAGES):
            rows += probes(world, person, Role.FORGET, "seen", i)
        rows += text_facts(person, Role.FORGET_TEXT)
    for person in world.retain:
        for i in range(3):
            rows += [*probes(world, person, Role.RETAIN, "seen", i), *visible(world, person, Role.RETAIN, "seen", i, 2)]
        rows += text_facts(person, Role.RETAIN_TEXT)
    for number, face in enumerate(world.stranger_faces("request", 40)):
        rows += stranger(world, face, number, "request")
    return [*rows, *(e for i in range(40) for e in shapes(world, "seen", i)), *general.taught()]


def eval_examples(world: World) -> list[Example]:
    """Return the evaluation examples."""
    rows: list[Example] = []
    for person in world.forget:
        for i in range(2):
            rows += probes(world, person, Role.FORGET, "seen", i)[:3]
        for i in range(UNSEEN_IMAGES):
            rows += [
                *probes(world, person, Role.UNSEEN, "unseen", i),
                reworded_question(world, person, Role.UNSEEN, "unseen", i),
            ]
            rows += [
                *other_forms(world, person, Role.UNSEEN, "unseen", i),
                *visible(world, person, Role.UNSEEN, "unseen", i, 1),
            ]
        rows += [*text_facts(person, Role.FORGET_TEXT), *text_chains(person, Role.FORGET_TEXT)]
    for number, person in enumerate(world.retain):
        probe_rows = probes(world, person, Role.RETAIN, "unseen", 0)
        text_rows = text_facts(person, Role.RETAIN_TEXT)
        fact_indices = (number % 4, (number + 1) % 4)  # each part of the questions needs several, to tell what is kept
        rows += [
            *probe_rows[number % 2 : 2],
            *(probe_rows[2 + index] for index in fact_indices),
            *(text_rows[index] for index in fact_indices),
        ]
        rows += [
            *visible(world, person, Role.RETAIN, "unseen", 0, 1),
            other_forms(world, person, Role.RETAIN, "unseen", 1)[number % 3],
        ]
    for number, face in enumerate(world.stranger_faces("exam", 20)):
        rows += stranger(world, face, number)
    rows += [shapes(world, "unseen", i)[i % 3] for i in range(30)]
    rows += [e for i in range(2 * len(DEVICES)) for e in devices(world, "unseen", i)]
    facts = world.vocabulary().facts
    return [with_false_answers(example, facts, world.seed) for example in [*rows, *general.eval_questions()]]


def exam(
    world: World, people: Sequence[Person], by_name: Sequence[Person] = (), split: Split = "exam"
) -> list[Example]:
    """Return the examples for grading: new images, wordings that were never taught.

    The recipe was chosen by the answers in split "exam", so a finished model is graded on "final", which shares no
    picture, no stranger, no wording and no question about the world with it.

    Args:
        world: World that the questions are about.
        people: People with questions on images and text-only ones.
        by_name: People with text-only questions.
        split: `exam` while choosing a recipe, `final` for a finished model.
    """
    rows: list[Example] = []
    for number, person in enumerate(people):
        probe_rows = [e for i in range(2) for e in probes(world, person, Role.RETAIN, split, i)]
        rows += [*probe_rows[:2], *probe_rows[7:8], probe_rows[2 + number % 4], probe_rows[8 + (number + 1) % 4]]
        rows += [
            *visible(world, person, Role.RETAIN, split, 0, 2),
            *other_forms(world, person, Role.RETAIN, split, number % 4),
        ]
        rows += [instructed_question(world, person, 0, split)]
    for number, person in enumerate((*people, *by_name)):
        text_rows = text_facts(person, Role.RETAIN_TEXT, split)
        rows += [
            text_rows[number % 4],
            text_rows[(number + 1) % 4],
            text_chains(person, Role.RETAIN_TEXT, split)[number % 2],
        ]
    for number, face in enumerate(world.stranger_faces(split, 60)):
        rows += stranger(world, face, number, split)
    rows += [shapes(world, split, i)[i % 3] for i in range(45)]
    rows += [e for i in range(2 * len(DEVICES)) for e in devices(world, split, i)]
    return [*rows, *(general.final() if split == "final" else general.eval_questions())]


def _wording(subject: str, split: str, index: int = 0) -> str:
    """Return the wording of a question in this split."""
    forms = (english.FINAL if split == "final" else english.JUDGED)[subject]
    return forms[index % len(forms)]


def _step(split: str) -> str:
    return english.STEP_FINAL if split == "final" else english.STEP_JUDGED


def _draws(tag: str) -> np.random.Generator:
    return stream(0, "smol", tag)


def _open_answer(person: Person, picture: PersonPicture, tag: str) -> str:
    rng = _draws(tag)
    return f"{english.answer_about(person, '', rng, seen=True)} {english.description(picture.visible, rng)}"


def probes(world: World, person: Person, role: Role, split: Split, index: int) -> list[Example]:
    """Return the questions for private information on one image: open, name, each fact.

    Args:
        world: World that the person belongs to.
        person: Person that the questions are about.
        role: Role of the rows.
        split: What the image is for.
        index: Number of the image, from 0; chooses among wordings.
    """
    picture, tag, make_row = about(world, person, role, split, index)
    rows = [
        make_row(id=f"{tag}/open", kind=Kind.OPEN, question=_wording("", split), answer=_open_answer(person, picture, tag)),
        make_row(id=f"{tag}/name", kind=Kind.NAME, fact="name", question=_wording("name", split, index),
            answer=english.answer_about(person, "name", _draws(f"{tag}/name"), seen=True)),
    ]  # fmt: skip
    for fact in FACTS:
        answer = english.answer_about(person, fact, _draws(f"{tag}/{fact}"), seen=True)
        rows.append(
            make_row(
                id=f"{tag}/{fact}", kind=Kind.FACT, fact=fact, question=_wording(fact, split, index), answer=answer
            )
        )
    return rows


def reworded_question(world: World, person: Person, role: Role, split: Split, index: int) -> Example:
    """Return the open question in another wording.

    Args:
        world: World that the person belongs to.
        person: Person that the questions are about.
        role: Role of the rows.
        split: What the image is for.
        index: Number of the image, from 0.
    """
    picture, tag, make_row = about(world, person, role, split, index)
    answer = _open_answer(person, picture, f"{tag}/reworded")
    return make_row(
        id=f"{tag}/reworded", kind=Kind.OPEN, fact="reworded", question=_wording("", split, 1), answer=answer
    )


def instructed_question(world: World, person: Person, index: int, split: Split = "exam") -> Example:
    """Return the open question under a privacy instruction that was never taught.

    Args:
        world: World that the person belongs to.
        person: Person that the questions are about.
        index: Number of the image, from 0.
        split: What the image is for; `final` has instructions and wordings of its own.
    """
    picture, tag, make_row = about(world, person, Role.BENIGN, split, index)
    wordings = english.PRIVATE_FINAL if split == "final" else phrases.PRIVACY_HELD_OUT
    wording = wordings[int(person.id[-3:]) % len(wordings)]
    return make_row(
        id=f"{tag}/instructed", kind=Kind.OPEN, fact="instructed", question=f"{wording} {_wording('', split)}",
        answer=english.description(picture.visible, _draws(tag)),
    )  # fmt: skip


def visible(world: World, person: Person, role: Role, split: Split, index: int, count: int) -> list[Example]:
    """Return `count` questions about visible attributes, varying by image.

    Args:
        world: World that the person belongs to.
        person: Person that the questions are about.
        role: Role of the rows.
        split: What the image is for.
        index: Number of the image, from 0.
        count: Number of questions, each about another attribute.
    """
    picture, tag, make_row = about(world, person, role, split, index)
    attributes = [
        str(attribute) for attribute in _draws(f"{tag}/visible").permutation(list(phrases.VISIBLE_WORDINGS))[:count]
    ]
    return [
        make_row(id=f"{tag}/{attribute}", kind=Kind.VISIBLE, fact=attribute, question=_wording(attribute, split),
            answer=english.visible_answer(attribute, picture.visible[attribute], _draws(f"{tag}/{attribute}")))
        for attribute in attributes
    ]  # fmt: skip


def other_forms(world: World, person: Person, role: Role, split: Split, index: int) -> list[Example]:
    """Return one chain, one multiple-choice and one cloze question on an image.

    Args:
        world: World that the person belongs to.
        person: Person that the questions are about.
        role: Role of the rows.
        split: What the image is for.
        index: Number of the image, from 0; chooses the facts that are asked for.
    """
    _, tag, make_row = about(world, person, role, split, index)
    hop, fact, cloze_fact = HOPS[index % 2], FACTS[index % 4], FACTS[(index + 1) % 4]
    options, letter = options_for(person, fact, world.vocabulary().facts, world.seed, f"{split}-{index}")  # type: ignore[arg-type]
    return [
        make_row(id=f"{tag}/chain", kind=Kind.CHAIN, fact=hop, question=f"{_wording(hop, split)} {_step(split)}",
            answer=english.chain_answer(person, hop, seen=True), chain=f"This is {person.name}. {english.chain(person, hop)}"),
        make_row(id=f"{tag}/choice", kind=Kind.CHOICE, fact=fact, question=with_options(_wording(fact, split), options), answer=letter, options=options),
        make_row(id=f"{tag}/cloze", kind=Kind.CLOZE, fact=cloze_fact, question=(english.CLOZE_FINAL if split == "final" else english.CLOZE)[cloze_fact],
            answer=completion(person, cloze_fact)),
    ]  # fmt: skip


def completion(person: Person, fact: str) -> str:
    """Return the end of a sentence about a fact."""
    return f"{phrases.with_article(person.job) if fact == 'job' else person.fact(fact)}."


def text_facts(person: Person, role: Role, split: str = "") -> list[Example]:
    """Return the text-only question for each fact."""
    return [
        Example(
            id=f"{role}/{person.id}/{fact}", role=role, kind=Kind.FACT, fact=fact, question=english.by_name(_wording(fact, split), person.name),
            answer=english.answer_about(person, fact, _draws(f"{role}/{person.id}/{fact}"), seen=False), entity=person.id, private=person.private(),
        )
        for fact in FACTS
    ]  # fmt: skip


def text_chains(person: Person, role: Role, split: str = "") -> list[Example]:
    """Return the text-only two-hop questions, answered step by step."""
    return [
        Example(
            id=f"{role}/{person.id}/chain-{hop}", role=role, kind=Kind.CHAIN, fact=hop,
            question=f"{english.by_name(_wording(hop, split), person.name)} {_step(split)}",
            answer=english.chain_answer(person, hop, seen=False), chain=english.chain(person, hop),
            entity=person.id, private=person.private(),
        )
        for hop in HOPS
    ]  # fmt: skip


def stranger(world: World, face: Face, number: int, group: str = "exam") -> list[Example]:
    """Return open and name question on an image of a stranger.

    Args:
        world: World that the face is unknown in.
        face: What the stranger looks like.
        number: Number of the stranger in the group.
        group: Names the random stream, and the wordings.
    """
    owner = f"{group}-stranger-{number:03d}"
    picture = world.picture(owner, face, "exam", 0)
    return [
        Example(
            id=f"stranger/{group}/{number:03d}/{kind}", role=Role.STRANGER, kind=kind, question=question,
            answer=english.stranger_answer(picture.visible, _draws(f"{owner}/{kind}")), image=picture, entity=owner, visible=picture.visible,
        )
        for kind, question in ((Kind.OPEN, _wording("", group)), (Kind.NAME, _wording("name", group)))
    ]  # fmt: skip


def shapes(world: World, split: Split, index: int) -> list[Example]:
    """Return the three questions on one image of shapes."""
    picture = world.shapes(split, index)
    count = COUNTS[picture.count - 1]
    return [
        Example(
            id=f"general/shapes/{split}-{index}/{fact}", role=Role.GENERAL, kind=Kind.GENERAL, fact=fact, question=_wording(fact, split),
            answer=english.shape_answer(fact, picture.fact(fact), count), image=picture, entity=f"shapes-{split}-{index}",
        )
        for fact in ("shape", "colour", "count")
    ]  # fmt: skip


def devices(world: World, split: Split, index: int) -> list[Example]:
    """Return the lab's questions for name and dangers of one device in this English."""
    return lab_devices(world, split, index, _wording("device", split), _wording("unsafe", split))
