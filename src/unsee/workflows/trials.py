"""Search of settings within a time budget: a few runs, judged on the selection questions, and the best of them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from unsee import config
from unsee.api import PROBES, Training
from unsee.config import Run
from unsee.config.retention import KEEP, UNTIL_VERIFIED
from unsee.data.open import open_benchmark
from unsee.data.splits import only
from unsee.distributed import processes
from unsee.errors import UserError
from unsee.report.read import Stage, read_run
from unsee.report.summary import judged_role, recalls
from unsee.report.verdict import judge
from unsee.scoring.conditions import FORGOTTEN
from unsee.utils.files import atomic_write_json, remove_folder
from unsee.utils.parsing import read_object
from unsee.utils.terminal import note
from unsee.workflows import sweep
from unsee.workflows.grid import Cell, checked_cell, make_cell
from unsee.workflows.suggest import suggest, unsee_in_place_of
from unsee.workflows.validate import require_locations, require_place

CHOICE: Final = "tried.json"
"""What was tried, and which try was chosen."""
FACTORS: Final = (1.0, 1 / 3, 3.0)
"""Learning rates that a named method tries, relative to that of the run, in this order [inferred]."""
SHRUNK: Final = {"shrink": 0.2}
"""Settings of `unsee` nearest to gold on the lab [inferred]."""
_OWN_EVAL: Final = ("split", "gold", "clip")
"""Settings of the evaluation that the search sets itself, or does not need."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting, judged on the selection questions."""

    label: str
    cell: str
    points: float | None
    """Harmonic mean of forgotten, clean and kept (`unsee.report.verdict`); None if it could not be judged."""
    finding: str
    """Verdict in words, or why there is none."""
    collapsed: bool = False


def folder_of_trials(out: Path | str) -> Path:
    """Return the folder of the tries, beside that of the run."""
    return Path(f"{out}-tries")


def best_within(run: Run, minutes: float, *, resume: bool = False) -> Run:
    """Return the run with the best of a few settings, tried within a time budget.

    Each is unlearned in a process of its own and judged on the questions of the split `selection`, from which `report` and `attacks`
    are disjoint. The best has not collapsed and has most points: the harmonic mean of forgotten, clean and kept, beside the original
    [inferred]. There is no further try if that and the final run would exceed the budget; the first is always made.
    The tries stay in `OUT-tries` without their weights, and the same call goes on where it was stopped.

    Args:
        run: What to unlearn. Without a method, methods are tried too.
        minutes: Budget for the tries and the final run.
        resume: Whether the final run may have begun in `run.out`.

    Raises:
        UserError: Anything in the run is wrong, the data have no question to choose by, or no try could be judged.
    """
    if not (math.isfinite(minutes) and minutes > 0):
        raise UserError(f"--budget is a number of minutes above 0, got {minutes:g}.")
    processes.require_single("unsee forget --budget")
    require_locations(run)
    require_place(Path(run.out), resume=resume)
    _require_questions(run)
    folder = folder_of_trials(run.out)
    pairs = [(candidate, checked_cell(_searched(candidate), axes)) for candidate, axes in candidates(run)]
    sweep.require_same_data([cell for _, cell in pairs], folder)
    chosen_before = _chosen_before(folder, [cell for _, cell in pairs])
    trials = chosen_before or _tried(pairs[0][1].run, [cell for _, cell in pairs], folder, 60 * minutes)
    judged = [trial for trial in trials if trial.points is not None]
    if not judged:
        raise UserError(
            f"None of {len(trials)} tries could be judged: {trials[-1].finding}. Their logs are in {folder}."
        )
    best = max(judged, key=lambda trial: (not trial.collapsed, trial.points or 0.0))
    if not chosen_before:
        tried = {
            "chosen": best.cell,
            "candidates": [cell.name for _, cell in pairs],
            "tried": list(map(asdict, trials)),
        }
        atomic_write_json(folder / CHOICE, tried)
    note(f"Chosen of {len(trials)} tries: {best.label}.")
    chosen_run = next(candidate for candidate, cell in pairs if cell.name == best.cell)
    return replace(run, method=chosen_run.method, settings=chosen_run.settings, training=chosen_run.training)


def candidates(run: Run) -> Iterator[tuple[Run, Mapping[str, Any]]]:
    """Yield the runs to try, with what distinguishes them.

    A named method tries its learning rate (the user's, else that which suits the data), a third and three times of it. Else the
    suggested run comes first, then `unsee`, slightly shrunk and not, then the first at half and `unsee` at twice the rate [inferred].

    Raises:
        UserError: Settings are given that the search varies, or that belong to no method.
    """
    if run.method:
        training = {**open_benchmark(run.data, run.benchmark).suggested(run.method), **run.training}
        yield from _rates(run, config.build(Training, training, where="training").lr)
        return
    if run.settings:
        raise UserError("--budget without --method tries several methods, so method.* cannot be set. Name a --method.")
    if "lr" in run.training:
        raise UserError(
            "--budget without --method tries several learning rates. Leave training.lr out, or name a --method."
        )
    suggested = suggest(run.model, run.data, out=run.out, benchmark=run.benchmark, plugins=run.plugins).run
    rate = float(suggested.training["lr"])
    base = replace(
        run, method=suggested.method, settings=suggested.settings, training={**suggested.training, **run.training}
    )
    if suggested.method != "pubg":
        yield from _rates(base, rate)
        return
    unshrunk = unsee_in_place_of(base)
    unsee_rate = float(unshrunk.training["lr"])
    unshrunk = replace(unshrunk, training={**unshrunk.training, **run.training})
    shrunk = replace(unshrunk, settings=SHRUNK)
    for tried, tried_rate in (
        (base, rate),
        (shrunk, unsee_rate),
        (unshrunk, unsee_rate),
        (base, rate / 2),
        (unshrunk, 2 * unsee_rate),
    ):
        run_at_rate, axes = _at_rate(tried, tried_rate)
        yield run_at_rate, axes if tried is base else {**axes, "method.shrink": tried.settings["shrink"]}


def _rates(run: Run, rate: float) -> Iterator[tuple[Run, Mapping[str, Any]]]:
    """Return the run with multiples of a learning rate."""
    return (_at_rate(run, factor * rate) for factor in FACTORS)


def _at_rate(run: Run, rate: float) -> tuple[Run, Mapping[str, Any]]:
    """Return the run with this learning rate, and what distinguishes it."""
    rounded = float(f"{rate:.3g}")
    return replace(run, training={**run.training, "lr": rounded}), {"training.lr": rounded}


def _searched(run: Run) -> Run:
    """Return the run with the evaluation of the search."""
    kept_settings = {name: value for name, value in run.eval.items() if name not in _OWN_EVAL}
    # tries are not verified; their answers are due with those of the run
    retention = KEEP if run.retention == UNTIL_VERIFIED else run.retention
    return replace(run, eval={**kept_settings, "split": "selection"}, retention=retention)


def _require_questions(run: Run) -> None:
    """Raise unless the selection questions ask for what is to be forgotten."""
    rows = only(open_benchmark(run.data, run.benchmark), "selection").examples("eval")
    if not any(row.role in FORGOTTEN and row.kind in PROBES for row in rows):
        raise UserError(
            "--budget chooses by a third of the questions that are asked afterwards, and none of these is about what is to be "
            "forgotten here. Give more questions (docs/own_data.md), or leave --budget out."
        )


def _chosen_before(folder: Path, cells: Sequence[Cell]) -> list[Trial]:
    """Return the tries of an earlier call with the same candidates that came to its end, or none."""
    file = folder / CHOICE
    stored = read_object(file) if file.is_file() else {}
    if stored.get("candidates") != [cell.name for cell in cells]:
        return []
    return [Trial(**trial) for trial in stored["tried"]]


def _tried(run: Run, cells: Sequence[Cell], folder: Path, seconds: float) -> list[Trial]:
    """Return the trials of the cells that the budget allows, in their order."""
    start = time.monotonic()
    original_cell = make_cell(replace(run, method="", settings={}, training={}), "original")
    known_cells = [original_cell]
    sweep.run_cells(known_cells, folder, launcher="local", jobs=1, slurm={})
    if why := sweep.missing_of(folder, original_cell.name):
        raise UserError(f"The original could not be judged: {why}")
    original = _stage(original_cell, folder)
    if not recalls(original):
        note("The selection questions do not tell what is kept of the others: the tries are compared without it.")
    trials: list[Trial] = []
    longest = 0.0
    for cell in cells:
        begun = time.monotonic()
        if trials and begun - start + 2 * longest > seconds:
            note(f"The budget allows {len(trials)} of {len(cells)} tries.")
            break
        tried_names = {known.name for known in known_cells}
        known_cells.append(cell)
        sweep.run_cells(known_cells, folder, launcher="local", jobs=1, slurm={}, tried=tried_names)
        trials.append(_judged(cell, folder, original))
        remove_folder(folder / "cells" / cell.name / "model")
        took = time.monotonic() - begun
        longest = max(longest, took)
        points = "not judged" if trials[-1].points is None else f"{trials[-1].points:.2f} points"
        note(f"{cell.label}: {points} ({took:.0f} s), {trials[-1].finding}")
    return trials


def _stage(cell: Cell, folder: Path) -> Stage:
    return Stage(name=cell.label, runs=(read_run(folder / "cells" / cell.name),))


def _judged(cell: Cell, folder: Path, original: Stage) -> Trial:
    """Return what became of a try."""
    if why := sweep.missing_of(folder, cell.name):
        return Trial(label=cell.label, cell=cell.name, points=None, finding=why)
    stage = _stage(cell, folder)
    verdict = judge(stage, original, judged_role([original, stage]))
    return Trial(
        label=cell.label, cell=cell.name, points=verdict.points, finding=verdict.sentence, collapsed=verdict.collapsed
    )
