"""Exclusive ownership of output folders and work items, by operating-system file locks.

The system frees the locks of a process that dies, so a lock is never stale.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from filelock import BaseFileLock, FileLock, Timeout

from unsee.distributed import processes
from unsee.errors import InUseError, UserError
from unsee.utils.files import (
    LOCK,
    OWNER_SUFFIX,
    atomic_write_json,
    foreign,
    remove_file,
    remove_folder,
    sweep_temporary,
)

PATIENCE: Final = 1.0
"""Seconds to wait for a lock, since `is_claimed` in another process holds it briefly."""


@contextmanager
def owner(folder: Path, *, wait: bool = False, check: Callable[[], None] | None = None) -> Iterator[None]:
    """Own an output folder for the block.

    Collective: every rank must call it. Nests within one thread.

    `wait` waits for another owner to end, instead of raising. `check` is called by the owner before the block,
    in the main process alone; a UserError of it is raised in all.

    Raises:
        InUseError: Another process owns the folder; the message names it.
    """
    lock, refusal, is_new = None, None, not folder.exists()
    if processes.is_main():
        lock = _acquire(folder / LOCK, -1 if wait else PATIENCE)
        refusal = _refusal(check) if lock else _in_use(folder)
    try:
        if refusal := processes.from_main(refusal):
            raise refusal
        if lock:
            sweep_temporary(folder)
        yield
    except BaseException:
        if lock and is_new and not foreign(folder):
            remove_folder(folder)  # what was refused leaves nothing behind
        raise
    finally:
        if lock:
            _release(lock)


def _refusal(check: Callable[[], None] | None) -> UserError | None:
    """Return the UserError that `check` raises, if any."""
    try:
        if check is not None:
            check()
    except UserError as error:
        return error
    return None


@contextmanager
def claimed(file: Path) -> Iterator[bool]:
    """Yield whether this process holds the work item's lock for the block."""
    lock = _acquire(file, PATIENCE)
    try:
        yield lock is not None
    finally:
        if lock:
            _release(lock)


def is_claimed(file: Path) -> bool:
    """Tell whether another process, or another thread of this one, holds the lock file."""
    if not file.is_file():
        return False
    lock = _lock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def forget_dead_holder(file: Path) -> None:
    """Remove the note about the holder of a lock file if nobody holds it: it was killed before it could."""
    if not is_claimed(file):
        remove_file(_facts_file(file))


def require_free(folder: Path) -> None:
    """Raise InUseError if another process owns the folder. Writes nothing."""
    if is_claimed(folder / LOCK):
        raise _in_use(folder)


def holder_of(folder: Path) -> str:
    """Return a description of the process that owns the folder."""
    try:
        facts: dict[str, Any] = json.loads(_facts_file(folder / LOCK).read_text(encoding="utf-8"))
        return f"process {facts['pid']} on {facts['host']} since {facts['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # between taking the lock and writing the note
        return "another process"


def _in_use(folder: Path) -> InUseError:
    holder = holder_of(folder)
    return InUseError(f"The output folder {folder} is in use by {holder}. Wait for it to end, or give another --out.")


def _acquire(file: Path, timeout: float) -> BaseFileLock | None:
    """Return the held lock, or None if another process has it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(file)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        return None
    if lock.lock_counter == 1:
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        atomic_write_json(_facts_file(file), facts)
    return lock


def _release(lock: BaseFileLock) -> None:
    if lock.lock_counter == 1:
        remove_file(_facts_file(Path(lock.lock_file)))
    lock.release()


def _lock(file: Path) -> BaseFileLock:
    return FileLock(file.resolve(), is_singleton=True)


def _facts_file(file: Path) -> Path:
    return file.with_name(f"{file.name}{OWNER_SUFFIX}")
