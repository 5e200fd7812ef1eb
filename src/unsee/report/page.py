"""Report as one HTML file, and comparison of run folders."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from unsee.api import Kind, Role, Score, registry
from unsee.errors import UserError, first_names
from unsee.report import answers, attacked, charts, gallery, routes
from unsee.report.columns import MEANING, Column, shown_columns
from unsee.report.fulfilled import Fulfilled, fulfilled
from unsee.report.leaderboard import leaderboard, remarks
from unsee.report.printable import printable
from unsee.report.read import Stage, only, read_stages
from unsee.report.seeds import folders_by_row
from unsee.report.summary import (
    CLASSES,
    judged_role,
    peak_gib,
    pooled_score,
    runs_with,
    seconds,
    some_seeds,
    summarise,
    timed_seeds,
)
from unsee.report.verdict import LIMITS, Verdict, judge, percent, ranked_stages
from unsee.scoring.conditions import FORGOTTEN
from unsee.utils.files import atomic_write_text

HERE = Path(__file__).parent

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


def report(stages: Mapping[str, Sequence[Path]], out: Path, *, title: str = "") -> Path:
    """Write an offline report.html about `stages` (name -> run folders), and return its path.

    `out` is the file if it ends in .html; else the folder that gets report.html, summary.json and leaderboard.md/.json.
    """
    loaded_stages, out = read_stages(stages), Path(out)
    path = out if out.suffix == ".html" else out / "report.html"
    answers_path = answers.path_beside(path)
    texts = {answers_path: render_answers(loaded_stages, title)}
    if path != out:
        board = leaderboard(loaded_stages, shown_columns(loaded_stages, judged_role(loaded_stages), always=True))
        summary = json.dumps(summarise(loaded_stages), indent=2, ensure_ascii=True) + "\n"
        texts |= {out / name: text for name, text in {**board, "summary.json": summary}.items()}
    texts[path] = render(loaded_stages, title, answers_path.name)
    board_file = out / "leaderboard.json"
    if path != out and not board_file.exists():
        _require_replaceable(texts)
    # the board first, which marks the folder as a report's
    for file in sorted(texts, key=lambda file: file != board_file):
        atomic_write_text(file, texts[file].encode(errors="replace").decode())
    return path


def _require_replaceable(files: Iterable[Path]) -> None:
    """Raise if files are there already, in a folder without an earlier report."""
    present = [file for file in files if file.exists()]
    if present:
        raise UserError(
            f"{present[0].parent} holds no earlier report, and {first_names([file.name for file in present])} in it would be replaced. "
            "Give another --out."
        )


def compare(runs: Sequence[Path], out: Path) -> Path:
    """Report on run folders. Those of one stage with equal settings are seeds of one row.

    Writes report.html, summary.json and leaderboard.md/.json to the folder `out` and returns the path of report.html.
    """
    return report(folders_by_row([Path(folder) for folder in runs]), Path(out))


def render(stages: Sequence[Stage], title: str = "", all_answers: str = "") -> str:
    """Return the report as HTML, with all run data escaped, script and style bound by hash.

    `all_answers`: file name of the page with all answers, for a link; empty = none.
    """
    return render_page(
        "page.html", ("report.css",), "report.js", {**_context(stages, title), "all_answers": all_answers}
    )


def render_answers(stages: Sequence[Stage], title: str = "") -> str:
    """Return the page with all answers as HTML. The answers are JSON in it, and shown as text."""
    role = judged_role(stages)
    values = {
        "title": printable(title) or request(stages, role),
        "data": answers.embedded_json(answers.content(stages)),
    }
    return render_page("answers.html", ("report.css", "answers.css"), "answers.js", values)


def render_page(
    template: str, styles: Sequence[str], script_file: str, values: Mapping[str, Any], *, here: Path = HERE
) -> str:
    """Return a page of a folder's files, script and style bound by hash.

    Args:
        template: Name of the Jinja template, an HTML page.
        styles: Names of style files, concatenated in this order.
        script_file: Name of the script. Empty: no script.
        values: Variables of the template, escaped when filled in.
        here: Folder of all these files. Default: that of the reports.
    """
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = percent
    environment.filters["duration"] = duration
    environment.filters["size"] = routes.size
    style = "".join((here / name).read_text(encoding="utf-8") for name in styles)
    script = (here / script_file).read_text(encoding="utf-8") if script_file else ""
    return environment.get_template(template).render(
        **values,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _context(stages: Sequence[Stage], title: str) -> dict[str, Any]:
    role = judged_role(stages)
    original = only(stages, "original")
    verdicts = {stage.name: judge(stage, original, role) for stage in stages}
    ordered = ranked_stages(stages, verdicts)
    columns = shown_columns(stages, role)
    plot, asked_routes = charts.Plot(), routes.routes(stages)
    return {
        "title": printable(title) or request(stages, role),
        "lead": lead(stages, role),
        "faces": gallery.faces(ordered),
        "role": role,
        "who": who(stages, role),
        "entries": [_entry(stage, verdicts[stage.name], role) for stage in ordered],
        "showcase": _showcase(ordered, role),
        "classes": CLASSES,
        "meaning": MEANING,
        "roles": ROLES,
        "plot": plot,
        "tags": charts.scatter(ordered, role, plot),
        "tones": {name: verdict.tone for name, verdict in verdicts.items()},
        "columns": columns,
        "groups": groups(columns),
        "routes": asked_routes,
        "route_groups": groups(asked_routes),
        "ways": [(stage.label, stage.reference, routes.ways(stage, asked_routes)) for stage in ordered],
        "attacks": attacked.attacks_of(ordered),
        "attacked": [
            (stage.label, stage.reference, attacked.recovered_by_attack(stage))
            for stage in ordered
            if any(run.attacks for run in stage.runs)
        ],
        "rows": [_row(stage, verdicts[stage.name], columns) for stage in ordered],
        "cards": gallery.cards(ordered),
        "limits": LIMITS,
        "remarks": [printable(line) for line in remarks(stages)],
    }


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Display data of one model outside the table."""

    name: str
    label: str
    about: str
    verdict: Verdict
    fulfilled: Fulfilled | None
    reference: bool
    segments: list[charts.Segment]
    curves: list[charts.Curve]
    stopped: str
    """Stop reason of training, by seed if they differ."""
    settings: list[tuple[str, str]]
    """(Seed, text of run.yaml)."""
    n: int
    """Answers in the bar."""


def _entry(stage: Stage, verdict: Verdict, role: str) -> Entry:
    scores = [score for name in CLASSES if (score := pooled_score(stage, f"{role}.{name}")) is not None]
    return Entry(
        name=stage.name,
        label=stage.label,
        about=about(stage.name.partition(" ")[0], stage.label.partition(" ")[0]),
        verdict=verdict,
        fulfilled=fulfilled(stage, verdict, role),
        reference=stage.reference,
        segments=charts.segments(stage, role),
        curves=charts.curves(stage),
        stopped="; ".join(
            dict.fromkeys(str(run.result["stop_reason"]) for run in stage.runs if run.result.get("stop_reason"))
        ),
        settings=[(run.seed, run.settings_text) for run in stage.runs if run.settings_text],
        n=max((score.n for score in scores), default=0),
    )


def about(method: str, label: str) -> str:
    """Return the first line of the method's file up to its source, without loading it.

    Empty if there is no such method, or nothing but its label.
    """
    if method not in registry.names("methods"):
        return ""
    line = registry.summary("methods", method)
    words = re.sub(rf"^{re.escape(label)}([:,] |$)", "", line.partition(" (")[0].rstrip("."))
    return words[:1].upper() + words[1:]


def _showcase(stages: Sequence[Stage], role: str) -> gallery.Card | None:
    index = gallery.showcase(stages, role)
    return None if index is None else gallery.card(stages, index)


def groups(columns: Sequence[Column | routes.Route]) -> list[tuple[str, int]]:
    """Return the names of neighbouring columns' groups, with the number of columns."""
    names = dict.fromkeys(column.group for column in columns)
    return [(name, sum(column.group == name for column in columns)) for name in names]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Row of the table."""

    label: str
    collapsed: bool
    reference: bool
    cells: list[tuple[Score | None, str]]
    """Score of each column, and of how many seeds it is if not of all."""
    seeds: int
    seconds: float | None
    timed: str
    """How many seeds the time is of, if not of all."""
    peak_gib: float | None
    stored: float | None
    """Bytes of the weights in the run folder."""


def _row(stage: Stage, verdict: Verdict, columns: Sequence[Column]) -> Row:
    return Row(
        label=stage.label,
        collapsed=verdict.collapsed,
        reference=stage.reference,
        cells=[
            (pooled_score(stage, key) or _missing_score(stage, key), some_seeds(len(runs_with(stage, key)), stage))
            for key in (column.key for column in columns)
        ],
        seeds=len(stage.runs),
        seconds=seconds(stage),
        timed=timed_seeds(stage),
        peak_gib=peak_gib(stage),
        stored=routes.stored_bytes(stage),
    )


def _missing_score(stage: Stage, key: str) -> Score | None:
    """Return a score without a value, which says why, or None if no run has it."""
    return next((run.scores[key] for run in stage.runs if key in run.scores), None)


def duration(time: float) -> str:
    """Return seconds as readable text.

    >>> duration(4.2), duration(75.0), duration(7260.0)
    ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if time < 60:
        return f"{time:.1f} s" if time < 10 else f"{time:.0f} s"
    minutes, remainder = divmod(round(time), 60)
    return f"{minutes} min {remainder} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _targets(stages: Sequence[Stage]) -> int:
    """Return the number of people or hazards to forget, in whatever form they were asked for."""
    responses = (response for run in stages[0].runs for response in run.responses)
    return len({response.entity for response in responses if response.role in FORGOTTEN and response.entity})


def who(stages: Sequence[Stage], role: str) -> str:
    """Return the kind of forget target: hazards or people."""
    kinds = {response.kind for run in stages[0].runs for response in run.responses if response.role == role}
    return "hazards" if kinds == {Kind.HAZARD} else "people"


def request(stages: Sequence[Stage], role: str) -> str:
    """Return the deletion request in one sentence."""
    targets, people = _targets(stages), max(run.known for stage in stages for run in stage.runs)
    if not targets:
        return "What the models say"
    if who(stages, role) == "hazards":
        return f"Forget {targets} {'hazard' if targets == 1 else 'hazards'}"
    return (
        f"Forget {targets} of {people} people"
        if people > targets
        else f"Forget {targets} {'person' if targets == 1 else 'people'}"
    )


def lead(stages: Sequence[Stage], role: str) -> str:
    """Return a sentence on the compared methods, questions and images."""
    responses = [response for response in stages[0].runs[0].responses if response.role == role and response.image]
    pictures = len({response.image for response in responses})
    methods = sum(not stage.reference for stage in stages)
    seeds = max(len(stage.runs) for stage in stages)
    compared = (
        f"{methods} way{'s' if methods > 1 else ''} to forget"
        if methods
        else "No way to forget, but what to compare with"
    )
    return (
        f"{compared}, {'each ' if methods != 1 else ''}asked about the same {who(stages, role)} {_on_pictures(pictures, role)}"
        f"{f' ({seeds} seeds)' if seeds > 1 else ''}. What does the model say now?"
    )


def _on_pictures(count: int, role: str) -> str:
    """Return on how many pictures was asked, in words."""
    if not count:
        return "without pictures"
    noun = "picture" if count == 1 else "pictures"
    return (
        f"on {count} new {noun}, never used in training" if role == "unseen" else f"on {count} {noun} used in training"
    )
