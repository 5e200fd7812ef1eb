"""Reasoning chains in the form `Reasoning: ... Answer: ...`."""

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
    """Parsed reasoning chain."""

    reasoning: str
    """Text before the last `Answer:` without the word `Reasoning:`; empty without one."""
    answer: str
    """Text after it; the whole text without one."""


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
    """Tell whether the reasoning states all facts of a reference chain that has some.

    >>> chain_facts("Mara lives in Oslo.", ["Oslo", "Mara"]), chain_facts("Mara lives there.", ["Oslo", "Mara"])
    (True, False)
    """
    chain = tuple(facts)
    return bool(chain) and all(contains(reasoning, fact) for fact in chain)
