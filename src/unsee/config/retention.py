"""Retention of a run's private files: for good, until judged forgotten, or for N days."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Final

from unsee.errors import UserError, short_repr

KEEP: Final = "keep"
UNTIL_VERIFIED: Final = "until_verified"
_DAYS: Final = re.compile(r"days:([1-9]\d{0,3})")


def require_retention(text: str) -> None:
    """Raise unless the text is keep, until_verified or days:N with N from 1 to 9999."""
    if text not in (KEEP, UNTIL_VERIFIED) and not _DAYS.fullmatch(text):
        raise UserError(
            f"retention must be {KEEP}, {UNTIL_VERIFIED} or days:N with N from 1 to 9999 (e.g. days:30), got {short_repr(text)}."
        )


def without_verdict(retention: str) -> str:
    """Return the note on a retention that waits for a verdict which the command does not ask for, else nothing."""
    if retention != UNTIL_VERIFIED:
        return ""
    return (
        f"retention {UNTIL_VERIFIED} acts in `unsee forget` and `unsee eval` only, so nothing is removed here; days:N sets a date for "
        "`unsee purge --due`."
    )


def due_date(retention: str, today: date) -> date | None:
    """Return the date from which `unsee purge --due` removes private files, or None.

    >>> due_date("days:30", date(2026, 11, 28))
    datetime.date(2026, 12, 28)
    """
    match = _DAYS.fullmatch(retention)
    return today + timedelta(days=int(match[1])) if match else None
