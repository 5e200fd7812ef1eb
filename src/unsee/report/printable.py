"""Text of runs as pages show it."""

from __future__ import annotations

import unicodedata
from typing import Final

_JOINERS: Final = "\u200c\u200d"
"""Format characters that Persian, Indic scripts and emoji are written with."""


def printable(text: str) -> str:
    r"""Return the text on one line, with control and bidirectional characters and lone surrogates visible.

    >>> printable("a\r\nb\tc"), printable("a\x00b") == "a\N{REPLACEMENT CHARACTER}b"
    ('a b c', True)
    """
    return "".join(map(_shown, text.replace("\r\n", "\n"))).strip()


def _shown(char: str) -> str:
    if char in "\r\n\t":
        return " "
    if char in _JOINERS or unicodedata.category(char) not in ("Cc", "Cf", "Cs"):
        return char
    return "\N{REPLACEMENT CHARACTER}"
