"""Names with case endings, as most European languages but English write them [inferred].

"Annan" (Finnish), "Anny" (Polish), "Анну" (Russian) and "Άννας" (Greek) name Anna. A word of a text matches a word of a name if both
are equal up to a final vowel and the rest is a known ending. Only endings are known: names whose stem changes (Павел, Павла)
are found in the form that is given. Latin text is read so only if it is recognised as not English.
"""

# ruff: noqa: RUF001 - scripts other than Latin
from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from unsee.metrics.language import english
from unsee.metrics.normal_form import normalise
from unsee.metrics.scripts import script

_WORD: Final = re.compile(r"\w+")
_STEM: Final = 3
"""Fewest letters of a name's word before its ending."""
_FINAL: Final = {
    "latin": re.compile("[aeiouy]$"),
    "cyrillic": re.compile("(?:ии|ая|[аеиоуыэюяь])$"),
    "greek": re.compile("(?:[οηα]σ|[αηο])$"),
}
"""What inflection drops from the end of a word in its normal form, where й is и."""
_ENDINGS: Final = {
    script: frozenset(normalise(endings).split())
    for script, endings in {
        "latin": "s es a e i o u y ae am om em im ym um ie ii ou ej iej ego emu ami owi ovi as os is us ai ui ei "
        "n an en in na on lla lle lta ssa sta ta ksi ia t at et ot nak nek val vel hoz hez ban ben nal nel tol rol",
        "cyrillic": "а е ё и і о у ы ю я ь ї ой ою ей ею ом ем ём ам ям ами ями ах ях ии ию ией им ым ими ыми ого его ому ему "
        "ой ую юю ові еві",
        "greek": "α ασ ε η ησ ο οσ ου ων",
    }.items()
}


def inflects(text: str, name: str) -> bool:
    """Tell whether a text of this language may write the name with case endings.

    >>> inflects("Tämä on Annan talo, ja hän ei ole täällä.", "Anna"), inflects("This is the house of Anna.", "Anna")
    (True, False)
    """
    alphabet = next((script(char) for char in normalise(name) if script(char)), "")
    return alphabet in ("cyrillic", "greek") or (alphabet == "latin" and not english(text))


@lru_cache(maxsize=65536)
def contains_inflected(text: str, name: str) -> bool:
    """Tell whether the text has the name with case endings. The words must be capitalised as in the name.

    >>> contains_inflected("Я знаю Анну Петрову.", "Анна Петрова"), contains_inflected("Это Иванов.", "Иван")
    (True, False)
    """
    name_words = _WORD.findall(unicodedata.normalize("NFKC", name))
    if not name_words or not inflects(text, name):
        return False
    words = _WORD.findall(unicodedata.normalize("NFKC", text))
    windows = (words[start : start + len(name_words)] for start in range(len(words) - len(name_words) + 1))
    return any(all(map(_same, window, name_words)) for window in windows)


def _same(word: str, form: str) -> bool:
    """Tell whether a word is the form, with or without a case ending."""
    if form[0].isupper() and not word[0].isupper():
        return False
    spoken, stem_form = normalise(word).strip(), normalise(form).strip()
    if spoken == stem_form:
        return True
    endings = _ENDINGS.get(script(stem_form[:1]), frozenset())
    stems = {stem_form, _FINAL[script(stem_form[:1])].sub("", stem_form)} if endings else set()
    return any(len(stem) >= _STEM and spoken.startswith(stem) and spoken[len(stem) :] in endings for stem in stems)
