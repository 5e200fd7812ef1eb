"""Page of continual runs: forgetting, rebound and utility over the requests."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from unsee.api import registry
from unsee.errors import UserError
from unsee.utils.files import atomic_write_text
from unsee.utils.parsing import read_object

PAGE, PICTURE = "continual.html", "continual.png"
_NOT_DRAWN: Final = (
    "<p>Not drawn: matplotlib is not installed. Run <code>pip install &quot;unsee[plots]&quot;</code>, then "
    "<code>unsee continual --compare FOLDER --out PAGE</code>.</p>"
)
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
COLOURS: Final = (
    *("#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e1b", "#5b5b5b", "#17a2a2", "#a0522d", "#b5179e", "#6a994e"),
    *("#222222", "#f28482", "#4cc9f0", "#b08900"),
)
STYLES: Final = {"sequential": "-", "merge": "--", "experts": ":", "joint": "-."}

Document = Mapping[str, Any]
Curve = Callable[[Document], Sequence[float | None]]


def _unasked(found: Document) -> list[float | None]:
    """Return how well future requests are remembered."""
    rows = zip(found["at"], found["A"], strict=True)
    return [sum(row[t:]) / len(row[t:]) if row[t:] else None for t, row in rows]


def _asked(found: Document) -> list[float | None]:
    rows = zip(found["at"], found["A"], strict=True)
    return [row[t - 1] if t else None for t, row in rows]


PANELS: Final[tuple[tuple[str, Curve], ...]] = (
    ("Just asked to be forgotten: still remembered", _asked),
    ("Asked earlier: remembered (again)", lambda found: [None, *found["metrics"]["A_HF"]]),
    ("Rebound since the best moment, worst request", lambda found: [None, *found["metrics"]["FR_task_max"]]),
    ("Kept people: names and facts right", lambda found: found["U"] or []),
    ("Unrelated questions right", lambda found: found["G"] or []),
    ("Not asked for yet: remembered", _unasked),
)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ only by the order of requests (or the seed)."""

    label: str
    runs: tuple[Document, ...]

    @property
    def mode(self) -> str:
        """How they process requests."""
        return str(self.runs[0]["mode"])

    def mean(self, curve: Curve) -> list[float | None]:
        """Return the mean curve over the runs."""
        columns = zip(*(curve(run) for run in self.runs), strict=True)
        return [None if None in column else sum(v for v in column if v is not None) / len(column) for column in columns]

    def cell(self, name: str) -> str:
        """Return the mean of a summary over the runs, with the range if there are several."""
        values = [run["summary"].get(name) for run in self.runs]
        known = [value for value in values if value is not None]
        if not known:
            return "-"
        mean = f"{sum(known) / len(known):.2f}"
        return f"{mean} [{min(known):.2f}, {max(known):.2f}]" if len(known) > 1 else mean


def write_page(folders: Sequence[Path], out: Path) -> Path:
    """Write `continual.html`, `.png` and `.md` for the sequences, and return the page.

    Without matplotlib there is no PNG, and the page says how to get its curves.
    """
    runs = [_read(Path(folder)) for folder in folders]
    try:
        groups = grouped(runs)
        lengths, summary = {tuple(run["at"]) for group in groups for run in group.runs}, table(groups)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        listed = ", ".join(str(Path(folder) / "continual.json") for folder in folders)
        raise UserError(
            f"One of {listed} is damaged ({type(error).__name__}: {error!s:.200}). Run its `unsee continual` again."
        ) from error
    if len(lengths) > 1:
        raise UserError("These sequences were judged at different lengths; compare those of equal length.")
    out.mkdir(parents=True, exist_ok=True)
    atomic_write_text(out / "continual.md", summary)
    atomic_write_text(out / PAGE, _html(groups, *_drawings(groups, out)))
    return out / PAGE


def _drawings(groups: Sequence[Group], out: Path) -> tuple[str, str]:
    """Save the curves as PNG and return curves and maps as SVG.

    Without matplotlib, return the note that replaces them.
    """
    if find_spec("matplotlib") is None:
        return _NOT_DRAWN, _NOT_DRAWN
    figure = _curves(groups)
    figure.savefig(out / PICTURE, dpi=110)
    return _svg(figure, "Curves over the requests, one line per sequence"), _svg(
        _maps(groups), "What is remembered, as maps"
    )


def grouped(runs: Sequence[Document]) -> list[Group]:
    """Group the runs by method, settings and course, ignoring the order."""
    found: dict[str, list[Document]] = {}
    names: dict[str, str] = {}
    for run in runs:
        course = {
            name: value for name, value in run["settings"]["continual"].items() if name not in ("order", "adapters")
        }
        key = json.dumps([run["method"], run["settings"]["method"], course, run["model"]], sort_keys=True)
        found.setdefault(key, []).append(run)
        names[key] = label_of(run)
    twice = {name for name in names.values() if list(names.values()).count(name) > 1}
    labels = {
        key: f"{name} ({number})" if name in twice else name for number, (key, name) in enumerate(names.items(), 1)
    }
    return [Group(label=labels[key], runs=tuple(its)) for key, its in found.items()]


def label_of(run: Document) -> str:
    """Return the name of a run: method, mode, and variant of the mode."""
    course, mode = run["settings"]["continual"], run["mode"]
    ways = {
        "merge": course["merge"],
        "experts": course["router"],
        "sequential": "from the start" if course["reference"] == "initial" else "",
    }
    way = ways.get(mode, "")
    return f"{run['method']}{' + retain' if _retains(run) else ''}, {mode}{f' {way}' if way else ''}"


def _retains(run: Document) -> bool:
    """Tell whether the settings add a retain term to a method without one by default."""
    weight = run["settings"]["method"].get("retain_weight", 0.0)
    own = {field.name: field.default for field in fields(registry.load("methods", run["method"]))}
    return bool(weight) and not own.get("retain_weight", 0.0)


def table(groups: Sequence[Group]) -> str:
    """Return the summary as a Markdown table."""
    lines = [f"| | {' | '.join(heading for _, heading in COLUMNS)} |", "|" + "---|" * (len(COLUMNS) + 1)]
    lines += [f"| {group.label} | {' | '.join(group.cell(name) for name, _ in COLUMNS)} |" for group in groups]
    return "\n".join(lines) + "\n"


def _read(folder: Path) -> Document:
    file = folder / "continual.json"
    if not file.is_file():
        raise UserError(f"{folder} has no continual.json: expected the --out of `unsee continual`.")
    return read_object(file)


def _curves(groups: Sequence[Group]) -> Any:
    """Return the six panels, one line per group and thin ones for its orders."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8.2), layout="constrained")
    axes = figure.subplots(2, 3).flatten()
    last = groups[0].runs[0]["at"][-1]
    for axis, (title, curve) in zip(axes, PANELS, strict=True):
        for number, group in enumerate(groups):
            colour, at = COLOURS[number % len(COLOURS)], group.runs[0]["at"]
            style = STYLES[group.mode]
            for run in group.runs if len(group.runs) > 1 else ():
                axis.plot(*_points(at, curve(run)), color=colour, linewidth=0.6, alpha=0.35)
            axis.plot(
                *_points(at, group.mean(curve)),
                color=colour,
                linestyle=style,
                linewidth=1.9,
                marker=".",
                label=group.label,
            )
        axis.set(title=title, ylim=(-0.03, 1.03), xlim=(-0.3, last + 0.3), xlabel="requests made")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
    handles, labels = axes[3].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(groups)), frameon=False)
    return figure


def _points(at: Sequence[int], values: Sequence[float | None]) -> tuple[list[int], list[float]]:
    known = [(t, value) for t, value in zip(at, values, strict=False) if value is not None]
    return [t for t, _ in known], [value for _, value in known]


def _maps(groups: Sequence[Group]) -> Any:
    """Return one heat map per group: rows are models, columns requests, dark = remembered."""
    from matplotlib.figure import Figure

    wide = min(4, len(groups))
    tall = -(-len(groups) // wide)
    figure = Figure(figsize=(3.3 * wide, 3.2 * tall), layout="constrained")
    axes = figure.subplots(tall, wide, squeeze=False).flatten()
    for axis, group in zip(axes, groups, strict=False):
        rows = [
            [sum(cells) / len(cells) for cells in zip(*lines, strict=True)]
            for lines in zip(*(run["A"] for run in group.runs), strict=True)
        ]
        count, places = len(rows[0]), group.runs[0]["at"]
        axis.imshow(rows, cmap="Blues", vmin=0, vmax=1, aspect="auto", extent=(0.5, count + 0.5, len(rows) - 0.5, -0.5))
        axis.step(
            [k + 0.5 for k in range(count + 1)],
            [min(k + 1, count) - 0.5 for k in range(count + 1)],
            where="post",
            color="#d1495b",
            linewidth=1,
        )
        axis.set(title=group.label, xlabel="request", ylabel="after")
        axis.set_yticks(range(len(rows)), [str(t) for t in places])
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes[len(groups) :]:
        axis.set_visible(False)
    return figure


def _svg(figure: Any, label: str) -> str:
    """Return the drawing as part of a page, with a name for those who do not see it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return f'<svg role="img" aria-label="{escape(label)}"{text[text.index("<svg") + len("<svg") :]}'


_STYLE: Final = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1180px;padding:0 1rem;color:#1c1c1c;background:#fff}
table{border-collapse:collapse;font-size:13px}td,th{padding:.3rem .55rem;border-bottom:1px solid #ddd;text-align:right}
th{vertical-align:bottom;max-width:7rem}td{white-space:nowrap}td:first-child,th:first-child{text-align:left}
tbody th{vertical-align:top}.wide{overflow-x:auto}svg{max-width:100%;height:auto}p{max-width:52rem}
@media print{.wide{overflow:visible}table{font-size:8px}td,th{padding:.2rem;overflow-wrap:anywhere}h2,h2+p{break-after:avoid}}"""


def _html(groups: Sequence[Group], curves: str, maps: str) -> str:
    """Return the page, which works offline and escapes all text."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for _, heading in COLUMNS)
    body = "".join(
        f'<tr><th scope="row">{escape(group.label)}</th>'
        f"{''.join(f'<td>{group.cell(name)}</td>' for name, _ in COLUMNS)}</tr>"
        for group in groups
    )
    first = groups[0].runs[0]
    several = (
        "Numbers are means over the orders, in brackets the lowest and the highest."
        if any(len(g.runs) > 1 for g in groups)
        else ""
    )
    said = (
        f"{len(first['tasks'])} deletion requests, one after the other, to the model {escape(Path(first['model']).name)}. "
        f"Remembering is measured by {escape(' and '.join(first['headline']))}, on questions with an image. {several}"
    )
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Deletion requests in sequence</title><style>{_STYLE}</style></head>
<body><main><h1>Deletion requests in sequence</h1><p>{said}</p>{curves}
<h2>In numbers</h2><div class="wide" tabindex="0"><table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>
<p>A broken model forgets everything and shows no rebound: read the first columns together with retained utility. The protocol is ours
(&ldquo;ICU-style&rdquo;), not ICU-Bench's own.</p>
<h2>What is remembered after each request</h2><p>Rows: models after so many requests. Columns: requests. Dark = remembered. Left below the red
line lies what had been asked for by then; it should be light. To its right lies what nobody had asked for yet; it should be dark.</p>{maps}</main></body></html>
"""
