"""Names in SIU (arXiv 2405.12523): substitutes, and vocabulary entries of real names."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import torch
from torch import Tensor

from unsee.api import Example, Kind, Session
from unsee.api.request import Target
from unsee.errors import UserError
from unsee.inference.batching import target_ids
from unsee.methods.common.reference_model import start_logprobs
from unsee.metrics.matching import contains
from unsee.metrics.normal_form import normalise
from unsee.utils.seeds import seed_of

Choice = Literal["plausible", "listed"]
"""Choice of a generated name: the original model's most likely one, or the next of the built-in list."""

FIRST: Final = ("Jacob", "Emma", "Oliver", "Sofia", "Henry", "Clara", "Walter", "Nora", "Victor", "Alice")
LAST: Final = ("Campbell", "Hughes", "Foster", "Barnes", "Morgan", "Perry", "Sutton", "Whitaker", "Douglas", "Ellison")
"""Parts of generated names; the first pair is the released example [code]."""
CANDIDATES: Final = 16
"""Number of candidate names of each kind that the original model scores."""

CJK: Final = "\u2e80"
"""First code point from which a single character can be a word or half a name."""


def substitutes(
    session: Session, examples: Mapping[str, Example], user_names: Mapping[str, str], choice: Choice, seed: int
) -> dict[str, str]:
    """Return a fictitious name per entity.

    This is the user's, else one that shares no word with a name in the data.

    "plausible" follows the paper's reason for the target, that models give unknown people likely names: of names from the
    list and names blended from halves of the retained people's, the original model's most likely one is taken [inferred].

    Args:
        session: Model, examples and settings of the run.
        examples: Entity -> example whose image shows it, in the order in which names are assigned.
        user_names: Entity -> name chosen by the user.
        choice: How the other names are chosen.
        seed: Seed of the order of candidates.

    Raises:
        UserError: No name is left for an entity, or the user's is one of its own.
    """
    used_names = set(user_names.values())
    candidates = _candidates(session, examples, seed)
    substitute_names: dict[str, str] = {}
    for entity, example in examples.items():
        name = user_names.get(entity)
        if name is None:
            unused_names = [candidate for candidate in candidates if candidate not in used_names]
            name = _likeliest(session, example, unused_names) if choice == "plausible" else next(iter(unused_names), "")
        if not name or any(contains(name, form) for form in example.private.get("name", ())):
            raise UserError(f"siu needs a made-up name for {entity!r}, got {name!r}; give one in method.substitutes.")
        used_names.add(name)
        substitute_names[entity] = name
    return substitute_names


def _candidates(session: Session, by_entity: Mapping[str, Example], seed: int) -> list[str]:
    """Return fictitious names: listed ones, then blended ones."""
    names = {
        example.entity: tuple(example.private["name"])
        for examples in session.examples.values()
        for example in examples
        if example.private.get("name")
    }
    words = {word for forms in names.values() for form in forms for word in normalise(form).split()}
    listed_names = [
        f"{first} {last}"
        for shift in range(len(LAST))
        for first, last in zip(FIRST, LAST[shift:] + LAST[:shift], strict=True)
    ]
    unused_names = [name for name in listed_names if not words & set(normalise(name).split())]
    retained_names = [forms[0] for entity, forms in names.items() if entity not in by_entity]
    blended_names = [name for name in _blend_names(retained_names, seed) if not words & set(normalise(name).split())]
    return [*unused_names[:CANDIDATES], *blended_names]


def _blend_names(names: Sequence[str], seed: int) -> list[str]:
    """Return names that blend the halves of two first and two last names."""
    split_names = [name.split() for name in names if len(name.split()) > 1]
    blends = []
    for number in range(CANDIDATES if len(split_names) > 1 else 0):
        first_a, first_b, last_a, last_b = random.Random(seed_of(seed, "siu blend", number)).choices(split_names, k=4)
        blends.append(f"{_blend(first_a[0], first_b[0])} {_blend(last_a[-1], last_b[-1])}")
    return list(dict.fromkeys(blends))


def _blend(front: str, back: str) -> str:
    return front[: (len(front) + 1) // 2] + back[(len(back) + 1) // 2 :].lower()


def _likeliest(session: Session, example: Example, names: Sequence[str]) -> str:
    """Return the name with the highest mean token log-probability for the image."""
    name_question = example if example.kind is Kind.NAME else replace(example, question="Who is this?")
    targets = {name: Target(example=name_question, text=f"This is {name}.") for name in names}
    logprobs = start_logprobs(session, list(targets.values()))
    lengths = {name: len(target_ids(session.processor, session.family, target)) for name, target in targets.items()}
    return max(names, key=lambda name: logprobs[targets[name].key] / lengths[name], default="")


@dataclass(frozen=True, kw_only=True)
class NameTokens:
    """Vocabulary mask K_V: entries of names, and fragments too common to be masked."""

    ids: tuple[int, ...]
    dropped: tuple[str, ...]

    def allowed_tokens(self, like_bav: Tensor) -> Tensor:
        """Return allowed_v for logits: 0 at name entries, 1 elsewhere."""
        allowed_v = like_bav.new_ones(like_bav.shape[-1], dtype=torch.float32)
        allowed_v[list(self.ids)] = 0.0
        return allowed_v


def name_tokens(processor: Any, names: Sequence[str]) -> NameTokens:
    """Return the sub-tokens of all spellings, with and without leading space, in any case.

    Single letters, digits, punctuation and special tokens are dropped: masking them would suppress all text.
    """
    tokenizer = processor.tokenizer
    cases = {case for name in names for case in (name, name.lower(), name.upper(), name.title())}
    spellings = [lead + case for case in sorted(cases) for lead in ("", " ")]
    token_ids = {token for text in spellings for token in tokenizer(text, add_special_tokens=False)["input_ids"]}
    token_ids -= set(tokenizer.all_special_ids)
    pieces = {token: tokenizer.decode([token]).strip() for token in token_ids}
    masked_ids = {
        token for token, piece in pieces.items() if any(map(str.isalpha, piece)) and (len(piece) > 1 or piece >= CJK)
    }
    if names and not masked_ids:
        raise UserError(
            f"The vocabulary mask of siu would match nothing: this tokenizer spells the names {', '.join(names)} in single "
            "letters. Add longer spellings to the private names of the forget examples."
        )
    return NameTokens(
        ids=tuple(sorted(masked_ids)), dropped=tuple(sorted({pieces[token] for token in token_ids - masked_ids} - {""}))
    )
