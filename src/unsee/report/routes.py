"""Leaks by route of asking, other behaviour there, and stored bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unsee.report.read import Stage
from unsee.report.summary import CLASSES, pooled_score, shares_of_all, value

INSTEAD = 0.05
"""Smallest share of the most frequent other class that is shown."""


@dataclass(frozen=True)
class Route:
    """One way of asking for forget information."""

    key: str
    """Score of the leaking share."""
    title: str
    group: str
    meaning: str


_PICKS = "picks the right option; chance is one in the number of options"
_FILLS = "fills the fact into a sentence"
ROUTES = (
    Route("unseen.leak", "New", "By picture", "new pictures: a private string is said"),
    Route("forget.leak", "Trained on", "By picture", "pictures of the request itself"),
    Route("forget_text.leak", "Asked", "By name, no picture", "facts asked for by name"),
    Route(
        "unseen.ril",
        "By picture",
        "In the reasoning",
        "RIL: half the chains that say a private fact, half those from which one follows",
    ),
    Route("forget_text.ril", "By name", "In the reasoning", "RIL of chains asked for by name"),
    Route("unseen.choice", "Options", "In other forms", _PICKS),
    Route("unseen.cloze", "Gap", "In other forms", _FILLS),
    Route("forget.choice", "Options, trained on", "In other forms", _PICKS),
    Route("forget.cloze", "Gap, trained on", "In other forms", _FILLS),
    Route("forget_text.choice", "Options, by name", "In other forms", _PICKS),
    Route("forget_text.cloze", "Gap, by name", "In other forms", _FILLS),
)


@dataclass(frozen=True, kw_only=True)
class Way:
    """Behaviour of one model on one route."""

    share: float | None
    """Leaking share of responses; None without questions."""
    n: int
    instead: str
    """Most frequent class of the other responses; empty without any."""
    rest: float
    """Share of that class."""

    @property
    def heat(self) -> int:
        """Shade of the cell, from 0 (no leak) to 4 (nearly all)."""
        return 0 if self.share is None else sum(self.share > limit for limit in (0.005, 0.05, 0.3, 0.7))


def routes(stages: Sequence[Stage]) -> list[Route]:
    """Return the routes on which any model was asked."""
    return [route for route in ROUTES if any(value(stage, route.key) is not None for stage in stages)]


def ways(stage: Stage, asked_routes: Sequence[Route]) -> list[Way]:
    """Return the model's behaviour on each route."""
    return [_way(stage, route) for route in asked_routes]


def _way(stage: Stage, route: Route) -> Way:
    score = pooled_score(stage, route.key)
    role, _, measure = route.key.partition(".")
    others = shares_of_all(stage, role) if measure == "leak" else {}
    instead = max(CLASSES[1:], key=lambda name: others.get(name, 0.0))
    instead_share = others.get(instead, 0.0)
    return Way(
        share=None if score is None else score.value,
        n=0 if score is None else score.n,
        instead=instead if instead_share >= INSTEAD else "",
        rest=instead_share,
    )


def stored_bytes(stage: Stage) -> float | None:
    """Return the bytes of weights and steering in the model folder, averaged over seeds."""
    sizes = [
        sum(file.stat().st_size for file in (run.folder / "model").rglob("*.safetensors"))
        for run in stage.runs
        if (run.folder / "model").is_dir()
    ]
    return sum(sizes) / len(sizes) if sizes else None


def size(amount: float) -> str:
    """Return bytes as readable text.

    >>> size(512.0), size(84_312.0), size(7_400_000.0), size(13e9)
    ('512 B', '84 kB', '7.4 MB', '13 GB')
    """
    unit = "B"
    for larger_unit in ("kB", "MB", "GB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger_unit
    return f"{amount:.1f} {unit}" if amount < 10 and unit != "B" else f"{amount:.0f} {unit}"
