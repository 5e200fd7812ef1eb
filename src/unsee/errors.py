"""Exceptions, and messages for unknown names."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Final, Self

_COMPARED: Final = 100
"""Longest part of a name that is compared with known names."""


class UnseeError(Exception):
    """Base of all exceptions that unsee raises on purpose."""


class UserError(UnseeError):
    """Invalid input. The message says what was expected, what came, and what to do."""


class InUseError(UserError):
    """Another process is using the output folder."""


class Terminated(KeyboardInterrupt):
    """SIGTERM was received. The process ends as after Ctrl-C."""


class NotFiniteError(UserError):
    """A model output is NaN or infinite, so its responses cannot be judged."""

    def __init__(self, what: str, place: int = -1) -> None:
        """Store where: `what` names the question or tensor, `place` the index of the request."""
        self.place = place
        super().__init__(
            f"The model's output is not a number at {what}. Its weights are damaged, or too large for their type. "
            "Nothing was scored; train again with a lower training.lr, or give another checkpoint."
        )


class TrainingError(UnseeError):
    """Training cannot continue (NaN loss, no progress). The message names step and examples."""


class NoDataError(UserError):
    """No data where they are said to be."""


class UnknownNameError(UserError):
    """Unknown name. The message suggests the nearest names and lists all."""

    def __init__(self, kind: str, name: str, known: Iterable[str], elsewhere: Iterable[str] = ()) -> None:
        """Store the candidates. `elsewhere` are names of another kind, which take precedence."""
        self.kind, self.name, self.known = kind, name, sorted(known)
        hint = did_you_mean(list(elsewhere) or nearest(name, self.known))
        super().__init__(f"Unknown {kind} {short_repr(name)}.{hint} Known: {', '.join(self.known) or 'none'}.")

    def beside(self, elsewhere: Iterable[str]) -> Self:
        """Return the error with matching names of another kind, if there are any."""
        return type(self)(self.kind, self.name, self.known, elsewhere)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for an unknown name, with the nearest names and the whole list."""
    return UnknownNameError(kind, name, known)


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three names most similar to `name`, most similar first."""
    return get_close_matches(name[:_COMPARED], list(known), n=3, cutoff=0.5)


def did_you_mean(near: Iterable[str]) -> str:
    """Return a "did you mean" clause for these names, or empty if there are none."""
    names = list(dict.fromkeys(near))
    return f" Did you mean {' or '.join(names)}?" if names else ""


class _Short(reprlib.Repr):
    """A `repr` limited in items, depth and characters, whatever the size of the value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, 200, 200

    def repr_int(self, x: int, level: int) -> str:
        """Return the digits. Python refuses integers of more than a few thousand."""
        return super().repr_int(x, level) if x.bit_length() < 4096 else f"an integer of {x.bit_length()} bits"


_SHORT: Final = _Short()


def short_repr(value: Any, most: int = 80) -> str:
    """Return a shortened `repr` for messages, without reading huge values in full."""
    text = _SHORT.repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def first_names(names: Sequence[str], most: int = 5) -> str:
    """Return the first names for a message, and the number of the others.

    >>> first_names(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def list_message(head: str, lines: Sequence[str], most: int, elsewhere: str = "") -> str:
    """Return a message of several lines: a head, the first lines, the number of the others.

    Args:
        head: First line, which says what is wrong.
        lines: All findings, one per line.
        most: Number of lines shown.
        elsewhere: Where all of them can be seen, put behind the number of the others.
    """
    remainder = [f"... and {len(lines) - most} more{elsewhere}"] if len(lines) > most else []
    return "\n  ".join([head, *lines[:most], *remainder])
