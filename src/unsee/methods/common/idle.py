"""Settings that count for one term of a loss only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def idle_term(weight: float, weight_name: str, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the settings of a term where its weight is 0.

    Args:
        weight: Weight of the term.
        weight_name: Name of the setting that is the weight.
        names: Settings that count for this term only.
    """
    if not weight:
        yield from ((f"method.{name}", f"with method.{weight_name} above 0") for name in names)
