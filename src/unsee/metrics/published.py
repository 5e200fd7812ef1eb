"""Correctness rules of published evaluations, for comparison with their tables only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from unsee.metrics.matching import contains

_ANSWER_IS = re.compile(r"[Tt]he answer is ([A-D])|^([A-D])$")


def first_character(text: str) -> str:
    """Return the first non-blank character as the picked option (MLLMU-Bench [code]).

    >>> first_character(" b) Rome"), first_character("(b) Rome"), first_character("The answer is B."), first_character("")
    ('B', '(', 'T', '')
    """
    return text.strip()[:1].upper()


def first_alphanumeric(text: str) -> str:
    """Return the first ASCII letter or digit as the picked option (MMUnlearner [code]).

    >>> first_alphanumeric("(b) Rome"), first_alphanumeric("答案是B"), first_alphanumeric("The answer is B.")
    ('B', 'B', 'T')
    """
    return next((char.upper() for char in text if char.isascii() and char.isalnum()), "")


def answer_is(text: str) -> str:
    """Return the letter after "The answer is", or a one-letter text (OFFSIDE [code]).

    >>> answer_is("The answer is B."), answer_is("C"), answer_is("B."), answer_is("(B)")
    ('B', 'C', '', '')
    """
    match = _ANSWER_IS.search(text)
    return (match[1] or match[2]) if match else ""


def substring(text: str, reference: str) -> bool:
    """Tell whether the lower-cased reference is a substring of the text (clozes [code]).

    >>> substring("A woman.", "man"), substring("Oslo", ""), substring("Oslo", "Rome")
    (True, True, False)
    """
    return reference.lower() in text.lower()


def nearest_option(text: str, options: Sequence[str]) -> int:
    """Return the index of the most similar option, the first of equals (UMU-Bench [code]).

    An empty text picks one, too.

    >>> nearest_option("Rom", ("Oslo", "Rome")), nearest_option("", ("Oslo", "Rome"))
    (1, 0)
    """
    likeness = [SequenceMatcher(None, text, option).ratio() for option in options]
    return likeness.index(max(likeness))


def keywords_said(text: str, keywords: Sequence[str]) -> float:
    """Return the share of keywords in the text (FIUBench's exact match [inferred]).

    >>> keywords_said("She has asthma.", ("asthma", "gout")), keywords_said("", ("asthma",))
    (0.5, 0.0)
    """
    return sum(contains(text, word) for word in keywords) / len(keywords)
