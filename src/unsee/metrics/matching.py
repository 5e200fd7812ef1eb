"""Finding private strings in free text (USR matcher, pubg.md section 7.1 [inferred])."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache


@lru_cache(maxsize=65536)
def normalise(text: str) -> str:
    """Return casefolded words without accents, one space between, before and after them.

    Unicode NFKD; combining marks and invisible format characters go; every run of non-alphanumerics becomes one space.

    >>> normalise("José-María's  CAFÉ")
    ' jose maria s cafe '
    >>> normalise("...")
    ' '
    """
    words = "".join(_plain(char) for char in _decomposed(text)).split()
    return f" {' '.join(words)} " if words else " "


def contains(text: str, term: str) -> bool:
    """Tell whether the words of `term` occur in `text`, in order and whole; a term without words never does.

    >>> contains("This is Mara's dog.", "Mara"), contains("She was marathon champion.", "Mara")
    (True, False)
    """
    wanted = normalise(term)
    return wanted != " " and wanted in normalise(text)


def leaked(text: str, private: Mapping[str, Sequence[str]], question: str = "") -> tuple[str, ...]:
    """Return the facts with a surface form in `text`; forms that the question itself contains do not count.

    >>> leaked("Mara Lind is a baker.", {"name": ("Mara Lind", "Lind"), "job": ("baker",), "city": ("Oslo",)})
    ('name', 'job')
    >>> leaked("Mara Lind is a baker.", {"name": ("Mara Lind", "Lind"), "job": ("baker",)}, "What is Mara Lind's job?")
    ('job',)
    """
    return tuple(
        fact
        for fact, forms in private.items()
        if any(contains(text, form) and not contains(question, form) for form in forms)
    )


def _decomposed(text: str) -> str:
    """Return NFKD of the casefolded NFKD, so that folding cannot hide an accent again."""
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())


def _plain(char: str) -> str:
    """Return the character if alphanumeric, nothing if a mark or invisible, else a space."""
    category = unicodedata.category(char)
    if category == "Lm":
        return " "  # modifier letters: typographic apostrophes among them
    if char.isalnum():
        return char
    return "" if category[0] == "M" or category == "Cf" else " "
