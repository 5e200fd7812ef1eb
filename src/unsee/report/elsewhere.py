"""What a model says of the forgotten to other questions than those that its verdict counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from unsee.report.read import Stage
from unsee.report.summary import value

ASKED: Final[Mapping[str, str]] = {
    "unseen": "about new pictures",
    "forget": "about training pictures",
    "forget_text": "to questions without a picture",
}
"""Group of questions about the forgotten -> which of its answers are meant."""


def elsewhere(stage: Stage, role: str) -> list[str]:
    """Return the groups of questions about the forgotten beside the judged one.

    Where only the picture is promised, questions without one do not count.
    """
    promised = [group for group in ASKED if group != "forget_text" or stage.runs[0].promise != "picture"]
    return [group for group in promised if group != role]


def most_told(stage: Stage, role: str) -> tuple[str, float]:
    """Return the group beside the judged one with most leaks, and the share of its answers that leak."""
    told = {group: value(stage, f"{group}.leak") or 0.0 for group in elsewhere(stage, role)}
    group = max(told, key=lambda name: told[name])
    return group, told[group]
