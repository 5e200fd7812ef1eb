"""Sentences, tokens and content words of free text."""

# ruff: noqa: RUF001, RUF002 - scripts other than Latin
from __future__ import annotations

import re
from typing import Final

from unsee.metrics.normal_form import normalise

_CLOSERS: Final = "[\"'”’)\\]」』）】]*"
_END: Final = re.compile(
    rf"(?<=[.!?…؟۔։።]){_CLOSERS}(?:\s+|$)"  # a blank has to follow: 3.5 is a number
    rf"|(?<=[。！？｡।॥။។៕])(?![。！？｡।॥။។៕]){_CLOSERS}\s*"  # none has to
    r"|\n+"
)
_LISTED: Final = """
a about above after again against ain all almost also although always am an and any anybody anyone anything are aren
as at be because been before being below between both but by can cannot could couldn did didn do does doesn doing don
down during each either else ever every few for from further get gets got had hadn has hasn have haven having he her
here hers herself him himself his how however i if in into is isn it its itself just least less let like ll m may me
might mine more most much must my myself neither no nobody none nor not nothing now of off often on once one only or
other others our ours ourselves out over own perhaps quite rather re really s same shall she should shouldn since so
some somebody someone something still such t than that the their theirs them themselves then there these they thing
things this those though through thus to too under until up upon us ve very was wasn we were weren what when where
whether which while who whom whose why will with within without won would wouldn yes yet you your yours yourself
"""
_FUNCTION_WORDS: Final = frozenset(_LISTED.split())


def sentences(text: str) -> list[str]:
    """Split at sentence ends and line breaks. Sentences are stripped, closing marks kept.

    >>> sentences("It is 3.5 m. Really?  Yes")
    ['It is 3.5 m.', 'Really?', 'Yes']
    >>> sentences("这是张伟。他来自上海！")
    ['这是张伟。', '他来自上海！']
    """
    return [part.strip() for part in _END.split(text) if part.strip()]


def tokens(text: str) -> list[str]:
    """Return the words of the normalised text, or characters in scripts without spaces.

    >>> tokens("Wavy, dark-brown hair!")
    ['wavy', 'dark', 'brown', 'hair']
    """
    return normalise(text).split()


def content_words(text: str) -> list[str]:
    """Return the words except articles, pronouns, auxiliaries and prepositions.

    >>> content_words("The person has a red shirt and is not smiling.")
    ['person', 'red', 'shirt', 'smiling']
    """
    return [word for word in tokens(text) if word not in _FUNCTION_WORDS]
