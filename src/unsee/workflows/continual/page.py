"""Page of continual runs: forgetting, rebound and utility over the requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from unsee.api import registry
from unsee.errors import UserError
from unsee.report.charts import polyline
from unsee.report.page import render_page
from unsee.report.seeds import MOST, flat, short
from unsee.utils import markdown
from unsee.utils.files import atomic_write_text, distinct
from unsee.utils.grouping import by_key
from unsee.utils.parsing import read_object

PAGE: Final = "continual.html"
COLUMNS: Final = (
    ("CF", "just asked for: forgotten ↑"),
    ("HP", "earlier: still forgotten ↑"),
    ("FR", "rebound FR ↓"),
    ("FR_task_max", "worst rebound of a request ↓"),
    ("RU", "retained utility ↑"),
    ("RU_last", "at the end ↑"),
    ("RSR", "RSR ↓"),
    ("RD", "drift RD ↓"),
    ("GU", "general ↑"),
    ("FT", "others' loss FT ↓"),
    ("overall", "overall ↑"),
)
"""Summary -> heading."""
WIDE, TALL = 20, 14
"""A cell of a map."""
COLOURS: Final = 14
"""Colours of report/sequences.css, k0, k1, ...; with more groups they come again."""

Document = Mapping[str, Any]
Curve = Callable[[Document], Sequence[float | None]]


def _not_requested(document: Document) -> list[float | None]:
    """Return how well future requests are remembered."""
    rows = zip(document["at"], document["A"], strict=True)
    return [sum(row[t:]) / len(row[t:]) if row[t:] and None not in row[t:] else None for t, row in rows]


def _just_requested(document: Document) -> list[float | None]:
    rows = zip(document["at"], document["A"], strict=True)
    return [row[t - 1] if t else None for t, row in rows]


PANELS: Final[tuple[tuple[str, Curve], ...]] = (
    ("Just asked to be forgotten: still remembered", _just_requested),
    ("Asked earlier: remembered (again)", lambda document: [None, *document["metrics"]["A_HF"]]),
    ("Rebound since the best moment, worst request", lambda document: [None, *document["metrics"]["FR_task_max"]]),
    ("Kept people: names and facts right", lambda document: document["U"] or []),
    ("Unrelated questions right", lambda document: document["G"] or []),
    ("Not asked for yet: remembered", _not_requested),
)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ only by the order of requests (or the seed)."""

    label: str
    runs: tuple[Document, ...]

    @property
    def mode(self) -> str:
        """Mode of the runs."""
        return str(self.runs[0]["mode"])

    def mean(self, curve: Curve) -> list[float | None]:
        """Return the mean curve over the runs."""
        columns = zip(*(curve(run) for run in self.runs), strict=True)
        return [
            None if None in column else sum(value for value in column if value is not None) / len(column)
            for column in columns
        ]

    @property
    def notes(self) -> list[str]:
        """Values that could not be judged, hence missing from the numbers."""
        return [f"{self.label}: missing is {text}" for run in self.runs for text in run.get("missing", ())]

    def cell(self, name: str) -> str:
        """Return the mean of a summary over the runs, with the range if there are several."""
        values = [run["summary"].get(name) for run in self.runs]
        known_values = [value for value in values if value is not None]
        if not known_values:
            return "-"
        mean = f"{sum(known_values) / len(known_values):.2f}"
        return f"{mean} [{min(known_values):.2f}, {max(known_values):.2f}]" if len(known_values) > 1 else mean


def write_page(folders: Sequence[Path], out: Path) -> Path:
    """Write `continual.html` and `.md` for the sequences, each once, and return the page."""
    folders = distinct(folders)
    present = [name for name in (PAGE, "continual.md") if (out / name).exists()]
    if present and not _is_page(out / PAGE) and out.resolve() not in [folder.resolve() for folder in folders]:
        raise UserError(
            f"{out} holds no page of sequences, and {present[0]} in it would be replaced. Give another --out."
        )
    runs = [_read(folder) for folder in folders]
    try:
        groups = groups_of(runs)
        _require_finished(folders, runs)
        _require_equal_lengths(groups)
        summary, page = table(groups), html(groups)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        file_list = ", ".join(str(folder / "continual.json") for folder in folders)
        raise UserError(
            f"One of {file_list} is damaged ({type(error).__name__}: {error!s:.200}). Run its `unsee continual` again."
        ) from error
    out.mkdir(parents=True, exist_ok=True)
    atomic_write_text(out / PAGE, page)  # first, since it marks the folder as one of unsee
    atomic_write_text(out / "continual.md", summary)
    return out / PAGE


def _is_page(file: Path) -> bool:
    """Tell whether a page was written by unsee: it lets a browser load nothing."""
    return file.is_file() and b"default-src 'none'" in file.read_bytes()[:2000]


def _require_finished(folders: Sequence[Path], runs: Sequence[Document]) -> None:
    for folder, run in zip(folders, runs, strict=True):
        if (judged_count := run["at"][-1]) != (count := len(run["tasks"])):
            raise UserError(
                f"The sequence in {folder} is not finished: {judged_count} of {count} requests are judged. "
                "Run its `unsee continual` again; it goes on."
            )


def _require_equal_lengths(groups: Sequence[Group]) -> None:
    if len({tuple(run["at"]) for group in groups for run in group.runs}) > 1:
        raise UserError("These sequences were judged at different lengths; compare those of equal length.")


def groups_of(runs: Sequence[Document]) -> list[Group]:
    """Group the runs that differ only by order or seed, and label them by their differences."""
    runs_by_key = by_key((json.dumps([run["method"], _facts(run)], sort_keys=True), run) for run in runs)
    keys_by_label = by_key((label_of(group_runs[0]), key) for key, group_runs in runs_by_key.items())
    labels = {
        key: f"{name}{mark}"
        for name, keys in keys_by_label.items()
        for key, mark in zip(keys, _marks([_facts(runs_by_key[key][0]) for key in keys]), strict=True)
    }
    return [Group(label=labels[key], runs=tuple(group_runs)) for key, group_runs in runs_by_key.items()]


def _facts(run: Document) -> dict[str, Any]:
    """Return model and settings as dotted name -> value, without those that orders may vary."""
    # `flat` drops `eval`
    eval_settings = {f"eval.{name}": value for name, value in run["settings"].get("eval", {}).items()}
    settings = {**run["settings"], "model": run["model"], **eval_settings}
    course = {name: value for name, value in settings["continual"].items() if name not in ("order", "adapters")}
    return dict(flat({**settings, "continual": course}))


def _marks(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a suffix per group: the settings in which it differs, or its number."""
    names = list(dict.fromkeys(name for row in facts for name in row))
    differing_names = [name for name in names if any(row.get(name) != facts[0].get(name) for row in facts)]
    if not differing_names:
        return [""]
    if len(differing_names) > MOST:
        return [f" ({number})" for number, _ in enumerate(facts, 1)]
    return [
        " " + " ".join(f"{short(name, differing_names)}={row.get(name, '?')}" for name in differing_names)
        for row in facts
    ]


def label_of(run: Document) -> str:
    """Return the name of a run: method, mode, and variant of the mode."""
    course, mode = run["settings"]["continual"], run["mode"]
    variants = {
        "merge": course["merge"],
        "experts": course["router"],
        "sequential": "from the start" if course["reference"] == "initial" else "",
    }
    variant = variants.get(mode, "")
    return f"{run['method']}{' + retain' if _retains(run) else ''}, {mode}{f' {variant}' if variant else ''}"


def _retains(run: Document) -> bool:
    """Tell whether the settings add a retain term to a method without one by default."""
    weight = run["settings"]["method"].get("retain_weight", 0.0)
    defaults = {field.name: field.default for field in fields(registry.load("methods", run["method"]))}
    return bool(weight) and not defaults.get("retain_weight", 0.0)


def table(groups: Sequence[Group]) -> str:
    """Return the summary as a Markdown table, followed by the values that are missing."""
    notes = "".join(f"\n{markdown.cell(note)}.\n" for group in groups for note in group.notes)
    return markdown.table(["", *(heading for _, heading in COLUMNS)], _rows(groups)) + "\n" + notes


def _rows(groups: Sequence[Group]) -> list[list[str]]:
    return [[group.label, *(group.cell(name) for name, _ in COLUMNS)] for group in groups]


def _read(folder: Path) -> Document:
    file = folder / "continual.json"
    if not file.is_file():
        raise UserError(f"{folder} has no continual.json: expected the --out of `unsee continual`.")
    return read_object(file)


def html(groups: Sequence[Group]) -> str:
    """Return the page, which works offline and escapes all text."""
    first_run = groups[0].runs[0]
    values = {
        "requests": len(first_run["tasks"]),
        "model": Path(first_run["model"]).name,
        "headline": " and ".join(first_run["headline"]),
        "several": any(len(group.runs) > 1 for group in groups),
        "panels": [_panel(title, curve, groups) for title, curve in PANELS],
        "last": first_run["at"][-1],
        "keys": [
            {"label": group.label, "colour": number % COLOURS, "mode": group.mode}
            for number, group in enumerate(groups)
        ],
        "heads": [heading for _, heading in COLUMNS],
        "rows": _rows(groups),
        "notes": [note for group in groups for note in group.notes],
        "maps": [_map(group) for group in groups],
    }
    return render_page("sequences.html", ("report.css", "sequences.css"), "", values)


def _panel(title: str, curve: Curve, groups: Sequence[Group]) -> dict[str, Any]:
    """Return a chart: one line per group, and thin ones for its orders."""
    lines, descriptions = [], []
    for number, group in enumerate(groups):
        request_counts, mean_values = group.runs[0]["at"], group.mean(curve)
        run_curves = [curve(run) for run in group.runs] if len(group.runs) > 1 else []
        for values in (*run_curves, mean_values):
            points = [(t, value) for t, value in zip(request_counts, values, strict=False) if value is not None]
            points = points if len(points) != 1 else [points[0], (points[0][0] + request_counts[-1] / 40, points[0][1])]
            svg_points = polyline(points, (0, request_counts[-1]), (0.0, 1.0))
            lines.append(
                {
                    "points": svg_points,
                    "colour": number % COLOURS,
                    "mode": group.mode,
                    "thin": values is not mean_values,
                }
            )
        known_values = [value for value in mean_values if value is not None]
        descriptions.append(
            f"{group.label} ends at {known_values[-1]:.2f}" if known_values else f"{group.label} has no value"
        )
    return {"title": title, "lines": lines, "said": f"{title}: {'; '.join(descriptions)}"}


def _map(group: Group) -> dict[str, Any]:
    """Return a heat map: rows are models, columns requests, dark = remembered."""
    rows = [
        [None if None in cells else sum(cells) / len(cells) for cells in zip(*lines, strict=True)]
        for lines in zip(*(run["A"] for run in group.runs), strict=True)
    ]
    count, request_counts = len(rows[0]), group.runs[0]["at"]
    cells = [
        {"x": WIDE * k, "y": TALL * t, "value": round(value, 2), "after": request_counts[t], "request": k + 1}
        for t, row in enumerate(rows)
        for k, value in enumerate(row)
        if value is not None
    ]
    row_marks = [
        {"x": -3, "y": TALL * t + 10, "anchor": "end", "text": request_count}
        for t, request_count in enumerate(request_counts)
    ]
    column_marks = [{"x": WIDE * (k + 0.5), "y": -2, "anchor": "middle", "text": k + 1} for k in range(count)]
    heights = [sum(request_count <= k for request_count in request_counts) for k in range(count)]
    step = " ".join(f"{WIDE * (k + side)},{TALL * height}" for k, height in enumerate(heights) for side in (0, 1))
    return {
        "label": group.label,
        "width": WIDE * count,
        "height": TALL * len(rows),
        "cells": cells,
        "marks": [*row_marks, *column_marks],
        "step": step,
    }
