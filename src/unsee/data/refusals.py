"""Built-in refusals: targets of REJECT, phrases of the lab, tests of the refusal detector."""

from __future__ import annotations

from importlib.resources import files


def refusals() -> tuple[str, ...]:
    """Return the built-in refusals, one sentence each."""
    text = (files("unsee") / "data" / "refusals.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip())
