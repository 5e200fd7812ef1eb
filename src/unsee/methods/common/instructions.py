"""The instruction of the model itself beside that of a method."""

from __future__ import annotations

from unsee.api import Session


def joined(first: str, second: str) -> str:
    """Return two instructions one after the other, or the first alone where it has the second.

    >>> joined("", "Hush."), joined("Hush.", "Be brief."), joined("Hush. Be brief.", "Hush.")
    ('Hush.', 'Hush. Be brief.', 'Hush. Be brief.')
    """
    return first if second in first else f"{first} {second}".strip()


def served(session: Session, instruction: str) -> str:
    """Return an instruction after that of the model, which an earlier request may have left."""
    return joined(session.instruction, instruction) if session.instruction else instruction
