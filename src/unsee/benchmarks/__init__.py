"""Where examples come from: one file per layout, and `open_benchmark`, which finds the right one."""

from __future__ import annotations

from pathlib import Path

from unsee import registry
from unsee.api import Benchmark
from unsee.errors import UserError


def open_benchmark(data: Path | str, name: str = "") -> Benchmark:
    """Open the embedded world ("lab"), or the data at a path; `name` says how it is laid out (empty = "folder").

    A benchmark class is called with the path, and without arguments if its data is embedded.
    """
    embedded = str(data) == "lab"
    if embedded and name in ("", "lab"):
        return registry.load("benchmarks", "lab")()
    if name == "lab":
        raise UserError(f"The benchmark 'lab' is embedded and lies at no path, got {data}. Write --data lab.")
    if not Path(data).exists():
        raise UserError(f"No data at {data}: expected a folder, a file, or the word lab.")
    return registry.load("benchmarks", name or "folder")(Path(data))
