"""Checkpoints: what a damaged one costs, what a full disk says, and that weights that are no numbers are never kept."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from dataclasses import replace
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from helpers.training import make, nll, run
from unsee.distributed import processes
from unsee.errors import NotFiniteError, TrainingError, UserError
from unsee.inference.answer_logits import answer_logits
from unsee.losses import ga_loss, kl_loss
from unsee.methods.kl import KL
from unsee.training.resume import (
    COMPLETE,
    HISTORY,
    MOMENTS,
    STATE,
    checkpoint_bytes,
    checkpoints,
    empty_checkpoint,
    full_disk_explained,
    last_checkpoint,
    random_state,
    restore_random_state,
    seal,
)
from unsee.training.trainable import WEIGHTS, finite, save_trainable, trainable
from unsee.utils.files import OWNED
from unsee.workflows.forget import bytes_needed

SETTINGS = {"epochs": 2, "batch_size": 2, "checkpoint_every": 1}


def cut_at(session, index):
    """Run until the batch at this index, then be killed."""

    def killed(forget, retain):
        if forget.index == index:
            raise KeyboardInterrupt
        return nll(session)(forget, retain)

    with pytest.raises(KeyboardInterrupt):
        run(session, killed)


def written(out, step):
    """Write a checkpoint with files that are none of a model."""
    folder = empty_checkpoint(out, step)
    for name in (WEIGHTS, MOMENTS):
        save_file({"a": torch.ones(100)}, folder / name)
    for name in (STATE, HISTORY):
        (folder / name).write_text('{"a": [1, 2, 3]}')
    seal(folder)
    return folder


@contextmanager
def small_disk(most):
    """Let no file grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def torn(file):
    file.write_bytes(file.read_bytes()[:-5])


def garbled(file):
    file.write_bytes(b"\0" * file.stat().st_size)


def gone(file):
    file.unlink()


def flipped(file):
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("harm", [torn, garbled, gone, flipped])
@pytest.mark.parametrize("name", [WEIGHTS, MOMENTS, STATE, HISTORY, COMPLETE])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, capsys, name, harm):
    older, newest = written(tmp_path, 3), written(tmp_path, 12)
    assert last_checkpoint(tmp_path) == newest
    harm(newest / name)
    assert last_checkpoint(tmp_path) == older
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"unsee: {newest} is damaged (")
    harm(older / name)
    assert last_checkpoint(tmp_path) is None


def test_two_checkpoints_stay(tmp_path):
    for step in (2, 10, 9, 11):
        written(tmp_path, step)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-11", "checkpoint-10"]


def test_resuming_from_the_checkpoint_before_gives_the_same_weights(tmp_path, capsys):
    whole = run(make(tmp_path / "whole", **SETTINGS))
    out = tmp_path / "cut"
    cut_at(make(out, **SETTINGS), 6)
    torn(out / "checkpoints" / "checkpoint-6" / MOMENTS)
    with (out / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "los')
    resumed, first = make(out, resume=True, **SETTINGS), []
    again = run(resumed, lambda forget, retain: (first.append(forget.index), nll(resumed)(forget, retain))[1])
    assert first[0] == 5
    assert "checkpoint-6 is damaged (optimizer.safetensors has" in capsys.readouterr().err
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert [row["step"] for row in resumed.history] == list(range(1, 9))


@pytest.mark.parametrize("step", [1, 2, 3])
def test_kl_resumed_in_its_second_epoch_gives_the_same_weights(tmp_path, monkeypatch, step):
    """Retain targets come again then, whose reference values the run that was cut off has taken with it."""
    settings = {"epochs": 2, "batch_size": 4, "checkpoint_every": 1}
    whole = make(tmp_path / "whole", **settings)
    KL().unlearn(whole)
    cut = make(tmp_path / "cut", **settings)
    with monkeypatch.context() as patched:
        patched.setattr("unsee.methods.kl.kl_loss", killed_after(step))
        with pytest.raises(KeyboardInterrupt):
            KL().unlearn(cut)
    resumed = make(tmp_path / "cut", resume=True, **settings)
    KL().unlearn(resumed)
    wanted, found = trainable(whole.model), trainable(resumed.model)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def killed_after(calls):
    """Return a `kl_loss` that is interrupted at the call after so many."""
    left = [calls]

    def loss(*args):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return kl_loss(*args)

    return loss


def test_no_checkpoint_holds_a_pickle(tmp_path):
    cut_at(make(tmp_path, **SETTINGS), 2)
    names = {path.suffix or path.name for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()}
    assert names == {".safetensors", ".json", COMPLETE, OWNED}


def test_random_streams_come_back(monkeypatch):
    import random

    import numpy

    state = random_state()
    drawn = [random.random(), numpy.random.rand(), torch.rand(1).item()]  # noqa: NPY002 - the global stream is meant
    restore_random_state([state])
    assert drawn == [random.random(), numpy.random.rand(), torch.rand(1).item()]  # noqa: NPY002
    monkeypatch.setattr(processes, "world", lambda: 2)
    restore_random_state([state])
    assert torch.rand(1).item() != drawn[2]


def test_a_full_disk_is_named_with_what_was_needed_and_the_run_goes_on_later(tmp_path):
    whole = run(make(tmp_path / "whole", **SETTINGS))
    session = make(tmp_path / "full", **SETTINGS)
    with pytest.raises(TrainingError, match=r"disk of .*checkpoint-2 is full: a checkpoint needs 0\.\d+ GiB.*--resume"):
        cut_by_disk(session)
    again = run(make(tmp_path / "full", resume=True, **SETTINGS))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_full_disk_at_a_row_of_the_log_is_named_and_the_run_goes_on_later(tmp_path):
    whole = run(make(tmp_path / "whole", **SETTINGS))
    session = make(tmp_path / "full", **{**SETTINGS, "checkpoint_every": 100})
    with pytest.raises(TrainingError, match=r"disk of .*log\.jsonl is full: a row of the log needs .*--resume"):
        cut_by_disk(session, 150)
    again = run(make(tmp_path / "full", resume=True, **SETTINGS))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_disk_that_is_full_on_resuming_leaves_the_log_as_it_was(tmp_path):
    cut_at(make(tmp_path, **SETTINGS), 6)
    log = (tmp_path / "log.jsonl").read_text()
    with small_disk(150), pytest.raises(TrainingError, match=r"disk of .*log\.jsonl is full: the log needs .*--resume"):
        run(make(tmp_path, resume=True, **SETTINGS))
    assert (tmp_path / "log.jsonl").read_text() == log


@pytest.mark.parametrize("harm", [lambda lines: lines[:3], lambda lines: [lines[0][:9], *lines[1:]], lambda lines: []])
def test_a_log_that_lacks_rows_is_not_gone_on_with(tmp_path, harm):
    cut_at(make(tmp_path, **SETTINGS), 6)
    log = tmp_path / "log.jsonl"
    text = "\n".join(harm(log.read_text().splitlines()))
    log.write_text(text)
    with pytest.raises(TrainingError, match=r"log\.jsonl should have a row for each of the 6 steps"):
        run(make(tmp_path, resume=True, **SETTINGS))
    assert log.read_text() == text


def test_a_copy_of_a_checkpoint_under_another_name_is_no_checkpoint(tmp_path):
    cut_at(make(tmp_path, **SETTINGS), 6)
    found = checkpoints(tmp_path)
    copytree(found[0], found[0].with_name(f"{found[0].name} (1)"))
    assert checkpoints(tmp_path) == found
    assert last_checkpoint(tmp_path) == found[0]


def test_a_checkpoint_that_a_callback_wants_before_the_end_of_a_step_is_written(tmp_path):
    class Keep(TrainerCallback):
        def on_optimizer_step(self, args, state, control, **kwargs):
            control.should_save = state.global_step == 0  # in the first step

    session = make(tmp_path, batch_size=2, max_steps=3)
    session.callbacks = [Keep()]
    run(session)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-1"]


def test_the_space_check_counts_what_a_run_keeps(tmp_path):
    plain = make(tmp_path)
    tuned = 4 * sum(weight.numel() for weight in trainable(plain.model).values())
    needed = {
        name: bytes_needed(plain.model, replace(plain.training, **more)) - bytes_needed(plain.model, plain.training)
        for name, more in {"guard": {"guard": "collapse"}, "mean": {"robust": "averaging"}}.items()
    }
    assert needed == {"guard": tuned, "mean": 3 * tuned}
    session = make(tmp_path / "mean", robust="averaging", **SETTINGS)
    cut_at(session, 2)
    written = [file.stat().st_size for file in last_checkpoint(tmp_path / "mean").glob("*.safetensors")]
    assert tuned * 4 < sum(written) < 1.2 * checkpoint_bytes(session.model, session.training)


def cut_by_disk(session, most=3000):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def filled(forget, retain):
        if forget.index == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        return nll(session)(forget, retain)

    try:
        run(session, filled)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_other_write_errors_are_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError), full_disk_explained(tmp_path, "this", 1):
        (tmp_path / "no" / "file").write_text("x")


def test_weights_are_written_in_full_or_not_at_all(tmp_path):
    session = make(tmp_path)
    save_trainable(session.model, tmp_path)
    before = (tmp_path / WEIGHTS).read_bytes()
    with small_disk(2000), pytest.raises(Exception, match="os error 27"):
        save_trainable(session.model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS]
    assert (tmp_path / WEIGHTS).read_bytes() == before


class Spoil(TrainerCallback):
    """Fills the trainable weights with a value, as a destructive step does."""

    def __init__(self, value, step):
        self.value, self.step = value, step

    def on_optimizer_step(self, args, state, control, model, **kwargs):
        if state.global_step + 1 == self.step:
            for weight in trainable(model).values():
                weight.data.fill_(self.value)


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_a_destructive_step_ends_the_run_before_anything_is_saved(tmp_path, tune):
    session = make(tmp_path, tune=tune, lr=1e38, scheduler="constant", max_steps=1, stop="forgotten")
    with pytest.raises(TrainingError, match=r"weights are not finite numbers after step 1\. No weights .* were kept"):
        run(session)
    assert not (tmp_path / "last_good").exists()
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_last_checkpoint_is_what_is_left_of_a_destroyed_model(tmp_path, value):
    session = make(tmp_path, **SETTINGS)
    session.callbacks = [Spoil(value, step=4)]
    with pytest.raises(TrainingError, match=r"not finite numbers after step 4\. The weights after step 3 are in"):
        run(session)
    kept = load_file(tmp_path / "last_good" / WEIGHTS)
    there = load_file(tmp_path / "checkpoints" / "checkpoint-3" / WEIGHTS)
    assert all(torch.equal(kept[name], there[name]) and kept[name].isfinite().all() for name in there)


@pytest.mark.parametrize("stop", ["forgotten", "never"])
def test_rubble_is_no_success(tmp_path, stop):
    """Weights of 1e30 are finite, say nothing private, and give no numbers."""
    session = make(tmp_path, max_steps=2, check_every=2, stop=stop)
    session.callbacks = [Spoil(1e30, step=2)]
    with pytest.raises(TrainingError, match=r"output of the model is not finite after step 2"):
        run(session)


def test_gradient_ascent_at_an_absurd_rate_is_an_error(tmp_path):
    session = make(tmp_path, tune="full", lr=1e30, scheduler="constant", max_steps=1, stop="forgotten", check_every=1)

    def objective(forget, retain):
        return {"loss": ga_loss(*answer_logits(session.model, forget))}

    with pytest.raises(TrainingError, match="not finite"):
        run(session, objective)


def test_a_loss_gone_wrong_on_a_broken_model_keeps_nothing(tmp_path):
    session = make(tmp_path)
    next(iter(trainable(session.model).values())).data.fill_(float("nan"))
    with pytest.raises(
        TrainingError, match=r"loss is not a finite number at step 1 .*No weights of this run were kept"
    ):
        run(session)
    assert not (tmp_path / "last_good").exists()


def test_largest_weights_count_as_finite(tmp_path):
    session = make(tmp_path)
    weight = next(iter(trainable(session.model).values()))
    weight.data.fill_(3e38)  # a sum of squares would overflow
    assert finite(session.model)
    weight.data[0, 0] = float("-inf")
    assert not finite(session.model)
    weight.data[0, 0] = float("nan")
    assert not finite(session.model)


@pytest.mark.parametrize("steps", [8, 1000])
def test_a_warm_up_longer_than_the_run_is_refused(tmp_path, steps):
    session = make(tmp_path, **SETTINGS, warmup_steps=steps)
    with pytest.raises(UserError, match=rf"warmup_steps is {steps}, but the run has 8 steps"):
        run(session)


@pytest.mark.parametrize("parts", [("vision",), ("vision", "projector")])
def test_rows_that_reach_no_trained_weight_are_refused_before_the_first_step(tmp_path, parts):
    from unsee.training.targets import forget_targets, retain_targets
    from unsee.training.trainer import minimise

    session = make(tmp_path, parts=parts, batch_size=1)
    text = [target for target in retain_targets(session) if target.example.image is None]
    assert text
    calls = []
    with pytest.raises(UserError, match=rf"Batch 1 has retain rows without an image.*parts={','.join(parts)}\."):
        minimise(session, lambda *_: calls.append(1), forget=forget_targets(session), retain=text)
    assert not calls


def test_a_lost_process_is_named(monkeypatch):
    monkeypatch.setattr(processes, "world", lambda: 2)
    monkeypatch.setattr(processes, "rank", lambda: 0)
    lost = "[pair.cc:537] Read error [127.0.0.1]:4242: Connection reset by peer"
    with pytest.raises(TrainingError, match=r"Process 1 is gone .*--resume"), processes.lost_peer_explained():
        raise RuntimeError(lost)
    with pytest.raises(RuntimeError, match="shapes"), processes.lost_peer_explained():
        raise RuntimeError("shapes do not fit")


def test_a_stop_rule_whose_answers_are_not_finite_ends_the_run_with_the_last_good_weights(tmp_path, monkeypatch):
    def planted(vlm, requests, **kwargs):
        raise NotFiniteError("request 2", 1)

    monkeypatch.setattr("unsee.training.stop_rule.generate", planted)
    session = make(tmp_path, **{**SETTINGS, "stop": "forgotten", "check_every": 3})
    with pytest.raises(TrainingError, match="output of the model is not finite after step 3") as raised:
        run(session)
    good = tmp_path / "last_good" / WEIGHTS
    assert f"The weights after step 2 are in {good}." in str(raised.value)
    assert load_file(good).keys() == trainable(session.model).keys()
