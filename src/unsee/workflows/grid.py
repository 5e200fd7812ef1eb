"""Grid file of a sweep, and its cells: a checked run for every combination of the axes' values.

A cell is named by the values of the axes, in their order, and a hash of its content: the same settings are the same cell, in
whatever file and order they stand (`unsee.workflows.sweep.under_known_names`). Defaults of the method may be spelled out or
not; a default below `training` or `eval` that is spelled out makes another cell.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from unsee import config
from unsee.api import Training, registry
from unsee.api.idle import idle_in_run, without_effect
from unsee.config import Run
from unsee.config.hints import setting_hints
from unsee.config.paths import is_model, require_run
from unsee.config.plugins import with_plugins, with_specs, with_used
from unsee.errors import UserError, short_repr, unknown_name
from unsee.models.builtin import absolute_or_name
from unsee.scoring.measures import extra, plugins_of
from unsee.utils.nameless import nameless_words

_PARTS: Final = ("base", "axes", "slurm", "table")
MOST_CELLS: Final = 10_000
"""Most cells of a grid; more are probably a mistake, and take minutes to check."""
_NAME: Final = 60
"""Most characters of a cell's settings in its name."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of the grid."""

    name: str
    label: str
    """Name in reports: what distinguishes it from other cells, without the seed."""
    run: Run
    """Without a method its model is judged as it is."""
    attack: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `unsee.attack`, before the evaluation; none = no attack."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Content of a grid file."""

    cells: tuple[Cell, ...]
    slurm: Mapping[str, Any] = field(default_factory=dict)
    """submitit parameters: timeout_min, gpus_per_node, slurm_partition, ..."""
    table: Mapping[str, str] = field(default_factory=dict)
    """Columns of table.md, title -> score (see `unsee.report.table`); none = no table."""


def read_grid(file: Path, plugins: Sequence[str] = ()) -> Grid:
    """Read and check a grid file. `plugins` are loaded in addition to those it names."""
    values = config.read_mapping(file)
    for key in values:
        if key not in _PARTS and key in vars(Run()):
            raise UserError(
                f"{file} has {key!r} at its top, as a run has. A grid has the run below `base`, see docs/running.md."
            )
        if key not in _PARTS:
            raise unknown_name(f"part of {file}", str(key), _PARTS)
    base, axes, slurm, table = (values.get(part) or {} for part in _PARTS)
    for part, value in zip(_PARTS, (base, axes, slurm, table), strict=True):
        if not isinstance(value, Mapping):
            raise UserError(f"{file}: {part!r} must be a mapping, got {short_repr(value)}.")
    cells = {cell.name: cell for cell in product_of(base, axes, file, plugins)}
    return Grid(cells=tuple(cells.values()), slurm=slurm, table={str(title): str(key) for title, key in table.items()})


def _axes(axes: Mapping[str, Any], file: Path) -> dict[str, list[Any]]:
    """Return setting -> values, the method first, since its settings are merged into it."""
    for name, values in axes.items():
        if not isinstance(name, str):
            raise UserError(f"{file}: the axis {short_repr(name)} must be the name of a setting, such as training.lr.")
        if not isinstance(values, list) or not values:
            raise UserError(f"{file}: the axis {name!r} must be a list of values, got {short_repr(values)}.")
    if (count := math.prod(map(len, axes.values()))) > MOST_CELLS:
        lengths = " x ".join(f"{name}: {len(values)}" for name, values in axes.items())
        raise UserError(
            f"{file} asks for {count:,} cells ({lengths}); at most {MOST_CELLS:,} are run. Make it several grids."
        )
    return {name: axes[name] for name in sorted(axes, key=lambda name: name != "method")}


def product_of(
    base: Mapping[str, Any], axes: Mapping[str, Any], file: Path, plugins: Sequence[str] = ()
) -> Iterator[Cell]:
    """Yield a checked cell for every combination of the axes' values on top of `base`.

    Args:
        base: Settings that all cells share.
        axes: Path of a setting, as in `training.lr` -> its values.
        file: File that they come from, for errors.
        plugins: Code of your own, beside what `base` names.

    Raises:
        UserError: An axis, or the run of a cell, cannot be used.
    """
    axes = _axes(axes, file)
    for combination in itertools.product(*axes.values()):
        values = dict(base)
        for path, value in zip(axes, combination, strict=True):
            values = config.with_setting(values, path, value)
        with setting_hints(values):
            run = Run.from_mapping(values, where=str(file))
            run = replace(run, plugins=(*run.plugins, *plugins))
            cell = checked_cell(run, dict(zip(axes, combination, strict=True)))
        yield cell


def checked_cell(run: Run, axis_values: Mapping[str, Any]) -> Cell:
    """Return the cell of a run, with settings checked and explicit."""
    if not (run.model and run.data and run.method):
        raise UserError("Every cell needs a model, data and a method: put them under `base` or `axes` of the grid.")
    run = with_plugins(run)
    method = config.method_of(run)
    training = config.build(Training, run.training, where="training")
    parts = {"method": method, "training": training}
    for message in without_effect(parts, idle_in_run(method, training), only=set(_paths(axis_values))):
        raise UserError(f"{run.method}: {message}")
    eval_config = config.build(config.EvalConfig, run.eval, where="eval")
    for name in eval_config.measures:
        extra(name)
    if eval_config.gold:
        _require_judged(eval_config.gold, run.data)
    settings = config.plain(asdict(method))
    model_paths = {name: absolute_or_name(path) for name in ("gold", "clip") if (path := getattr(eval_config, name))}
    eval_settings = {**run.eval, **model_paths} if model_paths else run.eval
    run = replace(
        run,
        model=absolute_or_name(run.model),
        data=absolute_or_name(run.data),
        settings=settings,
        eval=eval_settings,
        out="",
    )
    return make_cell(run, _label(run, axis_values))


def _paths(axis_values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths of the settings that the axes set. Those of the base may act in other cells alone."""
    for path, value in axis_values.items():
        yield from (f"{path}.{name}" for name in value) if isinstance(value, Mapping) else (path,)


def _require_judged(gold: str, data: str) -> None:
    """Raise unless the gold model comes with its answers.

    A sweep would evaluate it again in every cell.
    """
    if is_model(gold):
        raise UserError(
            f"eval.gold of a grid must be a judged run, got the model {gold}. Judge it once (`unsee eval --model {gold} --data {data} "
            "--likelihood --out runs/gold`) and write `gold: runs/gold`."
        )
    require_run(gold)


def make_cell(run: Run, label: str, attack: Mapping[str, Any] | None = None) -> Cell:
    """Return the cell of a checked run, named by its content and the code of all plugins that it uses."""
    run = _with_plugins_used(run, attack)
    content = json.dumps(config.plain({**_content(run), **({"attack": attack} if attack else {})}), sort_keys=True)
    first, _, settings = label.partition(" ")  # sentences, which may name people, stay out of the names of folders
    slug = re.sub(r"[^\w.=-]+", "_", f"{first} {nameless_words(settings)} seed={run.seed}")[:_NAME]
    name = f"{slug}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"
    return Cell(name=name, label=label, run=run, attack=attack or {})


def _with_plugins_used(run: Run, attack: Mapping[str, Any] | None) -> Run:
    """Return the run with the installed plugins that its method, measures and attacks, and a named benchmark, come from."""
    benchmark, _ = config.name_and_settings(run.benchmark)
    attack_names = (attack.get("attacks") or registry.names("attacks")) if attack else ()
    used: list[tuple[registry.Listed, str]] = [("methods", run.method), ("benchmarks", benchmark)]
    used += [("attacks", name) for name in attack_names]
    run = with_used(run, *((kind, name) for kind, name in used if name))
    return with_specs(run, plugins_of(config.build(config.EvalConfig, run.eval, where="eval").measures))


def _content(run: Run) -> dict[str, Any]:
    """Return what distinguishes cells. Without plugins it is as in earlier versions."""
    excluded = ("retention", *(() if run.plugins else ("plugins",)))
    return {name: value for name, value in asdict(run).items() if name not in excluded}


def _label(run: Run, axis_values: Mapping[str, Any]) -> str:
    """Return the method and the values of the other axes."""
    parts = [run.method]
    if isinstance(axis_values.get("method"), Mapping):
        parts += [f"{key}={value}" for key, value in axis_values["method"].items() if key != "name"]
    parts += [
        f"{path.rpartition('.')[2]}={value}" for path, value in axis_values.items() if path not in ("method", "seed")
    ]
    return " ".join(parts)
