"""Scores of one evaluation as a mapping, with a table for terminals and notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any, Final

from unsee.api import Score
from unsee.errors import UnknownNameError, UserError
from unsee.utils.frames import data_frame, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

FIRST: Final = (
    *(f"{role}.{key}" for role in ("unseen", "forget") for key in ("leak", "clean", "degenerate", "asr_proxy")),
    *("forget.choice", "forget.choice.no_pick", "forget.cloze", "forget.forget_quality"),
    *(f"retain.{key}" for key in ("name", "fact", "choice", "choice.no_pick", "cloze")),
    *("benign.sarr_proxy", "general.accuracy", "model.utility", "model.gold_distance", "model.fq"),
)
"""Scores that are shown first."""
_HEADS: Final = ("score", "value", "95 % interval", "n", "better")


class UnknownScoreError(UnknownNameError, KeyError):
    """Unknown score. A KeyError, too, so that `scores.get` and `in` work as with any mapping."""

    __str__ = Exception.__str__


class Scores(dict[str, Score]):
    """Name -> score of one evaluation. `str` and notebooks show the chief ones, `to_pandas` all of them."""

    def __missing__(self, name: str) -> Score:
        """Raise the error for an unknown score, with the nearest names."""
        raise UnknownScoreError("score", str(name), self)

    def __repr__(self) -> str:
        """Return a table of the chief scores, and how many others there are."""
        rows = [_HEADS, *map(_cells, self._chief().items())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        return "\n".join([*lines, self._count_line()])

    def _repr_html_(self) -> str:
        """Return the same table for notebooks, with the reasons for missing scores. Loads nothing from elsewhere."""
        head = "".join(f"<th>{escape(name)}</th>" for name in _HEADS)
        rows = "".join(_html_row(_cells(item)) for item in self._chief().items())
        missing = "".join(_html_row((name, score.why)) for name, score in self.missing.items())
        reasons = f"<details><summary>{len(self.missing)} missing</summary><table>{missing}</table></details>"
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><p>{escape(self._count_line())}</p>"
            f"{reasons if missing else ''}"
        )

    @property
    def missing(self) -> dict[str, Score]:
        """Scores without a value; `why` has the reason."""
        return {name: score for name, score in self.items() if score.value is None}

    def to_pandas(self) -> DataFrame:
        """Return one row per score: name, value, low, high, n, better, why.

        Raises:
            UserError: pandas is not installed.
        """
        rows = [_record(name, score) for name, score in self.items()]
        return data_frame(rows, ["name", "value", "low", "high", "n", "better", "why"])

    def plot(self, names: Iterable[str] = ()) -> Figure:
        """Return a matplotlib figure of scores in 0..1 with their 95 % intervals.

        Args:
            names: Scores to draw, top to bottom; none = the chief ones.

        Raises:
            UserError: matplotlib is not installed, or no such score has a value.
        """
        chosen = {name: self[name] for name in names} or self._chief()
        drawn = [(name, score.value, score) for name, score in chosen.items() if score.value is not None]
        if not drawn:
            raise UserError(f"None of the scores {', '.join(chosen) or '(there are none)'} has a value to draw.")
        figure = new_figure(1 + 0.3 * len(drawn))
        axes = figure.add_subplot()
        for row, (_, value, score) in enumerate(drawn):
            low, high = score.interval or (value, value)
            axes.plot([low, high], [row, row], color="0.6")
            axes.plot([value], [row], "o", color="teal")
        axes.set_yticks(range(len(drawn)), [name for name, _, _ in drawn])
        axes.invert_yaxis()
        axes.set_xlabel("value, 95 % interval")
        return figure

    def _chief(self) -> dict[str, Score]:
        """Return the chief scores with a value, else the first dozen."""
        valued = {name: score for name, score in self.items() if score.value is not None}
        return {name: valued[name] for name in FIRST if name in valued} or dict(list(valued.items())[:12])

    def _count_line(self) -> str:
        return f"{len(self)} scores, {len(self.missing)} without a value (scores.missing has the reasons)"


def _cells(item: tuple[str, Score]) -> tuple[str, ...]:
    name, score = item
    value = "" if score.value is None else f"{score.value:.3f}"
    interval = "" if score.interval is None else f"{score.interval[0]:.3f} to {score.interval[1]:.3f}"
    return name, value, interval, str(score.n), score.better


def _html_row(cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _record(name: str, score: Score) -> dict[str, Any]:
    low, high = score.interval or (None, None)
    return {
        "name": name,
        "value": score.value,
        "low": low,
        "high": high,
        "n": score.n,
        "better": score.better,
        "why": score.why,
    }
