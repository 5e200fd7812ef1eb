"""Table of the ratios of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

COLUMNS: Final = ("case", "speed-up", "memory", "floor", "unsee s", "conventional s", "floor s", "remarks")


def markdown(found: Mapping[str, Any]) -> str:
    """Return the results as a markdown table, with the circumstances above it."""
    facts = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *_rows(found)]
    return "\n".join([facts, "", *("| " + " | ".join(row) + " |" for row in rows)])


def _rows(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, ...]]:
    for name, entry in found.items():
        if name == "lab":
            yield from _rows(entry, "lab: ")
        elif name not in ("machine", "settings"):
            yield _row(prefix + name, entry)


def _row(name: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    if "error" in entry:
        return (name, *("" for _ in COLUMNS[2:]), f"FAILED: {entry['error']}")
    seconds = entry.get("seconds", {})
    timed = seconds if isinstance(seconds, Mapping) else {}
    return (
        name,
        _with_spread(entry, "speedup"),
        _number(entry.get("memory")),
        _with_spread(entry, "floor"),
        *(_median(timed.get(side)) for side in ("unsee", "conventional", "floor")),
        "; ".join(_remarks(entry)),
    )


def _with_spread(entry: Mapping[str, Any], name: str) -> str:
    spread = entry.get(f"{name}_spread")
    if spread is None:
        return _number(entry.get(name))
    return f"{spread['median']:.2f} ({spread['q1']:.2f} to {spread['q3']:.2f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _median(spread: Mapping[str, float] | None) -> str:
    return "" if spread is None else f"{spread['median']:.3g}"


def _remarks(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield what else the entry says, shortly."""
    if "gib" in entry and isinstance(entry["gib"], Mapping):
        yield "peak GiB " + ", ".join(f"{side} {value:.2f}" for side, value in entry["gib"].items())
    if "memory_kept" in entry:
        yield f"memory as glibc keeps it {entry['memory_kept']:.2f}"
    if "loss_gap" in entry:
        yield f"losses apart by at most {entry['loss_gap']['largest']:.1e}"
    for name in (
        "floor_cold",
        "overhead",
        "speedup_fp32_fisher",
        "bytes",
        "bytes_ratio",
        "agreement",
        "same_text",
        "linear",
        "memory_growth",
    ):
        if name in entry:
            yield f"{name.replace('_', ' ')} {entry[name]}"
    for name in ("questions_per_second", "examples"):
        if name in entry:
            yield f"{name.replace('_', ' ')} {entry[name]}"
    if isinstance(entry.get("seconds"), list):
        yield f"seconds {entry['seconds']}"
