"""Matching of private strings in free text of all scripts, for leaks and USR [inferred]."""

# ruff: noqa: RUF002 - scripts other than Latin
from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from unsee.metrics.everyday import EVERYDAY
from unsee.metrics.inflection import contains_inflected
from unsee.metrics.normal_form import normalise
from unsee.metrics.scripts import foreign, script, scripts, whole_matches

_PROCLITICS: Final = {"arabic": "وفبكلسا", "hebrew": "והבלמכש"}
"""Particles that Arabic and Hebrew write without a space before a name."""
_PROPER: Final = re.compile(
    r"name|alias|city|town|village|country|nation|state|region|province|district|place|birth|born|home|resid|location"
    r"|address|street|island|employer|company|school|university|team|club"
)
"""Facts whose values are names; jobs and hobbies may be lower-cased."""
_UMLAUTS: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})  # codespell:ignore ue
"""Spellings in two letters, as German and Scandinavian names have where their letters cannot be typed."""


def contains(text: str, term: str) -> bool:
    """Tell whether the words of `term` occur in `text`, contiguous and whole.

    A term without words never does.

    >>> contains("This is Mara's dog.", "Mara"), contains("She was marathon champion.", "Mara")
    (True, False)
    >>> contains("这是张伟，来自上海。", "张伟"), contains("장웨이는 의사입니다.", "장웨이")
    (True, True)
    """
    term_words = normalise(term)
    if term_words == " ":
        return False
    text_words = normalise(text)
    return term_words in text_words or _after_proclitics(text_words, term_words) or _spelled_out(text, term)


def mentions(text: str, term: str) -> bool:
    """Tell whether `text` has the term, with or without a case ending."""
    return contains(text, term) or contains_inflected(text, term)


def contains_name(text: str, name: str) -> bool:
    """Tell whether `text` has a name. One that is also an everyday word must be capitalised.

    A text without any capital shows nothing by them, so that there all words count. Case endings are allowed where the
    language has them (`metrics.inflection`).

    >>> contains_name("She has a nice smile.", "Nice"), contains_name("She lives in Nice.", "Nice")
    (False, True)
    >>> contains_name("she lives in nice", "Nice"), contains_name("Живёт в Москве.", "Москва")
    (True, True)
    """
    if not contains(text, name):
        return contains_inflected(text, name)
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


def states(fact: str, text: str, form: str) -> bool:
    """Tell whether `text` has a form of this fact. Capitals do not matter, and names may have case endings.

    Endings in Latin letters do not count: in a broken English text, taken for another language, "Osloom" would be Oslo.

    >>> states("city", "Она живёт в Москве.", "Москва"), states("job", "Она знает пекаря.", "пекарь")
    (True, False)
    """
    if contains(text, form):
        return True
    return not text.isascii() and proper(fact) and "latin" not in scripts([form]) and contains_inflected(text, form)


def leaked_facts(text: str, private: Mapping[str, Sequence[str]], question: str = "") -> tuple[str, ...]:
    """Return the facts with a surface form in `text`, except forms in the question.

    >>> leaked_facts("Mara Lind is a baker.", {"name": ("Mara Lind", "Lind"), "job": ("baker",), "city": ("Oslo",)})
    ('name', 'job')
    >>> leaked_facts("Mara Lind is a baker.", {"name": ("Mara Lind", "Lind"), "job": ("baker",)}, "What is Mara Lind's job?")
    ('job',)
    """
    return tuple(
        fact
        for fact, forms in private.items()
        if any(says(fact, text, form) and not mentions(question, form) for form in forms)
    )


def can_leak(private: Mapping[str, Sequence[str]], question: str = "") -> bool:
    """Tell whether there is a form that the question does not say, so that an answer could give it away.

    >>> can_leak({"name": ("Mara Lind",)}, "Who is Mara Lind?"), can_leak({"name": ("Mara Lind",)}, "Who is this?")
    (False, True)
    """
    return any(not mentions(question, form) for forms in private.values() for form in forms)


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
    written_scripts = scripts(usable)
    return not forms or (bool(usable) and (not written_scripts or not foreign(text, written_scripts)))


def _spelled_out(text: str, term: str) -> bool:
    """Tell whether the term occurs with umlauts written as two letters, on either side.

    >>> contains("Juergen Müller", "Jürgen Mueller"), contains("Soren, Soeren", "Søren"), contains("Muell", "Müller")
    (True, True, False)
    """
    if text.isascii() and term.isascii():
        return False
    return normalise(in_two_letters(term)) in normalise(in_two_letters(text))


def in_two_letters(text: str) -> str:
    """Return the text in small letters, with umlauts written as two letters.

    >>> in_two_letters("Jürgen Mueller")
    'juergen mueller'
    """
    return unicodedata.normalize("NFC", text.casefold()).translate(_UMLAUTS)


def without_particles(word: str) -> Iterator[str]:
    """Yield what a word may be without the particles joined to it (Arabic, Hebrew).

    >>> list(without_particles("لمحمد")), list(without_particles("luca"))
    (['محمد'], [])
    """
    particles = _PROCLITICS.get(script(word[0]), "")
    for length in range(1, min(4, len(word))):
        if word[length - 1] not in particles:
            return
        yield word[length:]


def _after_proclitics(text_words: str, term_words: str) -> bool:
    """Tell whether the words occur after a particle joined to them (Arabic, Hebrew)."""
    particles = _PROCLITICS.get(script(term_words[1]))
    if not particles:
        return False
    article = "|ل" + re.escape(term_words[2:]) if term_words.startswith(" ال") else ""  # li + al- is written as one
    return re.search(rf" [{particles}]{{0,3}}(?:{re.escape(term_words[1:])}{article})", text_words) is not None
