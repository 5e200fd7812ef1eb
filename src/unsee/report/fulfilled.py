"""Whether a deletion request is fulfilled, in one word and with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from unsee.report.attacked import FINDS, Returned, returned, worst
from unsee.report.read import Stage
from unsee.report.summary import hidden_share, shares, value
from unsee.report.verdict import LIMITS, Verdict, found_words, percent

ASKED: Final[Mapping[str, str]] = {
    "unseen": "about new pictures",
    "forget": "about training pictures",
    "forget_text": "to questions without a picture",
}
"""Group of questions about the forgotten -> which of its answers are meant."""


@dataclass(frozen=True, kw_only=True)
class Fulfilled:
    """Answer to the question whether the request is fulfilled."""

    word: Literal["yes", "no", "not measured"]
    why: str


def fulfilled(stage: Stage, verdict: Verdict, role: str) -> Fulfilled | None:
    """Return whether a model fulfils the request, or None for models that are only compared with.

    "yes" needs silence in every form of question, and attacks that bring nothing back above gold; silence alone does not show that
    it has forgotten. Where only the picture is promised, questions without one do not count. The limits are those of the verdicts
    [inferred].
    """
    if stage.reference:
        return None
    share = shares(stage, role)
    if verdict.badge == "Not judged" or "leak" not in share:
        return Fulfilled(word="not measured", why=verdict.sentence)
    if share["leak"] > LIMITS.silent:
        return Fulfilled(word="no", why=f"{percent(share['leak'])} of its answers give the forgotten away")
    if tells := told_elsewhere(stage, role):
        return Fulfilled(word="no", why=tells)
    if verdict.collapsed:
        return Fulfilled(word="no", why="it answers with degenerate or blank text: destroyed, not made to forget")
    if hides := _hidden_elsewhere(stage, role):
        return Fulfilled(word="not measured", why=hides)
    found = returned(stage)
    if not any(isinstance(one, Returned) for one in found.values()):
        return Fulfilled(word="not measured", why="it no longer says it, but no attack was made: unsee attack")
    for finds in FINDS:
        if (back := worst(stage, finds)) is not None and back.above >= LIMITS.returns:
            return Fulfilled(word="no", why=found_words(back))
    return Fulfilled(word="yes", why="it no longer says it, and no attack brings it back")


def _elsewhere(stage: Stage, role: str) -> list[str]:
    """Return the groups of questions about the forgotten beside the judged one."""
    promised = [group for group in ASKED if group != "forget_text" or stage.runs[0].promise != "picture"]
    return [group for group in promised if group != role]


def told_elsewhere(stage: Stage, role: str) -> str:
    """Return what answers to other questions than the judged ones give away, or empty if nothing."""
    told = {group: value(stage, f"{group}.leak") or 0.0 for group in _elsewhere(stage, role)}
    worst_group = max(told, key=lambda group: told[group])
    if told[worst_group] <= LIMITS.silent:
        return ""
    return f"{percent(told[worst_group])} of its answers {ASKED[worst_group]} give the forgotten away"


def _hidden_elsewhere(stage: Stage, role: str) -> str:
    """Return in which other group leaks could not be seen, and why, or empty if in none."""
    for group in _elsewhere(stage, role):
        share, why = hidden_share(stage, group)
        if share > LIMITS.unmeasured:
            return f"in {percent(share)} of its answers {ASKED[group]} a leak could not be seen ({why})"
    return ""
