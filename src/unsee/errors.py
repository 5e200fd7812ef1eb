"""What goes wrong, said so that the reader can put it right."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final, Self

_COMPARED: Final = 100
"""Characters of a name that is looked for among known ones."""


class UnseeError(Exception):
    """Base of everything unsee raises on purpose."""


class UserError(UnseeError):
    """The input is at fault: the message says what was expected, what came, and the way out."""


class InUseError(UserError):
    """Another process is writing into the output folder."""


class Terminated(KeyboardInterrupt):
    """SIGTERM has come: the process ends as it does after Ctrl-C."""


class NotFiniteError(UserError):
    """A model put out what is no number; nothing that it says can be judged."""

    def __init__(self, what: str, place: int = -1) -> None:
        """Say where: `what` names the question or tensor, `place` is the request's place in its list."""
        self.place = place
        super().__init__(
            f"The model's output is not a number at {what}. Its weights are damaged, or too large for their type. "
            "Nothing was scored; train again with a lower training.lr, or give another checkpoint."
        )


class TrainingError(UnseeError):
    """A run could not go on (NaN loss, no progress); the message says at which step and on which examples."""


class UnknownNameError(UserError):
    """A name nobody has registered: the message has the nearest names and the whole list."""

    def __init__(self, kind: str, name: str, known: Iterable[str], elsewhere: Iterable[str] = ()) -> None:
        """Say what the name was meant to be one of; `elsewhere` are names of another kind that are meant rather."""
        self.kind, self.name, self.known = kind, name, sorted(known)
        hint = did_you_mean(list(elsewhere) or nearest(name, self.known))
        super().__init__(f"Unknown {kind} {shown(name)}.{hint} Known: {', '.join(self.known) or 'none'}.")

    def beside(self, elsewhere: Iterable[str]) -> Self:
        """Return the same error with the names of another kind that are meant, if there are any."""
        return type(self)(self.kind, self.name, self.known, elsewhere)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for a name nobody has registered, with the nearest names and the whole list."""
    return UnknownNameError(kind, name, known)


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three names that are written nearly like `name`, nearest first."""
    return get_close_matches(name[:_COMPARED], list(known), n=3, cutoff=0.5)


def did_you_mean(near: Iterable[str]) -> str:
    """Return the half sentence that offers these names; nothing if there are none."""
    listed = list(dict.fromkeys(near))
    return f" Did you mean {' or '.join(listed)}?" if listed else ""


class _Short(reprlib.Repr):
    """A `repr` that reads a few items, levels and characters of a value, however large or deep it is."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, 200, 200

    def repr_int(self, x: int, level: int) -> str:
        """Return the digits; Python refuses to write more than some thousands of them."""
        return super().repr_int(x, level) if x.bit_length() < 4096 else f"an integer of {x.bit_length()} bits"


_SHORT: Final = _Short()


def shown(value: Any, most: int = 80) -> str:
    """Return the `repr` of a value as a message has it, at most so many characters; huge values are not read whole."""
    text = _SHORT.repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
