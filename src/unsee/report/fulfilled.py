"""Decision whether a deletion request is fulfilled, in one word and with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

from unsee.report.attacked import FINDS, Returned, recovered_by_attack, worst
from unsee.report.elsewhere import most_hidden
from unsee.report.read import Stage
from unsee.report.summary import told_share
from unsee.report.verdict import LIMITS, Verdict, found_words, percent, told_elsewhere, unseen_words


@dataclass(frozen=True, kw_only=True)
class Fulfilled:
    """Answer to the question whether the request is fulfilled."""

    word: Literal["yes", "no", "not measured"]
    why: str


def fulfilled(stage: Stage, verdict: Verdict, role: str) -> Fulfilled | None:
    """Return whether a model fulfils the request, or None for reference models.

    "yes" needs silence in every form of question, and attacks that bring nothing back above gold in answers that were not cut
    and could be judged; silence alone does not show that it has forgotten. Where only the picture is promised, questions without one do not count.
    The limits are those of the verdicts [inferred].
    """
    if stage.reference:
        return None
    is_judged = verdict.badge != "Not judged" and told_share(stage, role) is not None
    leak_share = told_share(stage, role, of_all=not is_judged) or 0.0
    if leak_share > LIMITS.silent:
        return Fulfilled(word="no", why=f"{percent(leak_share)} of its answers give the forgotten away")
    if leak_reason := told_elsewhere(stage, role):
        return Fulfilled(word="no", why=leak_reason)
    if not is_judged:
        return Fulfilled(word="not measured", why=verdict.sentence)
    if verdict.collapsed:
        return Fulfilled(word="no", why="it answers with degenerate or blank text: destroyed, not made to forget")
    if hidden_reason := _hidden_elsewhere(stage, role):
        return Fulfilled(word="not measured", why=hidden_reason)
    return _by_attacks(stage)


def _by_attacks(stage: Stage) -> Fulfilled:
    """Return whether the attacks on a silent model show that it has forgotten."""
    outcomes = recovered_by_attack(stage)
    findings = [finding for finding in outcomes.values() if isinstance(finding, Returned)]
    unmeasured = [f"{name}: {why}" for name, why in outcomes.items() if isinstance(why, str)]
    if not findings:
        reason = (
            f"no attack could be measured ({'; '.join(unmeasured)})"
            if unmeasured
            else "no attack was made: unsee attack"
        )
        return Fulfilled(word="not measured", why=f"it no longer says it, but {reason}")
    for kind in FINDS:
        if (worst_finding := worst(stage, kind)) is not None and worst_finding.above >= LIMITS.returns:
            return Fulfilled(word="no", why=found_words(worst_finding))
    for finding in findings:
        if finding.cut is None and finding.finds == "answers":
            reason = f"{finding.attack} is of a version that did not count cut answers: unsee attack makes it anew"
            return Fulfilled(word="not measured", why=reason)
        unsure_shares = {
            "were cut before anything came back": finding.cut or 0.0,
            "could not be judged": finding.unjudged,
        }
        words, share = max(unsure_shares.items(), key=itemgetter(1))
        if share > LIMITS.unmeasured:
            return Fulfilled(word="not measured", why=f"under {finding.attack} {percent(share)} of its answers {words}")
    remarks = [f"not measured: {'; '.join(unmeasured)}"] if unmeasured else []
    remarks += [f"{finding.attack} on {finding.seeds} only" for finding in findings if finding.seeds]
    remark = f" ({'; '.join(remarks)})" if remarks else ""
    return Fulfilled(word="yes", why=f"it no longer says it, and no attack brings it back{remark}")


def _hidden_elsewhere(stage: Stage, role: str) -> str:
    """Return the other questions to which leaks could not be detected, and why, or empty if none."""
    hidden = most_hidden(stage, role)
    return unseen_words(hidden) if hidden.share > LIMITS.unmeasured else ""
