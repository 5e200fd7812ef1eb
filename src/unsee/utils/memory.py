"""Peak and free memory."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psutil
import torch

from unsee.utils import terminal
from unsee.utils.files import GIB

_RESET: Final = Path("/proc/self/clear_refs")
_STATUS: Final = Path("/proc/self/status")
_PEAK: Final = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)
"""Line of `_STATUS` with the peak resident set size. Sandboxed kernels (gVisor) leave it out."""

_CGROUP: Final = Path("/sys/fs/cgroup")
_LIMITS: Final = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
"""Files of a container's memory limit, its use and its parts, in versions 2 and 1 of cgroups."""
_CACHES: Final = re.compile(r"^inactive_file (\d+)$", re.MULTILINE)
"""Line of the parts with what the kernel frees when it is needed."""


def reset_peak() -> None:
    """Reset the peak memory of the GPU and, where the kernel allows it, of this process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if _RESET.exists():
        try:
            _RESET.write_text("5")  # proc(5): resets the peak resident set size
        except OSError as error:
            terminal.note_once(f"peak memory counts from the start of the process ({error}).")


def peak_gib() -> float:
    """Return peak memory in GiB: of the GPU if there is one, else of this process.

    On Linux it counts since `reset_peak`, elsewhere (and where the kernel does not tell) since the process started.
    """
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / GIB, 3)
    return round(_peak_bytes() / GIB, 3)


def _peak_bytes() -> int:
    if _STATUS.exists() and (peak := _PEAK.search(_STATUS.read_text(encoding="ascii", errors="replace"))):
        return int(peak[1]) * 1024
    if find_spec("resource"):
        resource: Any = importlib.import_module("resource")
        unit = 1 if sys.platform == "darwin" else 1024
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit
    memory_info: dict[str, int] = psutil.Process().memory_info()._asdict()
    # Windows counts the peak, other systems have been dealt with
    return memory_info.get("peak_wset", memory_info["rss"])


def free_bytes(device: str) -> int | None:
    """Return free bytes on cuda or cpu, or None for cuda without a GPU.

    On a CPU no more than the memory limit of the container leaves.
    """
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None
    return min([int(psutil.virtual_memory().available), *_left_in_container()])


def _left_in_container() -> Iterator[int]:
    """Yield the bytes below the memory limit of this container, if it has one. Caches of files count as free."""
    for limit_name, used_name, parts_name in _LIMITS:
        try:
            limit, used = (int((_CGROUP / name).read_text(encoding="ascii")) for name in (limit_name, used_name))
            caches = _CACHES.search((_CGROUP / parts_name).read_text(encoding="ascii"))
        except (OSError, ValueError):  # cgroups of another version, or "max", which is no limit
            continue
        yield max(0, limit - used + int(caches[1] if caches else 0))
