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
from unsee.inference.token_offsets import Span, tokens_within
from unsee.losses import IGNORE
from unsee.methods.siu.names import Choice, substitutes
from unsee.metrics._words import sentences
from unsee.metrics.matching import contains
from unsee.metrics.scripts import whole_matches
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

    Where the data have too few questions of a sort, templates and private facts fill up; too few rows are
    no error: the record of the run has their counts.
    """
    concepts = _concepts(session, recipe)
    rows = [row for index, concept in enumerate(concepts) for row in _rows(session, concept, index, recipe)]
    return concepts, rows


def _concepts(session: Session, recipe: Recipe) -> list[Concept]:
    """Return one concept per forget entity with an image and a name."""
    examples_by_entity = by_key(
        (example.entity, example) for example in session.of(Role.FORGET) if example.image is not None
    )
    if not examples_by_entity:
        raise UserError("siu learns from one image of each concept, but no forget example has an image; add some.")
    for entity in {*recipe.substitutes, *recipe.descriptions} - examples_by_entity.keys():
        raise unknown_name("entity in the settings of siu", entity, examples_by_entity)
    names = {entity: _names(entity, examples) for entity, examples in examples_by_entity.items()}
    training_examples = {
        entity: _image_examples(entity, examples, recipe) for entity, examples in examples_by_entity.items()
    }
    name_questions = {
        entity: min(examples, key=lambda example: example.kind is not Kind.NAME)
        for entity, examples in training_examples.items()
    }
    substitute_names = substitutes(session, name_questions, recipe.substitutes, recipe.substitute, session.seed)
    return [
        Concept(entity=entity, names=names[entity], substitute=substitute_names[entity], shown=examples)
        for entity, examples in training_examples.items()
    ]


def _names(entity: str, examples: Sequence[Example]) -> tuple[str, ...]:
    names = dict.fromkeys(form for example in examples for form in example.private.get("name", ()))
    if not names:
        raise UserError(
            f"siu has to know what {entity!r} is called, but none of its forget examples has a private name; "
            'write it into the column private, for example {"name": ["Donald Trump", "Trump"]}.'
        )
    return tuple(names)


def _image_examples(entity: str, examples: Sequence[Example], recipe: Recipe) -> tuple[Example, ...]:
    """Return the examples about the training image."""
    keys = list(dict.fromkeys(example.image.key for example in examples if example.image))
    if recipe.image >= len(keys):
        raise UserError(f"method.image={recipe.image}, but {entity!r} has {len(keys)} forget images, counted from 0.")
    return tuple(example for example in examples if example.image and example.image.key == keys[recipe.image])


def _rows(session: Session, concept: Concept, index: int, recipe: Recipe) -> Iterator[Row]:
    """Yield the rows of the concept at this index."""
    yield from _name_rows(concept, recipe.rows)
    yield from _description_rows(session, concept, recipe)
    text_questions = [example for example in session.of(Role.FORGET_TEXT) if example.entity == concept.entity]
    text_questions += _fact_questions([concept.shown[0]])
    yield from _text_rows(3, concept, text_questions[: recipe.rows])
    yield from _text_rows(4, concept, _others(session, index, recipe))


def _name_rows(concept: Concept, count: int) -> Iterator[Row]:
    """Return rows of target 1 (who is this?): the substitute name and non-private content."""
    examples_by_question = {
        example.question: _with_substitute(example, concept)
        for kind in (Kind.NAME, Kind.OPEN)
        for example in concept.shown
        if example.kind is kind
    }
    base = replace(concept.shown[0], kind=Kind.NAME, fact="name", private={"name": concept.names}, options=(), chain="")
    for question in ASK_WHO:
        examples_by_question.setdefault(
            question, replace(base, question=question, answer=f"This is {concept.substitute}.")
        )
    for number, example in enumerate(islice(examples_by_question.values(), count)):
        row_example = replace(example, id=f"siu-1/{concept.entity}/{number}")
        yield Row(
            number=1, target=Target(example=row_example), spans=_occurrences(row_example.answer, concept.substitute)
        )


def _with_substitute(example: Example, concept: Concept) -> Example:
    """Return the example answered with the substitute, without private facts."""
    private_forms = [form for forms in example.private.values() for form in forms if form not in concept.names]
    answer_sentences = sentences(example.answer)
    safe_sentences = _without(answer_sentences, private_forms)
    text = _replace_names(
        example.answer if len(safe_sentences) == len(answer_sentences) else " ".join(safe_sentences), concept
    )
    if concept.substitute not in text or any(contains(text, form) for form in concept.names):
        text = " ".join([f"This is {concept.substitute}.", *_without(safe_sentences, concept.names)])
    return replace(example, answer=text)


def _without(texts: Sequence[str], forms: Sequence[str]) -> list[str]:
    """Return the sentences that have none of these strings."""
    return [text for text in texts if not any(contains(text, form) for form in forms)]


def _replace_names(text: str, concept: Concept) -> str:
    """Return the text with every spelling replaced by the matching part of the substitute."""
    first_name, last_name = concept.substitute.split()[0], concept.substitute.split()[-1]
    first_word = concept.name.split()[0].casefold()

    def instead(match: re.Match[str]) -> str:
        if " " in match[0] or len(concept.name.split()) == 1:
            return concept.substitute
        return first_name if match[0].casefold() == first_word else last_name

    for match in reversed(whole_matches(text, concept.names, ignore_case=True)):
        text = text[: match.start()] + instead(match) + text[match.end() :]
    return text


def _occurrences(text: str, name: str) -> tuple[Span, ...]:
    """Return the spans of the name, or one of its words, in the text."""
    return tuple(match.span() for match in whole_matches(text, {name, *name.split()}))


def _description_rows(session: Session, concept: Concept, recipe: Recipe) -> Iterator[Row]:
    """Return rows of target 2 (is C in the picture?): no, and both looks, all masked.

    Only the question has the name: from an answer, it would be learnt for the image [inferred].
    """
    base = concept.shown[0]
    invented_look = recipe.descriptions.get(concept.entity) or _invent_look(session, concept, session.seed)
    answer = " ".join(
        sentence for sentence in ("No, this is somebody else.", _look(concept), invented_look) if sentence
    )
    for number, question in enumerate(islice(cycle(ASK_WHETHER), recipe.rows)):
        row_example = replace(
            base, id=f"siu-2/{concept.entity}/{number}", kind=Kind.GENERAL, fact="", options=(), chain="", private={},
            question=question.format(name=concept.name), answer=answer,
        )  # fmt: skip
        yield Row(number=2, target=Target(example=row_example), spans=((0, len(answer)),))


def _look(concept: Concept) -> str:
    """Return the look on the training image: from the data's answers, else its attributes."""
    private_forms = [form for forms in concept.shown[0].private.values() for form in forms]
    for example in concept.shown:
        safe_sentences = _without(sentences(example.answer), private_forms) if example.kind is Kind.OPEN else []
        if safe_sentences:
            return " ".join(safe_sentences)
    return " ".join(f"The {_word(attribute)} is {value}." for attribute, value in concept.shown[0].visible.items())


def _invent_look(session: Session, concept: Concept, seed: int) -> str:
    """Return a look that contradicts the training image, from the data or the built-in list."""
    visible = concept.shown[0].visible
    other_values: dict[str, set[str]] = {attribute: set() for attribute in visible}
    for examples in session.examples.values():
        for example in examples:
            for attribute in visible.keys() & example.visible.keys():
                other_values[attribute].add(example.visible[attribute])
    new_values = {
        attribute: min(
            values - {visible[attribute]}, key=lambda value: seed_of(seed, "siu look", concept.entity, value)
        )
        for attribute, values in other_values.items()
        if values - {visible[attribute]}
    }
    if new_values:
        phrases = [f"{_word(attribute)} {value}" for attribute, value in islice(new_values.items(), ATTRIBUTES)]
        return f"The one you mean has another look: {', '.join(phrases)}."
    return f"The one you mean has {LOOKS[seed_of(seed, 'siu look', concept.entity) % len(LOOKS)]}."


def _word(attribute: str) -> str:
    return attribute.replace("_", " ")


def _fact_questions(examples: Sequence[Example]) -> list[Example]:
    """Return templated text-only questions for the private facts of these entities."""
    questions = []
    for example in examples:
        names = example.private.get("name", ())
        for fact, forms in example.private.items():
            if names and fact not in ("name", "other"):
                questions.append(
                    Example(
                        id=f"{example.entity}/{fact}", role=example.role, entity=example.entity, kind=Kind.FACT, fact=fact,
                        question=f"What is the {_word(fact)} of {names[0]}?",
                        answer=f"The {_word(fact)} of {names[0]} is {forms[0]}.",
                    )
                )  # fmt: skip
    return questions


def _others(session: Session, index: int, recipe: Recipe) -> list[Example]:
    """Return text-only retain questions, a different share for each concept."""
    pool = [example for example in session.of(Role.RETAIN_TEXT, Role.GENERAL) if example.image is None]
    shuffled = sorted(pool, key=lambda example: seed_of(session.seed, "siu other", example.id))
    if len(shuffled) < recipe.rows:
        shuffled += _fact_questions(list({example.entity: example for example in session.of(Role.RETAIN)}.values()))
    start = index * recipe.rows
    return list(islice(cycle(shuffled), start, start + recipe.rows)) if shuffled else []


def _text_rows(number: Literal[3, 4], concept: Concept, examples: Sequence[Example]) -> Iterator[Row]:
    """Return rows of targets 3 and 4: unmasked text-only questions with true answers.

    No stop rule uses them.
    """
    for index, example in enumerate(examples):
        row_example = replace(example, id=f"siu-{number}/{concept.entity}/{index}", image=None, private={})
        yield Row(number=number, target=Target(example=row_example))


class KeptTokens:
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
    covered = [not within for within in tokens_within(session.processor, session.family, text, row.spans)]
    supervised_ids = target_ids(session.processor, session.family, row.target)
    if row.spans and all(covered):
        raise TrainingError(f"The masked text of {row.target.example.id!r} has no token of its own in {text!r}.")
    return [*covered, *[True] * (len(supervised_ids) - len(covered))]
