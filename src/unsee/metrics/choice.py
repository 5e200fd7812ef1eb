"""Multiple choice: which option an answer picks, with abstention as a class of its own (which is wrong, as is an empty answer)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Final

from unsee.metrics.matching import contains, normalise

_ALONE: Final = re.compile(r"^[\s(\[\"'*]*([A-Za-z])[\s)\]\"'*.:,]*$")
_LEADING: Final = re.compile(
    r"^[\s(\[\"'*]*([A-Z])(?:[)\].:]+\s|[)\]]|\*\*|\s+is\s+(?:the\s+)?(?:correct|right|answer))"
)
_NAMED: Final = re.compile(
    r"\b(?:[Aa]nswer|[Oo]ption|[Cc]hoice|[Ll]etter)\b(?:\s+(?:is|would be|should be))?\s*:?\s*[(\[\"'*]*([A-Z])\b(?!['’]\w)"  # noqa: RUF001
)
_BRACKETED: Final = re.compile(r"\(([A-Z])\)")


def choice(text: str, options: Sequence[str]) -> str:
    """Return the letter that the text picks, or "" if it abstains, picks none or several.

    >>> [choice(text, ("baker", "pilot")) for text in ("b", "B.", "The answer is B", "A pilot.", "A or B", "A person.", "")]
    ['B', 'B', 'B', 'B', '', '', '']
    """
    letters = ascii_uppercase[: len(options)]
    for pattern in (_ALONE, _LEADING, _NAMED, _BRACKETED):
        found = {letter.upper() for letter in pattern.findall(text)} & set(letters)
        if found:
            return found.pop() if len(found) == 1 and not _hedged(text, letters) else ""
    return _by_text(text, options, letters)


def choice_correct(text: str, options: Sequence[str], answer: str) -> bool:
    """Tell whether the text picks the option `answer` (a letter, or the option's text).

    >>> choice_correct("It is (A).", ("baker", "pilot"), "A"), choice_correct("", ("baker", "pilot"), "A")
    (True, False)
    """
    right = choice(answer, options)
    return right != "" and choice(text, options) == right


def _hedged(text: str, letters: str) -> bool:
    """Tell whether two letters are offered side by side."""
    either = rf"\b([{letters}])\W+(?:or|and)\W+(?!\1\b)[{letters}]\b|\(([{letters}])\)\W*\((?!\2\))[{letters}]\)"
    return re.search(either, text) is not None


def _by_text(text: str, options: Sequence[str], letters: str) -> str:
    """Return the letter of the one option whose text occurs, longer options hiding shorter ones inside them."""
    named = [index for index, option in enumerate(options) if contains(text, option)]
    longest = [
        index
        for index in named
        if not any(
            other != index
            and normalise(options[other]) != normalise(options[index])
            and contains(options[other], options[index])
            for other in named
        )
    ]
    return letters[longest[0]] if len(longest) == 1 else ""
