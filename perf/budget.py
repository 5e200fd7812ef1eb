"""Repetitions and cases that fit into a time budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

LEAST: Final = 2
"""Repetitions below which cases are left out instead."""
_UNKNOWN: Final = (40.0, 4.0)

COSTS: Final[Mapping[str, tuple[float, float]]] = {
    "npo_full": (26, 3.7),
    "npo_lora": (23, 2.9),
    "ga_lora": (20, 2.4),
    "reject_lora": (20, 2.4),
    "graddiff_lora": (34, 4.8),
    "kl_lora": (38, 6.1),
    "pubg_lora": (36, 4.8),
    "npo_frozen": (21, 2.5),
    "npo_shared": (62, 10),
    "kl_shared": (116, 21),
    "mmunlearner_mask": (29, 13),
    "mmunlearner_mask_stop": (10, 43),
    "mmunlearner_run": (0, 62),
    "evaluation": (36, 57),
    "trainer": (8, 1.6),
    "scaling": (35, 0),
    "lab: npo_lora": (3, 0.6),
    "lab: kl_lora": (5, 1.2),
    "lab: npo_frozen": (3, 0.5),
    "lab: evaluation": (2, 9),
}
"""Seconds of a case on the `quick` model (two cores): fixed part with the memory processes, and per repetition.

Only their ratios matter: the cases already measured say how fast this machine is.
"""


def cost(name: str, repetitions: int) -> float:
    """Return the relative cost of a case."""
    fixed, each = COSTS.get(name, _UNKNOWN)
    return fixed + each * repetitions


@dataclass(frozen=True)
class Plan:
    """What is still to be measured."""

    repetitions: int
    cases: Sequence[str]
    left_out: Sequence[str]
    seconds: float | None
    """Expected time of the cases; None before anything was measured."""


def pace(entries: Mapping[str, Any]) -> float | None:
    """Return seconds per unit of cost, from the cases measured so far."""
    done = {name: entry for name, entry in entries.items() if "wall_seconds" in entry and "error" not in entry}
    if not done:
        return None
    expected = sum(cost(name, entry.get("repetitions", 0)) for name, entry in done.items())
    return float(sum(entry["wall_seconds"] for entry in done.values())) / expected


def plan(cases: Sequence[str], speed: float | None, most: Mapping[str, int], seconds: float | None) -> Plan:
    """Return as many repetitions as fit into `seconds`, and, where even the fewest do not, only the cheapest cases.

    Args:
        cases: What is left to measure.
        speed: Seconds per unit of cost; None = nothing was measured yet, so the cheapest case goes first to tell.
        most: Repetitions of each case without a budget.
        seconds: Time left; None = no budget.
    """
    full = max((most[name] for name in cases), default=0)
    if seconds is None:
        return Plan(full, cases, (), None if speed is None else speed * _sum(cases, full, most))
    ordered = sorted(cases, key=lambda name: cost(name, LEAST))
    if speed is None:
        return Plan(min(LEAST, full), ordered, (), None)
    for repetitions in range(full, min(LEAST, full) - 1, -1):
        expected = speed * _sum(ordered, repetitions, most)
        if expected <= seconds:
            return Plan(repetitions, ordered, (), expected)
    count = len(ordered)
    while count and speed * _sum(ordered[:count], LEAST, most) > seconds:
        count -= 1
    chosen = ordered[:count]
    return Plan(min(LEAST, full), chosen, ordered[count:], speed * _sum(chosen, LEAST, most))


def _sum(cases: Sequence[str], repetitions: int, most: Mapping[str, int]) -> float:
    return sum(cost(name, min(repetitions, most[name])) for name in cases)
