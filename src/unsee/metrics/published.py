"""How published evaluations decide whether an answer is right, where that differs from ours; for comparison with their tables only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from unsee.metrics.matching import contains

_ANSWER_IS = re.compile(r"[Tt]he answer is ([A-D])|^([A-D])$")


def first_character(text: str) -> str:
    """Return the first character but blanks as the option that is picked (MLLMU-Bench, as released [code]).

    >>> first_character(" b) Rome"), first_character("(b) Rome"), first_character("The answer is B."), first_character("")
    ('B', '(', 'T', '')
    """
    return text.strip()[:1].upper()


def first_alphanumeric(text: str) -> str:
    """Return the first letter or digit of ASCII as the option that is picked (MMUnlearner's run of MLLMU-Bench and CLEAR [code]).

    >>> first_alphanumeric("(b) Rome"), first_alphanumeric("答案是B"), first_alphanumeric("The answer is B.")
    ('B', 'B', 'T')
    """
    return next((char.upper() for char in text if char.isascii() and char.isalnum()), "")


def answer_is(text: str) -> str:
    """Return the letter after "The answer is", or the text that is one letter (OFFSIDE, as released [code]).

    >>> answer_is("The answer is B."), answer_is("C"), answer_is("B."), answer_is("(B)")
    ('B', 'C', '', '')
    """
    found = _ANSWER_IS.search(text)
    return (found[1] or found[2]) if found else ""


def substring(text: str, reference: str) -> bool:
    """Tell whether the reference occurs in the text, lower-cased, be it inside a word (clozes, as released [code]).

    >>> substring("A woman.", "man"), substring("Oslo", ""), substring("Oslo", "Rome")
    (True, True, False)
    """
    return reference.lower() in text.lower()


def nearest_option(text: str, options: Sequence[str]) -> int:
    """Return the place of the option most like the text, the first of equals: an empty text picks one, too (UMU-Bench, as released [code]).

    >>> nearest_option("Rom", ("Oslo", "Rome")), nearest_option("", ("Oslo", "Rome"))
    (1, 0)
    """
    likeness = [SequenceMatcher(None, text, option).ratio() for option in options]
    return likeness.index(max(likeness))


def keywords_said(text: str, keywords: Sequence[str]) -> float:
    """Return the share of an answer's keywords that the text says, word by word (FIUBench's exact match [inferred]).

    >>> keywords_said("She has asthma.", ("asthma", "gout")), keywords_said("", ("asthma",))
    (0.5, 0.0)
    """
    return sum(contains(text, word) for word in keywords) / len(keywords)
