"""How much memory a run needed."""

from __future__ import annotations

import resource
import sys

import torch

GIB = 2**30


def reset_peak() -> None:
    """Start counting the device's peak afresh (a process's own peak cannot be reset)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float:
    """Return peak memory in GiB: of the GPU if there is one, else of this process since it started."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / GIB, 3)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB, 3)
