"""Checks that also hold under `python -O`, which drops assert statements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unsee.errors import UserError


def require(condition: object, message: str) -> None:
    """Raise AssertionError with the message unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def refusal(call: Callable[[], Any], what: str) -> str:
    """Return the message of the UserError that the call must raise."""
    try:
        call()
    except UserError as error:
        return str(error)
    raise AssertionError(f"{what} was accepted; expected a UserError")
