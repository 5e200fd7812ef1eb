"""Prompt Decouple: forget questions on harmless images, answered normally.

From SafeEraser (arXiv 2502.12520).

A term for any objective: pairs are made before training (`decouple_partners`), their loss is yielded beside the others (`decouple_term`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from unsee.api import Example, Role, Session
from unsee.api.request import Target
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch, collate
from unsee.losses import answer_nll
from unsee.training.trainer import Parts
from unsee.utils.seeds import seed_of

Pairing = Literal["paired", "random"]
"""paired: harmless row of the same entity and question; random: any harmless row, as in the released trainer."""
Partners = Mapping[str, tuple[Target, ...]]
"""Forget example id -> harmless rows to pair with; empty = no term."""


def idle_pairing(weight: float) -> Iterator[tuple[str, str]]:
    """Yield the setting of the pairing, where the weight of the term is 0."""
    if not weight:
        yield "method.prompt_decouple_pairing", "with method.prompt_decouple_weight above 0"


def decouple_partners(
    session: Session, forget: Sequence[Target], weight: float, pairing: Pairing = "paired"
) -> Partners:
    """Return the harmless counterparts of the forget targets.

    Args:
        session: Model, examples and settings of the run.
        forget: Targets of the forget set.
        weight: Weight of the term; 0 = no term.
        pairing: How harmless rows are chosen.

    Raises:
        UserError: The data have no benign rows, or some forget question has no counterpart among them.
    """
    if not weight:
        return {}
    benign = session.of(Role.BENIGN)
    if not benign:
        raise UserError(
            "prompt_decouple_weight needs examples of role benign (the words of a forget question, asked of a harmless "
            "image, with the normal answer), but the data have none. Add some, or set prompt_decouple_weight=0."
        )
    if pairing == "random":
        pool = tuple(Target(example=example) for example in benign)
        return {target.example.id: pool for target in forget}
    return _pair_examples([target.example for target in forget], benign)


def decouple_term(session: Session, forget: Batch, partners: Partners, weight: float) -> Iterator[Parts]:
    """Yield `weight` times L_pd, the cross-entropy on the counterparts' normal answers.

    Nothing without partners.

    Of several counterparts of a row, one is drawn by seed, batch and row index.

    Args:
        session: Model, examples and settings of the run.
        forget: Batch of forget targets.
        partners: Harmless rows of each forget example (`decouple_partners`).
        weight: Factor of the loss.
    """
    if not partners:
        return
    counterparts = []
    for example, row_index in zip(forget.examples, forget.places, strict=True):
        candidates = partners[example.id]
        counterparts.append(candidates[seed_of(session.seed, "decouple", forget.index, row_index) % len(candidates)])
    batch = collate(session, counterparts, forget.index, forget.places)
    decouple_nll = answer_nll(*answer_logits(session.model, batch))
    yield {"loss": weight * decouple_nll, "decouple_nll": decouple_nll}


def _pair_examples(forget: Sequence[Example], benign: Sequence[Example]) -> Partners:
    """Return each example's counterpart: same question, same or no entity, another image.

    Several images of an entity are paired in their order, so record and pair ids agree where both have them [inferred].
    """
    rows: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in benign:
        rows[example.entity, example.question].append(example)
    pair_counts: dict[tuple[str, str], int] = defaultdict(int)
    partners, unpaired = {}, []
    for example in forget:
        keys = ((example.entity, example.question), ("", example.question))
        key = next((key for key in keys if key in rows), None)
        if key is None:
            unpaired.append(example)
            continue
        partner = rows[key][pair_counts[key] % len(rows[key])]
        pair_counts[key] += 1
        _require_other_image(example, partner)
        partners[example.id] = (Target(example=partner),)
    if unpaired:
        raise _without_partner(unpaired, len(forget))
    return partners


def _require_other_image(example: Example, partner: Example) -> None:
    """Raise if a pair shares its image, which would oppose the two terms."""
    if partner.image is None or (example.image is not None and example.image.key == partner.image.key):
        raise UserError(
            f"Benign example {partner.id!r} must show a harmless image, but it has "
            f"{'none' if partner.image is None else f'the image of forget example {example.id!r}'}."
        )


def _without_partner(unpaired: Sequence[Example], total: int) -> UserError:
    first = unpaired[0]
    return UserError(
        f"{len(unpaired)} of {total} forget questions have no benign counterpart, the first is {first.id!r}: expected a benign "
        f"row with the same question ({first.question!r}) and entity {first.entity!r} or none. Add the rows, or set "
        "prompt_decouple_pairing=random (any benign row beside any forget row)."
    )
