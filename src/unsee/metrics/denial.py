"""Denials: words that stand after "no", "not", "without" and the like, also further down a list [inferred]. English only."""

# ruff: noqa: RUF001 - apostrophes
from __future__ import annotations

import re
from typing import Final

_NEGATOR: Final = r"(?:\b(?:no|not|never|without|neither|nor|cannot)|n['’]t)\b"
_BELIEF: Final = r"(?: (?:think|believe|suppose|say)(?: that)?(?: (?:it|this|that|he|she|they|(?:the|this) person)(?:['’]s)?)?(?: (?:is|was|are))?)?"
"""As in "I don't think that it is a pilot"."""
_LEADS_ON: Final = (
    r"(?:an?|any|the|wear(?:s|ing)?|worn|ha(?:ve|s|d|ving)|see(?:ing)?|show(?:s|ing|n)?|be|really|actually|visible|signs?|of|pair|kind"
    r"|in|with|correct|right|best)"
)
_ENDS: Final = r"(?:and|but|with|only|n?or|he|she|it|they|who|that|there|is|are|was|were|ha[sd]|wears|wore|shows|looks|seems|appears)\b"
"""Words that end a list of what is denied."""
_DENIABLE: Final = rf"(?!{_ENDS})[\w'’\"*()\[\]-]+"
_ITEM: Final = rf"{_DENIABLE}(?: {_DENIABLE}){{0,3}}"
_DENIAL: Final = re.compile(
    rf"{_NEGATOR}{_BELIEF} (?:{_LEADS_ON} ){{0,3}}"
    rf"(?P<list>{_ITEM}(?:, {_ITEM})*(?:(?P<comma>, )|(?:,? n?or {_ITEM})*,? n?or )(?:(?!{_ENDS}){_LEADS_ON} ){{0,3}})?\Z"
)
"""What stands before a word that is denied: a negator, words that lead on from it, and a list up to the word. Not "no stamps on a
wooden desk"."""
_OR_FOLLOWS: Final = re.compile(rf"(?: {_DENIABLE}){{0,3}}(?:, {_ITEM})*,? n?or\b")
_NEARBY: Final = 80
"""Most characters before a word that can deny it."""


def is_denied(said: re.Match[str]) -> bool:
    """Tell whether a text denies what was found in it.

    A list of what is denied goes on over "or". After a comma alone something new may begin: "no hat, a red shirt".

    >>> texts = ("no hat or glasses", "no hat, glasses or beard", "no hat, glasses", "no hat but glasses")
    >>> [is_denied(said) for text in texts for said in re.finditer("glasses", text)]
    [True, True, False, False]
    """
    before = re.sub(r"\s+", " ", said.string[max(said.start() - _NEARBY, 0) : said.start()].lower())
    found = _DENIAL.search(before)
    if found is None or (found["list"] and re.match(_ENDS, said[0], re.IGNORECASE)):
        return False
    after = said.string[said.end() : said.end() + _NEARBY].lower()
    return found["comma"] is None or _OR_FOLLOWS.match(after) is not None


def begins_with_negator(text: str) -> bool:
    """Tell whether a text begins with a negator, as "no glasses" does."""
    return re.match(_NEGATOR, text) is not None
