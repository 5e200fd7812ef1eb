"""Question templates of published benchmarks, on which scores depend."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, Final

from unsee.errors import UserError
from unsee.metrics.normal_form import normalise
from unsee.utils.parsing import is_empty

LETTER: Final = "Just give ONE letter representing the answer directly."
SENTENCE: Final = "Answer the question based on your trained knowledge in one sentence accurately in ENGLISH."
BLANK: Final = "Please **ONLY** provide the correct answer that should replace the [Blank]."

_SUFFIXES: Final = frozenset({"", "jr", "sr", "ii", "iii", "iv", "phd", "md"})
"""Words behind a family name that name nobody: "World War II" is not about Henry Ford II."""
_LETTERED: Final = re.compile(r"\s*\(?([A-Za-z])(?:[.):]|\s|$)")


def lettered(question: str, options: Sequence[str], *, mark: str = ": ", after: str = LETTER) -> str:
    r"""Return a multiple-choice question with one line per option.

    Args:
        question: Question, which the options follow.
        options: Options, at most 26, lettered from A.
        mark: What stands between letter and option.
        after: Last line, which asks for the form of the answer. Empty: none.

    >>> lettered("Where?", ("Oslo", "Rome"), after="One letter.").split("\n")
    ['Where?', 'A: Oslo', 'B: Rome', 'One letter.']
    """
    lines = [f"{letter}{mark}{option}" for letter, option in zip(ascii_uppercase, options, strict=False)]
    return "\n".join([question, *lines, *([after] if after else [])])


def letter(key: str) -> str:
    """Return the letter of a key such as "b", "B." or "B) Rome", or empty if there is none.

    >>> letter(" b) Rome"), letter("C"), letter("Rome")
    ('B', 'C', '')
    """
    match = _LETTERED.match(key)
    return match[1].upper() if match else ""


def index_by_name(name: str, count: int) -> int:
    """Return a number below `count`, the same for the same name.

    >>> index_by_name("train/1", 3)
    0
    """
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % count


def blanked(sentence: str, *, pairwise: bool = False) -> str:
    """Return a cloze sentence with `[Blank]` per run of underscores (as published: per pair).

    >>> blanked("Born in ____."), blanked("Born in ____.", pairwise=True)
    ('Born in [Blank].', 'Born in [Blank][Blank].')
    """
    return re.sub(r"__" if pairwise else r"_{2,}", "[Blank]", sentence)


def require_options(cells: Mapping[str, Any], right: str) -> tuple[str, ...]:
    """Return the texts of options A, B, ..., or raise if they are unusable.

    >>> require_options({"A": 0, "B": 1}, "A")
    ('0', '1')
    """
    options = {key: "" if is_empty(cell) else str(cell) for key, cell in cells.items()}
    letters = list(ascii_uppercase[: len(options)])
    if sorted(options) != letters or len(options) < 2:
        raise UserError(f"the options must be called A, B, C, ..., got {', '.join(sorted(options)) or 'none'}.")
    if empty_letters := [key for key in letters if not options[key]]:
        raise UserError(f"option {', '.join(empty_letters)} is empty.")
    if right not in options:
        raise UserError(f"the right answer must be the letter of an option ({', '.join(letters)}), got {right!r}.")
    texts = [normalise(options[key]) for key in letters]
    if duplicates := [key for key, text in zip(letters, texts, strict=True) if texts.count(text) > 1 and text != " "]:
        raise UserError(f"options {', '.join(duplicates)} are the same.")
    return tuple(options[key] for key in letters)


def name_forms(name: str) -> tuple[str, ...]:
    """Return the forms of a name that disclose it: the full and the family name, without "Jr." and the like [inferred].

    >>> name_forms("Mara van Lind"), name_forms("Rodri"), name_forms("Robert Downey, Jr.")
    (('Mara van Lind', 'Lind'), ('Rodri',), ('Robert Downey, Jr.', 'Downey'))
    """
    words = [word.strip(",") for word in name.split()]
    telling = [word for word in words if word.replace(".", "").casefold() not in _SUFFIXES] or name.split()
    return tuple(dict.fromkeys((name, telling[-1])))
