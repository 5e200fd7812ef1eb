"""Normal form of text for matching: casefolded words without accents, in all scripts [inferred]."""

# ruff: noqa: RUF001 - scripts other than Latin
from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from unsee.metrics.scripts import is_spaced, script

_LETTERS: Final = {"æ": "ae", "œ": "oe", "ð": "d", "þ": "th", "ŋ": "n", "ĸ": "k", "ß": "ss", "ı": "i"} | {
    "ی": "ي",
    "ى": "ي",
    "ک": "ك",
    "ە": "ه",
    "ـ": "",
}
"""Letters that NFKD does not decompose -> base letters; Persian -> Arabic forms, tatweel -> nothing."""
_STROKED: Final = re.compile(r"LATIN SMALL LETTER ([A-Z]) WITH ")
_LETTER_MARKS: Final = frozenset({0, 7, 8, 9, 84, 91, 103, 107, 118, 122, 129, 130, 132})
"""Combining classes of vowels, tones and letter parts, which are kept; accents and points are removed."""
_SELECTORS: Final = re.compile("[\u034f\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")


@lru_cache(maxsize=65536)
def normalise(text: str) -> str:
    """Return casefolded words without accents, separated and surrounded by spaces.

    Unicode NFKD; accents and invisible format characters go; every run of non-alphanumerics becomes one space. Letters that
    are no base letter with an accent fold too (ø, ł, đ); digits of all scripts become ASCII digits. In scripts
    that have no blanks between words, each character is a word.

    >>> normalise("José-María's  CAFÉ")
    ' jose maria s cafe '
    >>> normalise("Søren, 张伟")
    ' soren 张 伟 '
    >>> normalise("...")
    ' '
    """
    plain = "".join(_plain(char) for char in _decomposed(text))
    if not plain.isascii():
        plain = _isolate_characters(unicodedata.normalize("NFC", plain))
    words = plain.split()
    return f" {' '.join(words)} " if words else " "


def _decomposed(text: str) -> str:
    """Return NFKD of the casefolded NFKD, since casefolding can restore accents."""
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())


@lru_cache(maxsize=65536)
def _plain(char: str) -> str:
    """Map a character: letters and digits stay, accents vanish, all else is a space."""
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if char in _LETTERS:
        return _LETTERS[char]
    if category in ("Mn", "Mc"):
        is_letter_mark = unicodedata.combining(char) in _LETTER_MARKS and not _SELECTORS.match(char)
        return char if is_letter_mark else ""
    if category == "Lm" and script(char) in ("modifier", ""):
        return " "  # typographic apostrophes among them
    if char.isalnum():
        return _unstroked(char)
    return "" if category in ("Me", "Cf") else " "


def _unstroked(char: str) -> str:
    """Return the base of a Latin letter with stroke, hook or bar, which NFKD keeps."""
    match = None if char.isascii() else _STROKED.match(unicodedata.name(char, ""))
    return match[1].lower() if match else char


def _isolate_characters(text: str) -> str:
    """Put spaces around characters of scripts without word separation."""
    parts: list[str] = []
    alone = False
    for char in text:
        if unicodedata.category(char)[0] == "M":
            parts.append(char)
            continue
        parts.append(f" {char}" if alone or not is_spaced(char) else char)
        alone = not is_spaced(char)
    return "".join(parts)
