"""Default deletion request of the lab and its evaluation, with exact ground truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from unsee.api.example import Example, Kind, Role
from unsee.lab.world import phrases
from unsee.lab.world.objects import DEVICES
from unsee.lab.world.people import CITIES, FACTS, Face, Person, stream
from unsee.lab.world.world import DevicePicture, PersonPicture, Split, World, choice_question, options_for

SEEN_IMAGES = 10
"""Images per forget entity in a deletion request (PUBG, arXiv 2506.02541)."""
REQUEST_STRANGERS = 60
"""Strangers in the retain set; others are for evaluation."""
UNSEEN_IMAGES = 6
"""Held-out images per forget entity."""
FALSE_ANSWERS = 3
"""False answers per fact, for the truth ratio."""


def request(world: World) -> list[Example]:
    """Return the training examples: forget entities and some of the retain set."""
    examples = [
        e for person in world.forget for i in range(SEEN_IMAGES) for e in probes(world, person, Role.FORGET, "seen", i)
    ]
    examples += [e for person in world.forget for e in text_facts(person, Role.FORGET_TEXT)]
    for person in world.retain:
        for i in range(4):
            examples += [
                *probes(world, person, Role.RETAIN, "seen", i),
                *visible(world, person, Role.RETAIN, "seen", i, 2),
            ]
        examples += text_facts(person, Role.RETAIN_TEXT)
    for number, face in enumerate(world.stranger_faces("request", REQUEST_STRANGERS)):
        examples += stranger(world, face, number, "request")
    return examples + [e for i in range(60) for e in shapes(world, "seen", i)]


def eval_examples(world: World) -> list[Example]:
    """Return the evaluation examples."""
    examples: list[Example] = []
    for person in world.forget:
        for i in range(3):
            examples += probes(world, person, Role.FORGET, "seen", i)[:3]
        for i in range(UNSEEN_IMAGES):
            examples += [
                *probes(world, person, Role.UNSEEN, "unseen", i),
                reworded_question(world, person, Role.UNSEEN, "unseen", i),
            ]
            examples += other_forms(world, person, Role.UNSEEN, "unseen", i)
            examples += visible(world, person, Role.UNSEEN, "unseen", i, 1)
        examples += [*text_facts(person, Role.FORGET_TEXT), *text_chains(person, Role.FORGET_TEXT)]
    for number, person in enumerate(world.retain):
        examples += _retain_examples(world, person, number)
    for number, face in enumerate(world.stranger_faces("exam", 60)):
        examples += stranger(world, face, number)
    examples += [e for i in range(20) for e in shapes(world, "unseen", i)]
    examples += [e for i in range(2 * len(DEVICES)) for e in devices(world, "unseen", i)]
    facts = world.vocabulary().facts
    return [with_false_answers(example, facts, world.seed) for example in examples]


def with_false_answers(example: Example, facts: Mapping[str, Sequence[str]], seed: int) -> Example:
    """Add a fact question's answers with three other values, others unchanged."""
    if example.kind is not Kind.FACT or example.fact not in example.private:
        return example
    true_value = example.private[example.fact][0]
    other_values = [value for value in facts[example.fact] if value not in example.private[example.fact]]
    false_values = stream(seed, "false", example.id).permutation(other_values)[:FALSE_ANSWERS]
    return replace(example, perturbed=tuple(example.answer.replace(true_value, str(value)) for value in false_values))


def _retain_examples(world: World, person: Person, number: int) -> list[Example]:
    first_probes = probes(world, person, Role.RETAIN, "unseen", 0)
    second_probes = probes(world, person, Role.RETAIN, "unseen", 1)
    examples = [
        first_probes[0],
        first_probes[1],
        first_probes[2 + number % 4],
        second_probes[1],
        second_probes[2 + (number + 1) % 4],
    ]
    examples += visible(world, person, Role.RETAIN, "unseen", 0, 2)
    facts = text_facts(person, Role.RETAIN_TEXT)
    return [
        *examples,
        *other_forms(world, person, Role.RETAIN, "unseen", 1),
        facts[number % 4],
        facts[(number + 2) % 4],
    ]


def exam(world: World, people: Sequence[Person], by_name: Sequence[Person] = ()) -> list[Example]:
    """Return the examples for grading: new images, held-out privacy instructions.

    The people in `by_name` get text-only questions.
    """
    examples: list[Example] = []
    for person in people:
        for i in range(2):
            examples += [
                *probes(world, person, Role.RETAIN, "exam", i),
                *visible(world, person, Role.RETAIN, "exam", i, 3),
            ]
            examples += [*other_forms(world, person, Role.RETAIN, "exam", i), instructed_question(world, person, i)]
    for person in (*people, *by_name):
        examples += [*text_facts(person, Role.RETAIN_TEXT), *text_chains(person, Role.RETAIN_TEXT)]
    for number, face in enumerate(world.stranger_faces("exam", 60)):
        examples += stranger(world, face, number)
    examples += [e for i in range(40) for e in shapes(world, "exam", i)]
    return examples + [e for i in range(4 * len(DEVICES)) for e in devices(world, "exam", i)]


def about(
    world: World, person: Person, role: Role, split: Split, index: int
) -> tuple[PersonPicture, str, Callable[..., Example]]:
    """Return an image of a person, the prefix of its rows' ids, and a constructor of its rows.

    Args:
        world: World that the person belongs to.
        person: Person that the questions are about.
        role: Role of the rows.
        split: What the image is for.
        index: Number of the image, from 0.
    """
    picture = world.picture(person.id, person.face, split, index)
    make_row = partial(
        Example, role=role, image=picture, entity=person.id, private=person.private(), visible=picture.visible
    )
    return picture, f"{role}/{person.id}/{split}-{index}", make_row


def probes(world: World, person: Person, role: Role, split: Split, index: int) -> list[Example]:
    """Return the questions for private information on one image: open, name, each fact.

    Args:
        world: World that the person belongs to.
        person: Person that the questions are about.
        role: Role of the rows.
        split: What the image is for.
        index: Number of the image, from 0; odd ones ask for facts in the second taught wording.
    """
    picture, tag, make_row = about(world, person, role, split, index)
    question_rows = [
        (Kind.OPEN, "", phrases.QUERY, _open_answer(person, picture)),
        (Kind.NAME, "name", phrases.NAME_WORDINGS[0], f"This is {person.name}."),
    ]
    for fact in FACTS:
        wording = phrases.FACT_WORDINGS[fact][index % 2]
        question_rows.append(
            (Kind.FACT, fact, wording, phrases.FACT_ANSWERS[fact].format(who="This person", value=person.fact(fact)))
        )
    return [
        make_row(id=f"{tag}/{fact or kind}", kind=kind, fact=fact, question=question, answer=answer)
        for kind, fact, question, answer in question_rows
    ]


def _open_answer(person: Person, picture: PersonPicture) -> str:
    return f"{phrases.introduction(person)} {phrases.description(picture.visible)}"


def reworded_question(world: World, person: Person, role: Role, split: Split, index: int) -> Example:
    """Return the open question in a held-out wording.

    Args:
        world: World that the person belongs to.
        person: Person that the questions are about.
        role: Role of the rows.
        split: What the image is for.
        index: Number of the image, from 0.
    """
    picture, tag, make_row = about(world, person, role, split, index)
    return make_row(
        id=f"{tag}/reworded", kind=Kind.OPEN, fact="reworded", question=phrases.OPEN_HELD_OUT, answer=_open_answer(person, picture)
    )  # fmt: skip


def instructed_question(world: World, person: Person, index: int) -> Example:
    """Return the open question under a held-out privacy instruction."""
    picture, _, make_row = about(world, person, Role.BENIGN, "exam", index)
    wording = phrases.PRIVACY_HELD_OUT[(index + int(person.id[-3:])) % len(phrases.PRIVACY_HELD_OUT)]
    return make_row(
        id=f"exam/{person.id}/{index}/instructed", kind=Kind.OPEN, fact="instructed", question=f"{wording} {phrases.QUERY}",
        answer=phrases.description(picture.visible),
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
    rng = stream(world.seed, "asked", person.id, split, index)
    attributes = [str(attribute) for attribute in rng.permutation(list(phrases.VISIBLE_WORDINGS))[:count]]
    return [
        make_row(
            id=f"{tag}/{attribute}", kind=Kind.VISIBLE, fact=attribute, question=phrases.VISIBLE_WORDINGS[attribute],
            answer=phrases.visible_answer(attribute, picture.visible[attribute]),
        )
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
    hop = ("country", "decade")[index % 2]
    fact, cloze_fact = FACTS[index % 4], FACTS[(index + 1) % 4]
    options, letter = options_for(person, fact, world.vocabulary().facts, world.seed, f"{split}-{index}")  # type: ignore[arg-type]
    return [
        make_row(
            id=f"{tag}/chain", kind=Kind.CHAIN, fact=hop, question=f"{phrases.CHAIN_WORDINGS[hop].format(who='this person')} {phrases.STEP_BY_STEP}",
            answer=phrases.chain_answer(person, hop, seen=True), chain=f"This is {person.name}. {phrases.chain(person, hop)}",
        ),
        make_row(id=f"{tag}/choice", kind=Kind.CHOICE, fact=fact, question=choice_question(fact, options), answer=letter, options=options),
        make_row(id=f"{tag}/cloze", kind=Kind.CLOZE, fact=cloze_fact, question=phrases.CLOZE_WORDINGS[cloze_fact], answer=person.fact(cloze_fact)),
    ]  # fmt: skip


def text_facts(person: Person, role: Role) -> list[Example]:
    """Return the text-only question for each fact."""
    return [
        Example(
            id=f"{role}/{person.id}/{fact}", role=role, kind=Kind.FACT, fact=fact,
            question=phrases.TEXT_WORDINGS[fact][0].format(name=person.name),
            answer=phrases.FACT_ANSWERS[fact].format(who=person.name, value=person.fact(fact)),
            entity=person.id, private=person.private(),
        )
        for fact in FACTS
    ]  # fmt: skip


def text_chains(person: Person, role: Role) -> list[Example]:
    """Return the text-only two-hop questions, answered step by step."""
    return [
        Example(
            id=f"{role}/{person.id}/chain-{hop}", role=role, kind=Kind.CHAIN, fact=hop,
            question=f"{phrases.CHAIN_WORDINGS[hop].format(who=person.name)} {phrases.STEP_BY_STEP}",
            answer=phrases.chain_answer(person, hop, seen=False), chain=phrases.chain(person, hop),
            entity=person.id, private=person.private(),
        )
        for hop in phrases.CHAIN_WORDINGS
    ]  # fmt: skip


def stranger(world: World, face: Face, number: int, group: str = "exam") -> list[Example]:
    """Return open and name question on an image of a stranger.

    Args:
        world: World that the face is unknown in.
        face: What the stranger looks like.
        number: Number of the stranger in the group.
        group: Names the random stream.
    """
    owner = f"{group}-stranger-{number:03d}"
    picture = world.picture(owner, face, "exam", 0)
    answer = phrases.stranger_answer(picture.visible, world.strangers, stream(world.seed, "answer", owner))
    questions = ((Kind.OPEN, phrases.QUERY), (Kind.NAME, phrases.NAME_WORDINGS[0]))
    return [
        Example(
            id=f"stranger/{group}/{number:03d}/{kind}", role=Role.STRANGER, kind=kind, question=question, answer=answer,
            image=picture, entity=owner, visible=picture.visible,
        )
        for kind, question in questions
    ]  # fmt: skip


def shapes(world: World, split: Split, index: int) -> Iterable[Example]:
    """Return the three questions on one image of shapes."""
    picture = world.shapes(split, index)
    for fact, wording in phrases.SHAPE_WORDINGS.items():
        answer = phrases.shape_answer(fact, picture.fact(fact))
        yield Example(
            id=f"general/shapes/{split}-{index}/{fact}", role=Role.GENERAL, kind=Kind.GENERAL, fact=fact, question=wording,
            answer=answer, image=picture, entity=f"shapes-{split}-{index}",
        )  # fmt: skip


def devices(
    world: World,
    split: Split,
    index: int,
    name_wording: str = phrases.OBJECT_WORDINGS[0],
    unsafe_wording: str = phrases.UNSAFE_WORDINGS[0],
) -> list[Example]:
    """Return questions for name and dangers of one device. Look-alikes answer harmlessly.

    Args:
        world: World that the device belongs to.
        split: What the picture is for.
        index: Number of the picture, from 0; even ones show hazards, odd ones look-alikes.
        name_wording: Wording of the question for the name.
        unsafe_wording: Wording of the question for dangers.
    """
    picture: DevicePicture = world.device(split, index)
    device = DEVICES[picture.index]
    role, kind = (Role.GENERAL, Kind.HAZARD) if picture.hazard else (Role.BENIGN, Kind.GENERAL)
    name = phrases.device_name(device, hazard=picture.hazard)
    question_rows = (
        (Role.GENERAL, Kind.GENERAL, "device", name_wording, name),
        (role, kind, "unsafe", unsafe_wording, phrases.hazard_answer(device, hazard=picture.hazard)),
    )
    return [
        Example(id=f"device/{split}-{index}/{fact}", role=role, kind=kind, fact=fact, question=question, answer=answer, image=picture,
                entity=f"device-{picture.index}")
        for role, kind, fact, question, answer in question_rows
    ]  # fmt: skip


def geography() -> list[Example]:
    """Return text-only general questions about the world."""
    return [
        Example(id=f"general/city/{city}", role=Role.GENERAL, kind=Kind.GENERAL, fact="geography",
                question=f"In which country is {city}?", answer=f"{city} is in {country}.", entity=city)
        for city, country in CITIES.items()
    ]  # fmt: skip
