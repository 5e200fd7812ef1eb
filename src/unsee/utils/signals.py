"""Signal handling: SIGTERM acts as Ctrl-C, and children end with their parent."""

from __future__ import annotations

import _thread
import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from threading import Thread, current_thread, main_thread
from types import FrameType
from typing import NoReturn

from unsee.errors import Terminated


def raise_on_sigterm() -> None:
    """Make SIGTERM raise `Terminated`, where Python allows it (main thread)."""
    if current_thread() is main_thread():
        signal.signal(signal.SIGTERM, _raise_terminated)


def _raise_terminated(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - what a handler is given
    raise Terminated


def end_with_parent() -> None:
    """End this process when its standard input, a pipe from the parent, closes.

    The system closes the pipe however the parent ends, SIGKILL included, on every platform.
    """
    raise_on_sigterm()
    Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    with suppress(OSError, ValueError):
        # Not through sys.stdin: a thread that waits in its buffer aborts the interpreter at the end of the process.
        while os.read(sys.stdin.fileno(), 4096):
            pass
    _thread.interrupt_main(signal.SIGTERM)


def exit_with_parent() -> None:
    """Make a pool worker end with its parent, and leave Ctrl-C to the parent.

    A pool's workers hold both ends of its queue, so without this they would wait forever after a SIGKILL of the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
