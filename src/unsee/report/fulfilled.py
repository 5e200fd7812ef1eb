"""Whether a deletion request is fulfilled, in one word and with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unsee.report.attacked import FINDS, Returned, returned, worst
from unsee.report.read import Stage
from unsee.report.summary import shares
from unsee.report.verdict import LIMITS, Verdict, found_words, percent


@dataclass(frozen=True, kw_only=True)
class Fulfilled:
    """Answer to the question whether the request is fulfilled."""

    word: Literal["yes", "no", "not measured"]
    why: str


def fulfilled(stage: Stage, verdict: Verdict, role: str) -> Fulfilled | None:
    """Return whether a model fulfils the request, or None for models that are only compared with.

    "yes" needs silence and attacks that bring nothing back above gold; silence alone does not show that it has forgotten.
    The limits are those of the verdicts [inferred].
    """
    if stage.reference:
        return None
    share = shares(stage, role)
    if verdict.badge == "Not judged" or "leak" not in share:
        return Fulfilled(word="not measured", why=verdict.sentence)
    if share["leak"] > LIMITS.silent:
        return Fulfilled(word="no", why=f"{percent(share['leak'])} of its answers give the forgotten away")
    if verdict.collapsed:
        return Fulfilled(word="no", why="it answers with degenerate or blank text: destroyed, not made to forget")
    found = returned(stage)
    if not any(isinstance(one, Returned) for one in found.values()):
        return Fulfilled(word="not measured", why="it no longer says it, but no attack was made: unsee attack")
    for finds in FINDS:
        if (back := worst(stage, finds)) is not None and back.above >= LIMITS.returns:
            return Fulfilled(word="no", why=found_words(back))
    return Fulfilled(word="yes", why="it no longer says it, and no attack brings it back")
