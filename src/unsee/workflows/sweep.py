"""Workflow of `sweep`: a grid of runs, each unlearned and evaluated once, then compared.

    grid.yaml    copy of the grid file                      cells/NAME/      one run folder per cell (forget, then eval)
    index.json   every cell and its state                   logs/NAME.log    output of its process
    claims/      which process runs which cell              failed/NAME.txt  why a cell failed, until it is done
    jobs/        one run file per cell                      compare/         leaderboard and report of the finished cells
    table.md     the columns that the grid asks for

The grid file and the names of its cells are those of `unsee.workflows.grid`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Literal

from unsee import config
from unsee.api.plugins import listed
from unsee.config import RECORD, Run
from unsee.config.plugins import with_plugins
from unsee.config.retention import without_verdict
from unsee.distributed import processes
from unsee.distributed.file_lock import claimed, forget_dead_holder, is_claimed, owner
from unsee.errors import UnseeError, UserError, first_names, unknown_name
from unsee.utils.files import OWNED, atomic_write_json, atomic_write_text, owned_folder, remove_file
from unsee.utils.signals import end_with_parent
from unsee.utils.terminal import note, note_once
from unsee.workflows.grid import Cell, read_grid

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
    parsed_grid, folder = read_grid(Path(grid), listed(plugins)), Path(out)
    require_replaceable(folder, ("grid.yaml", "index.json", "table.md"), Path(grid))
    cells = _under_known_labels(under_known_names(parsed_grid.cells, folder), folder)
    require_same_data(cells, folder)
    owned_folder(folder / "claims")  # a kill from here on leaves a folder that is known as a sweep's
    atomic_write_text(folder / "grid.yaml", Path(grid).read_text(encoding="utf-8"))
    states = run_cells(cells, folder, launcher=launcher, jobs=jobs, slurm=parsed_grid.slurm)
    compare_done(folder, cells, parsed_grid.table)
    return states


def under_known_names(cells: Iterable[Cell], out: Path) -> list[Cell]:
    """Return the cells, renamed where the folder of the sweep has the same cell under the axes of an earlier grid file."""
    names = sorted((folder.name for folder in (out / "cells").glob("*-*")), key=lambda name: _is_done(out, name))
    name_by_hash = {name.rpartition("-")[2]: name for name in names}
    return [
        cell
        if _is_done(out, cell.name)
        else replace(cell, name=name_by_hash.get(cell.name.rpartition("-")[2], cell.name))
        for cell in cells
    ]


def _under_known_labels(cells: Sequence[Cell], out: Path) -> list[Cell]:
    """Return the cells with the labels that finished ones were judged under, so that further seeds join their rows."""
    jobs = {cell.label: out / "jobs" / f"{cell.name}.yaml" for cell in cells if _is_done(out, cell.name)}
    labels = {label: str(config.read_mapping(job)["label"]) for label, job in jobs.items() if job.is_file()}
    return [replace(cell, label=labels.get(cell.label, cell.label)) for cell in cells]


def require_replaceable(out: Path, names: Iterable[str], given: Path) -> None:
    """Raise if a folder that no earlier call made has files of its own that would be replaced.

    Args:
        out: Folder of the sweep.
        names: Names of the files that are written into it.
        given: File that the user gave, which may lie there.
    """
    if (out / "claims" / OWNED).exists() or (out / "cells").is_dir():
        return
    files = [out / name for name in names if (out / name).exists() and not (out / name).samefile(given)]
    if files:
        raise UserError(
            f"{out} was not made by an earlier call, and {first_names([file.name for file in files])} in it would be replaced. "
            "Give another --out."
        )


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


def require_same_data(cells: Iterable[Cell], out: Path) -> None:
    """Raise if data on this machine have changed since a cell was unlearned on them: further cells would stand beside it.

    Args:
        cells: Cells of the folder, begun or not.
        out: Folder of the sweep.
    """
    from unsee.data.fingerprint import fingerprint
    from unsee.data.open import open_benchmark

    hashes: dict[tuple[str, str], str] = {}
    for cell in cells:
        noted_hash = config.data_hash_of(out / "cells" / cell.name)
        if not noted_hash or not Path(cell.run.data).exists():
            continue
        place = (cell.run.data, str(config.plain(cell.run.benchmark)))
        if place not in hashes:
            hashes[place] = fingerprint(open_benchmark(cell.run.data, cell.run.benchmark))
        if hashes[place] != noted_hash:
            raise UserError(
                f"The data at {cell.run.data} have changed since {cell.name} in {out} was unlearned on them, and further cells would be "
                "compared with it. Give another --out, or the data as they were."
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
    for text in sorted({without_verdict(cell.run.retention) for cell in cells} - {""}):
        note_once(text)
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
