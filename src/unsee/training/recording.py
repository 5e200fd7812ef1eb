"""Recording of what methods hand to `minimise`, for their tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from unsee.api import Session, Training
from unsee.api.request import Target

if TYPE_CHECKING:
    from unsee.training.loop import Objective


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The arguments of one call of `minimise`."""

    objective: Objective
    forget: list[Target]
    retain: list[Target]
    training: Training
    """Training settings at the time of the call."""


_CALLS: Final[ContextVar[list[Recorded] | None]] = ContextVar("calls", default=None)


@contextmanager
def recording() -> Iterator[list[Recorded]]:
    """Record the calls of `minimise` in this block, which return at once and train nothing."""
    calls: list[Recorded] = []
    token = _CALLS.set(calls)
    try:
        yield calls
    finally:
        _CALLS.reset(token)


def record_call(session: Session, objective: Objective, forget: Sequence[Target], retain: Sequence[Target]) -> bool:
    """Record a call, and tell whether this was done.

    Args:
        session: Model, examples and settings of the run.
        objective: Objective of the call to `minimise`.
        forget: Its forget targets.
        retain: Its retain targets.

    Returns:
        False outside of a recording, when the caller has to train.
    """
    calls = _CALLS.get()
    if calls is None:
        return False
    calls.append(Recorded(objective=objective, forget=list(forget), retain=list(retain), training=session.training))
    return True
