"""Workflow of `sweep`: a grid of runs, each unlearned and evaluated once, then compared.

    grid.yaml    copy of the grid file                      cells/NAME/      one run folder per cell (forget, then eval)
    index.json   every cell and its state                   logs/NAME.log    output of its process
    claims/      which process runs which cell              failed/NAME.txt  why a cell failed, until it is done
    jobs/        one run file per cell                      compare/         leaderboard and report of the finished cells
    table.md     the columns that the grid asks for

A cell is named by the values of the axes, in their order, and a hash of its content: the same axes and settings are the same
cell, in whatever file they stand. Defaults of the method may be spelled out or not; a default below `training` or `eval` that
is spelled out makes another cell.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Literal

from unsee import config
from unsee.api import Training
from unsee.api.idle import idle_in_run, without_effect
from unsee.config import RECORD, Run
from unsee.config.hints import setting_hints
from unsee.config.paths import is_model, require_run
from unsee.config.plugins import with_plugins, with_used
from unsee.distributed import processes
from unsee.distributed.file_lock import claimed, forget_dead_holder, is_claimed, owner
from unsee.errors import UnseeError, UserError, short_repr, unknown_name
from unsee.models.builtin import absolute_or_name
from unsee.scoring.measures import extra
from unsee.utils.files import atomic_write_json, atomic_write_text, owned_folder, remove_file
from unsee.utils.nameless import nameless_words
from unsee.utils.signals import end_with_parent
from unsee.utils.terminal import note

Launcher = Literal["local", "slurm"]
State = Literal["done", "failed", "running elsewhere", "waiting"]

LAUNCHERS: Final = ("local", "slurm")
DONE: Final = "scores.json"
"""Last file that a cell writes."""
_UNFINISHED: Final[Mapping[str, str]] = {
    "running elsewhere": "another process is at it",
    "waiting": "it did not run to its end (see logs/)",
}
"""State of a cell that is neither done nor failed -> what that means."""
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


def sweep(
    grid: Path | str, out: Path | str, *, launcher: Launcher = "local", jobs: int = 1, plugins: Sequence[str] = ()
) -> dict[str, State]:
    """Run all unfinished cells, compare the finished ones, and return the state of each.

    Several sweeps may work on one folder: no cell is run twice. A killed sweep goes on where it was; failed cells are tried
    again by the next call and do not stop the others.

    Args:
        grid: YAML file with `base` (a run), `axes` (setting -> values), perhaps `slurm` and `table` (title -> score).
        out: Folder for everything.
        launcher: Where cells run: "local" = processes of this machine, "slurm" = jobs through submitit.
        jobs: Cells that run at once.
        plugins: Files, folders or modules with code of your own, beside those below `base` (docs/extending.md).

    Raises:
        UserError: The grid, or any cell of it, names what does not exist; nothing has been started then.
    """
    require_launcher(launcher, jobs)
    parsed_grid, folder = read_grid(Path(grid), plugins), Path(out)
    atomic_write_text(folder / "grid.yaml", Path(grid).read_text(encoding="utf-8"))
    states = run_cells(parsed_grid.cells, folder, launcher=launcher, jobs=jobs, slurm=parsed_grid.slurm)
    compare_done(folder, parsed_grid.cells, parsed_grid.table)
    return states


def require_launcher(launcher: str, jobs: int) -> None:
    """Raise for an unknown launcher, no jobs, or a process among several."""
    if launcher not in LAUNCHERS:
        raise unknown_name("launcher", launcher, LAUNCHERS)
    if jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {jobs}.")
    if processes.world() > 1:
        raise UserError(
            "Sweeps and leaderboards start their own processes; call them without accelerate launch or torchrun."
        )


def run_cells(
    cells: Sequence[Cell],
    out: Path,
    *,
    launcher: Launcher,
    jobs: int,
    slurm: Mapping[str, Any],
    tried: Container[str] = (),
) -> dict[str, State]:
    """Run the unfinished cells and return the state of each. The index has these cells only.

    Args:
        cells: Cells of the index. Those that are done are not run again.
        out: Folder of the sweep.
        launcher: Where cells run: `local` or `slurm`.
        jobs: Cells that run at once.
        slurm: Parameters of a job, as submitit names them. Unused by `local`.
        tried: Names of cells that are in the index only, as they have had their turn.
    """
    owned_folder(out / "claims")  # from now on `unsee purge` knows this folder
    _write_jobs(cells, out)
    done_names = {cell.name for cell in cells if _is_done(out, cell.name)}
    todo_names = [cell.name for cell in cells if cell.name not in done_names and cell.name not in tried]
    for cell in cells:
        if cell.name in done_names:
            forget_dead_holder(out / "claims" / cell.name)
    note(f"{len(cells)} cells, {len(done_names)} of them done before.")
    launch = _locally if launcher == "local" else _on_slurm
    states = _states(out, cells)
    states |= {name: "waiting" for name in todo_names if states[name] == "failed"}  # they are tried again
    for name in launch(out, todo_names, jobs, slurm):
        states[name] = _state(out, name)
        note((name, "dim"), f" {states[name]}")
        _write_index(out, cells, states)
    states = _states(out, cells)  # another sweep may have run cells meanwhile
    _write_index(out, cells, states)
    return states


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
            cell = _cell(run, dict(zip(axes, combination, strict=True)))
        yield cell


def _cell(run: Run, axis_values: Mapping[str, Any]) -> Cell:
    """Return the cell of a run, with settings checked and explicit."""
    if not (run.model and run.data and run.method):
        raise UserError("Every cell needs a model, data and a method: put them under `base` or `axes` of the grid.")
    run = with_used(with_plugins(run), ("methods", run.method))
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
    """Return the cell of a checked run, named by its content."""
    content = json.dumps(config.plain({**_content(run), **({"attack": attack} if attack else {})}), sort_keys=True)
    first, _, settings = label.partition(" ")  # sentences, which may name people, stay out of the names of folders
    slug = re.sub(r"[^\w.=-]+", "_", f"{first} {nameless_words(settings)} seed={run.seed}")[:_NAME]
    name = f"{slug}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"
    return Cell(name=name, label=label, run=run, attack=attack or {})


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


def run_cell(out: Path, name: str) -> None:
    """Run one cell in this process, unless it is finished or taken.

    A failure is recorded and raised.
    """
    with claimed(owned_folder(out / "claims") / name) as acquired:
        if not acquired or _is_done(out, name):
            return
        failure = owned_folder(out / "failed") / f"{name}.txt"
        remove_file(failure)
        try:
            job_values = config.read_mapping(out / "jobs" / f"{name}.yaml")
            _work(Run.from_mapping(job_values["run"], where=name), job_values["label"], out, job_values.get("attack"))
        except KeyboardInterrupt:
            raise  # no failure of the cell; the next sweep goes on with it
        except BaseException as error:
            message = str(error) if isinstance(error, UnseeError) else traceback.format_exc()
            atomic_write_text(failure, message.rstrip() + "\n")
            raise


def _work(run: Run, label: str, out: Path, attack: Mapping[str, Any] | None = None) -> None:
    """Unlearn, resuming an earlier attempt, perhaps attack, and evaluate.

    Args:
        run: Run of the cell. Without a method, its model is evaluated as it is, into `run.out`.
        label: Stage that the evaluation is stored as.
        out: Folder of the sweep, whose cells share stored images.
        attack: Arguments of `attack` other than run and seed. Default: no attack.
    """
    from unsee.data.open import open_benchmark
    from unsee.evaluation.evaluate import evaluate
    from unsee.workflows import attack as attacking
    from unsee.workflows.forget import forget_run

    run = with_plugins(run)
    if run.method:
        forget_run(run, resume=(Path(run.out) / RECORD).exists(), shared=True)
    if attack:
        attacking.attack(run.out, seed=run.seed, **attack)
    settings = config.build(config.EvalConfig, run.eval, where="eval")
    evaluate(
        Path(run.out) if run.method else run.model,
        open_benchmark(run.data, run.benchmark),
        Path(run.out),
        settings,
        stage=label,
        seed=run.seed,
        images_dir=out / "images",
        engine=run.engine,
    )


def _locally(out: Path, names: Sequence[str], jobs: int, _: Mapping[str, Any]) -> Iterator[str]:
    """Run cells in local processes, `jobs` at once, and yield the name of each as it ends."""
    slots: SimpleQueue[int] = SimpleQueue()
    for slot in range(jobs):
        slots.put(slot)

    cells = _Cells()

    def run_in_slot(name: str) -> str:
        slot = slots.get()
        try:
            cells.run(out, name, _environment(slot, jobs))
        finally:
            slots.put(slot)
        return name

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for future in as_completed([pool.submit(run_in_slot, name) for name in names]):
                yield future.result()
        except BaseException:  # the sweep is interrupted; the progress of the cells is on disk
            pool.shutdown(wait=False, cancel_futures=True)
            cells.end()
            raise


_GRACE: Final = 20.0
"""Seconds that a cell has to shut down."""


@dataclass
class _Cells:
    """Running cells of one sweep. Once it is `ending`, none keeps running or counts as failed."""

    running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    ending: bool = False

    def run(self, out: Path, name: str, environment: Mapping[str, str]) -> None:
        """Run a cell in its own process, and record why if it was killed."""
        log_path = out / "logs" / f"{name}.log"
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log_file:
            command = [sys.executable, "-m", "unsee.workflows.sweep", str(out), name]
            # The pipe to stdin is never written to: when it closes, the sweep is gone, and the cell ends too.
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log_file, stderr=log_file, env=dict(environment), bufsize=0
            )
            exit_code = self._wait(process)
        if exit_code < 0 and not (self.ending or _is_done(out, name)):
            atomic_write_text(out / "failed" / f"{name}.txt", f"The process was ended by signal {-exit_code}.\n")

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for a process and return its exit code."""
        self.running.add(process)
        if self.ending:  # set while this one was being started, too late for `end`
            process.terminate()
        exit_code = process.wait()
        self.running.discard(process)
        if process.stdin is not None:
            process.stdin.close()
        return exit_code

    def end(self) -> None:
        """End all processes, by force those that take too long."""
        self.ending = True
        for process in list(self.running):
            process.terminate()
        for process in list(self.running):
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()


def _environment(slot: int, jobs: int) -> dict[str, str]:
    """Return a cell's environment: a share of the cores and, of several GPUs, one."""
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    if len(gpus) > 1:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return environment


def _on_slurm(out: Path, names: Sequence[str], jobs: int, parameters: Mapping[str, Any]) -> Iterator[str]:
    """Submit cells as jobs, at most `jobs` at once, and yield the name of each as it ends.

    A sweep that stops waiting leaves its jobs in the queue; the next one finds what they have done.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError('The launcher slurm needs submitit: pip install "unsee[slurm]".') from error
    executor = submitit.AutoExecutor(folder=out / "slurm", cluster=os.environ.get("UNSEE_CLUSTER"))
    try:
        executor.update_parameters(name="unsee", slurm_array_parallelism=jobs, **parameters)
    except (TypeError, NameError, AssertionError) as error:
        raise UserError(
            f"`slurm:` of the grid: {error}. Names are those of submitit, such as timeout_min and slurm_partition."
        ) from error
    with executor.batch():
        submitted_jobs = {name: executor.submit(run_cell, out.resolve(), name) for name in names}
    for name, job in submitted_jobs.items():
        job.exception()  # waits; a failure is on disk already, unless the job was killed
        if _state(out, name) == "waiting":
            atomic_write_text(out / "failed" / f"{name}.txt", f"Job {job.job_id} ended as {job.state}.\n")
        yield name


def _write_jobs(cells: Sequence[Cell], out: Path) -> None:
    """Write one job file per cell, all that its process needs."""
    for cell in cells:
        job_file = out / "jobs" / f"{cell.name}.yaml"
        run = replace(cell.run, out=str((out / "cells" / cell.name).resolve()))
        attack = {"attack": config.plain(cell.attack)} if cell.attack else {}
        values = {"label": cell.label, "run": run.to_mapping(), **attack}
        text = config.dump_yaml(values)
        if not job_file.exists() or job_file.read_text(encoding="utf-8") != text:
            atomic_write_text(job_file, text)


def _is_done(out: Path, name: str) -> bool:
    return (out / "cells" / name / DONE).exists()


def _state(out: Path, name: str) -> State:
    if _is_done(out, name):
        return "done"
    if is_claimed(out / "claims" / name):
        return "running elsewhere"
    return "failed" if (out / "failed" / f"{name}.txt").exists() else "waiting"


def _states(out: Path, cells: Sequence[Cell]) -> dict[str, State]:
    return {cell.name: _state(out, cell.name) for cell in cells}


def _write_index(out: Path, cells: Sequence[Cell], states: Mapping[str, State]) -> None:
    """Write the state of every cell."""
    rows = []
    for cell in cells:
        why = _failure(out, cell.name) if states[cell.name] == "failed" else ""
        row = {"name": cell.name, "label": cell.label, "seed": cell.run.seed, "state": states[cell.name]}
        rows.append({**row, "folder": f"cells/{cell.name}", "error": why})
    atomic_write_json(out / "index.json", rows)


def missing_of(out: Path, name: str) -> str:
    """Return why a cell has no scores, or empty if it has them."""
    state = _state(out, name)
    if state == "done":
        return ""
    return _failure(out, name) if state == "failed" else _UNFINISHED[state]


def _failure(out: Path, name: str) -> str:
    """Return the last line of why a cell failed, or that it no longer has if another sweep has begun it again."""
    try:
        return (out / "failed" / f"{name}.txt").read_text(encoding="utf-8").strip().splitlines()[-1]
    except FileNotFoundError:
        return _UNFINISHED["running elsewhere"]


def compare_done(out: Path, cells: Sequence[Cell], columns: Mapping[str, str] | None = None) -> None:
    """Write leaderboard and report of the finished ones of these cells, and their table if it has columns."""
    runs = [out / "cells" / cell.name for cell in cells if _is_done(out, cell.name)]
    if not runs:
        return
    from unsee.report import compare
    from unsee.report.table import table

    with owner(out / "compare", wait=True):  # another sweep over the same cells may be at it
        compare(runs, out / "compare")
        if columns:
            atomic_write_text(out / "table.md", table(runs, columns))


if __name__ == "__main__":
    end_with_parent()
    try:
        run_cell(Path(sys.argv[1]), sys.argv[2])
    except KeyboardInterrupt:
        sys.exit(143)
