"""Peak memory: every side in a fresh process, so that none pays for another."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from perf.timing import rounded

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Place:
    """What is measured on."""

    model: str
    batch_size: int
    threads: int


def child(case: str, side: str, place: Place, batches: int = 0) -> dict[str, Any]:
    """Return what the process of one side reports: seconds, gib, result."""
    wanted = {"case": case, "side": side, "batches": batches, **asdict(place)}
    command = [sys.executable, "-m", "perf.child", json.dumps(wanted)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{case} ({side}) failed in its own process:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(case: str, place: Place, batches: int = 0) -> dict[str, Any]:
    """Return peak memory above the process after imports, of both sides, and their ratio.

    On a CPU the two processes run at the same time, with half the threads each.
    """
    together = not torch.cuda.is_available()
    share = replace(place, threads=max(1, place.threads // 2)) if together else place
    sides = ("unsee", "conventional")
    with ThreadPoolExecutor(1 + together) as pool:
        peaks = [found["gib"] for found in pool.map(lambda side: child(case, side, share, batches), sides)]
    found = dict(zip(sides, peaks, strict=True))
    return {"memory": rounded(found["unsee"] / found["conventional"]), "gib": found}


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
