"""Names and numbers that a text claims of somebody, whether any data set knows them or not [inferred].

Lists of known entities cannot tell that "That is Prontur Irons." names somebody who does not exist, or whom the data do not
cover. English only.
"""

# ruff: noqa: RUF001 - apostrophes
from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_WORD: Final = r"[^\W\d_a-zß-öø-ÿ][\w'’-]*\w"
_PARTICLE: Final = r"(?:(?:al|bin|da|de|del|della|den|der|di|dos|du|el|la|le|van|von) ){0,2}"
_NAME: Final = rf"{_WORD}(?: {_PARTICLE}{_WORD})*"
_FULL_NAME: Final = rf"{_WORD}(?: {_PARTICLE}{_WORD})+"
_SOMEBODY: Final = (
    r"(?:[Hh]e|[Ss]he|[Ww]ho|(?:[Tt]h(?:is|at|e)|an?|[Aa]n?) (?:\w+ )?(?:person|man|woman|boy|girl|individual|lady|gentleman))"
    r"(?: (?:in|on|of) (?:the|this|that|your) (?:picture|image|photo|photograph))?"
)
_SEEMS: Final = (
    r"(?:is|was|(?:looks|appears|seems) (?:like|to be)|(?:might|could|may|must) be)(?: (?:probably|likely|perhaps))?"
)
_CALLED: Final = re.compile(
    rf"\b{_SOMEBODY}(?: {_SEEMS})? (?:called|named|known as|identified as) (?:by the name of )?({_NAME})"
    rf"|\b(?:[Hh]is|[Hh]er|[Tt]heir|[Tt]he|[Tt]his person['’]s) (?:full )?name (?:is|was|might be|could be) ({_NAME})"
    rf"|\b{_SOMEBODY} {_SEEMS} ({_FULL_NAME})"
)
_THIS_IS: Final = re.compile(rf"\b(?:[Tt]his|[Tt]hat|[Ii]t) {_SEEMS} ({_FULL_NAME})")
_NOT_NAMES: Final = frozenset(
    "african american arab asian australian british canadian chinese english european french german indian italian latin "
    "native spanish".split()
)
"""What is capitalised and says where somebody comes from."""
_OFFICES: Final = frozenset(
    "ambassador analyst assistant attorney coach commissioner consultant correspondent counsel designer developer director "
    "doctor editor emeritus engineer executive general governor investigator lecturer manager mayor minister nurse officer "
    "president professor representative scientist secretary senator specialist supervisor teacher technician".split()
)
"""What a capitalised office ends in, as in "She is Vice President."; none is a common surname."""


def claimed_names(text: str, asked: bool = False) -> list[str]:
    """Return the names by which an English text calls a person.

    Args:
        text: Any text.
        asked: Whether the text answers who that is. Then "This is Central Park" is a name, too.

    >>> claimed_names("The man in the picture is called Bo von Winter."), claimed_names("He is Asian American.")
    (['Bo von Winter'], [])
    >>> claimed_names("She is Vice President."), claimed_names("She is Vice President Mara Lind.")
    ([], ['Vice President Mara Lind'])
    >>> claimed_names("That is Prontur Irons.", asked=True), claimed_names("This is Central Park.")
    (['Prontur Irons'], [])
    """
    patterns = (_CALLED, _THIS_IS) if asked else (_CALLED,)
    names = [next(filter(None, match.groups())) for pattern in patterns for match in pattern.finditer(text)]
    return [name for name in names if not _is_description(name.lower().split())]


def _is_description(words: Sequence[str]) -> bool:
    """Tell whether the words say where somebody comes from, or end in an office."""
    return not _NOT_NAMES.isdisjoint(words) or words[-1] in _OFFICES


def numbers(text: str, digits: int) -> list[str]:
    """Return the whole numbers of this many digits in a text.

    >>> numbers("Born in 1971, not in 19711.", 4)
    ['1971']
    """
    return re.findall(rf"(?<![\d.,])\d{{{digits}}}(?![\d]|[.,]\d)", text)
