"""Sweeps: the grid, that no cell runs twice, that a sweep goes on, and what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import ClassVar

import pytest

from helpers.evaluated import make_run
from helpers.sweeps import run_cells_here
from unsee import config
from unsee.api import registry
from unsee.cli.main import main
from unsee.config import Run
from unsee.config.overrides import dump_yaml
from unsee.data.fingerprint import fingerprint
from unsee.data.open import open_benchmark
from unsee.distributed import file_lock
from unsee.errors import UserError
from unsee.testing.tiny import save_tiny
from unsee.utils.files import foreign, owned_folder
from unsee.workflows import sweep
from unsee.workflows.grid import Cell, make_cell, read_grid

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_folder"
GRID = """
base:
  model: lab
  data: lab
  training: {max_steps: 2, stop: never, max_new_tokens: 8}
  eval: {limit: 1, max_new_tokens: 8}
axes:
  seed: [0, 1]
  method: [ga, {name: npo, beta: 0.5}]
"""


@pytest.fixture
def grid(tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text(GRID)
    return file


@pytest.fixture
def stubbed(monkeypatch):
    """Cells run in this process, one after the other, and do nothing but say that they did."""

    def work(run, label, out, _):
        if run.seed == 1 and run.method == "npo":
            raise UserError("planted")
        folder = Path(run.out)
        folder.mkdir(parents=True)
        with (out / "done.txt").open("a") as file:
            file.write(f"{folder.name}\n")
        (folder / "scores.json").write_text(label)

    run_cells_here(monkeypatch, work)
    monkeypatch.setattr(
        "unsee.report.compare",
        lambda runs, out: (out.parent / "compared.txt").write_text("\n".join(run.name for run in runs)),
    )


def test_a_grid_is_the_product_of_its_axes(grid):
    cells = read_grid(grid).cells
    assert sorted((cell.label, cell.run.seed) for cell in cells) == [
        ("ga", 0),
        ("ga", 1),
        ("npo beta=0.5", 0),
        ("npo beta=0.5", 1),
    ]
    assert len({cell.name for cell in cells}) == 4
    assert next(cell for cell in cells if cell.run.method == "npo").run.settings["beta"] == 0.5


def test_a_folder_beside_the_grid_is_no_packaged_model(grid, tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert {(cell.run.model, cell.run.data) for cell in read_grid(grid).cells} == {("lab", "lab")}
    grid.write_text(GRID.replace("data: lab", "data: mine"))
    assert {cell.run.data for cell in read_grid(grid).cells} == {str(tmp_path / "mine")}


def test_a_cell_is_judged_as_the_grid_says(tmp_path, monkeypatch):
    seen = {}

    def evaluate(model, data, out, settings, **how):
        seen.update(how, settings=settings, model=model, data=data)

    monkeypatch.setattr(
        import_module("unsee.workflows.forget"),
        "forget_run",
        lambda run, resume, shared: seen.update(resume=resume, shared=shared),
    )
    monkeypatch.setattr(import_module("unsee.data.open"), "open_benchmark", lambda data, layout: (data, layout))
    monkeypatch.setattr(import_module("unsee.evaluation.evaluate"), "evaluate", evaluate)
    settings = {"limit": 3, "max_new_tokens": 9, "batch_size": 7, "roles": ("unseen",), "likelihood": True}
    settings |= {"measures": ("rouge1", "exact"), "gold": "runs/gold", "clip": "some/clip", "backend": "hf"}
    run = Run(model="m", data="d", method="ga", out=str(tmp_path / "x"), seed=4, engine="plain", eval=settings)
    sweep._work(run, "ga", tmp_path)
    assert seen == {
        "settings": config.EvalConfig(**settings),
        "model": tmp_path / "x",
        "data": ("d", run.benchmark),
        "engine": "plain",
        "resume": False,
        "shared": True,
        "stage": "ga",
        "seed": 4,
        "images_dir": tmp_path / "images",
    }


def test_a_model_as_it_is_is_judged_with_the_plugins_of_the_cell(tmp_path, monkeypatch):
    """A cell's process has loaded nothing yet, and no `forget` does it here."""
    seen = []
    monkeypatch.setattr(registry, "_ADDED", {})
    monkeypatch.setattr(import_module("unsee.data.open"), "open_benchmark", lambda data, layout: None)
    monkeypatch.setattr(
        import_module("unsee.evaluation.evaluate"),
        "evaluate",
        lambda *_, **__: seen.extend(registry.outside_names("metrics")),
    )
    plugin = EXAMPLE.parent / "plugin" / "unsee_example" / "brevity.py"
    sweep._work(Run(model="m", data="d", out=str(tmp_path / "x"), plugins=(str(plugin),)), "original", tmp_path)
    assert seen == ["brevity"]


@pytest.mark.parametrize(("method", "before"), [("ga", ["forget", "attack"]), ("", [])])
def test_a_cell_may_be_attacked_before_it_is_judged_or_be_a_model_as_it_is(tmp_path, monkeypatch, method, before):
    """Scores are written last: a cell that was cut off while it was attacked is not done."""
    steps = []
    forget, attack = import_module("unsee.workflows.forget"), import_module("unsee.workflows.attack")
    monkeypatch.setattr(forget, "forget_run", lambda run, resume, shared: steps.append("forget"))
    monkeypatch.setattr(attack, "attack", lambda model, **how: steps.append("attack") or steps.append((model, how)))
    monkeypatch.setattr(import_module("unsee.data.open"), "open_benchmark", lambda data, layout: (data, layout))
    monkeypatch.setattr(
        import_module("unsee.evaluation.evaluate"), "evaluate", lambda model, *_, **__: steps.append(("judge", model))
    )
    out = tmp_path / "x"
    how = {"gold": "g", "quick": True, "split": "attacks"} if method else None
    sweep._work(Run(model="m", data="d", method=method, out=str(out), seed=4), "label", tmp_path, how)
    assert [step for step in steps if isinstance(step, str)] == before
    assert steps[-1] == ("judge", out if method else "m")
    if method:
        assert steps[2] == (str(out), {"gold": "g", "quick": True, "split": "attacks", "seed": 4})


def test_measures_and_gold_of_a_grid_must_exist(grid, tmp_path):
    for old, new, message in (
        ("limit: 1", "limit: 1, measures: [rouge9]", "Unknown measure 'rouge9'"),
        ("limit: 1", f"limit: 1, gold: {tmp_path / 'gone'}", "gone"),
        (
            "limit: 1",
            "limit: 1, gold: lab-gold",
            "a judged run, got the model lab-gold. Judge it once .*--out runs/gold",
        ),
    ):
        other = tmp_path / "other.yaml"
        other.write_text(GRID.replace(old, new))
        with pytest.raises(UserError, match=message):
            read_grid(other)


def test_files_of_somebody_else_are_not_replaced(grid, tmp_path):
    out = tmp_path / "grids"
    out.mkdir()
    (out / "grid.yaml").write_text("precious: 1")
    with pytest.raises(UserError, match=r"grid\.yaml in it would be replaced. Give another --out"):
        sweep.sweep(grid, out)
    assert (out / "grid.yaml").read_text() == "precious: 1"


def test_equal_settings_are_one_cell(grid, tmp_path):
    """Default values spelled out, another order of axes, a value given twice."""
    other = tmp_path / "other.yaml"
    other.write_text(
        GRID.replace("seed: [0, 1]", "seed: [1, 0, 1]").replace("[ga,", "[{name: ga, reduction: token_mean}, ga,")
    )
    names = [{cell.name.rpartition("-")[2] for cell in read_grid(file).cells} for file in (grid, other)]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[ga,", "[gaa,", "Unknown method 'gaa'. Did you mean ga"),
        ("beta: 0.5", "betta: 0.5", "Unknown setting of method npo 'betta'. Did you mean beta"),
        ("stop: never", "stop: now", "training: stop must be one of"),
        ("limit: 1", "limits: 1", "Unknown setting of eval 'limits'"),
        ("axes:", "axis:", "Unknown part of .*'axis'. Did you mean axes"),
        ("seed: [0, 1]", "seed: 3", "axis 'seed' must be a list"),
        ("seed: [0, 1]", "1: [0, 1]", "the axis 1 must be the name of a setting"),
        ("  model: lab\n", "", "Every cell needs a model"),
    ],
)
def test_a_mistake_in_any_cell_starts_nothing(grid, tmp_path, old, new, message):
    grid.write_text(GRID.replace(old, new))
    with pytest.raises(UserError, match=message):
        sweep.sweep(grid, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("more", "message"), [({"launcher": "pbs"}, "Unknown launcher"), ({"jobs": 0}, "--jobs must")])
def test_unusable_arguments_are_refused(grid, tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        sweep.sweep(grid, tmp_path / "out", **more)


@pytest.mark.parametrize(
    "file", sorted((EXAMPLE.parents[1] / "configs" / "tables").glob("*.yaml")), ids=lambda file: file.stem
)
def test_the_grids_of_the_documented_tables_can_be_run(file):
    """Their methods and settings exist, and each says the command that runs it."""
    read = read_grid(file)
    assert read.cells
    assert read.table
    assert f"configs/tables/{file.name} " in file.read_text().splitlines()[0]


def test_the_table_part_of_a_grid_makes_a_table(grid, tmp_path):
    """The columns are no setting: the cells stay the same."""
    names = [cell.name for cell in read_grid(grid).cells]
    grid.write_text(f"{GRID}table:\n  gives away: unseen.leak\n")
    read = read_grid(grid)
    assert [cell.name for cell in read.cells] == names
    make_run(tmp_path / "cells" / "a", "npo")
    sweep.compare_done(tmp_path, [Cell(name="a", label="npo", run=Run())], read.table)
    assert (tmp_path / "table.md").read_text().startswith("| run | gives away | seeds |\n|---|---|---|\n| npo | 0.")


@pytest.mark.parametrize(
    "axes",
    [
        "method.strength: [1.0, 2.0]",
        "method: [{name: rmuse, strength: 2.0}]",
        "method: [{name: rmuse, tau_margin: 0.05}]",
        "training.robust_sigma: [1e-3]\n  method: [npo]",
    ],
)
def test_an_axis_without_effect_is_refused_before_anything_starts(grid, tmp_path, axes):
    base = GRID.partition("axes")[0].replace("data: lab\n", "data: lab\n  method: rmuse\n")
    grid.write_text(f"{base}axes:\n  {axes}\n")
    with pytest.raises(UserError, match=r"(rmuse|npo): (method|training)\..* has no effect: it counts only"):
        sweep.sweep(grid, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_may_have_settings_that_act_in_some_cells_only(grid):
    base = GRID.partition("axes")[0].replace("data: lab\n", "data: lab\n  method: {name: mmunlearner, p_samples: 9}\n")
    grid.write_text(f"{base}axes:\n  method.mask: [saliency, none]\n")
    assert len(read_grid(grid).cells) == 2


@pytest.mark.usefixtures("stubbed")
def test_a_failed_cell_stops_no_other_and_is_tried_again(grid, tmp_path, monkeypatch):
    out = tmp_path / "out"
    states = sweep.sweep(grid, out)
    assert sorted(states.values()) == ["done", "done", "done", "failed"]
    rows = json.loads((out / "index.json").read_text())
    assert [row["error"] for row in rows if row["state"] == "failed"] == ["planted"]
    assert len((out / "compared.txt").read_text().split()) == 3
    before = (out / "done.txt").read_text()
    sweep.sweep(grid, out)
    assert (out / "done.txt").read_text() == before
    monkeypatch.setattr(sweep, "_work", lambda run, *_: write(Path(run.out) / "scores.json"))
    assert set(sweep.sweep(grid, out).values()) == {"done"}
    assert (out / "done.txt").read_text() == before
    assert not foreign(out / "failed")
    assert [row["error"] for row in json.loads((out / "index.json").read_text())] == [""] * 4


@pytest.mark.usefixtures("stubbed")
@pytest.mark.parametrize("tried", [True, False])
def test_the_index_is_written_while_a_cell_that_failed_runs_again(grid, tmp_path, monkeypatch, tried):
    """A cell that begins removes why it failed: one of this call, beside another one, or of another sweep."""
    cells, out = read_grid(grid).cells, tmp_path / "out"
    states = sweep.run_cells(cells, out, launcher="local", jobs=1, slurm={})
    (failed,) = (name for name, state in states.items() if state == "failed")
    found = []

    def launch(out, names, jobs, parameters):
        (out / "failed" / f"{failed}.txt").unlink()
        yield from (name for name in states if name != failed)
        found.extend(row for row in json.loads((out / "index.json").read_text()) if row["name"] == failed)

    monkeypatch.setattr(sweep, "_locally", launch)
    sweep.run_cells(cells, out, launcher="local", jobs=2, slurm={}, tried=[failed] if tried else ())
    state, error = ("failed", "another process is at it") if tried else ("waiting", "")
    assert [(row["state"], row["error"]) for row in found] == [(state, error)]


@pytest.mark.usefixtures("stubbed")
def test_a_cell_killed_between_its_last_file_and_its_end_leaves_no_note(grid, tmp_path):
    out = tmp_path / "out"
    states = sweep.sweep(grid, out)
    done = next(name for name, state in states.items() if state == "done")
    note = out / "claims" / f"{done}.owner"
    note.write_text("{}")
    sweep.sweep(grid, out)
    assert not note.exists()


@pytest.mark.usefixtures("stubbed")
def test_a_sweep_does_not_go_on_with_changed_data(grid, tmp_path):
    """Cells on the old rows would stand beside cells on the new ones."""
    data, out = shutil.copytree(EXAMPLE, tmp_path / "data"), tmp_path / "out"
    grid.write_text(GRID.replace("data: lab", f"data: {data}"))
    names = sweep.sweep(grid, out)
    for name in names:
        noted = {"record": {"data_hash": fingerprint(open_benchmark(str(data)))}}
        (out / "cells" / name / "run.yaml").parent.mkdir(exist_ok=True)
        (out / "cells" / name / "run.yaml").write_text(dump_yaml(noted))
    assert sweep.sweep(grid, out).keys() == names.keys()
    table = next(data.glob("*.jsonl"))
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    grid.write_text(grid.read_text().replace("seed: [0, 1]", "seed: [0, 1, 2]"))
    with pytest.raises(UserError, match="have changed since .* was unlearned on them.*Give another --out"):
        sweep.sweep(grid, out)
    assert "seed: [0, 1, 2]" not in (out / "grid.yaml").read_text()


def test_a_finished_cell_is_the_only_one_looked_at_again(grid, tmp_path, stubbed, monkeypatch):
    looked_at, state = [], sweep._state
    monkeypatch.setattr(sweep, "_state", lambda out, name: looked_at.append(name) or state(out, name))
    states = sweep.sweep(grid, tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "index.json").read_text())
    assert {row["name"]: row["state"] for row in rows} == states
    assert len(looked_at) == 3 * len(states)  # before, when it ended, and after all


@pytest.mark.usefixtures("stubbed")
def test_a_wider_grid_finds_the_cells_of_the_one_before(grid, tmp_path):
    """Axes in another order, and one more whose first value is the default, name the folders differently."""
    out, base = tmp_path / "out", GRID.partition("axes:")[0] + "  method: npo\naxes:\n"
    grid.write_text(f"{base}  seed: [0]\n  method.beta: [0.5, 1.0]\n")
    before = sweep.sweep(grid, out)
    grid.write_text(f"{base}  method.retain_weight: [0.0, 1.0]\n  method.beta: [0.5, 1.0]\n  seed: [0, 1]\n")
    done = (out / "done.txt").read_text().split()
    states = sweep.sweep(grid, out)
    assert set(done) <= set(states)
    assert len(states) == 4 * len(before)
    assert not set((out / "done.txt").read_text().split()[len(done) :]) & set(done)
    compared = set((out / "compared.txt").read_text().split())
    assert compared == {name for name, state in states.items() if state == "done"}
    assert len({name.rpartition("-")[2] for name in states}) == len(states)
    rows = json.loads((out / "index.json").read_text())
    assert {label: sum(row["label"] == label for row in rows) for label in ("npo beta=0.5", "npo beta=1.0")} == {
        "npo beta=0.5": 2,
        "npo beta=1.0": 2,
    }  # each with both of its seeds


def write(file):
    file.parent.mkdir(parents=True)
    file.write_text("{}")


@pytest.mark.usefixtures("stubbed")
def test_the_command_says_what_failed(grid, tmp_path, capsys):
    assert main(["sweep", str(grid), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "failed: npo_beta=0.5_seed=1-" in said.err
    assert said.out.strip().endswith("report.html")


def busy(file, log, hold):
    """Try to claim, work a while, say so."""
    with file_lock.claimed(file) as ours:
        if ours:
            with log.open("a") as stream:
                stream.write("worked\n")
            time.sleep(hold)
    return ours


def test_one_of_many_gets_the_claim(tmp_path):
    context = get_context("fork")
    processes = [
        context.Process(target=busy, args=(owned_folder(tmp_path / "claims") / "x", tmp_path / "log", 3.0))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "log").read_text() == "worked\n"
    assert not file_lock.is_claimed(owned_folder(tmp_path / "claims") / "x")


def test_a_claim_of_a_dead_process_is_taken_over(tmp_path):
    file = owned_folder(tmp_path / "claims") / "x"
    process = get_context("fork").Process(target=lambda: (file_lock._acquire(file, 0), os._exit(1)))
    process.start()
    process.join()
    assert file.exists()
    assert not file_lock.is_claimed(file)
    assert busy(file, tmp_path / "log", 0)


def test_two_sweeps_at_once_run_every_cell_once(grid, tmp_path, stubbed):
    out = tmp_path / "out"
    with ThreadPoolExecutor(2) as pool:
        for found in [pool.submit(sweep.sweep, grid, out) for _ in range(2)]:
            found.result()
    done = (out / "done.txt").read_text().split()
    assert len(done) == len(set(done)) == 3


def test_cores_and_gpus_are_shared_out(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    found = [sweep._environment(place, 3) for place in range(3)]
    assert {one["OMP_NUM_THREADS"] for one in found} == {"2"}
    assert [one["CUDA_VISIBLE_DEVICES"] for one in found] == ["4", "5", "4"]


def test_slurm_without_submitit_says_what_to_install(grid, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"unsee\[slurm\]"):
        sweep.sweep(grid, tmp_path / "out", launcher="slurm")


@pytest.mark.usefixtures("stubbed")
def test_slurm_jobs_run_cells(grid, tmp_path, monkeypatch):
    """On submitit's own executor for tests, which runs jobs in this process."""
    pytest.importorskip("submitit")
    monkeypatch.setenv("UNSEE_CLUSTER", "debug")
    states = sweep.sweep(grid, tmp_path / "out", launcher="slurm", jobs=2)
    assert sorted(states.values()) == ["done", "done", "done", "failed"]


class FakeExecutor:
    """What `_on_slurm` uses of submitit."""

    asked: ClassVar[dict[str, object]] = {}

    def __init__(self, folder, cluster):
        self.folder = folder

    def update_parameters(self, **parameters):
        for name, value in parameters.items():
            if name not in ("name", "timeout_min", "gpus_per_node") and not name.startswith("slurm_"):
                raise NameError(f"Parameter '{name}' need to be prefixed by an executor name.")
            assert name != "timeout_min" or isinstance(value, int), f'Parameter "{name}" expected type int'
        self.asked.update(parameters)

    def batch(self):
        return ThreadPoolExecutor(1)

    def submit(self, job, *arguments):
        return FakeJob(job, arguments)


class FakeJob:
    job_id, state = "7", "TIMEOUT"

    def __init__(self, job, arguments):
        self.error = None
        try:
            job(*arguments)
        except UserError as error:
            self.error = error

    def exception(self):
        return self.error


@pytest.mark.parametrize(
    ("group", "evaluation", "attack"),
    [("metrics", {"measures": ["x@open"]}, None), ("attacks", {}, {"attacks": ["x"]})],
)
def test_a_cell_is_another_one_if_an_installed_plugin_has_changed(tmp_path, monkeypatch, group, evaluation, attack):
    (tmp_path / "mine-1.dist-info").mkdir()
    (tmp_path / "mine-1.dist-info" / "entry_points.txt").write_text(f"[unsee.{group}]\nx = mine_x:X\n")
    monkeypatch.syspath_prepend(tmp_path)
    names = set()
    for text in ("VERSION = 1", "VERSION = 2"):  # the code itself is not run
        (tmp_path / "mine_x.py").write_text(text)
        names.add(make_cell(Run(model="lab", data="lab", eval=evaluation), "x", attack).name)
    assert len(names) == 2


def test_sentences_stay_out_of_the_names_of_folders():
    cell = make_cell(Run(model="lab", data="lab"), "prompt instruction=Ada is not to be named. lr=0.001")
    assert cell.name.startswith("prompt_lr=0.001_seed=0-")
    assert "Ada" not in cell.name
    assert "Ada" in cell.label


@pytest.mark.usefixtures("stubbed")
def test_slurm_parameters_come_from_the_grid(grid, tmp_path, monkeypatch):
    fake = type(sys)("submitit")
    fake.AutoExecutor = FakeExecutor
    monkeypatch.setitem(sys.modules, "submitit", fake)
    grid.write_text(GRID + "slurm: {slurm_partition: gpu, timeout_min: 30}\n")
    states = sweep.sweep(grid, tmp_path / "out", launcher="slurm", jobs=3)
    assert sorted(states.values()) == ["done", "done", "done", "failed"]
    assert FakeExecutor.asked == {
        "name": "unsee",
        "slurm_array_parallelism": 3,
        "slurm_partition": "gpu",
        "timeout_min": 30,
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("queue: gpu", "'queue' need to be prefixed"), ("timeout_min: 1h", "type int"), ("name: mine", "multiple values")],
)
def test_wrong_slurm_parameters_are_said(grid, tmp_path, monkeypatch, wrong, message):
    fake = type(sys)("submitit")
    fake.AutoExecutor = FakeExecutor
    monkeypatch.setitem(sys.modules, "submitit", fake)
    grid.write_text(GRID + f"slurm: {{{wrong}}}\n")
    with pytest.raises(UserError, match=f"(?s)`slurm:` of the grid: .*{message}.*timeout_min and slurm_partition"):
        sweep.sweep(grid, tmp_path / "out", launcher="slurm")


@pytest.mark.slow
def test_one_real_cell(tmp_path):
    """A process of its own unlearns and judges; asked again, nothing is started."""
    model = save_tiny(tmp_path / "model")
    file = tmp_path / "grid.yaml"
    text = GRID.replace("model: lab", f"model: {model}").replace("data: lab", f"data: {EXAMPLE}")
    file.write_text(text.replace("seed: [0, 1]", "seed: [3]").replace(", {name: npo, beta: 0.5}", ""))
    out = tmp_path / "out"
    (name,) = sweep.sweep(file, out, jobs=2)
    assert (out / "cells" / name / "scores.json").exists(), (out / "logs" / f"{name}.log").read_text()
    assert (out / "compare" / "report.html").exists()
    assert not foreign(out / "failed")
    assert "Fatal" not in (out / "logs" / f"{name}.log").read_text()
    before = (out / "logs" / f"{name}.log").stat().st_mtime_ns
    assert sweep.sweep(file, out) == {name: "done"}
    assert (out / "logs" / f"{name}.log").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals and looks at process groups")
def test_sigterm_ends_a_sweep_with_its_cells(tmp_path):
    """Two cells are in the middle of a long training; none of them outlives the sweep or counts as failed."""
    model, file, out = save_tiny(tmp_path / "model"), tmp_path / "grid.yaml", tmp_path / "out"
    long = GRID.replace("max_steps: 2", "max_steps: 100000").replace(", {name: npo, beta: 0.5}", "")
    file.write_text(long.replace("model: lab", f"model: {model}").replace("data: lab", f"data: {EXAMPLE}"))
    command = [sys.executable, "-m", "unsee", "sweep", str(file), "--out", str(out), "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_for(lambda: len(list(out.glob("cells/*/log.jsonl"))) == 2, 480)
        claims = [out / "claims" / cell.name for cell in read_grid(file).cells]
        assert [file_lock.is_claimed(claim) for claim in claims] == [True, True]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 143
        assert "Traceback" not in err
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)  # the sweep led the group, and waits for its cells
        assert not any(map(file_lock.is_claimed, claims))
        assert not foreign(out / "failed")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
