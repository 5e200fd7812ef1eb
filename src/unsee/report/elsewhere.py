"""Leaks to other questions about the forget set than those that the verdict counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from unsee.report.read import Stage
from unsee.report.summary import hidden_share, told_share

ASKED: Final[Mapping[str, str]] = {
    "unseen": "about new pictures",
    "forget": "about training pictures",
    "forget_text": "to questions without a picture",
}
"""Group of forget questions -> description of its answers."""


def elsewhere(stage: Stage, role: str) -> list[str]:
    """Return the groups of forget questions other than the judged one.

    Where only the picture is promised, questions without one do not count.
    """
    groups = [group for group in ASKED if group != "forget_text" or stage.runs[0].promise != "picture"]
    return [group for group in groups if group != role]


def most_told(stage: Stage, role: str) -> tuple[str, float]:
    """Return the other group of forget questions with most leaks, and its leaking share."""
    leak_by_group = {group: told_share(stage, group) or 0.0 for group in elsewhere(stage, role)}
    group = max(leak_by_group, key=lambda name: leak_by_group[name])
    return group, leak_by_group[group]


def most_hidden(stage: Stage, role: str) -> tuple[str, float, str]:
    """Return the other group in which most leaks could not be seen, their share, and why."""
    hidden_by_group = {group: hidden_share(stage, group) for group in elsewhere(stage, role)}
    group = max(hidden_by_group, key=lambda name: hidden_by_group[name][0])
    return group, *hidden_by_group[group]
