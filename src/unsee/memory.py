"""How much memory a run needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import torch

GIB: Final = 2**30
_RESET: Final = Path("/proc/self/clear_refs")
_STATUS: Final = Path("/proc/self/status")
_MEMINFO: Final = Path("/proc/meminfo")


def reset_peak() -> None:
    """Start counting the peak afresh: the GPU's, and on Linux this process's (where the kernel lets a process do so)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if _RESET.exists():
        try:
            _RESET.write_text("5")  # proc(5): resets the peak resident set size
        except OSError as error:
            sys.stderr.write(f"Peak memory counts from the start of the process ({error}).\n")


def peak_gib() -> float:
    """Return peak memory in GiB: of the GPU if there is one, else of this process since `reset_peak` (elsewhere than Linux: since it started)."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / GIB, 3)
    if _STATUS.exists():
        lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines())
        return round(int(lines["VmHWM"].split()[0]) * 1024 / GIB, 3)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB, 3)


def free_bytes(device: str) -> int | None:
    """Return the bytes of memory that are free on cuda or cpu; None if nobody can say."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None
    if not _MEMINFO.exists():
        return None
    lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024
