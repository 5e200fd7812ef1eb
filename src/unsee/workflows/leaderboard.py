"""Workflow of `leaderboard`: the same search for every method, then a final evaluation.

    leaderboard.yaml                   copy of the leaderboard file
    chosen.json                        every setting tried, its distance to gold, what it keeps, the chosen one, and
                                       how many answered alike
    leaderboard.md, leaderboard.json   a table per world and promise, written again after every few methods
    leaderboard.html                   the same with charts
    compare/                           report of the chosen settings in the first world

The rest of the folder is that of a sweep (`unsee.workflows.sweep`), whose cells do all the work. Choosing reads the
questions of the split `selection` only; figures come from `report`, attacks from `attacks`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Literal

from unsee import config
from unsee.api import registry
from unsee.api.idle import require_effect
from unsee.api.method import Promise
from unsee.api.plugins import listed
from unsee.config import Run
from unsee.config.plugins import with_plugins
from unsee.errors import UserError, short_repr, unknown_name
from unsee.models.builtin import absolute_or_name
from unsee.report import board_page
from unsee.report.board import Cost, Row, as_json, left_out, left_out_words, legend, markdown
from unsee.report.read import GOLD, Record, Stage, beside_gold, read_run
from unsee.report.summary import value
from unsee.scoring.gold_distance import KEY, MOST_LEFT_OUT
from unsee.scoring.rules import rules
from unsee.utils.files import atomic_write_json, atomic_write_text
from unsee.utils.terminal import note
from unsee.workflows import sweep
from unsee.workflows.grid import Cell, make_cell, product_of
from unsee.workflows.sweep import Launcher, State

OURS: Final = ("eval.split", "eval.gold")
"""Settings that the leaderboard sets itself."""
UNUSED: Final = ("method", "out")
"""Settings of a run that stand elsewhere in a leaderboard."""
WORLDLY: Final = ("model", "data", "benchmark", "seed")
"""Settings of `base` (the seed: of `search_seed` and `seeds`) that no method may have of its own, as all are compared in one world."""

Seconds = float | Mapping[str, Any] | None
"""Time of training gold models: the same for all, or promise -> time; None = unknown."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Models and data that settings are tried on."""

    model: str = ""
    data: str = ""
    benchmark: str | Mapping[str, Any] = ""
    golds: Mapping[str, str]
    """Promise (person, picture) -> model that never learnt what a method with it is to forget."""
    gold_seconds: Seconds = None
    """Seconds that training its gold models takes on the machine of the board, by its clock: one number, or one per promise."""
    other_golds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Promise -> its gold model trained again with other seeds. How far they lie from it is the noise floor of the distance."""

    def __post_init__(self) -> None:
        """Reject times that no training takes, or of no gold model, and gold models of other promises."""
        for promise in self.other_golds:
            if promise not in self.golds:
                raise unknown_name("promise in other_golds", promise, self.golds)
        seconds_by_promise = (
            self.gold_seconds
            if isinstance(self.gold_seconds, Mapping)
            else dict.fromkeys(self.golds, self.gold_seconds)
        )
        for promise, seconds in seconds_by_promise.items():
            if promise not in self.golds:
                raise unknown_name("promise in gold_seconds", promise, self.golds)
            if seconds is not None and not (type(seconds) in (int, float) and 0 < seconds < math.inf):
                raise UserError(
                    f"gold_seconds must be seconds above 0, got {short_repr(seconds)} for {promise}. Leave it out if unknown."
                )

    def seconds_for(self, promise: str) -> float | None:
        """Return the time that training the gold model of a promise takes, or None if unknown."""
        return self.gold_seconds.get(promise) if isinstance(self.gold_seconds, Mapping) else self.gold_seconds


@dataclass(frozen=True, kw_only=True)
class Board:
    """Content of a leaderboard file."""

    base: Mapping[str, Any]
    """Run that all settings stand on: model, data, training, eval."""
    golds: Mapping[str, str]
    methods: Mapping[str, Any]
    """Row -> settings of its own: a list is an axis of its search (an empty one takes a shared axis away), anything else is fixed;
    `method` if the row is not named after it."""
    axes: Mapping[str, Any] = field(default_factory=dict)
    """Axes of every method's search, unless it names them itself."""
    settings: int
    """Most settings that a method may try."""
    kept: tuple[str, ...]
    """Scores of what is to stay."""
    keep: float = 0.95
    """Smallest share of each of them, relative to the original, that a setting must keep to be chosen."""
    search_seed: int = 0
    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds of the chosen settings."""
    attacks: Literal["quick", "none"] | Mapping[str, Any] = "none"
    """How the chosen settings are attacked: by all attacks in their quick form, or by these (attack -> settings that differ from it)."""
    attack_seeds: int | None = None
    """How many of the seeds are attacked, from the first on; None = all."""
    gold_seconds: Seconds = None
    """Seconds that training the gold models of `golds` takes on the same machine, by the same clock: one number, or one per promise."""
    other_golds: Mapping[str, Any] = field(default_factory=dict)
    """Promise -> its gold model trained again with other seeds, a row of their own."""
    clock: Literal["seconds", "cpu_seconds"] = "seconds"
    """Time that the cost is told in: of the wall clock, or of the processor."""
    worlds: Mapping[str, Any] = field(default_factory=dict)
    """Name -> further world, for the chosen settings as they are."""

    def idle(self) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect beside the others, each with what it counts with."""
        if self.attacks == "none":
            yield "attack_seeds", "with attacks"
        elif (self.attack_seeds or 0) > len(self.seeds):
            yield "attack_seeds", f"up to the number of seeds, {len(self.seeds)}"

    def __post_init__(self) -> None:
        """Reject values that no leaderboard can use."""
        if not (self.methods and self.kept and self.seeds and self.settings >= 1):
            raise UserError("A leaderboard needs methods, kept scores, seeds and at least one setting each.")
        if len(set(self.seeds)) < len(self.seeds) or not all(0 <= seed < config.SEEDS for seed in self.seeds):
            raise UserError(
                f"seeds must differ and lie between 0 and 2**32 - 1, got {', '.join(map(str, self.seeds))}. Name others."
            )
        if self.attacks == {}:
            raise UserError("attacks names none. Name some of them, or write quick (all of them) or none.")
        for name in self.attacks if isinstance(self.attacks, Mapping) else ():
            registry.require("attacks", name)
        if self.attack_seeds is not None and self.attack_seeds < 1:
            raise UserError(f"attack_seeds must be at least 1, got {self.attack_seeds}. For no attacks: attacks: none.")
        if not 0 < self.keep <= 1:
            raise UserError(f"keep must be a share above 0 and at most 1, got {self.keep}.")


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One setting of a method, judged on the selection questions."""

    cell: str
    label: str
    promise: Promise = "person"
    distance: float | None = None
    keeps: float | None = None
    """Smallest share kept of what the original keeps; None, like the distance, if it was not judged."""
    left_out: float | None = None
    """Share of the questions that the distance leaves out, as an answer could not be judged."""
    why: str = ""
    """Why it was not judged."""
    answers: str = ""
    """Hash of all answers and log-probabilities; empty if it was not judged."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Checked plan, made before the first cell starts."""

    board: Board
    worlds: Mapping[str, World]
    search: Mapping[str, Sequence[Cell]]


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
    reference_cells = {pair: _references(plan.board, plan.worlds[pair[0]], pair[1], plugins) for pair in pairs}
    floor_cells = {world: _floors(plan.board, plan.worlds[world], plugins) for world in plan.worlds}
    run(cell for stage_cells in reference_cells.values() for cell in stage_cells.values())
    run(cell for world_cells in floor_cells.values() for cells in world_cells.values() for cell in cells)
    judges = {pair: _Judge(plan.board, folder, cells) for pair, cells in reference_cells.items()}
    trials: dict[str, list[Tried]] = {}
    rows = {
        world: _references_rows(judges[world, "report"], plan.worlds[world], floor_cells[world])
        for world in plan.worlds
    }
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
    sweep.compare_done(folder, [*reference_cells[first_world, "report"].values(), *final_cells])
    return states


def _is_searched(cells: Sequence[Cell], states: Mapping[str, State]) -> bool:
    """Tell whether all settings of a method are judged or have failed."""
    return all(states[cell.name] in ("done", "failed") for cell in cells)


def read_plan(file: Path, plugins: Sequence[str] = ()) -> _Plan:
    """Read and check a leaderboard file, and make the cells of the search."""
    board_values = config.read_mapping(file)
    board = config.build(Board, board_values, where=str(file))
    require_effect({"": board}, board.idle())
    _require_one_world(board, file)
    first_world = {
        "golds": board.golds,
        "gold_seconds": board.gold_seconds,
        "other_golds": board.other_golds,
        **{key: board.base[key] for key in ("model", "data", "benchmark") if key in board.base},
    }
    world_values = {"first": first_world, **board.worlds}
    worlds = {name: _world(values, f"{file}, world {name}") for name, values in world_values.items()}
    search = {name: _search(board, name, file, plugins) for name in board.methods}
    _require_attacks(board)
    for name, cells in search.items():
        promise = registry.load("methods", cells[0].run.method).promise
        for world_name, world in worlds.items():
            if promise not in world.golds:
                raise UserError(
                    f"{file}: world {world_name} has no gold model for the promise {promise!r} of {name}. Name it in golds."
                )
    return _Plan(board=board, worlds=worlds, search=search)


def _world(values: Any, where: str) -> World:
    """Return a world, or raise if it is none."""
    if not isinstance(values, Mapping):
        raise UserError(f"{where} must be a mapping with model, data and golds, got {short_repr(values)}.")
    world = config.build(World, values, where=where)
    if not (world.model and world.data):
        raise UserError(f"{where} needs model and data.")
    return world


def _require_attacks(board: Board) -> None:
    """Raise if the settings of an attack cannot be used, or can have no effect."""
    from unsee.workflows.attack import attack_of

    settings_by_attack = board.attacks if isinstance(board.attacks, Mapping) else {}
    for name in settings_by_attack:
        attack_of(name, {name: settings_by_attack[name] or {}}, quick=True)


def _require_one_world(board: Board, file: Path) -> None:
    """Raise for a world called `first`, and for settings that would differ between methods."""
    if "first" in board.worlds:
        raise UserError(f"{file}: the world of base and golds is called first. Give worlds.first another name.")
    parts = {"base": board.base, "axes": board.axes}
    parts |= {
        f"methods.{name}": method_settings
        for name, method_settings in board.methods.items()
        if isinstance(method_settings, Mapping)
    }
    for part, settings in parts.items():
        reserved_names = (*OURS, *UNUSED, "seed") if part == "base" else (*OURS, *WORLDLY)
        for path in _paths(settings):
            if any(path == name or path.startswith(f"{name}.") for name in reserved_names):
                raise UserError(
                    f"{file}: {part} has {path}, which the leaderboard sets itself, alike for all methods. Leave it out: model and data "
                    "stand in base and worlds, seeds in search_seed and seeds, methods in methods."
                )


def _paths(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the path of every setting, and of those one level below it."""
    for path, setting in settings.items():
        yield str(path)
        for choice in setting if isinstance(setting, list) else [setting]:
            yield from (f"{path}.{key}" for key in (choice if isinstance(choice, Mapping) else ()))


def _search(board: Board, name: str, file: Path, plugins: Sequence[str]) -> list[Cell]:
    """Return one cell per setting that a method tries."""
    method_settings = board.methods[name] or {}
    if not isinstance(method_settings, Mapping):
        raise UserError(f"{file}: methods.{name} must be a mapping of settings, or nothing.")
    axes = {"method": name, **board.axes, **method_settings}
    if not_shared := [path for path, value in method_settings.items() if value == [] and path not in board.axes]:
        raise UserError(
            f"{file}: methods.{name} has {not_shared[0]}: [], which takes a shared axis away, and axes has none of that name. "
            "Leave it out."
        )
    axis_values = {path: value if isinstance(value, list) else [value] for path, value in axes.items() if value != []}
    if (count := math.prod(map(len, axis_values.values()))) > board.settings:
        raise UserError(
            f"{file}: {name} tries {count} settings, and each method at most {board.settings} (`settings`)."
        )
    base = {**board.base, "seed": board.search_seed, "eval": _judging(board, "selection")}
    return list(product_of(base, axis_values, file, plugins))


def _judging(board: Board, part: str) -> dict[str, Any]:
    """Return the evaluation settings for one part of the questions.

    Gold distance needs likelihoods.
    """
    settings = board.base.get("eval") or {}
    if not isinstance(settings, Mapping):
        raise UserError(f"base: 'eval' must be a mapping of settings, got {short_repr(settings)}.")
    return {"likelihood": True, **settings, "split": part}


def _references(board: Board, world: World, part: str, plugins: Sequence[str]) -> dict[str, Cell]:
    """Return stage -> cell of the original and the gold models."""
    models = {"original": world.model, **{GOLD[promise]: model for promise, model in world.golds.items()}}
    return {stage: _reference(board, world, part, plugins, stage, model) for stage, model in models.items()}


def _floors(board: Board, world: World, plugins: Sequence[str]) -> dict[str, list[Cell]]:
    """Return promise -> cells of its gold models of other seeds."""
    return {
        promise: [
            _reference(board, world, "report", plugins, f"{GOLD[promise]}, another seed", model, seed)
            for seed, model in enumerate(models, start=1)
        ]
        for promise, models in world.other_golds.items()
    }


def _reference(
    board: Board, world: World, part: str, plugins: Sequence[str], stage: str, model: str, seed: int = Run.seed
) -> Cell:
    """Return the cell of a model to compare with, judged with the code and the engine of the methods."""
    base_plugins = config.convert(board.base.get("plugins") or (), tuple[str, ...], where="base: plugins")
    run = Run(
        model=absolute_or_name(model),
        data=absolute_or_name(world.data),
        benchmark=world.benchmark,
        eval=_judging(board, part),
        engine=board.base.get("engine", Run.engine),
        plugins=(*base_plugins, *plugins),
        seed=seed,
    )
    return make_cell(with_plugins(run), stage)


def _final(plan: _Plan, world_name: str, name: str, trials: Sequence[Tried]) -> list[Cell]:
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


def chosen(trials: Sequence[Tried], keep: float) -> Tried | None:
    """Return the setting nearest to gold among those that keep enough.

    If none does: the one that keeps most, among equals the one nearest to gold. None if none was judged.
    """
    judged = [
        (trial, trial.distance, trial.keeps)
        for trial in trials
        if trial.distance is not None and trial.keeps is not None
    ]
    eligible = [(trial, distance) for trial, distance, keeps in judged if keeps >= keep]
    if eligible:
        return min(eligible, key=itemgetter(1))[0]
    return max(judged, key=lambda entry: (entry[2], -entry[1]))[0] if judged else None


class _Judge:
    """Distances and kept shares of cells in one world, on one part of the questions."""

    def __init__(self, board: Board, folder: Path, references: Mapping[str, Cell]) -> None:
        """Read the models to compare with."""
        self.board, self.folder = board, folder
        self.stages = {stage: self._reference(stage, cell) for stage, cell in references.items()}
        original = self.stages["original"]
        if missing_scores := [key for key in board.kept if not value(original, key)]:
            raise UserError(
                f"The original has nothing to keep in {missing_scores[0]} (kept): the score is missing or 0. "
                f"It has: {', '.join(key for key in original.runs[0].scores if value(original, key))}."
            )

    def _reference(self, stage: str, cell: Cell) -> Stage:
        if why := sweep.missing_of(self.folder, cell.name):
            raise UserError(f"{stage} ({cell.run.model}) is not judged: {why}. The same call goes on from here.")
        return Stage(name=stage, runs=(self._run(cell),))

    def _run(self, cell: Cell) -> Record:
        """Return the record of a judged cell, rescored if other rules judged it."""
        from unsee.evaluation.evaluate import rescore

        folder = self.folder / "cells" / cell.name
        if (record := read_run(folder)).rules != rules():
            rescore(folder)
            record = read_run(folder)
        return record

    def stage(self, name: str, cells: Sequence[Cell], promise: str = "") -> tuple[Stage | None, list[str]]:
        """Return the judged cells beside the gold model of the promise, or of their own, and why others are missing."""
        records, notes = [], []
        for cell in cells:
            try:
                if why := sweep.missing_of(self.folder, cell.name):
                    raise UserError(why)
                records.append(self._run(cell))
            except UserError as error:
                notes.append(f"seed {cell.run.seed}: {error}")
        if not records:
            return None, notes
        gold = self.gold(promise or records[0].promise)
        return beside_gold(Stage(name=name, runs=tuple(records)), gold), notes

    def gold(self, promise: str) -> Stage | None:
        """Return the gold model of a promise."""
        return self.stages.get(GOLD[promise])

    def keeps(self, stage: Stage) -> float | None:
        """Return the smallest share kept of the original's scores, or None if one is missing."""
        original = self.stages["original"]
        shares = [
            None if (score := value(stage, key)) is None else score / (value(original, key) or 1)
            for key in self.board.kept
        ]
        known_shares = [share for share in shares if share is not None]
        return min(known_shares) if len(known_shares) == len(shares) else None

    def trial(self, cell: Cell) -> Tried:
        """Return the outcome of a setting of the search."""
        stage, notes = self.stage(cell.label, [cell])
        if stage is None:
            return Tried(cell=cell.name, label=cell.label, why="; ".join(notes))
        distance, keeps = stage.runs[0].scores.get(KEY), self.keeps(stage)
        arguments: dict[str, Any] = {"cell": cell.name, "label": cell.label, "promise": stage.runs[0].promise}
        arguments["answers"] = _hash_of_answers(stage.runs[0])
        if distance is None or distance.value is None:
            why = distance.why if distance else f"there is no gold model for its promise, {stage.runs[0].promise}"
            return Tried(**arguments, why=why)
        arguments["left_out"] = left_out(distance)
        if arguments["left_out"] > MOST_LEFT_OUT:
            return Tried(**arguments, why=left_out_words(arguments["left_out"]))
        if keeps is None:
            return Tried(**arguments, why=f"one of the scores {', '.join(self.board.kept)} is missing")
        return Tried(**arguments, distance=distance.value, keeps=keeps)


def _hash_of_answers(record: Record) -> str:
    """Return the hash of what a model answered, and of how probable it found other answers."""
    answers = [
        (
            response.id,
            response.text,
            response.logprob,
            response.option_logprobs,
            response.true_logprob,
            response.perturbed_logprobs,
        )
        for response in record.responses
    ]
    return hashlib.sha256(json.dumps(sorted(answers, key=itemgetter(0))).encode()).hexdigest()


def alike(trials: Sequence[Tried]) -> str:
    """Return how many settings of a search gave equal answers, or empty if all differ."""
    counts = Counter(trial.answers for trial in trials if trial.answers)
    equal_count = sum(count for count in counts.values() if count > 1)
    return f"{equal_count} of {len(trials)} settings answered alike" if equal_count else ""


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


def _write(plan: _Plan, folder: Path, rows: Mapping[str, Sequence[Row]], waiting_names: Sequence[str]) -> None:
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


def _references_rows(judge: _Judge, world: World, floor_cells: Mapping[str, Sequence[Cell]]) -> list[Row]:
    """Return the rows of the original, the gold model and those of other seeds, for each promise."""
    rows = []
    for promise in world.golds:
        if gold := judge.gold(promise):
            stages = [beside_gold(judge.stages["original"], gold), gold]
            floor, notes = judge.stage("gold, other seeds", floor_cells.get(promise, ()), promise)
            if notes:
                raise UserError(f"A gold model of another seed is not judged: {notes[0]}")
            rows += [
                Row(name=stage.name, promise=promise, stage=stage, gold=gold, keeps=judge.keeps(stage), reference=True)
                for stage in (*stages, *([floor] if floor else []))
            ]
    return rows


def _row(plan: _Plan, world_name: str, judge: _Judge, name: str, trials: Sequence[Tried]) -> Row:
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
