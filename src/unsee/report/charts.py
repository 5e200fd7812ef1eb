"""Chart geometry as plain numbers, drawn as SVG by the template."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from unsee.report.read import Stage
from unsee.report.summary import pooled_score, recalls, shares_of_all, unjudged_share
from unsee.report.verdict import percent

SEGMENT_LABEL = 0.07
"""Smallest share of a bar segment with a label."""
UNJUDGED = "unjudged"
"""Segment of the answers whose class could not be told."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One class in a stacked bar. Positions in percent of the bar's width."""

    name: str
    left: float
    width: float
    label: str
    """Label; empty if the segment is too narrow."""
    title: str


def segments(stage: Stage, role: str) -> list[Segment]:
    """Return the stacked bar of all the stage's responses in `role`, with those of no known class at its end."""
    share_by_class, left, bar = shares_of_all(stage, role), 0.0, []
    if (unjudged := unjudged_share(stage, role)) > 0:
        share_by_class[UNJUDGED] = unjudged
    for name, share in share_by_class.items():
        width = 100 * share
        if width > 0:
            label = percent(share)
            title = f"{stage.label}: {label} {name}"
            bar_label = label if share >= SEGMENT_LABEL else ""
            bar.append(Segment(name=name, left=round(left, 2), width=round(width, 2), label=bar_label, title=title))
            left += width
    return bar


@dataclass(frozen=True, kw_only=True)
class Box:
    """Rectangle in units of the drawing."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether the two share any area."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def inside(self, other: Box) -> bool:
        """Whether this lies in `other`."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One model in the scatter plot."""

    name: str
    label: str
    x: float
    y: float
    whiskers: tuple[float, float, float, float]
    """Interval ends: x low, x high, y low, y high."""
    title: str


@dataclass(frozen=True, kw_only=True)
class Tag:
    """Labels of all dots at one position, with a leader line."""

    dots: tuple[Dot, ...]
    box: Box
    link: tuple[float, float, float, float] | None
    """Leader line from the dots; None if the labels are beside them."""

    @property
    def named(self) -> tuple[Dot, ...]:
        """The dots whose labels are shown."""
        return tuple(named_dots(self.dots))

    @property
    def left(self) -> bool:
        """Whether the labels are left of the dots, with markers on the right."""
        return (self.box.left + self.box.right) / 2 < self.dots[0].x


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Size of a drawing and its axes."""

    width: float = 520
    height: float = 430
    left: float = 64
    right: float = 14
    top: float = 16
    bottom: float = 46

    def x(self, share: float) -> float:
        """Horizontal position of a share in 0..1. The axis extends a little beyond."""
        return round(self.left + (self.width - self.left - self.right) * (share + 0.04) / 1.08, 2)

    def y(self, share: float) -> float:
        """Vertical position of a share in 0..1."""
        return round(self.height - self.bottom - (self.height - self.top - self.bottom) * (share + 0.04) / 1.08, 2)

    @property
    def frame(self) -> Box:
        """The area between the axes."""
        return Box(left=self.left, top=self.top, right=self.width - self.right, bottom=self.height - self.bottom)


SIGN, LINE = 8.8, 18.0
"""Width of a letter and height of a line of a label, in units of the drawing (for letters 13 to 16 units high)."""
CROWD = 15.0
"""Distance below which dots share a tag."""
NAMES = 8
"""Most lines of a tag: of a larger crowd the last line says how many dots it does not name."""
LETTERS = 34
"""Longest name in the scatter plot; the tooltip has it in full."""


def scatter(stages: Sequence[Stage], role: str, plot: Plot) -> list[Tag]:
    """Return the dots with tags: x = forgotten (1 - leak), y = retained.

    Retained is the mean of names and facts, else of options and gaps.
    """
    dots = [dot for stage in stages if (dot := _dot(stage, role, plot)) is not None]
    crowds = group_crowds(dots)
    boxes = place_tags(crowds, plot.frame)
    return [Tag(dots=tuple(crowd), box=box, link=_link(crowd, box)) for crowd, box in zip(crowds, boxes, strict=True)]


Axis = tuple[float, float, float]
"""Value, interval low, interval high."""


def _dot(stage: Stage, role: str, plot: Plot) -> Dot | None:
    leak = _axis(stage, f"{role}.leak") or _axis(stage, f"{role}.asr_proxy")
    recall_words = recalls(stage)
    recall_axes = [axis for key in recall_words if (axis := _axis(stage, key)) is not None]
    if leak is None or not recall_axes:
        return None
    retained, low, high = (sum(axis[index] for axis in recall_axes) / len(recall_axes) for index in range(3))
    return Dot(
        name=stage.name,
        label=stage.label if len(stage.label) <= LETTERS else stage.label[: LETTERS - 1].rstrip() + "…",
        x=plot.x(1 - leak[0]),
        y=plot.y(retained),
        whiskers=(plot.x(1 - leak[2]), plot.x(1 - leak[1]), plot.y(low), plot.y(high)),
        title=f"{stage.label}: {percent(1 - leak[0])} forgotten, {percent(retained)} of the retained {' and '.join(recall_words.values())}",
    )


def _axis(stage: Stage, key: str) -> Axis | None:
    score = pooled_score(stage, key)
    if score is None or score.value is None:
        return None
    low, high = score.interval or (score.value, score.value)
    return score.value, low, high


def group_crowds(dots: Sequence[Dot]) -> list[list[Dot]]:
    """Group the dots: each joins the first group with a dot nearer than CROWD."""
    crowds: list[list[Dot]] = []
    for dot in dots:
        nearby_crowds = (
            crowd for crowd in crowds if any(math.dist((dot.x, dot.y), (other.x, other.y)) < CROWD for other in crowd)
        )
        crowd = next(nearby_crowds, None)
        if crowd is None:
            crowds.append([dot])
        else:
            crowd.append(dot)
    return crowds


def named_dots(crowd: Sequence[Dot]) -> Sequence[Dot]:
    """Return the dots of a crowd whose labels are shown."""
    return crowd if len(crowd) <= NAMES else crowd[: NAMES - 1]


def _centre(crowd: Sequence[Dot]) -> tuple[float, float]:
    return sum(dot.x for dot in crowd) / len(crowd), sum(dot.y for dot in crowd) / len(crowd)


def _link(crowd: Sequence[Dot], box: Box) -> tuple[float, float, float, float] | None:
    """Return the line from the dots to the nearest point of their tag, if they are apart."""
    x, y = _centre(crowd)
    near_x, near_y = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
    return (x, y, near_x, near_y) if math.dist((x, y), (near_x, near_y)) > 26 else None


def place_tags(crowds: Sequence[Sequence[Dot]], frame: Box) -> list[Box]:
    """Return one box per group near it, inside the frame and without overlaps where there is room, the largest placed first.

    Whiskers are kept free too where there is room.
    """
    dot_boxes = [_around(dot.x, dot.y, 15, 15) for crowd in crowds for dot in crowd]
    whisker_boxes = [box for crowd in crowds for dot in crowd for box in _whisker_boxes(dot)]
    placed: dict[int, Box] = {}
    for index in sorted(range(len(crowds)), key=lambda index: -len(crowds[index])):
        crowd = crowds[index]
        marker = 18 if len(crowd) > 1 else 0
        letters = max(len(dot.label) for dot in named_dots(crowd))
        candidates = _options(_centre(crowd), letters * SIGN + marker + 4, LINE * min(len(crowd), NAMES))
        occupied = [*dot_boxes, *placed.values()]
        inside_boxes = [box for box in candidates if box.inside(frame)] or candidates
        free_boxes = [box for box in inside_boxes if not _met(occupied, box)]
        clear_boxes = (box for box in free_boxes if not _met(whisker_boxes, box))
        placed[index] = next(
            clear_boxes, free_boxes[0] if free_boxes else min(inside_boxes, key=partial(_met, occupied))
        )
    return [placed[index] for index in range(len(crowds))]


def _met(obstacles: Sequence[Box], box: Box) -> int:
    """Return the number of obstacles that a box overlaps."""
    return sum(box.meets(obstacle) for obstacle in obstacles)


def _whisker_boxes(dot: Dot) -> tuple[Box, Box]:
    left, right, bottom, top = dot.whiskers
    horizontal = Box(left=left, right=right, top=dot.y - 1, bottom=dot.y + 1)
    return horizontal, Box(left=dot.x - 1, right=dot.x + 1, top=top, bottom=bottom)


def _around(x: float, y: float, width: float, height: float) -> Box:
    return Box(left=x - width / 2, top=y - height / 2, right=x + width / 2, bottom=y + height / 2)


def _options(centre: tuple[float, float], width: float, height: float) -> list[Box]:
    """Return candidate boxes around a point, nearest first."""
    angles = [2 * math.pi * step / 16 for step in range(16)]
    return [
        _around(
            centre[0] + math.cos(angle) * (distance + width / 2),
            centre[1] + math.sin(angle) * (distance + height / 2),
            width,
            height,
        )
        for distance in range(10, 240, 6)
        for angle in angles
    ]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One logged quantity over steps, one line per seed, in 300 x 130 units."""

    name: str
    lines: tuple[str, ...]
    """SVG point lists."""
    low: str
    high: str
    last: str
    """Value at the end, mean over seeds."""
    steps: int


AXES = ("step", "epoch", "seconds", "learning_rate", "lr", "time", "seed", "tokens", "peak_gib")
"""Logged columns that are no training results."""
POINTS = 200


def curves(stage: Stage) -> list[Curve]:
    """Return the training curves of a stage: all logged quantities except the time."""
    names = dict.fromkeys(key for run in stage.runs for row in run.log for key in row if key not in AXES)
    return [curve for name in names if (curve := _curve(stage, name)) is not None]


def _curve(stage: Stage, name: str) -> Curve | None:
    series = [points for run in stage.runs if len(points := _points(run.log, name)) > 1]
    if not series:
        return None
    values = [value for points in series for _, value in points]
    low, high = min(values), max(values)
    last_step = max(points[-1][0] for points in series)
    first_step = min(points[0][0] for points in series)
    return Curve(
        name=name,
        lines=tuple(polyline(points, (first_step, last_step), (low, high)) for points in series),
        low=number(low),
        high=number(high),
        last=number(sum(points[-1][1] for points in series) / len(series)),
        steps=int(last_step),
    )


def _points(log: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    points = [(row.get("step", float(index)), row[name]) for index, row in enumerate(log) if name in row]
    stride = max(1, math.ceil(len(points) / POINTS))
    return points[:-1:stride] + points[-1:]


def polyline(points: Sequence[tuple[float, float]], x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    """Return points of these ranges as an SVG point list in 300 x 130 units."""
    x_span, y_span = x_range[1] - x_range[0] or 1.0, y_range[1] - y_range[0]
    return " ".join(
        f"{4 + 292 * (x - x_range[0]) / x_span:.1f},{122 - 110 * ((y - y_range[0]) / y_span if y_span else 0.5):.1f}"
        for x, y in points
    )


def number(value: float) -> str:
    """Return a number with three significant digits.

    >>> number(0.00012345), number(12.345), number(0.0)
    ('0.000123', '12.3', '0')
    """
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")
