"""Unicode scripts of text, and which of them separate words by spaces."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

SPACED: Final = frozenset(
    (
        "latin greek cyrillic armenian georgian hebrew arabic syriac thaana devanagari gurmukhi coptic "
        "cherokee tifinagh nko adlam glagolitic runic gothic osage deseret"
    ).split()
)
"""Scripts whose words are told apart by blanks. All others are read character by character.

Chinese, Japanese, Thai, Lao, Khmer, Myanmar or Tibetan have no blanks between words; Korean, Tamil, Bengali or Amharic
have, but add particles to names. Reading them by characters finds a name inside a longer word, and so errs towards a leak.
"""
_TOGETHER: Final = {"cjk": "han", "ideographic": "han", "hiragana": "han", "katakana": "han", "bopomofo": "han"} | {
    "katakana-hiragana": "han"
}
"""Scripts that Japanese text mixes, so none is foreign beside another."""


@lru_cache(maxsize=65536)
def script(char: str) -> str:
    """Return the script of a lower-case letter, by its Unicode name, or "" for anything else.

    >>> [script(char) for char in "aяก张ひ1-"]
    ['latin', 'cyrillic', 'thai', 'han', 'han', '', '']
    """
    if not unicodedata.category(char).startswith("L"):
        return ""
    first = unicodedata.name(char, "unnamed").split()[0].lower()
    return _TOGETHER.get(first, first)


@lru_cache(maxsize=65536)
def is_spaced(char: str) -> bool:
    """Tell whether this character's script separates words. Digits and marks fit any script."""
    return script(char) in SPACED or not unicodedata.category(char).startswith("L")


def scripts(texts: Iterable[str]) -> frozenset[str]:
    """Return the scripts of all letters.

    >>> sorted(scripts(["Ada 张伟", "1985"]))
    ['han', 'latin']
    """
    return frozenset(script(char) for text in texts for char in unicodedata.normalize("NFKC", text)) - {""}


def foreign(text: str, known: frozenset[str], run: int = 2) -> frozenset[str]:
    """Return the scripts outside `known` with a word in the text. Single letters do not count.

    >>> foreign("It is 张伟.", frozenset({"latin"})), foreign("about 5 μm", frozenset({"latin"}))
    (frozenset({'han'}), frozenset())
    """
    if text.isascii() and "latin" in known:
        return frozenset()
    found_scripts, previous, length = set(), "", 0
    for char in unicodedata.normalize("NFKC", text):
        if unicodedata.category(char) in ("Mn", "Mc", "Cf"):
            continue  # a vowel sign or joiner does not end a word
        current = script(char)
        length = length + 1 if current == previous else 1
        previous = current
        if current and current not in known and length >= run:
            found_scripts.add(current)
    return frozenset(found_scripts)


def is_whole_word(text: str, start: int, end: int) -> bool:
    """Tell whether text[start:end] is not inside a longer word.

    Next to a script without spaces there is always a word boundary.

    >>> is_whole_word("Mara", 0, 3), is_whole_word("Mara Lind", 0, 4), is_whole_word("这是张伟", 2, 4), is_whole_word("Ada在", 0, 3)
    (False, True, True, True)
    """
    return not (_same_word(text, start - 1, start) or _same_word(text, end - 1, end))


def whole_matches(text: str, forms: Iterable[str], *, ignore_case: bool = False) -> list[re.Match[str]]:
    """Return the spans of whole-word forms without overlap: leftmost first, then longest.

    >>> [match.span() for match in whole_matches("这是张伟, Ada Lovells Ada", ["张伟", "Ada", "Ada Lovell"])]
    [(2, 4), (6, 9), (18, 21)]
    """
    flags = re.IGNORECASE if ignore_case else 0
    matches = [match for form in set(forms) if form for match in re.finditer(re.escape(form), text, flags)]
    disjoint: list[re.Match[str]] = []
    for match in sorted(matches, key=lambda match: (match.start(), -match.end())):
        if is_whole_word(text, *match.span()) and (not disjoint or match.start() >= disjoint[-1].end()):
            disjoint.append(match)
    return disjoint


def whole_word_pattern(value: str) -> str:
    r"""Return a pattern of the value as whole words, in scripts that separate words.

    >>> whole_word_pattern("red hat"), whole_word_pattern("红帽")
    ('\\bred\\ hat\\b', '红帽')
    """
    ends = ((value[:1], r"\b"), (value[-1:], r"\b"))
    before, after = (mark if not char or is_spaced(char) else "" for char, mark in ends)
    return f"{before}{re.escape(value)}{after}"


def _same_word(text: str, left: int, right: int) -> bool:
    """Tell whether two neighbouring characters belong to one word."""
    if left < 0 or right >= len(text):
        return False
    pair = text[left], text[right]
    return all((char.isalnum() or char == "_") and is_spaced(char) for char in pair)
