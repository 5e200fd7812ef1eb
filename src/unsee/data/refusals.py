"""The packaged list of refusals: targets of REJECT, words of the lab, and a test of the refusal detector."""

from __future__ import annotations

from importlib.resources import files


def refusals() -> tuple[str, ...]:
    """Return the packaged refusals, one sentence each, without blanks around them."""
    text = (files("unsee") / "data" / "refusals.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip())
