"""Page of a leaderboard: distance to gold, answers, relearning, routes, leaks and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from unsee.report import attacked, charts, gallery
from unsee.report import routes as asking
from unsee.report.board import Cost, Row, rows_in_order, share_of_gold, took
from unsee.report.columns import MEANING
from unsee.report.page import groups, render_page
from unsee.report.printable import printable
from unsee.report.summary import CLASSES, judged_role

PROMISES: Final[Mapping[str, str]] = {
    "person": "Everything about the people goes, asked by picture or by name.",
    "picture": "The face is no longer recognised; what is known by name stays.",
}
"""What a method promises, in words."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One method or reference model on the page. Positions in percent of the drawing's width."""

    name: str
    reference: bool
    rank: int | None
    notes: str
    settings: str
    distance: float | None
    at: float | None
    """Position of the distance."""
    interval: tuple[float, float] | None
    """Positions of the ends of its interval."""
    segments: list[charts.Segment]
    relearned: Relearned | None
    leak: Leak | None
    seconds: float | None
    share: float | None
    """Unlearning time as a share of the gold model's training time."""


@dataclass(frozen=True, kw_only=True)
class Relearned:
    """Relearning curves as SVG point lists in 300 x 130 units, shares from 0 to 1."""

    model: str
    gold: str
    last: float
    area: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Response that gives away most."""

    picture: str
    question: str
    answer: gallery.Answer


@dataclass(frozen=True, kw_only=True)
class Section:
    """One promise in one world."""

    title: str
    about: str
    top: float
    """Distance at the right end of the drawing."""
    lines: list[Line]
    routes: list[asking.Route]
    route_groups: list[tuple[str, int]]
    ways: list[tuple[str, bool, list[asking.Way]]]
    """(Name, whether it is a reference, behaviour on each route)."""


def render(worlds: Mapping[str, Sequence[Row]], cost: Cost, legend: Sequence[str], waiting: Sequence[str] = ()) -> str:
    """Return the page as HTML, with all run data escaped, the style bound by hash.

    Args:
        worlds: Title of a world -> its rows, references included.
        cost: Measure of the cost of unlearning.
        legend: Meaning of the columns, a sentence each.
        waiting: Methods that were not searched yet.
    """
    sections = [
        _section(title, promise, rows, cost)
        for title, all_rows in worlds.items()
        for promise, rows in _promises(all_rows)
    ]
    values: dict[str, Any] = {
        "sections": sections,
        "classes": CLASSES,
        "meaning": MEANING,
        "legend": legend,
        "waiting": [printable(name) for name in waiting],
        "clock": " of CPU" if cost.clock == "cpu_seconds" else "",
        "count": len({row.name for rows in worlds.values() for row in rows if not row.reference}),
    }
    return render_page("board.html", ("report.css", "board.css"), "", values)


def _promises(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return promise -> rows, for the promises that any method has."""
    promises = dict.fromkeys(row.promise for row in rows if not row.reference)
    return [(promise, [row for row in rows if row.promise == promise]) for promise in promises]


def _section(title: str, promise: str, rows: Sequence[Row], cost: Cost) -> Section:
    stages = [row.stage for row in rows if row.stage]
    role, asked_routes = judged_role(stages), asking.routes(stages)
    ends = [end for row in rows if (score := row.distance) for end in (score.value, *(score.interval or ())) if end]
    top, ranked_rows = max([0.1, *ends]), list(rows_in_order(rows))
    return Section(
        title=f"{title} · promise: {promise}",
        about=PROMISES.get(promise, ""),
        top=top,
        lines=[_line(row, rank, role, top, cost) for rank, row in ranked_rows],
        routes=asked_routes,
        route_groups=groups(asked_routes),
        ways=[
            (printable(row.name), row.reference, asking.ways(row.stage, asked_routes))
            for _, row in ranked_rows
            if row.stage
        ],
    )


def _line(row: Row, rank: int | None, role: str, top: float, cost: Cost) -> Line:
    stage, score, seconds = row.stage, row.distance, took(row, cost)
    value = None if score is None else score.value
    return Line(
        name=printable(row.name),
        reference=row.reference,
        rank=rank,
        notes=printable("; ".join(row.remarks)),
        settings=printable(row.settings),
        distance=value,
        at=None if value is None else _place(value, top),
        interval=(_place(score.interval[0], top), _place(score.interval[1], top)) if score and score.interval else None,
        segments=charts.segments(stage, role) if stage else [],
        relearned=_relearning_plot(row),
        leak=_leak(row, role),
        seconds=seconds,
        share=share_of_gold(row, seconds),
    )


def _place(value: float, top: float) -> float:
    """Return a position between 2 and 98 percent, so that no marker is cut."""
    return round(2 + 96 * value / top, 2)


def _relearning_plot(row: Row) -> Relearned | None:
    if row.stage is None or (area := attacked.relearning_area(row.stage)) is None:
        return None
    points = attacked.relearning_curve(row.stage)
    if len(points) < 2:
        return None
    x_range = (points[0].step, points[-1].step)
    return Relearned(
        model=charts.polyline([(point.step, point.share) for point in points], x_range, (0.0, 1.0)),
        gold=charts.polyline([(point.step, point.gold) for point in points], x_range, (0.0, 1.0)),
        last=points[-1].share,
        area=area,
        steps=int(points[-1].step),
    )


def _leak(row: Row, role: str) -> Leak | None:
    """Return the leaking answer with the most private strings, or None if nothing leaks."""
    if row.reference or row.stage is None:
        return None
    leaks = [
        (run, response, gallery.answer(run.stage, row.name, run, response))
        for run in row.stage.runs
        for response in run.responses
        if response.role == role and gallery.verdict_of(run, response) == "leak"
    ]
    if not leaks:
        return None
    run, worst_response, quote = max(leaks, key=lambda leak: sum(piece.private for piece in leak[2].pieces))
    return Leak(
        picture=gallery.picture(run.folder, worst_response),
        question=printable(worst_response.question),
        answer=quote,
    )
