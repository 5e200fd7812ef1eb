"""Leaderboard file: what it says, checks before anything starts, and the cells of a sweep that do its work."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from unsee import config
from unsee.api import registry
from unsee.api.idle import require_effect
from unsee.config import Run
from unsee.config.plugins import with_plugins
from unsee.errors import UserError, short_repr, unknown_name
from unsee.models.builtin import absolute_or_name
from unsee.report.read import GOLD
from unsee.workflows.grid import Cell, make_cell, product_of

OURS: Final = ("eval.split", "eval.gold")
"""Settings that the leaderboard sets itself."""
UNUSED: Final = ("method", "out")
"""Settings of a run that stand elsewhere in a leaderboard."""
SHARED: Final = ("model", "data", "benchmark", "seed", "eval")
"""Settings of `base` (the seed: of `search_seed` and `seeds`) that no method may have of its own, as all are compared in one world and
judged alike."""

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
        """Reject gold models of other promises or without a name, and times that no training takes, or of no gold model."""
        for promise in self.golds:
            if promise not in GOLD:
                raise unknown_name("promise in golds", promise, GOLD)
        for promise in self.other_golds:
            if promise not in self.golds:
                raise unknown_name("promise in other_golds", promise, self.golds)
        for promise, model in self.golds.items():
            if not all(map(str.strip, (model, *self.other_golds.get(promise, ())))):
                raise UserError(f"A gold model for the promise {promise} has no name. Name it, or leave it out.")
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
class Plan:
    """Checked plan, made before the first cell starts."""

    board: Board
    worlds: Mapping[str, World]
    search: Mapping[str, Sequence[Cell]]


def read_plan(file: Path, plugins: Sequence[str] = ()) -> Plan:
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
    return Plan(board=board, worlds=worlds, search=search)


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
        reserved_names = (*OURS, *UNUSED, "seed") if part == "base" else SHARED
        for path in _paths(settings):
            if any(path == name or path.startswith(f"{name}.") for name in reserved_names):
                raise UserError(
                    f"{file}: {part} has {path}, which the leaderboard sets itself, alike for all methods. Leave it out: model and data "
                    "stand in base and worlds, eval in base, seeds in search_seed and seeds, methods in methods."
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


def reference_cells(board: Board, world: World, part: str, plugins: Sequence[str]) -> dict[str, Cell]:
    """Return stage -> cell of the original and the gold models.

    Args:
        board: How they are judged.
        world: Models and data.
        part: Split of the questions (`selection` or `report`).
        plugins: Code of your own, beside what `base` names.
    """
    models = {"original": world.model, **{GOLD[promise]: model for promise, model in world.golds.items()}}
    return {stage: _reference(board, world, part, plugins, stage, model) for stage, model in models.items()}


def floor_cells(board: Board, world: World, plugins: Sequence[str]) -> dict[str, list[Cell]]:
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
