"""Two processes on the CPU (gloo) do what one does: same weights, same files, written once."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers import two_processes as two
from helpers.families import session_of
from unsee import config, evaluate, forget
from unsee.api import Training
from unsee.errors import UserError
from unsee.testing.tiny import save_tiny
from unsee.training.batch_plan import Plan
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainable import save_trainable
from unsee.training.trainer import minimise, prepare
from unsee.utils.files import read_jsonl

WEIGHTS = 2e-5
"""How far weights may lie apart. AdamW divides by the size of a gradient, which magnifies the rounding of tiny ones; lr is 1e-3."""
MODES = tuple(two.RUNS)
RUNS = [(mode, name, tune) for mode, runs in two.RUNS.items() for name, tune in runs]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Run everything once: alone in this process, and in two others."""
    folder = tmp_path_factory.mktemp("two")
    save_tiny(folder / "model")
    for mode in MODES:
        two.interrupted(two.start(folder / f"{mode}-resumed", epochs=2, checkpoint_every=1), 2)
    processes = [launch(folder, rank, port) for port in (free_port(),) for rank in (0, 1)]
    alone(folder)
    try:
        errors = [process.communicate(timeout=900)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return folder


def launch(folder, rank, port):
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, **{name: str(value) for name, value in names.items()}, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "helpers.two_processes", str(folder)]
    path = os.pathsep.join(filter(None, [str(Path(two.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env={**environment, "PYTHONPATH": path, "UNSEE_CACHE": "off"}, text=True, **pipes)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def alone(folder):
    """The same runs in one process."""
    torch.set_num_threads(1)
    for name, tune in sorted({pair for runs in two.RUNS.values() for pair in runs}):
        two.run(folder / f"alone-{name}-{tune}", name, tune)
    session = two.train(two.start(folder / "alone-pieces", batch_size=2, accumulate=2))
    save_trainable(session.model, folder / "alone-pieces" / "end")
    session = two.train(two.start(folder / "alone-resumed", epochs=2, checkpoint_every=1))
    save_trainable(session.model, folder / "alone-resumed" / "end")
    two.drawn(folder / "alone-drawn")
    settings = {"max_steps": 2, "stop": "never", "batch_size": 4}
    forget(folder / "model", two.EXAMPLE, "ga", folder / "alone-run", training=settings)
    evaluate(
        folder / "model", two.EXAMPLE, folder / "alone-judged", stage="original", max_new_tokens=8, likelihood=True
    )


def said(out, rank=0):
    return json.loads((out / f"{rank}.json").read_text())


def assert_same(one, other):
    one, other = (load_file(folder / "trainable.safetensors") for folder in (one, other))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=WEIGHTS, rtol=0)


@pytest.mark.smoke
@pytest.mark.parametrize(("mode", "name", "tune"), RUNS)
def test_two_processes_give_the_weights_of_one(out, mode, name, tune):
    assert_same(out / f"{mode}-{name}-{tune}" / "end", out / f"alone-{name}-{tune}" / "end")


@pytest.mark.skipif(not find_spec("deepspeed"), reason="DeepSpeed is not installed")
@pytest.mark.parametrize("tune", ["lora", "full"])
def test_zero3_gives_the_weights_of_one(out, tune):
    assert_same(out / f"zero3-ga-{tune}" / "end", out / f"alone-ga-{tune}" / "end")


@pytest.mark.parametrize(
    ("mode", "settings", "message"),
    [
        ("fsdp2", {"tune": "full", "parts": ("projector",)}, "FSDP the vision tower and the projector"),
        ("zero3", {}, "With ZeRO-3 every row, or none, must have an image"),
        ("zero3", {"accumulate": 2}, "training.accumulate=1"),
    ],
)
def test_what_spread_weights_cannot_do_is_refused(tmp_path, monkeypatch, mode, settings, message):
    session = two.start(tmp_path, **settings)
    monkeypatch.setattr("unsee.distributed.processes.sharding", lambda: mode)
    with pytest.raises(UserError, match=message):
        two.train(session)


def test_layers_that_only_images_reach_want_rows_of_one_kind(tmp_path, monkeypatch):
    session = session_of("mllama", tmp_path)
    session.model = prepare(session.model, session.family, session.training, 0)
    monkeypatch.setattr("unsee.distributed.processes.sharding", lambda: "fsdp2")
    with pytest.raises(UserError, match="Mllama.* every row, or none, has an image"):
        minimise(session, two.nll(session), forget=forget_targets(session), retain=retain_targets(session))


def test_masked_gradients_need_whole_weights(tmp_path, monkeypatch):
    session = two.start(tmp_path)
    monkeypatch.setattr("unsee.distributed.processes.sharding", lambda: "fsdp2")
    with pytest.raises(UserError, match="masks gradients"):
        minimise(session, two.nll(session), forget=forget_targets(session), separate=True)


def test_a_smaller_last_batch_is_filled_for_all_processes(tmp_path):
    targets = tuple(forget_targets(two.start(tmp_path)))[:7]
    training = Training(batch_size=2, epochs=1)
    plan = Plan(targets, targets, training, 0, world=2)
    batches = [plan.batch(index) for index in range(len(plan))]
    assert [len(forget) for forget, _ in batches] == [4, 4]
    assert batches[1][0][-1] == batches[0][0][0]
    assert [len(retain) for _, retain in batches] == [4, 4]
    alone = Plan(targets, targets, replace(training, batch_size=4), 0)
    assert [len(alone.batch(index)[0]) for index in range(len(alone))] == [4, 3]
    assert [alone.batch(0), alone.batch(1)[0]] == [batches[0], batches[1][0][:3]]


@pytest.mark.parametrize(("mode", "name", "tune"), RUNS)
def test_all_processes_log_the_numbers_of_one(out, mode, name, tune):
    rows = [json.loads(line) for line in (out / f"alone-{name}-{tune}" / "log.jsonl").read_text().splitlines()]
    for rank in (0, 1):
        for row, mine in zip(rows, said(out, rank)[f"{mode}-{name}-{tune}"], strict=True):
            assert mine == pytest.approx(row, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_accumulated_and_recomputed_batches_give_the_weights_of_one(out, mode):
    assert_same(out / f"{mode}-pieces" / "end", out / "alone-pieces" / "end")


def test_weights_are_spread_while_training_and_whole_after_it(out):
    during, after, engines = said(out)["fsdp2-spread"]
    assert during[0] > 0
    assert during[1] == during[2]
    assert after[:2] == [0, 0]
    assert engines == [[False, False], [True, True]]  # no rank may skip what another one does
    assert said(out)["ddp-spread"][0][:2] == [0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_one_process_goes_on_where_two_stopped(out, mode):
    session = two.train(two.start(out / f"{mode}-cut", epochs=2, checkpoint_every=1, resume=True))
    assert session.history[0]["step"] == 1
    save_trainable(session.model, out / f"{mode}-cut" / "end")
    assert_same(out / f"{mode}-cut" / "end", out / "alone-resumed" / "end")


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_go_on_where_one_stopped(out, mode):
    assert_same(out / f"{mode}-resumed" / "end", out / "alone-resumed" / "end")


@pytest.mark.parametrize("mode", MODES)
def test_all_processes_stop_alike(out, mode):
    """A random model names nobody: USR is 1 at the first check."""
    assert said(out, 0)[f"{mode}-stop"] == said(out, 1)[f"{mode}-stop"] == [1, two_stop(), 1.0]


def two_stop():
    return "forgotten at step 1 (USR 1.0 on 8 seen questions)"


@pytest.mark.parametrize("mode", MODES)
def test_a_number_gone_wrong_in_one_process_ends_all(out, mode):
    texts = [said(out, rank)[f"{mode}-broken"] for rank in (0, 1)]
    assert all("loss is not a finite number at step 2" in text for text in texts)
    assert texts[0].split("(")[1].split(")")[0] == texts[1].split("(")[1].split(")")[0]
    assert load_file(out / f"{mode}-broken" / "last_good" / "trainable.safetensors")


def test_answers_drawn_by_two_are_those_drawn_by_one(out):
    one, other = (list((out / name / "work").glob("*.jsonl")) for name in ("alone-drawn", "drawn"))
    assert [file.name for file in one] == [file.name for file in other]
    assert one[0].read_text() == other[0].read_text()
    assert said(out, 0)["drawn"] == said(out, 1)["drawn"]


def test_only_the_main_process_writes(out):
    assert said(out, 0)["nobody"] == said(out, 1)["nobody"] == []


@pytest.mark.smoke
def test_a_whole_run_of_two_is_that_of_one(out):
    assert said(out, 0)["code"] == said(out, 1)["code"] == 0
    one, other = (load_file(out / name / "model" / "adapter_model.safetensors") for name in ("alone-run", "run"))
    assert all(torch.allclose(one[name], other[name], atol=WEIGHTS) for name in one)
    written = config.read_mapping(out / "run" / "run.yaml")
    assert written["record"]["processes"] == 2
    assert written["result"]["steps"] == 2
    assert not (out / "run" / "checkpoints").exists()


@pytest.mark.smoke
def test_two_judge_as_one_does(out):
    assert said(out, 0)["judged"] == said(out, 1)["judged"] == 0
    one, other = (read_jsonl(out / name / "responses.jsonl") for name in ("alone-judged", "judged"))
    assert [row["text"] for row in one] == [row["text"] for row in other]
    scores = [json.loads((out / name / "scores.json").read_text()) for name in ("alone-judged", "judged")]
    assert scores[0].keys() == scores[1].keys()
    for name in scores[0]:
        assert scores[0][name]["value"] == pytest.approx(scores[1][name]["value"], abs=1e-5)


def test_a_run_of_two_can_be_resumed_by_one_at_equal_global_batch(out, monkeypatch):
    shutil.copytree(out / "run", out / "again")
    settings = {"max_steps": 2, "stop": "never"}
    monkeypatch.setattr("unsee.workflows.forget._open", lambda *a, **k: pytest.fail("the run had ended"))
    forget(out / "model", two.EXAMPLE, "ga", out / "again", training={**settings, "batch_size": 4}, resume=True)
    with pytest.raises(UserError, match="training differ"):
        forget(out / "model", two.EXAMPLE, "ga", out / "again", training={**settings, "batch_size": 2}, resume=True)
