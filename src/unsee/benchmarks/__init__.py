"""Where examples come from: one file per layout, and `open_benchmark`, which finds the right one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from unsee import registry
from unsee.api import Benchmark
from unsee.errors import UserError

SIGNS: Final = {"world.json": "lab"}
"""File in the data folder -> the layout it is the sign of; a folder without one is read as a table."""


def open_benchmark(data: Path | str, name: str = "") -> Benchmark:
    """Open the embedded world ("lab", "lab:hazards"), or the data at a path; `name` says how it is laid out (empty = recognise it)."""
    word, _, request = str(data).partition(":")
    if word == "lab" and name in ("", "lab"):
        return registry.load("benchmarks", "lab")(request=request or "people")
    if name:
        registry.require("benchmarks", name)
    place = Path(data)
    if not place.exists():
        raise UserError(f"No data at {data}: expected a folder, a file, or the word lab.")
    recognised = next((layout for sign, layout in SIGNS.items() if (place / sign).is_file()), "folder")
    return registry.load("benchmarks", name or recognised)(place)
