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


def retain_targets(session: Session, weight: float = 1.0) -> Sequence[Target]:
    """Return the retain set with its own answers, or nothing if the retain term has no weight."""
    if not weight:
        return []
    targets = own_answers(session.of(*STAYS))
    if not targets:
        raise UserError(
            "This method has a retain term, but the data have no retain, retain_text, stranger or general examples. "
            "Add some, or choose a method (or method.retain_weight=0) that needs none."
        )
    return targets
