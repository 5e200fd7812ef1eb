"""Question templates of published benchmarks, on which scores depend."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, Final

from unsee.errors import UserError, short_repr
from unsee.metrics.normal_form import normalise
from unsee.utils.parsing import as_text

LETTER: Final = "Just give ONE letter representing the answer directly."
SENTENCE: Final = "Answer the question based on your trained knowledge in one sentence accurately in ENGLISH."
BLANK: Final = "Please **ONLY** provide the correct answer that should replace the [Blank]."

_SUFFIXES: Final = frozenset({"", "jr", "sr", "ii", "iii", "iv", "phd", "md"})
"""Words behind a family name that name nobody: "World War II" is not about Henry Ford II."""
_LETTERED: Final = re.compile(r"\(?([A-Za-z])(?:([.):]+)|\s|$)(.*)", re.DOTALL)
"""A letter, alone or before a mark or blank, and what follows."""


def lettered(question: str, options: Sequence[str], *, mark: str = ": ", after: str = LETTER) -> str:
    r"""Return a multiple-choice question with one line per option.

    Args:
        question: Question, which the options follow.
        options: Options, lettered from A.
        mark: What stands between letter and option.
        after: Last line, which asks for the form of the answer. Empty: none.

    Raises:
        UserError: There are more than 26 options.

    >>> lettered("Where?", ("Oslo", "Rome"), after="One letter.").split("\n")
    ['Where?', 'A: Oslo', 'B: Rome', 'One letter.']
    """
    lines = [f"{letter}{mark}{option}" for letter, option in zip(letters_of(options), options, strict=True)]
    return "\n".join([question, *lines, *([after] if after else [])])


def letters_of(options: Sequence[str]) -> str:
    """Return the letters of options, from A on, or raise if there are more than letters."""
    if len(options) > len(ascii_uppercase):
        raise UserError(f"a choice has at most {len(ascii_uppercase)} options (A to Z), got {len(options)}.")
    return ascii_uppercase[: len(options)]


def right_letter(answer: str, options: Sequence[str]) -> str:
    """Return the letter of the right option: by its exact text, else by a letter such as "b", "B." or "B) Rome", else by its words.

    Raises:
        UserError: The answer is no option, or has the letter of one and the text of another.

    >>> [right_letter(text, ("Oslo", "Rome")) for text in ("Rome", "b", "B.", "(b) Rome", "ROME!")]
    ['B', 'B', 'B', 'B', 'B']
    >>> right_letter("B", ("O", "A", "B")), right_letter("A striker.", ("Keeper", "A striker"))
    ('C', 'B')
    """
    letters = letters_of(options)
    if answer in options:  # before letters, since options may be letters: blood groups O, A, B, AB
        return letters[options.index(answer)]
    key, mark, words = match.groups() if (match := _LETTERED.fullmatch(answer.strip())) else ("", "", "")
    key = key.upper() if key and key.upper() in letters else ""
    if key and not words.strip():
        return key
    if named := _named(answer, options):
        return named
    other = _named(words, options)
    if key and other not in ("", key):
        raise UserError(
            f"the answer {short_repr(answer)} has the letter of option {key} and the text of {other}. Write one of them."
        )
    if key and (mark or other):
        return key
    raise UserError(
        f"the right answer must be the letter of an option ({', '.join(letters)}), got {short_repr(answer)}, which is the text of "
        "none either."
    )


def _named(text: str, options: Sequence[str]) -> str:
    """Return the letter of the only option with the words of a text, or empty."""
    words = normalise(text)
    named = [key for key, option in zip(letters_of(options), options, strict=True) if normalise(option) == words != " "]
    return named[0] if len(named) == 1 else ""


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


def require_options(cells: Mapping[str, Any], right: str) -> tuple[tuple[str, ...], str]:
    """Return the texts of options A, B, ... and the letter of the right one, or raise if they are unusable.

    >>> require_options({"A": 0, "B": 1}, "B.")
    (('0', '1'), 'B')
    """
    texts_by_key = {key: as_text(cell) for key, cell in cells.items()}
    if no_texts := [key for key, text in texts_by_key.items() if text is None]:
        raise UserError(f"option {', '.join(no_texts)} must be text, got {short_repr(cells[no_texts[0]])}.")
    options = {key: text or "" for key, text in texts_by_key.items()}
    letters = list(ascii_uppercase[: len(options)])
    if sorted(options) != letters or len(options) < 2:
        raise UserError(f"the options must be called A, B, C, ..., got {', '.join(sorted(options)) or 'none'}.")
    if empty_letters := [key for key in letters if not options[key]]:
        raise UserError(f"option {', '.join(empty_letters)} is empty.")
    texts = [normalise(options[key]) for key in letters]
    if duplicates := [key for key, text in zip(letters, texts, strict=True) if texts.count(text) > 1 and text != " "]:
        raise UserError(f"options {', '.join(duplicates)} are the same.")
    ordered = tuple(options[key] for key in letters)
    # A key of the data comes first: an option may be called A and say B.
    return ordered, right if right in options else right_letter(right, ordered)


def name_forms(name: str) -> tuple[str, ...]:
    """Return the forms of a name that disclose it: the full and the family name, without "Jr." and the like [inferred].

    >>> name_forms("Mara van Lind"), name_forms("Rodri"), name_forms("Robert Downey, Jr.")
    (('Mara van Lind', 'Lind'), ('Rodri',), ('Robert Downey, Jr.', 'Downey'))
    """
    words = [word.strip(",") for word in name.split()]
    telling = [word for word in words if word.replace(".", "").casefold() not in _SUFFIXES] or name.split()
    return tuple(dict.fromkeys((name, telling[-1])))
