"""Claims on pieces of work: files that keep two processes, on one machine or several, from doing the same piece twice.

A claim is stale when its process is gone, or, seen from another machine, when it has shown no sign of life for a while.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final
from uuid import uuid4

HEARTBEAT: Final = 20.0
"""Seconds between two signs of life."""
STALE: Final = 300.0
"""Seconds without one after which another machine takes the work over."""


@contextmanager
def claimed(file: Path) -> Iterator[bool]:
    """Yield whether the work that the file stands for is ours for the block; False if somebody else is at it."""
    token = _take(file)
    if token is None:
        yield False
        return
    done = Event()
    pulse = Thread(target=_live, args=(file, done), daemon=True)
    pulse.start()
    try:
        yield True
    finally:
        done.set()
        pulse.join()
        _release(file, token)


def is_claimed(file: Path) -> bool:
    """Tell whether somebody alive is at the work."""
    with _alone(file.parent) as now:
        return file.exists() and not _stale(file, now)


def _take(file: Path) -> str | None:
    """Write the claim and return its token; None if another one holds."""
    with _alone(file.parent) as now:
        if file.exists() and not _stale(file, now):
            return None
        token = uuid4().hex
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid()), "token": token}
        file.write_text(json.dumps(mine), encoding="utf-8")
        return token


def _release(file: Path, token: str) -> None:
    """Remove the claim, unless somebody took it over."""
    with _alone(file.parent):
        if file.exists() and _read(file).get("token") == token:
            file.unlink()


def _live(file: Path, done: Event) -> None:
    """Give signs of life until the work is done."""
    while not done.wait(HEARTBEAT):
        if file.exists():
            os.utime(file)


def _stale(file: Path, now: float) -> bool:
    claim = _read(file)
    if claim.get("host") == socket.gethostname():
        return _born(int(claim["pid"])) != claim["born"]
    return now - file.stat().st_mtime > STALE


def _read(file: Path) -> dict[str, Any]:
    """Return what a claim says; nothing if it was cut off while being written."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except ValueError:
        return {}


def _born(pid: int) -> str:
    """Return when a process started, to tell it from a later one of the same number; empty if there is none."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        return (
            stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19] if stat.exists() else ""
        )
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"


@contextmanager
def _alone(folder: Path) -> Iterator[float]:
    """Let one process at a time look at the claims of a folder; yield what time it is on that disk."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.utime(lock.name)
        yield max(os.fstat(lock.fileno()).st_mtime, time.time() - STALE)
