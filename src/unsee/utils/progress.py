"""Progress of long work: a bar in terminals and notebooks, a line now and then in logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from html import escape
from typing import Any, Final, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from unsee.utils import terminal

T = TypeVar("T")
_EVERY: Final = 0.2
"""Least seconds between two pictures of a bar in a notebook."""
_LOGGED: Final = 60.0
"""Seconds between two lines in a log (a file, a pipe, a batch system). Shorter work leaves none."""


class Bar:
    """Progress of one piece of work on stderr, or in the output of a notebook's cell.

    `with` starts and stops it.
    """

    def __init__(self, label: str, total: int | None = None, *, shown: bool = True) -> None:
        """Prepare the bar. A `total` of None is unknown."""
        console = Console(stderr=True)
        self.label, self.total, self.done, self.text = label, total, 0, ""
        before, after = (TextColumn(field, markup=False) for field in ("{task.fields[label]}", "{task.description}"))
        columns = (before, BarColumn(), MofNCompleteColumn(), after)
        clock = TimeElapsedColumn() if total is None else TimeRemainingColumn()
        self._progress = Progress(
            *columns, clock, console=console, transient=True, disable=not (shown and console.is_terminal)
        )
        self._task = self._progress.add_task("", total=total, label=terminal.escape_controls(label))
        self._cell = _Cell() if shown and console.is_jupyter else None
        self._log = _Log() if shown and not (console.is_terminal or console.is_jupyter) else None
        self._begun: float | None = None
        self._before = 0

    def start(self, done: int = 0) -> None:
        """Show the bar. `done` was done by earlier calls, which took time of their own."""
        self.done = self._before = done
        self._begun = time.monotonic()
        self._progress.reset(self._task, completed=done)
        self._progress.start()
        self._draw(last=False)

    def update(self, done: int, text: str = "") -> None:
        """Set how much is done, and a text beside it."""
        self.done, self.text = done, text
        self._progress.update(self._task, completed=done, description=terminal.escape_controls(text))
        self._draw(last=False)

    def stop(self) -> None:
        """Remove the bar from a terminal. In a notebook its last state stays."""
        self._progress.stop()
        if self._begun is not None:
            self._draw(last=True)

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def _draw(self, *, last: bool) -> None:
        if self._cell is not None:
            self._cell.draw(self._html(last=last), now=last)
        if self._log is not None:
            self._log.line(self._state, last=last)

    def _html(self, *, last: bool) -> str:
        """Return the state as HTML, which needs no widgets."""
        attributes = f' value="{self.done}" max="{self.total}"' if self.total else ""
        bar = "" if last else f"<progress{attributes}></progress> "
        return bar + escape(self._state(last=last))

    def _state(self, *, last: bool) -> str:
        """Return how much is done, the time it took, and the time that is left if it can be told."""
        seconds = 0.0 if self._begun is None else time.monotonic() - self._begun
        count = f"{self.done}/{self.total}" if self.total else f"{self.done}"
        timing = f"{seconds:.0f} s"
        if not last and self.total and self.done > self._before:
            timing += f", about {seconds / (self.done - self._before) * (self.total - self.done):.0f} s left"
        return " ".join(filter(None, (self.label, count, self.text, f"({timing})")))


class _Cell:
    """Output of a notebook's cell that is drawn again in place."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.drawn = 0.0

    def draw(self, html: str, *, now: bool) -> None:
        """Show the HTML, unless something was shown a moment ago."""
        from IPython.display import HTML, display

        if self.handle is None:
            self.handle = display(HTML(html), display_id=True)
        elif now or time.monotonic() - self.drawn >= _EVERY:
            self.handle.update(HTML(html))
        else:
            return
        self.drawn = time.monotonic()


class _Log:
    """Lines on stderr where it is neither a terminal nor a notebook."""

    def __init__(self) -> None:
        self.written = time.monotonic()
        self.begun = False

    def line(self, state: Callable[..., str], *, last: bool) -> None:
        """Write the state if the last line is long ago, and the last one if any were written."""
        now = time.monotonic()
        if now - self.written >= _LOGGED or (last and self.begun):
            terminal.err(state(last=last))
            self.written, self.begun = now, True


def track(items: Iterable[T], label: str, total: int | None = None, *, shown: bool = True) -> Iterator[T]:
    """Yield the items, showing how many were taken.

    Args:
        items: What to go through.
        label: Text before the bar.
        total: Number of items. Default: their length, or unknown if they have none.
        shown: Whether to show a bar; a log gets a line a minute.
    """
    size = len(items) if total is None and isinstance(items, Sized) else total
    with Bar(label, size, shown=shown) as bar:
        for done, item in enumerate(items, start=1):
            yield item
            bar.update(done)
