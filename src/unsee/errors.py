"""What goes wrong, said so that the reader can put it right."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UnseeError(Exception):
    """Base of everything unsee raises on purpose."""


class UserError(UnseeError):
    """The input is at fault: the message says what was expected, what came, and the way out."""


class TrainingError(UnseeError):
    """A run could not go on (NaN loss, no progress); the message says at which step and on which examples."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name nobody has registered, with the nearest names and the whole list."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return UserError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")
