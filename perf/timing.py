"""Timing, memory readings, and their statistics."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from unsee.utils.files import GIB
from unsee.utils.memory import peak_gib, reset_peak


def now() -> float:
    """Return seconds, after the accelerator (if any) has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and result."""
    start = now()
    result = work()
    return now() - start, result


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median and quartiles."""
    ordered = sorted(values)
    low, _, high = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
    return {"median": rounded(statistics.median(ordered)), "q1": rounded(low), "q3": rounded(high)}


def paired(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Return median and quartiles of the ratio, repetition by repetition."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def rounded(value: float) -> float:
    """Return four significant digits."""
    return float(f"{value:.4g}")


def memory_above(work: Callable[[], Any]) -> float:
    """Return GiB that the work needed at its peak, above what the process held before."""
    before = 0.0 if torch.cuda.is_available() else _resident_gib()
    reset_peak()
    work()
    return round(peak_gib() - before, 3)


def _resident_gib() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return int(dict(line.split(":", 1) for line in lines)["VmRSS"].split()[0]) * 1024 / GIB
