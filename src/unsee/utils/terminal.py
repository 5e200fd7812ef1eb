"""Output to the terminal: control characters of data are escaped, and markup is never interpreted."""

from __future__ import annotations

import sys
import unicodedata
from typing import Final

from rich.console import Console
from rich.text import Text

_HIDDEN: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that a terminal obeys instead of showing, or cannot encode."""
_JOINERS: Final = "\u200c\u200d"
"""Format characters that scripts and emoji need."""
_NOTED: Final[set[str]] = set()


def shown(text: object) -> str:
    r"""Return the text with control characters as escapes; line breaks and tabs stay.

    >>> shown("a\x1b]0;owned\x07b")
    'a\\x1b]0;owned\\x07b'
    """
    return "".join(char if _is_plain(char) else _escaped(char) for char in str(text))


def _is_plain(char: str) -> bool:
    return char in "\n\t" or char in _JOINERS or unicodedata.category(char) not in _HIDDEN


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def out(text: object) -> None:
    """Print a result to stdout."""
    sys.stdout.write(f"{shown(text)}\n")


def err(text: object) -> None:
    """Print a remark to stderr."""
    sys.stderr.write(f"{shown(text)}\n")


def note(*parts: str | tuple[str, str]) -> None:
    """Print a styled line to stderr: each part is text, or text and style."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    line = Text.assemble(*[(shown(text).replace("\n", "\\n"), style) for text, style in pairs])
    Console(stderr=True).print(line, soft_wrap=True)


def note_once(text: str) -> None:
    """Print a remark to stderr, the first time only."""
    if text not in _NOTED:
        _NOTED.add(text)
        err(f"unsee: {text}")
