"""Matching of private strings in free text of all scripts, for leaks and USR [inferred]."""

# ruff: noqa: RUF001, RUF002 - scripts other than Latin
from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from unsee.metrics.everyday import EVERYDAY
from unsee.metrics.scripts import foreign, script, scripts, spaced, whole_matches

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
_PROCLITICS: Final = {"arabic": "وفبكلسا", "hebrew": "והבלמכש"}
"""Particles that Arabic and Hebrew write without a space before a name."""
_PROPER: Final = re.compile(
    r"name|alias|city|town|village|country|nation|state|region|province|district|place|birth|born|home|resid|location"
    r"|address|street|island|employer|company|school|university|team|club"
)
"""Facts whose values are names; jobs and hobbies may be lower-cased."""


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
        plain = _apart(unicodedata.normalize("NFC", plain))
    words = plain.split()
    return f" {' '.join(words)} " if words else " "


def contains(text: str, term: str) -> bool:
    """Tell whether the words of `term` occur in `text`, contiguous and whole.

    A term without words never does.

    >>> contains("This is Mara's dog.", "Mara"), contains("She was marathon champion.", "Mara")
    (True, False)
    >>> contains("这是张伟，来自上海。", "张伟"), contains("장웨이는 의사입니다.", "장웨이")
    (True, True)
    """
    wanted = normalise(term)
    if wanted == " ":
        return False
    said = normalise(text)
    return wanted in said or _after_proclitics(said, wanted)


def contains_name(text: str, name: str) -> bool:
    """Tell whether `text` has a name. One that is also an everyday word must be capitalised.

    A text without any capital shows nothing by them, so that there all words count.

    >>> contains_name("She has a nice smile.", "Nice"), contains_name("She lives in Nice.", "Nice")
    (False, True)
    >>> contains_name("she lives in nice", "Nice")
    True
    """
    if not contains(text, name):
        return False
    if not everyday(name) or text == text.lower():
        return True
    plain = unicodedata.normalize("NFKC", text)
    return any(match[0][0].isupper() for match in whole_matches(plain, [name.strip()], ignore_case=True))


def everyday(name: str) -> bool:
    """Tell whether a name is one capitalised everyday word, such as Nice, Reading or Hope.

    >>> everyday("Hope"), everyday("hope"), everyday("Hope Lind"), everyday("Oslo")
    (True, False, False, False)
    """
    word = name.strip()
    return word[:1].isupper() and word.casefold() in EVERYDAY


def proper(fact: str) -> bool:
    """Tell whether the values of a fact are proper names, by the fact's own name.

    >>> proper("city"), proper("Place of birth"), proper("job"), proper("hobby")
    (True, True, False, False)
    """
    return _PROPER.search(fact.casefold()) is not None


def says(fact: str, text: str, form: str) -> bool:
    """Tell whether `text` has a form of this fact. Everyday names must be capitalised."""
    return contains_name(text, form) if proper(fact) else contains(text, form)


def leaked(text: str, private: Mapping[str, Sequence[str]], question: str = "") -> tuple[str, ...]:
    """Return the facts with a surface form in `text`, except forms in the question.

    >>> leaked("Mara Lind is a baker.", {"name": ("Mara Lind", "Lind"), "job": ("baker",), "city": ("Oslo",)})
    ('name', 'job')
    >>> leaked("Mara Lind is a baker.", {"name": ("Mara Lind", "Lind"), "job": ("baker",)}, "What is Mara Lind's job?")
    ('job',)
    """
    return tuple(
        fact
        for fact, forms in private.items()
        if any(says(fact, text, form) and not contains(question, form) for form in forms)
    )


def unreadable(text: str, private: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the facts that would not be detected in `text`.

    Either no form of the fact has a letter or digit, or the text has words in a script in which no form is written:
    "Zhang Wei" is not found in a text that says 张伟. Numbers are the same in all scripts.

    >>> unreadable("这是张伟。", {"name": ("Zhang Wei",)}), unreadable("这是张伟。", {"name": ("Zhang Wei", "张伟")})
    (('name',), ())
    >>> unreadable("Hello.", {"mood": (":-)",)})
    ('mood',)
    """
    return tuple(fact for fact, forms in private.items() if not _readable(text, tuple(forms)))


@lru_cache(maxsize=65536)
def _readable(text: str, forms: tuple[str, ...]) -> bool:
    """Tell whether a fact would be detected. One without forms needs no detection."""
    usable = [form for form in forms if normalise(form) != " "]
    known = scripts(usable)
    return not forms or (bool(usable) and (not known or not foreign(text, known)))


def _after_proclitics(said: str, wanted: str) -> bool:
    """Tell whether the words occur after a particle joined to them (Arabic, Hebrew)."""
    particles = _PROCLITICS.get(script(wanted[1]))
    if not particles:
        return False
    article = "|ل" + re.escape(wanted[2:]) if wanted.startswith(" ال") else ""  # li + al- is written as one
    return re.search(rf" [{particles}]{{0,3}}(?:{re.escape(wanted[1:])}{article})", said) is not None


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
        kept = unicodedata.combining(char) in _LETTER_MARKS and not _SELECTORS.match(char)
        return char if kept else ""
    if category == "Lm" and script(char) in ("modifier", ""):
        return " "  # typographic apostrophes among them
    if char.isalnum():
        return _unstroked(char)
    return "" if category in ("Me", "Cf") else " "


def _unstroked(char: str) -> str:
    """Return the base of a Latin letter with stroke, hook or bar, which NFKD keeps."""
    found = None if char.isascii() else _STROKED.match(unicodedata.name(char, ""))
    return found[1].lower() if found else char


def _apart(text: str) -> str:
    """Put spaces around characters of scripts without word separation."""
    parts: list[str] = []
    alone = False
    for char in text:
        if unicodedata.category(char)[0] == "M":
            parts.append(char)
            continue
        parts.append(f" {char}" if alone or not spaced(char) else char)
        alone = not spaced(char)
    return "".join(parts)
