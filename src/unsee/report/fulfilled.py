"""Whether a deletion request is fulfilled, in one word and with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unsee.report.attacked import FINDS, Returned, returned, worst
from unsee.report.elsewhere import ASKED, elsewhere, most_told
from unsee.report.read import Stage
from unsee.report.summary import hidden_share, shares
from unsee.report.verdict import LIMITS, Verdict, found_words, percent


@dataclass(frozen=True, kw_only=True)
class Fulfilled:
    """Answer to the question whether the request is fulfilled."""

    word: Literal["yes", "no", "not measured"]
    why: str


def fulfilled(stage: Stage, verdict: Verdict, role: str) -> Fulfilled | None:
    """Return whether a model fulfils the request, or None for models that are only compared with.

    "yes" needs silence in every form of question, and attacks that bring nothing back above gold in answers that were not cut;
    silence alone does not show that it has forgotten. Where only the picture is promised, questions without one do not count.
    The limits are those of the verdicts [inferred].
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
    return _by_attacks(stage)


def _by_attacks(stage: Stage) -> Fulfilled:
    """Return whether the attacks on a silent model show that it has forgotten."""
    found = [one for one in returned(stage).values() if isinstance(one, Returned)]
    if not found:
        return Fulfilled(word="not measured", why="it no longer says it, but no attack was made: unsee attack")
    for finds in FINDS:
        if (back := worst(stage, finds)) is not None and back.above >= LIMITS.returns:
            return Fulfilled(word="no", why=found_words(back))
    for one in found:
        if one.cut is None and one.finds == "answers":
            why = f"{one.attack} is of a version that did not count cut answers: unsee attack makes it anew"
            return Fulfilled(word="not measured", why=why)
        if (one.cut or 0.0) > LIMITS.unmeasured:
            why = f"under {one.attack} {percent(one.cut or 0.0)} of its answers were cut before anything came back"
            return Fulfilled(word="not measured", why=why)
    return Fulfilled(word="yes", why="it no longer says it, and no attack brings it back")


def told_elsewhere(stage: Stage, role: str) -> str:
    """Return what answers to other questions than the judged ones give away, or empty if nothing."""
    group, told = most_told(stage, role)
    return f"{percent(told)} of its answers {ASKED[group]} give the forgotten away" if told > LIMITS.silent else ""


def _hidden_elsewhere(stage: Stage, role: str) -> str:
    """Return in which other group leaks could not be seen, and why, or empty if in none."""
    for group in elsewhere(stage, role):
        share, why = hidden_share(stage, group)
        if share > LIMITS.unmeasured:
            return f"in {percent(share)} of its answers {ASKED[group]} a leak could not be seen ({why})"
    return ""
