"""Search and final evaluation of a leaderboard, method by method, and its tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from unsee import config
from unsee.api import registry
from unsee.api.plugins import listed
from unsee.errors import UserError
from unsee.models.builtin import absolute_or_name
from unsee.report import board_page
from unsee.report.board import Cost, Row, as_json, legend, markdown
from unsee.report.read import beside_gold
from unsee.utils.files import atomic_write_json, atomic_write_text, owned_folder
from unsee.utils.terminal import note
from unsee.workflows import sweep
from unsee.workflows.grid import Cell, make_cell
from unsee.workflows.leaderboard.judge import Judge, Tried, alike, chosen, hash_of_answers
from unsee.workflows.leaderboard.plan import Board, Plan, World, floor_cells, read_plan, reference_cells
from unsee.workflows.sweep import Launcher, State

_FILES: Final = (*(f"leaderboard.{suffix}" for suffix in ("yaml", "md", "json", "html")), "chosen.json", "index.json")
"""Files that are written into the folder."""


def leaderboard(
    file: Path | str, out: Path | str, *, launcher: Launcher = "local", jobs: int = 1, plugins: Sequence[str] = ()
) -> dict[str, State]:
    """Search settings for every method, and judge and rank the chosen ones.

    Returns the state of each cell. The same call goes on where it was stopped, and tries failed cells again, each once. Several may work on one folder: a method
    whose search another one has not ended yet is left for the next call, with nothing chosen.

    Args:
        file: YAML file (docs/running.md).
        out: Folder for everything.
        launcher: Where cells run, as in `sweep`.
        jobs: Cells that run at once.
        plugins: Code of your own, beside what `base` names.

    Raises:
        UserError: The file, or any setting in it, cannot be used; nothing has been started then. Or a model to compare with
            could not be judged, or another process is judging it.
    """
    sweep.require_launcher(launcher, jobs)
    plugins = listed(plugins)
    plan, folder = read_plan(Path(file), plugins), Path(out)
    sweep.require_replaceable(folder, _FILES, Path(file))
    plan = replace(plan, search={name: sweep.under_known_names(cells, folder) for name, cells in plan.search.items()})
    sweep.require_same_data([cell for cells in plan.search.values() for cell in cells], folder)
    owned_folder(folder / "claims")  # a kill from here on leaves a folder that is known as a leaderboard's
    atomic_write_text(folder / "leaderboard.yaml", Path(file).read_text(encoding="utf-8"))
    cells_by_name: dict[str, Cell] = {}
    states: dict[str, State] = {}

    def run(cells: Iterable[Cell]) -> None:
        earlier_names = set(cells_by_name)
        cells_by_name.update({cell.name: cell for cell in cells})
        states.update(
            sweep.run_cells(
                list(cells_by_name.values()), folder, launcher=launcher, jobs=jobs, slurm={}, tried=earlier_names
            )
        )

    first_world = next(iter(plan.worlds))
    pairs = [(first_world, "selection"), *((world, "report") for world in plan.worlds)]
    references = {pair: reference_cells(plan.board, plan.worlds[pair[0]], pair[1], plugins) for pair in pairs}
    floors = {world: floor_cells(plan.board, plan.worlds[world], plugins) for world in plan.worlds}
    run(cell for cells in references.values() for cell in cells.values())
    run(cell for world_floors in floors.values() for cells in world_floors.values() for cell in cells)
    judges = {pair: Judge(plan.board, folder, cells) for pair, cells in references.items()}
    trials: dict[str, list[Tried]] = {}
    rows = {world: _reference_rows(judges[world, "report"], plan.worlds[world], floors[world]) for world in plan.worlds}
    names = list(plan.search)
    batch_size = max(1, jobs // plan.board.settings)
    for start in range(0, len(names), batch_size):
        batch = names[start : start + batch_size]
        run(cell for name in batch for cell in plan.search[name])
        batch = [name for name in batch if _is_searched(plan.search[name], states)]
        trials |= {name: [judges[first_world, "selection"].trial(cell) for cell in plan.search[name]] for name in batch}
        _write_chosen(folder, trials, plan.board.keep)
        run(cell for name in batch for world in plan.worlds for cell in _final(plan, world, name, trials[name]))
        for world in plan.worlds:
            judge = judges[world, "report"]
            rows[world] += [_row(plan, world, judge, name, trials[name]) for name in batch]
        _write(plan, folder, rows, [name for name in names if name not in trials])
    for name in names:
        if name not in trials:
            note(f"{name}: nothing is chosen, as its search has not ended. Call again when it has.")
    final_cells = [cell for name in trials for cell in _final(plan, first_world, name, trials[name])]
    sweep.compare_done(folder, [*references[first_world, "report"].values(), *final_cells])
    return states


def _is_searched(cells: Sequence[Cell], states: Mapping[str, State]) -> bool:
    """Tell whether all settings of a method are judged or have failed."""
    return all(states[cell.name] in ("done", "failed") for cell in cells)


def _final(plan: Plan, world_name: str, name: str, trials: Sequence[Tried]) -> list[Cell]:
    """Return the cells of the chosen setting in a world, one per seed."""
    choice = chosen(trials, plan.board.keep)
    if choice is None:
        return []
    run, world = next(cell.run for cell in plan.search[name] if cell.name == choice.cell), plan.worlds[world_name]
    world_settings: dict[str, Any] = {
        "model": absolute_or_name(world.model),
        "data": absolute_or_name(world.data),
        "benchmark": world.benchmark,
    }
    eval_settings = {**run.eval, "split": "report"}
    attack = _attack(plan.board, world.golds[choice.promise])
    attacked_seeds = plan.board.seeds[: plan.board.attack_seeds]
    return [
        make_cell(
            replace(run, **world_settings, seed=seed, eval=eval_settings),
            name,
            attack if seed in attacked_seeds else None,
        )
        for seed in plan.board.seeds
    ]


def _attack(board: Board, gold: str) -> dict[str, Any] | None:
    """Return the arguments of the attack on a chosen setting, or None for none."""
    if board.attacks == "none":
        return None
    arguments: dict[str, Any] = {"gold": gold, "quick": True, "split": "attacks"}
    if isinstance(board.attacks, Mapping):
        settings_by_attack = {name: config.plain(settings or {}) for name, settings in board.attacks.items()}
        arguments |= {
            "attacks": list(settings_by_attack),
            "settings": {name: settings for name, settings in settings_by_attack.items() if settings},
        }
    return arguments


def _write_chosen(folder: Path, trials: Mapping[str, Sequence[Tried]], keep: float) -> None:
    rows = {
        name: {
            "chosen": choice.label if (choice := chosen(method_trials, keep)) else None,
            "alike": alike(method_trials),
            "tried": list(map(asdict, method_trials)),
        }
        for name, method_trials in trials.items()
    }
    atomic_write_json(folder / "chosen.json", rows)


def _write(plan: Plan, folder: Path, rows: Mapping[str, Sequence[Row]], waiting_names: Sequence[str]) -> None:
    """Write the leaderboard files with the methods that have been searched so far."""
    board, values = plan.board, {}
    cost = Cost(clock=board.clock)
    titles = {
        name: f"{name.capitalize()} world: data {world.data}, model {world.model}"
        for name, world in plan.worlds.items()
    }
    text = ["# Leaderboard", "", *([f"Not searched yet: {', '.join(waiting_names)}.", ""] if waiting_names else [])]
    for name, world in plan.worlds.items():
        text += [f"## {titles[name]}", ""]
        text += [markdown(rows[name], board.keep, board.kept, cost)]
        values[name] = {"model": world.model, "data": world.data, "rows": as_json(rows[name], cost)}
    atomic_write_text(folder / "leaderboard.md", "\n".join(text))
    atomic_write_json(folder / "leaderboard.json", values)
    rows_by_title = {titles[name]: rows[name] for name in plan.worlds}
    page = board_page.render(rows_by_title, cost, list(legend(board.keep, board.kept)), waiting_names)
    atomic_write_text(folder / "leaderboard.html", page)


def _reference_rows(judge: Judge, world: World, floors: Mapping[str, Sequence[Cell]]) -> list[Row]:
    """Return the rows of the original, the gold model and those of other seeds, for each promise."""
    rows = []
    for promise in world.golds:
        if gold := judge.gold(promise):
            stages = [beside_gold(judge.stages["original"], gold), gold]
            floor, notes = judge.stage("gold, other seeds", floors.get(promise, ()), promise)
            if notes:
                raise UserError(f"A gold model of another seed is not judged: {notes[0]}")
            rows += [
                Row(name=stage.name, promise=promise, stage=stage, gold=gold, keeps=judge.keeps(stage), reference=True)
                for stage in (*stages, *([floor] if floor else []))
            ]
    return rows


def _row(plan: Plan, world_name: str, judge: Judge, name: str, trials: Sequence[Tried]) -> Row:
    choice, keep = chosen(trials, plan.board.keep), plan.board.keep
    reasons = [trial.why for trial in trials if trial.why]
    searched = f"{len(trials) - len(reasons)} of {len(trials)}"
    if choice is None:
        promise = registry.load("methods", plan.search[name][0].run.method).promise
        return Row(name=name, promise=promise, searched=searched, notes=(f"no setting could be judged: {reasons[-1]}",))
    stage, notes = judge.stage(name, _final(plan, world_name, name, trials), choice.promise)
    if choice.keeps is not None and choice.keeps < keep:
        notes.insert(0, f"no setting kept {keep:.0%}; the one that kept most ({choice.keeps:.0%})")
    if equal_answers := alike(trials):
        notes.append(f"{equal_answers}: what they differ in had no effect")
    if stage and len(stage.runs) > 1 and len(set(map(hash_of_answers, stage.runs))) == 1:
        notes.append(f"its {len(stage.runs)} seeds answered alike")
    if reasons:
        notes.append(f"not judged in the search: {reasons[-1]}")
    return Row(
        name=name,
        promise=choice.promise,
        settings=choice.label.partition(" ")[2],
        searched=searched,
        keeps=None if stage is None else judge.keeps(stage),
        stage=stage,
        gold=judge.gold(choice.promise),
        gold_seconds=plan.worlds[world_name].seconds_for(choice.promise),
        seeds=plan.board.seeds,
        notes=tuple(notes),
    )
