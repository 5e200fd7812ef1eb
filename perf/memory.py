"""Peak memory, with each side in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from perf.timing import rounded

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Place:
    """What is measured on."""

    model: str
    batch_size: int
    threads: int
    precision: str = "fp32"


RETURNED: Final = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Environment in which glibc gives freed tensors back at once, so that the peak is that of what is in use."""


def child(
    case: str, side: str, place: Place, batches: int = 0, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return what the process of one side reports: seconds, gib, result."""
    wanted = {"case": case, "side": side, "batches": batches, **asdict(place)}
    command = [sys.executable, "-m", "perf.child", json.dumps(wanted)]
    around = {**os.environ, **(environment or {})}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=around)
    if done.returncode:
        raise RuntimeError(f"{case} ({side}) failed in its own process:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(case: str, place: Place, batches: int = 0, *, kept: bool = True) -> dict[str, Any]:
    """Return peak memory above the process after imports, of both sides, and their ratio (`memory`).

    On a CPU the two processes run at the same time, with half the threads each, once with freed blocks given back at once
    (`memory`, `gib`: what is in use) and, if `kept`, once as glibc does it by itself (`memory_kept`, `gib_kept`).
    """
    if torch.cuda.is_available():
        found = _peaks(case, place, batches, {})
        return {"memory": _ratio(found), "gib": found}
    share = replace(place, threads=max(1, place.threads // 2))
    found = _peaks(case, share, batches, RETURNED)
    entry = {"memory": _ratio(found), "gib": found}
    if kept:
        as_is = _peaks(case, share, batches, {})
        entry |= {"memory_kept": _ratio(as_is), "gib_kept": as_is}
    return entry


def _peaks(case: str, place: Place, batches: int, environment: Mapping[str, str]) -> dict[str, float]:
    """Return side -> peak; two sides at once where there is no accelerator to share."""
    sides = ("unsee", "conventional")
    with ThreadPoolExecutor(1 if torch.cuda.is_available() else 2) as pool:
        found = pool.map(lambda side: child(case, side, place, batches, environment), sides)
        return {side: one["gib"] for side, one in zip(sides, found, strict=True)}


def _ratio(peaks: Mapping[str, float]) -> float:
    return rounded(peaks["unsee"] / peaks["conventional"])


def scaling(place: Place, *, batches: int) -> dict[str, Any]:
    """Return seconds and memory of NPO at 1, 2 and 4 times the examples, and how far seconds are from a straight line."""
    found = [child("scaling", "unsee", place, batches * n) for n in (1, 2, 4)]
    one, two, four = (row["result"] for row in found)
    return {
        "examples": [batches * place.batch_size * n for n in (1, 2, 4)],
        "seconds": [rounded(value) for value in (one, two, four)],
        "gib": [row["gib"] for row in found],
        "linear": rounded((four - two) / (2 * (two - one))),
        "memory_growth": rounded(found[2]["gib"] / found[0]["gib"]),
    }
