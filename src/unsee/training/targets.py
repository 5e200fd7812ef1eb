"""Default training targets: the benchmark's own answers to the questions of a role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from unsee.api import Example, Role, Session
from unsee.api.lazy import Lazy
from unsee.api.request import Target
from unsee.errors import UserError


def forget_targets(session: Session) -> Sequence[Target]:
    """Return the questions about seen forget images with their own (private) answers."""
    return own_answers(session.of(Role.FORGET))


def own_answers(examples: Sequence[Example]) -> Sequence[Target]:
    """Return the examples with their own answers as targets. Large data stay on disk."""
    if not isinstance(examples, Lazy):
        return [Target(example=example) for example in examples]
    return Lazy(len(examples), lambda index: Target(example=examples[index]))


STAYS: Final = (Role.RETAIN, Role.RETAIN_TEXT, Role.STRANGER, Role.GENERAL)
"""Roles of the retain set."""


def retain_targets(session: Session, weight: float | None = None) -> Sequence[Target]:
    """Return the retain set with its own answers, or nothing if the retain term has no weight.

    Args:
        session: Model, examples and settings of the run.
        weight: `method.retain_weight`; None for a method that cannot do without the retain set.

    Raises:
        UserError: The data have no retain set.
    """
    if weight == 0:
        return []
    targets = own_answers(session.of(*STAYS))
    if not targets:
        without = "" if weight is None else "set method.retain_weight=0, "
        raise UserError(
            "This method has a retain term, but the data have no retain, retain_text, stranger or general examples. "
            f"Add some, {without}or choose a method that needs none."
        )
    return targets
