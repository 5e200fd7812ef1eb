"""Reasoning chains: `Reasoning: ... Answer: ...` taken apart and checked, step facts and final answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from unsee.metrics.matching import contains

_ANSWER: Final = re.compile(r"\banswer\s*:", re.IGNORECASE)
_REASONING: Final = re.compile(r"^\s*reasoning\s*:\s*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A reasoning chain taken apart."""

    reasoning: str
    """What stands before the last `Answer:`, the word `Reasoning:` removed; empty without one."""
    answer: str
    """What stands after it; the whole text without one."""


def parse_chain(text: str) -> Chain:
    """Split at the last `Answer:`.

    >>> parse_chain("Reasoning: Oslo is in Norway. Answer: Norway.")
    Chain(reasoning='Oslo is in Norway.', answer='Norway.')
    >>> parse_chain("Norway")
    Chain(reasoning='', answer='Norway')
    """
    ends = list(_ANSWER.finditer(text))
    if not ends:
        return Chain(reasoning="", answer=text.strip())
    return Chain(reasoning=_REASONING.sub("", text[: ends[-1].start()]).strip(), answer=text[ends[-1].end() :].strip())


def chain_facts(reasoning: str, facts: Iterable[str]) -> bool:
    """Tell whether the reasoning has all the facts that the reference chain has; never true without facts.

    >>> chain_facts("Mara lives in Oslo.", ["Oslo", "Mara"]), chain_facts("Mara lives there.", ["Oslo", "Mara"])
    (True, False)
    """
    wanted = tuple(facts)
    return bool(wanted) and all(contains(reasoning, fact) for fact in wanted)
