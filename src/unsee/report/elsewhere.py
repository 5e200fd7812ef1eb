"""Leaks to other questions about the forget set than those that the verdict counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from unsee.report.read import Stage
from unsee.report.summary import FORMS, LEAKS, exact, hidden_share, told_in

ASKED: Final[Mapping[str, str]] = {
    "unseen": "about new pictures",
    "forget": "about training pictures",
    "forget_text": "to questions without a picture",
}
"""Group of forget questions -> description of its answers."""


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Share of the answers to one form of question in one group."""

    group: str
    form: str
    share: float
    gold: float = 0.0
    """The same share of the gold model where answers may be guessed, which free ones are not."""
    why: str = ""

    @property
    def above(self) -> float:
        """Share above gold."""
        return exact(self.share - self.gold)

    def __str__(self) -> str:
        """Return which answers these are, in words."""
        return f"{FORMS[self.form]} {ASKED[self.group]}"


def elsewhere(stage: Stage, role: str) -> Iterator[tuple[str, str]]:
    """Yield group and form of the forget questions other than the judged ones.

    Where only the picture is promised, questions without one do not count.
    """
    for group in ASKED:
        if group != "forget_text" or stage.runs[0].promise != "picture":
            yield from ((group, form) for form in FORMS if group != role or form not in LEAKS)


def most_told(stage: Stage, role: str) -> Elsewhere:
    """Return the other questions with most leaks above gold, and their leaking share."""
    found = (
        Elsewhere(
            group=group,
            form=form,
            share=told_in(stage, group, form) or 0.0,
            gold=(told_in(stage.gold, group, form) or 0.0) if stage.gold and form not in LEAKS else 0.0,
        )
        for group, form in elsewhere(stage, role)
    )
    return max(found, key=lambda one: one.above)


def most_hidden(stage: Stage, role: str) -> Elsewhere:
    """Return the other questions to which most leaks could not be seen, their share, and why."""
    hidden = ((group, form, *hidden_share(stage, group, form)) for group, form in elsewhere(stage, role))
    found = (Elsewhere(group=group, form=form, share=share, why=why) for group, form, share, why in hidden)
    return max(found, key=lambda one: one.share)
