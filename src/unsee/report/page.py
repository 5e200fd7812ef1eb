"""The report as one HTML file, and the comparison of any run folders."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from unsee.api import Role, Score
from unsee.report import charts, gallery
from unsee.report.leaderboard import write_leaderboard
from unsee.report.read import Stage, read_run, read_stages
from unsee.report.summary import CLASSES, judged_role, peak_gib, pooled, seconds, summarise
from unsee.report.verdict import LIMITS, Verdict, judge, percent, ranked

HERE = Path(__file__).parent

MEANING: Mapping[str, str] = {
    "leak": "gives away a private fact",
    "degenerate": "empty, garbled or looping text",
    "hallucination": "claims something false, such as another person's name",
    "refusal": "declines and says little else",
    "uninformative": "well-formed, but says nothing about the picture",
    "clean": "describes what is visible, truly, and nothing private",
    "right": "the expected answer",
    "wrong": "not the expected answer",
}
"""What a verdict on one answer means, in a few words."""

ROLES: Mapping[str, str] = {
    Role.UNSEEN: "to forget · new picture",
    Role.FORGET: "to forget · training picture",
    Role.FORGET_TEXT: "to forget · by name, no picture",
    Role.RETAIN: "to keep",
    Role.RETAIN_TEXT: "to keep · by name, no picture",
    Role.BENIGN: "harmless look-alike",
    Role.STRANGER: "stranger",
    Role.GENERAL: "unrelated",
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the table."""

    key: str
    title: str
    better: str
    """An arrow: which way is better."""
    group: str
    meaning: str
    always: bool = True
    """Whether it stands in the leaderboard also where no run has the score."""


def columns(role: str) -> list[Column]:
    """Return the columns of the table; `role` is the one the aftermath was judged on."""
    wanted = "Asked to forget" + (" · new pictures" if role == "unseen" else " · training pictures")
    return [
        Column(key=f"{role}.leak", title="Leak", better="↓", group=wanted, meaning=MEANING["leak"]),
        Column(key=f"{role}.clean", title="Clean", better="↑", group=wanted, meaning=MEANING["clean"]),
        Column(
            key=f"{role}.grounding",
            title="Grounding",
            better="↑",
            group=wanted,
            meaning="share of the visible attributes it mentions that are true",
        ),
        Column(
            key="forget_text.fact",
            title="Facts by name",
            better="↓",
            group="Asked to forget · no picture",
            meaning="facts right when asked by name, without a picture",
        ),
        Column(
            key="retain.name",
            title="Names",
            better="↑",
            group="Asked to keep",
            meaning="names the person in the picture",
        ),
        Column(
            key="retain.fact", title="Facts", better="↑", group="Asked to keep", meaning="facts right, from the picture"
        ),
        Column(
            key="retain_text.fact",
            title="Facts by name",
            better="↑",
            group="Asked to keep",
            meaning="facts right when asked by name, without a picture",
        ),
        Column(
            key="stranger.known_name",
            title="Misnamed",
            better="↓",
            group="Strangers",
            meaning="given the name of somebody the model knows",
        ),
        Column(
            key="general.accuracy",
            title="Right",
            better="↑",
            group="Unrelated",
            meaning="unrelated questions answered right",
        ),
        *_aggregates(role),
    ]


def _aggregates(role: str) -> list[Column]:
    """Return the columns that need probabilities and a gold model; they stand only where a run has them."""
    beside = "Beside the gold model"
    rows = (
        (f"{role}.forget_quality", "p", "↑", "forget quality: p-value of the KS test on truth ratios"),
        (f"{role}.ks", "KS", "↓", "largest difference of the two distributions of truth ratios"),
        (f"{role}.js", "JS", "↓", "Jensen-Shannon divergence of the two, in bits"),
        ("model.fq", "FQ", "↑", "forget quality of OPEN-MMUNLEARNING, all parts together"),
        ("model.utility", "Utility", "↑", "harmonic mean of probability, ROUGE-L recall and truth ratio of what stays"),
    )
    return [
        Column(key=key, title=title, better=better, group=beside, meaning=meaning, always=False)
        for key, title, better, meaning in rows
    ]


def report(stages: Mapping[str, Sequence[Path]], out: Path, *, title: str = "") -> Path:
    """Write one offline report.html about `stages` (stage name -> run folders, one a seed) and return its path.

    `out` is the file if it ends in .html; else the folder that gets report.html, summary.json and leaderboard.md/.json.
    """
    read, out = read_stages(stages), Path(out)
    path = out if out.suffix == ".html" else out / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path != out:
        summary = json.dumps(summarise(read), indent=2, ensure_ascii=True)
        (out / "summary.json").write_text(summary + "\n", encoding="utf-8")
        shown = [column for column in columns(judged_role(read)) if column.always or _held(read, column)]
        write_leaderboard(read, shown, out)
    path.write_text(render(read, title), encoding="utf-8", errors="replace")
    return path


def _held(stages: Sequence[Stage], column: Column) -> bool:
    return any(pooled(stage, column.key) for stage in stages)


def compare(runs: Sequence[Path], out: Path) -> Path:
    """Report on run folders, grouped by the stage they recorded: folders with the same stage are taken as seeds of it.

    Writes report.html, summary.json and leaderboard.md/.json to the folder `out` and returns the path of report.html.
    """
    groups: dict[str, list[Path]] = {}
    for folder in runs:
        groups.setdefault(read_run(Path(folder)).stage, []).append(Path(folder))
    return report(groups, Path(out))


def render(stages: Sequence[Stage], title: str = "") -> str:
    """Return the report as HTML. Everything that comes from a run is escaped; own script and style are bound by hash."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = percent
    environment.filters["duration"] = duration
    style, script = (HERE / "report.css").read_text(encoding="utf-8"), (HERE / "report.js").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        **_context(stages, title),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _context(stages: Sequence[Stage], title: str) -> dict[str, Any]:
    role = judged_role(stages)
    original = next((stage for stage in stages if stage.name == "original"), None)
    verdicts = {stage.name: judge(stage, original, role) for stage in stages}
    order = ranked(stages, verdicts)
    table = [column for column in columns(role) if _held(stages, column)]
    plot = charts.Plot()
    return {
        "title": gallery.printable(title) or request(stages, role),
        "lead": lead(stages, role),
        "faces": gallery.faces(order),
        "role": role,
        "entries": [_entry(stage, verdicts[stage.name], role) for stage in order],
        "showcase": _showcase(order, role),
        "classes": CLASSES,
        "meaning": MEANING,
        "roles": ROLES,
        "plot": plot,
        "tags": charts.scatter(order, role, plot),
        "tones": {name: verdict.tone for name, verdict in verdicts.items()},
        "columns": table,
        "groups": _groups(table),
        "rows": [_row(stage, verdicts[stage.name], table) for stage in order],
        "cards": gallery.cards(order),
        "limits": LIMITS,
    }


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model, as all parts of the page but the table show it."""

    name: str
    label: str
    about: str
    verdict: Verdict
    reference: bool
    segments: list[charts.Segment]
    curves: list[charts.Curve]
    stopped: str
    """Why training stopped, seed by seed where seeds differ."""
    settings: list[tuple[str, str]]
    """(Seed, text of run.yaml)."""
    n: int


def _entry(stage: Stage, verdict: Verdict, role: str) -> Entry:
    leak = pooled(stage, f"{role}.leak")
    return Entry(
        name=stage.name,
        label=gallery.printable(stage.label),
        about=about(stage.name, stage.label),
        verdict=verdict,
        reference=stage.reference,
        segments=charts.segments(stage, role),
        curves=charts.curves(stage),
        stopped="; ".join(
            dict.fromkeys(str(run.result["stop_reason"]) for run in stage.runs if run.result.get("stop_reason"))
        ),
        settings=[(run.seed, run.settings_text) for run in stage.runs if run.settings_text],
        n=leak.n if leak else 0,
    )


def about(method: str, label: str) -> str:
    """Return the first line of the method's file up to its source, without loading it.

    Empty if there is no such method, or nothing but its label.
    """
    package = find_spec("unsee.methods")
    if package is None or not method.isidentifier():
        return ""
    for folder in package.submodule_search_locations or ():
        path = Path(folder) / f"{method}.py"
        if path.is_file():
            line = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
            words = re.sub(rf"^{re.escape(label)}([:,] |$)", "", line.partition(" (")[0].rstrip("."))
            return words[:1].upper() + words[1:]
    return ""


def _showcase(stages: Sequence[Stage], role: str) -> gallery.Card | None:
    index = gallery.showcase(stages, role)
    return None if index is None else gallery.card(stages, index)


def _groups(table: Sequence[Column]) -> list[tuple[str, int]]:
    names = dict.fromkeys(column.group for column in table)
    return [(name, sum(column.group == name for column in table)) for name in names]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    label: str
    collapsed: bool
    reference: bool
    cells: list[Score | None]
    seeds: int
    seconds: float | None
    peak_gib: float | None


def _row(stage: Stage, verdict: Verdict, table: Sequence[Column]) -> Row:
    return Row(
        label=gallery.printable(stage.label),
        collapsed=verdict.collapsed,
        reference=stage.reference,
        cells=[pooled(stage, column.key) for column in table],
        seeds=len(stage.runs),
        seconds=seconds(stage),
        peak_gib=peak_gib(stage),
    )


def duration(time: float) -> str:
    """Return seconds as a reader says them.

    >>> duration(4.2), duration(75.0), duration(7260.0)
    ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if time < 60:
        return f"{time:.1f} s" if time < 10 else f"{time:.0f} s"
    minutes, rest = divmod(round(time), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _targets(stages: Sequence[Stage], role: str) -> int:
    return len({item.entity for run in stages[0].runs for item in run.responses if item.role == role and item.entity})


def request(stages: Sequence[Stage], role: str) -> str:
    """Return what was asked of the model, in one sentence."""
    targets, known = _targets(stages, role), max(run.known for stage in stages for run in stage.runs)
    if not targets:
        return "What the models say"
    return (
        f"Forget {targets} of {known} people"
        if known > targets
        else f"Forget {targets} {'person' if targets == 1 else 'people'}"
    )


def lead(stages: Sequence[Stage], role: str) -> str:
    """Return how the question was put to the models."""
    asked = [item for item in stages[0].runs[0].responses if item.role == role and item.image]
    pictures = len({item.image for item in asked})
    methods = sum(not stage.reference for stage in stages)
    seeds = max(len(stage.runs) for stage in stages)
    kind = "new pictures, never used in training" if role == "unseen" else "the pictures used in training"
    return (
        f"{methods} {'way' if methods == 1 else 'ways'} to forget, each asked about the same people on {pictures} {kind}"
        f"{f' ({seeds} seeds)' if seeds > 1 else ''}. What does the model say now?"
    )
