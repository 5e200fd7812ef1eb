"""Peak memory: every side in a fresh process, so that none pays for another."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from perf.timing import rounded

ROOT = Path(__file__).resolve().parent.parent


def child(case: str, side: str, model: str, batch_size: int, *, threads: int, batches: int = 0) -> dict[str, Any]:
    """Return what the process of one side reports: seconds, gib, result."""
    wanted = {
        "case": case,
        "side": side,
        "model": model,
        "batch_size": batch_size,
        "threads": threads,
        "batches": batches,
    }
    done = subprocess.run(
        [sys.executable, "-m", "perf.child", json.dumps(wanted)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{case} ({side}) failed in its own process:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(case: str, model: str, batch_size: int, *, threads: int, batches: int = 0) -> dict[str, Any]:
    """Return peak memory above the process after imports, of both sides, and their ratio."""

    def one(side: str) -> float:
        share = threads if torch.cuda.is_available() else max(1, threads // 2)
        return float(child(case, side, model, batch_size, threads=share, batches=batches)["gib"])

    sides = ("unsee", "conventional")
    with ThreadPoolExecutor(1 if torch.cuda.is_available() else 2) as pool:
        found = dict(zip(sides, pool.map(one, sides), strict=True))
    return {"memory": rounded(found["unsee"] / found["conventional"]), "gib": found}


def scaling(model: str, batch_size: int, *, threads: int, batches: int) -> dict[str, Any]:
    """Return seconds and memory of NPO at 1, 2 and 4 times the examples, and how far seconds are from a straight line."""
    found = [child("scaling", "unsee", model, batch_size, threads=threads, batches=batches * n) for n in (1, 2, 4)]
    one, two, four = (row["result"] for row in found)
    return {
        "examples": [batches * batch_size * n for n in (1, 2, 4)],
        "seconds": [rounded(value) for value in (one, two, four)],
        "gib": [row["gib"] for row in found],
        "linear": rounded((four - two) / (2 * (two - one))),
        "memory_growth": rounded(found[2]["gib"] / found[0]["gib"]),
    }
