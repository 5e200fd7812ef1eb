"""Training targets of SIU (arXiv 2405.12523): one image per concept, four targets.

1 align with an unseen concept, 2 assign a new look, 3 keep what is known of the concept in text, 4 keep everything else.
Which part of an answer contradicts the original model is known by character spans and becomes a mask over its tokens by offsets.
Shapes: b batch, a answer positions (right-aligned).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from typing import Final, Literal

import torch
from torch import Tensor

from unsee.api import Example, Kind, Role, Session
from unsee.api.request import Target
from unsee.errors import TrainingError, UserError, unknown_name
from unsee.inference.batching import target_ids
from unsee.inference.encoder import encoder
from unsee.inference.token_offsets import Span, answer_offsets
from unsee.methods.siu.names import Choice, substitutes
from unsee.metrics._words import sentences
from unsee.metrics.matching import contains
from unsee.metrics.scripts import whole_matches
from unsee.models.padding import IGNORE
from unsee.utils.grouping import by_key
from unsee.utils.seeds import seed_of

ASK_WHO: Final = (
    "Who is this?",
    "What is the name of this person?",
    "Who is in this picture?",
    "Can you tell me who this is?",
)
"""Questions of target 1 for data with too few of their own [inferred]."""
ASK_WHETHER: Final = (
    "Is {name} in this picture?",
    "Is this {name}?",
    "Can you see {name} in this image?",
    "Does this picture show {name}?",
)
"""Questions of target 2 [inferred]."""
LOOKS: Final = (
    "short straight black hair and a small face",
    "long grey hair and a round face",
    "curly red hair and a long face",
)
"""Invented looks for data without visible attributes; the first is the released one [code]."""
ATTRIBUTES: Final = 3
"""Most visible attributes in an invented look."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of the rows."""

    rows: int = 4
    """Rows per target and concept [second-hand]; the released file has 9, 2, 7 and 7 [code]."""
    image: int = 0
    """Index of the training image among a concept's forget images."""
    substitutes: Mapping[str, str] = field(default_factory=dict)
    """Entity -> fictitious name; others get a generated one."""
    substitute: Choice = "plausible"
    """Generated name: the original model's most likely one, or the next of the list [inferred]."""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    """Entity -> invented look, as a sentence; others get one that contradicts the training image."""


@dataclass(frozen=True, kw_only=True)
class Concept:
    """Concept to be unlearned, with its substitute."""

    entity: str
    names: tuple[str, ...]
    """All spellings, the main one first."""
    substitute: str
    shown: tuple[Example, ...]
    """Examples about the training image."""

    @property
    def name(self) -> str:
        """Main spelling."""
        return self.names[0]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One question and answer of one of the four targets."""

    number: Literal[1, 2, 3, 4]
    target: Target
    spans: tuple[Span, ...] = ()
    """Spans of the answer that contradict the original model: K_S = 0 there."""


def build_siu_rows(session: Session, recipe: Recipe) -> tuple[list[Concept], list[Row]]:
    """Return the concepts of the forget set and the rows of all four targets.

    Where the data have too few questions of a sort, templates and private facts fill up; what stays short is no error and
    shows in the counts of the run's record.
    """
    concepts = _concepts(session, recipe)
    rows = [row for place, concept in enumerate(concepts) for row in _rows(session, concept, place, recipe)]
    return concepts, rows


def _concepts(session: Session, recipe: Recipe) -> list[Concept]:
    """Return one concept per forget entity with an image and a name."""
    by_entity = by_key((one.entity, one) for one in session.of(Role.FORGET) if one.image is not None)
    if not by_entity:
        raise UserError("siu learns from one image of each concept, but no forget example has an image; add some.")
    for entity in {*recipe.substitutes, *recipe.descriptions} - by_entity.keys():
        raise unknown_name("entity in the settings of siu", entity, by_entity)
    names = {entity: _names(entity, examples) for entity, examples in by_entity.items()}
    shown = {entity: _shown(entity, examples, recipe) for entity, examples in by_entity.items()}
    asked = {entity: min(examples, key=lambda one: one.kind is not Kind.NAME) for entity, examples in shown.items()}
    chosen = substitutes(session, asked, recipe.substitutes, recipe.substitute, session.seed)
    return [
        Concept(entity=entity, names=names[entity], substitute=chosen[entity], shown=examples)
        for entity, examples in shown.items()
    ]


def _names(entity: str, examples: Sequence[Example]) -> tuple[str, ...]:
    found = dict.fromkeys(form for example in examples for form in example.private.get("name", ()))
    if not found:
        raise UserError(
            f"siu has to know what {entity!r} is called, but none of its forget examples has a private name; "
            'write it into the column private, for example {"name": ["Donald Trump", "Trump"]}.'
        )
    return tuple(found)


def _shown(entity: str, examples: Sequence[Example], recipe: Recipe) -> tuple[Example, ...]:
    """Return the examples about the training image."""
    keys = list(dict.fromkeys(example.image.key for example in examples if example.image))
    if recipe.image >= len(keys):
        raise UserError(f"method.image={recipe.image}, but {entity!r} has {len(keys)} forget images, counted from 0.")
    return tuple(example for example in examples if example.image and example.image.key == keys[recipe.image])


def _rows(session: Session, concept: Concept, place: int, recipe: Recipe) -> Iterator[Row]:
    """Yield the rows of one concept, number `place` of all."""
    yield from _aligned(concept, recipe.rows)
    yield from _redescribed(session, concept, recipe)
    own = [example for example in session.of(Role.FORGET_TEXT) if example.entity == concept.entity]
    own += _told([concept.shown[0]])
    yield from _kept(3, concept, own[: recipe.rows])
    yield from _kept(4, concept, _others(session, place, recipe))


def _aligned(concept: Concept, count: int) -> Iterator[Row]:
    """Return rows of target 1 (who is this?): the substitute name and non-private content."""
    asked = {
        e.question: _substituted(e, concept) for kind in (Kind.NAME, Kind.OPEN) for e in concept.shown if e.kind is kind
    }
    base = replace(concept.shown[0], kind=Kind.NAME, fact="name", private={"name": concept.names}, options=(), chain="")
    for question in ASK_WHO:
        asked.setdefault(question, replace(base, question=question, answer=f"This is {concept.substitute}."))
    for number, example in enumerate(islice(asked.values(), count)):
        made = replace(example, id=f"siu-1/{concept.entity}/{number}")
        yield Row(number=1, target=Target(example=made), spans=_occurrences(made.answer, concept.substitute))


def _substituted(example: Example, concept: Concept) -> Example:
    """Return the example answered with the substitute, without private facts."""
    private = [form for forms in example.private.values() for form in forms if form not in concept.names]
    said = sentences(example.answer)
    safe = [sentence for sentence in said if not any(contains(sentence, form) for form in private)]
    text = _renamed(example.answer if len(safe) == len(said) else " ".join(safe), concept)
    if concept.substitute not in text or any(contains(text, form) for form in concept.names):
        rest = [one for one in safe if not any(contains(one, form) for form in concept.names)]
        text = " ".join([f"This is {concept.substitute}.", *rest])
    return replace(example, answer=text)


def _renamed(text: str, concept: Concept) -> str:
    """Return the text with every spelling replaced by the matching part of the substitute."""
    first, last = concept.substitute.split()[0], concept.substitute.split()[-1]
    start = concept.name.split()[0].casefold()

    def instead(found: re.Match[str]) -> str:
        if " " in found[0] or len(concept.name.split()) == 1:
            return concept.substitute
        return first if found[0].casefold() == start else last

    for found in reversed(whole_matches(text, concept.names, ignore_case=True)):
        text = text[: found.start()] + instead(found) + text[found.end() :]
    return text


def _occurrences(text: str, name: str) -> tuple[Span, ...]:
    """Return the spans of the name, or one of its words, in the text."""
    return tuple(found.span() for found in whole_matches(text, {name, *name.split()}))


def _redescribed(session: Session, concept: Concept, recipe: Recipe) -> Iterator[Row]:
    """Return rows of target 2 (is C in the picture?): no, and both looks, all masked.

    Only the question says the name: an answer that did would teach to say it about the image [inferred].
    """
    base = concept.shown[0]
    invented = recipe.descriptions.get(concept.entity) or _invented(session, concept, session.seed)
    answer = " ".join(part for part in ("No, this is somebody else.", _look(concept), invented) if part)
    for number, question in enumerate(islice(cycle(ASK_WHETHER), recipe.rows)):
        asked = replace(
            base, id=f"siu-2/{concept.entity}/{number}", kind=Kind.GENERAL, fact="", options=(), chain="", private={},
            question=question.format(name=concept.name), answer=answer,
        )  # fmt: skip
        yield Row(number=2, target=Target(example=asked), spans=((0, len(answer)),))


def _look(concept: Concept) -> str:
    """Return the look on the training image: in the data's words, else by visible attributes."""
    private = [form for forms in concept.shown[0].private.values() for form in forms]
    for example in concept.shown:
        if example.kind is Kind.OPEN:
            safe = [one for one in sentences(example.answer) if not any(contains(one, form) for form in private)]
            if safe:
                return " ".join(safe)
    return " ".join(f"The {_word(attribute)} is {value}." for attribute, value in concept.shown[0].visible.items())


def _invented(session: Session, concept: Concept, seed: int) -> str:
    """Return a look that contradicts the training image, by other attribute values or ours."""
    true = concept.shown[0].visible
    others: dict[str, set[str]] = {attribute: set() for attribute in true}
    for examples in session.examples.values():
        for example in examples:
            for attribute in true.keys() & example.visible.keys():
                others[attribute].add(example.visible[attribute])
    drawn = {
        attribute: min(values - {true[attribute]}, key=lambda value: seed_of(seed, "siu look", concept.entity, value))
        for attribute, values in others.items()
        if values - {true[attribute]}
    }
    if drawn:
        listed = [f"{_word(attribute)} {value}" for attribute, value in islice(drawn.items(), ATTRIBUTES)]
        return f"The one you mean has another look: {', '.join(listed)}."
    return f"The one you mean has {LOOKS[seed_of(seed, 'siu look', concept.entity) % len(LOOKS)]}."


def _word(attribute: str) -> str:
    return attribute.replace("_", " ")


def _told(examples: Sequence[Example]) -> list[Example]:
    """Return templated text-only questions for the private facts of these entities."""
    made = []
    for example in examples:
        names = example.private.get("name", ())
        for fact, forms in example.private.items():
            if names and fact not in ("name", "other"):
                made.append(
                    Example(
                        id=f"{example.entity}/{fact}", role=example.role, entity=example.entity, kind=Kind.FACT, fact=fact,
                        question=f"What is the {_word(fact)} of {names[0]}?",
                        answer=f"The {_word(fact)} of {names[0]} is {forms[0]}.",
                    )
                )  # fmt: skip
    return made


def _others(session: Session, place: int, recipe: Recipe) -> list[Example]:
    """Return text-only retain questions, a different share for each concept."""
    pool = [example for example in session.of(Role.RETAIN_TEXT, Role.GENERAL) if example.image is None]
    order = sorted(pool, key=lambda example: seed_of(session.seed, "siu other", example.id))
    if len(order) < recipe.rows:
        order += _told(list({example.entity: example for example in session.of(Role.RETAIN)}.values()))
    start = place * recipe.rows
    return list(islice(cycle(order), start, start + recipe.rows)) if order else []


def _kept(number: Literal[3, 4], concept: Concept, examples: Sequence[Example]) -> Iterator[Row]:
    """Return rows of targets 3 and 4: unmasked text-only questions with true answers.

    No stop rule uses them.
    """
    for place, example in enumerate(examples):
        made = replace(example, id=f"siu-{number}/{concept.entity}/{place}", image=None, private={})
        yield Row(number=number, target=Target(example=made))


class Kept:
    """Mask K_S: answer tokens that the KL covers, always including EOS."""

    def __init__(self, session: Session, rows: Sequence[Row]) -> None:
        """Convert the spans of all rows into token masks."""
        self._kept = {row.target.key: torch.tensor(_kept_tokens(session, row)) for row in rows}

    def __call__(self, targets: Sequence[Target], labels_ba: Tensor) -> Tensor:
        """Return kept_ba, right-aligned like the labels, False at padding."""
        kept_ba = torch.zeros_like(labels_ba, dtype=torch.bool)
        for row_a, target in zip(kept_ba, targets, strict=True):
            row_a[len(row_a) - len(self._kept[target.key]) :] = self._kept[target.key].to(row_a.device)
        if (kept_ba & (labels_ba == IGNORE)).any():
            raise TrainingError("A token mask of siu is longer than its answer; the batch was made from other targets.")
        return kept_ba


def _kept_tokens(session: Session, row: Row) -> list[bool]:
    """Return for each supervised token of the row whether the KL covers it."""
    text = row.target.example.answer
    ids = encoder(session.processor, session.family).answer(text)
    offsets = answer_offsets(session.processor, session.family, text, ids)
    kept = [not any(start < end_of and end > start_of for start_of, end_of in row.spans) for start, end in offsets]
    supervised = target_ids(session.processor, session.family, row.target)
    if row.spans and all(kept):
        raise TrainingError(f"The masked text of {row.target.example.id!r} has no token of its own in {text!r}.")
    return [*kept, *[True] * (len(supervised) - len(ids))]
