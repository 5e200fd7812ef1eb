"""Grounding: visible attributes claimed by a text, and their truth."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from unsee.metrics.normal_form import normalise


@dataclass(frozen=True, kw_only=True)
class Grounding:
    """Number of visible claims and of true ones."""

    correct: int
    """True claims."""
    total: int
    """Claims about attributes with known truth."""

    @property
    def precision(self) -> float | None:
        """Share of claims that are true, or None without claims."""
        return self.correct / self.total if self.total else None


def claims(text: str, visible: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """Return attribute -> claimed values, by patterns on lower-cased text.

    >>> claims("Red hair, no hat.", {"hair": {"red": "red hair"}, "hat": {"no": "no hat", "yes": "a hat"}})
    {'hair': ('red',), 'hat': ('no',)}
    """
    lowered = " ".join(text.lower().split())
    values_by_attribute = {
        attribute: tuple(value for value, pattern in values.items() if _compiled(pattern).search(lowered))
        for attribute, values in visible.items()
    }
    return {attribute: values for attribute, values in values_by_attribute.items() if values}


def grounding(text: str, truth: Mapping[str, str], visible: Mapping[str, Mapping[str, str]]) -> Grounding:
    """Return the number of claims about attributes in `truth`, and of true ones.

    A second value of one attribute is a second claim.

    >>> grounding("A red shirt, or a blue shirt.", {"shirt": "red"}, {"shirt": {"red": "red shirt", "blue": "blue shirt"}})
    Grounding(correct=1, total=2)
    """
    claimed = [(attribute, value) for attribute, values in claims(text, visible).items() for value in values]
    verifiable = [(attribute, value) for attribute, value in claimed if attribute in truth]
    return Grounding(
        correct=sum(normalise(truth[attribute]) == normalise(value) for attribute, value in verifiable),
        total=len(verifiable),
    )


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
