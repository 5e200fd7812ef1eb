"""Workflow of `demo`: several methods on the embedded lab, compared in one report."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from unsee.api import registry
from unsee.api.fast_paths import Name, engine_named
from unsee.config import RECORD, EvalConfig
from unsee.distributed.file_lock import owner
from unsee.errors import UserError, unknown_name
from unsee.utils.files import atomic_write_json, foreign, owned_folder, remove_folder
from unsee.utils.grouping import by_key
from unsee.utils.parsing import read_object
from unsee.utils.terminal import note

DATA = "lab"
QUICK = ("ga", "npo_retain", "reject_retain", "pubg_retain")
"""Rows of the quick demo."""
FULL = tuple("prompt ga grad_diff kl npo npo_retain reject reject_retain random bg_only pubg pubg_retain".split())
"""Every row of the comparison."""
ANSWER_TOKENS = 96
"""Length limit of a response; the longest correct one has about 70 tokens."""
JUDGING: Final = EvalConfig(max_new_tokens=ANSWER_TOKENS)
"""Settings of every evaluation."""


MARK: Final = "demo.json"
"""File that marks a demo folder."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Row of a method with settings of its own."""

    method: str
    settings: Mapping[str, Any]
    training: Mapping[str, Any]


VARIANTS: Mapping[str, Variant] = {
    "pubg_retain": Variant(
        method="pubg",
        settings={"retain_weight": 2.0, "forget_weight": 0.3, "ga_floor": -4.0, "undesired": "dataset", "rollouts": 2},
        training={"lr": 2e-3, "max_steps": 80, "stop": "never"},
    ),
    **{
        f"{method}_retain": Variant(
            method=method, settings={"retain_weight": 1.0}, training={"lr": 3e-3, "max_steps": 80, "stop": "never"}
        )
        for method in ("npo", "reject")
    },
}
"""Rows beside the methods. With a retain term a run must go on after the first success, until the retained people are back;
`pubg_retain` needs a floor under the unbounded ascent meanwhile. The settings of the other two are those that a search of six
chose on the selection questions: without them they lose everybody."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model of the comparison, with its result folder."""

    stage: str
    model: str = "lab"
    method: str = ""
    """Empty for models that are evaluated only."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def folder(self, out: Path) -> Path:
        """Return the result folder. Further seeds lie inside that of the first one."""
        return out / self.stage / f"seed-{self.seed}" if self.seed else out / self.stage


def demo(
    out: Path | str = "runs/demo",
    *,
    full: bool = False,
    seeds: int = 1,
    methods: Sequence[str] | None = None,
    fresh: bool = False,
    engine: Name = "fast",
) -> Path:
    """Run the comparison on the lab and return the report's path.

    Args:
        out: Folder for models, answers and report. One that holds something else is refused.
        full: All rows of the comparison instead of the quick ones.
        seeds: Runs of each row, with the seeds 0, 1, ...
        methods: Methods to compare; default: those of the quick or of the full comparison.
        fresh: Clear the folder first; otherwise finished rows are kept.
        engine: `fast`, or `plain` to do without the faster paths.

    Raises:
        UserError: `full` and `methods` are given both.
    """
    if full and methods:
        raise UserError("Give --full or --methods, not both: either says which rows are made.")
    engine_named(engine)
    folder = Path(out)
    rows = plan(full=full, seeds=seeds, methods=methods)
    _require_own(folder)
    with owner(folder):
        stages = {row.stage for row in rows} | _earlier_rows(folder)
        if fresh:
            _clear(folder, stages)
        atomic_write_json(folder / MARK, {"methods": sorted(stages)})
        return _run_all(rows, folder, engine)


def _run_all(rows: Sequence[Row], folder: Path, engine: Name) -> Path:
    """Run every row and return the report's path."""
    from unsee.report import report

    start = time.perf_counter()
    for number, row in enumerate(rows, start=1):
        _tell(number, len(rows), row)
        make(row, folder, engine)
        note((f"    {outcome(row.folder(folder))}", "dim"))
    report_path = report(by_key((row.stage, row.folder(folder)) for row in rows), folder)
    note((f"Done in {time.perf_counter() - start:.0f} s.", "bold"), f" Open {report_path}")
    return report_path


def plan(*, full: bool, seeds: int, methods: Sequence[str] | None) -> list[Row]:
    """Return the rows: original and gold first, then every method with every seed."""
    if seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {seeds}.")
    names = tuple(methods) if methods else FULL if full else QUICK
    known_names = {*registry.names("methods"), *VARIANTS}
    for name in names:
        if name not in known_names:
            raise unknown_name("method", name, known_names)
    variants = {name: VARIANTS.get(name) or _plain(name) for name in names}
    rows = [Row(stage="original"), Row(stage="gold", model="lab-gold")]
    if any(registry.load("methods", variant.method).promise == "picture" for variant in variants.values()):
        rows.append(Row(stage="gold-picture", model="lab-gold-picture"))
    for name, variant in variants.items():
        count = 1 if name == "prompt" else seeds
        rows += [Row(stage=name, **vars(variant), seed=seed) for seed in range(count)]
    return rows


def _plain(method: str) -> Variant:
    """Return a method under its defaults, with full tuning where it takes no adapters."""
    full_tuning = "lora" not in registry.load("methods", method).trial.tunes
    return Variant(method=method, settings={}, training={"tune": "full"} if full_tuning else {})


def make(row: Row, out: Path, engine: Name = "fast") -> None:
    """Unlearn (if the row has a method) and evaluate, skipping what exists."""
    from unsee.evaluation.evaluate import evaluate
    from unsee.workflows.forget import forget

    folder = row.folder(out)
    owned_folder(folder)
    owned_folder(out / "images")
    if (folder / "scores.json").exists():
        return
    if row.method:
        begun = (folder / RECORD).exists()
        forget(
            row.model,
            DATA,
            row.method,
            folder,
            settings=row.settings,
            training=row.training,
            seed=row.seed,
            engine=engine,
            resume=begun,
        )
    model = folder if row.method else row.model
    evaluate(model, DATA, folder, JUDGING, stage=row.stage, images_dir=out / "images", engine=engine)


def outcome(folder: Path) -> str:
    """Return the row's result in one line."""
    scores = read_object(folder / "scores.json")
    columns = (("unseen.leak", "leak"), ("unseen.clean", "clean"), ("retain.name", "retained names"))
    values = [(label, scores[key]["value"]) for key, label in columns if key in scores]
    return ", ".join(f"{label} {value:.0%}" for label, value in values if value is not None)


def _tell(number: int, count: int, row: Row) -> None:
    action = f"forgets with {row.method}" if row.method else "is asked as it is"
    seed_text = f", seed {row.seed}" if row.seed else ""
    note((f"{number}/{count}", "dim"), " ", (row.stage, "bold"), f": {row.model} {action}{seed_text}")


def _require_own(out: Path) -> None:
    """Raise if the folder has foreign files, which `--fresh` might delete."""
    if out.is_dir() and foreign(out) and not (out / MARK).is_file():
        raise UserError(
            f"--out {out} holds other things than a demo's ({MARK} is not there). Give a new or an empty folder; the rows of a "
            "demo are named after methods, and could take the place of runs of yours."
        )


def _earlier_rows(out: Path) -> set[str]:
    """Return the rows that earlier demos have made in the folder."""
    mark_file = out / MARK
    names = read_object(mark_file).get("methods", []) if mark_file.is_file() else []
    return {str(name) for name in names if re.fullmatch(r"[\w-]+", str(name))}  # a name, and never a path


def _clear(out: Path, stages: Collection[str]) -> None:
    """Delete the rows and pictures of a demo, and nothing else."""
    for name in sorted({*stages, *FULL, "images"}):
        remove_folder(out / name)
