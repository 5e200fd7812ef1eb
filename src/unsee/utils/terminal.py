"""Terminal output with control characters escaped and markup disabled."""

from __future__ import annotations

import sys
import unicodedata
from typing import Final

from rich.console import Console
from rich.text import Text

_HIDDEN: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that terminals interpret instead of showing, or cannot encode."""
_JOINERS: Final = "\u200c\u200d"
"""Format characters required by scripts and emoji."""
_NOTED: Final[set[str]] = set()


def escape_controls(text: object) -> str:
    r"""Return the text with control characters escaped, line breaks and tabs kept.

    >>> escape_controls("a\x1b]0;owned\x07b")
    'a\\x1b]0;owned\\x07b'
    """
    return "".join(char if _is_plain(char) else _escaped(char) for char in str(text))


def _is_plain(char: str) -> bool:
    return char in "\n\t" or char in _JOINERS or unicodedata.category(char) not in _HIDDEN


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def out(text: object) -> None:
    """Print a result to stdout, characters that its encoding lacks escaped (as Python does for stderr)."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    line = escape_controls(text).encode(encoding, "backslashreplace").decode(encoding)
    sys.stdout.write(f"{line}\n")


def err(text: object) -> None:
    """Print a message to stderr."""
    sys.stderr.write(f"{escape_controls(text)}\n")


def note(*parts: str | tuple[str, str]) -> None:
    """Print a styled line to stderr. Each part is a text, or a text and a style."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    line = Text.assemble(*[(escape_controls(text).replace("\n", "\\n"), style) for text, style in pairs])
    Console(stderr=True).print(line, soft_wrap=True)


def note_once(text: str) -> None:
    """Print a message to stderr, once per process."""
    if text not in _NOTED:
        _NOTED.add(text)
        err(f"unsee: {text}")
