"""Queue in which one question is answered at a time, first come, first served."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from unsee.errors import UserError

HEARTBEAT: Final = 1.0
"""Seconds between two messages to those who wait, by which a closed connection is noticed."""


class Turns:
    """First-come, first-served lock that says how many are ahead."""

    def __init__(self, most: int) -> None:
        """Let at most `most` callers in at once, the one whose turn it is included."""
        self._max_callers = most
        self._changed = threading.Condition()
        self._line: list[object] = []

    @contextmanager
    def turn(self, waiting: Callable[[int], None]) -> Iterator[None]:
        """Wait for a turn and hold it during the block.

        `waiting` gets the number of callers ahead, whenever it changes and every second. What it raises leaves the queue.

        Raises:
            UserError: Too many are waiting already.
        """
        ticket = object()
        with self._changed:
            if len(self._line) >= self._max_callers:
                raise UserError(f"{self._max_callers} questions are waiting already. Ask again in a minute.")
            self._line.append(ticket)
        try:
            self._wait(ticket, waiting)
            yield
        finally:
            with self._changed:
                self._line.remove(ticket)
                self._changed.notify_all()

    def _wait(self, ticket: object, waiting: Callable[[int], None]) -> None:
        ahead = self._ahead(ticket)
        while ahead:
            waiting(ahead)  # writes to a socket, so not under the lock
            last_ahead = ahead
            with self._changed:
                self._changed.wait_for(lambda: self._line.index(ticket) != last_ahead, timeout=HEARTBEAT)  # noqa: B023
            ahead = self._ahead(ticket)

    def _ahead(self, ticket: object) -> int:
        with self._changed:
            return self._line.index(ticket)
