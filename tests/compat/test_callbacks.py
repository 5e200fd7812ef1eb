"""The training loop beside transformers' Trainer: same weights, same events; callbacks of the user are obeyed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from helpers.training import make, nll, run
from unsee import forget
from unsee.api.fast_paths import PLAIN
from unsee.errors import UserError
from unsee.inference.batching import collate
from unsee.testing.tiny import save_tiny
from unsee.training.loop import Loop
from unsee.training.resume import checkpoints
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import plan_batches

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_folder"
STEP = ["on_step_begin", "on_pre_optimizer_step", "on_optimizer_step", "on_step_end", "on_log"]


class Recorder(TrainerCallback):
    """Remembers the events, and what the state was."""

    def __init__(self):
        self.events, self.logs, self.steps = [], [], []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.events.append("on_log")
        self.logs.append(logs)


def _recording(event):
    def handler(self, args, state, control, **kwargs):
        self.events.append(event)
        self.steps.append((event, state.global_step, state.epoch))
        assert {"model", "processing_class", "optimizer", "lr_scheduler"} <= kwargs.keys()

    return handler


for _event in (*STEP[:4], *(f"on_{name}" for name in ("init_end", "train_begin", "train_end", "epoch_begin"))):
    setattr(Recorder, _event, _recording(_event))
for _event in ("on_epoch_end", "on_substep_end", "on_save"):
    setattr(Recorder, _event, _recording(_event))


class Wish(TrainerCallback):
    """Sets a field of the control at the end of a step."""

    def __init__(self, name, value=True, step=1):
        self.name, self.value, self.step = name, value, step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            setattr(control, self.name, self.value)
        return control


class Indices(IterableDataset):
    """Numbers of batches, in order."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        yield from ({"index": torch.tensor([index])} for index in range(self.count))


class Plain(Trainer):
    """transformers' Trainer through its public interface, on the batches of a plan."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        index = inputs["index"].item()
        forget, retain = (collate(self.session, targets, index) for targets in self.plan.batch(index))
        return nll(self.session)(forget, retain)["loss"]


def by_the_trainer(session, out):
    training, plan = session.training, plan_batches(session, forget_targets(session), retain_targets(session))
    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=training.accumulate,
        max_steps=plan.steps,
        learning_rate=training.lr,
        weight_decay=training.weight_decay,
        max_grad_norm=training.clip,
        lr_scheduler_type=training.scheduler,
        warmup_steps=training.warmup_steps,
        optim="adamw_torch_fused",
        save_strategy="no",
        disable_tqdm=True,
        report_to="none",
        use_cpu=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        seed=session.seed,
    )
    trainer = Plain(session.model, arguments, train_dataset=Indices(len(plan)), data_collator=lambda items: items[0])
    trainer.session, trainer.plan, trainer.model_accepts_loss_kwargs = session, plan, False
    trainer.train()
    return {name: weight.detach().clone() for name, weight in session.model.named_parameters()}


@pytest.mark.parametrize(
    "settings",
    [
        {"tune": "lora", "accumulate": 3, "batch_size": 2},
        {"tune": "full", "weight_decay": 0.1, "scheduler": "cosine", "warmup_steps": 1, "clip": 0.5},
    ],
)
def test_the_loop_gives_the_weights_of_the_trainer_bit_for_bit(tmp_path, settings):
    settings = {"epochs": 3, **settings}
    sessions = [make(tmp_path / name, **settings) for name in ("ours", "theirs")]
    for session in sessions:
        session.engine = PLAIN
    ours, theirs = run(sessions[0]), by_the_trainer(sessions[1], tmp_path / "trainer")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_events_fire_as_usual(tmp_path):
    session, recorder = make(tmp_path, epochs=2, batch_size=2, accumulate=2), Recorder()
    session.callbacks = [recorder]
    run(session)
    step = ["on_step_begin", "on_substep_end", *STEP[1:]]
    first = ["on_epoch_begin", *step, *step, "on_save", "on_epoch_end"]
    last = ["on_epoch_begin", *step, *step, "on_epoch_end"]
    assert recorder.events == ["on_init_end", "on_train_begin", *first, *last, "on_log", "on_train_end"]
    ends = [(number, epoch) for event, number, epoch in recorder.steps if event == "on_step_end"]
    assert ends == [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)]
    for logs, row in zip(recorder.logs[:-1], session.history, strict=True):
        assert logs["loss"] == row["loss"]
        assert logs["learning_rate"] == row["lr"]


def test_a_callback_ends_the_run(tmp_path):
    session = make(tmp_path, epochs=3, batch_size=2)
    session.callbacks = [Wish("should_training_stop", step=2)]
    run(session)
    assert session.notes["steps"] == 2
    assert session.notes["stop_reason"] == "stopped at step 2 by the callback Wish"
    assert not (tmp_path / "checkpoints").exists()


def test_a_callback_asks_for_a_checkpoint_and_for_silence(tmp_path):
    session, recorder = make(tmp_path, batch_size=2, max_steps=3), Recorder()
    session.callbacks = [Wish("should_save"), Wish("should_log", value=False, step=2), recorder]
    run(session)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-1"]
    assert len(recorder.logs) == 2 + 1
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3


def test_a_run_that_was_ended_with_a_checkpoint_is_not_gone_on_with(tmp_path):
    session = make(tmp_path, epochs=3, batch_size=2)
    session.callbacks = [Wish("should_training_stop", step=2), Wish("should_save", step=2)]
    weights = run(session)
    again = make(tmp_path, epochs=3, batch_size=2, resume=True)
    assert all(torch.equal(weight, weights[name]) for name, weight in run(again).items())
    assert again.notes["steps"] == 2
    assert again.notes["stop_reason"] == "stopped at step 2 by the callback Wish"


@pytest.mark.parametrize("wish", ["should_epoch_stop", "should_evaluate"])
def test_wishes_that_cannot_be_met_are_refused(tmp_path, wish):
    session = make(tmp_path)
    session.callbacks = [Wish(wish)]
    with pytest.raises(UserError, match=rf"callback Wish sets control.{wish}"):
        run(session)


def test_forget_takes_callbacks_and_classes_of_them(tmp_path):
    recorder, model = Recorder(), save_tiny(tmp_path / "tiny")
    settings = {"max_steps": 2, "stop": "never", "max_new_tokens": 4}
    out = forget(model, EXAMPLE, "ga", tmp_path / "run", training=settings, callbacks=[recorder, TrainerCallback])
    assert recorder.events.count("on_step_end") == 2
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [logs["loss"] for logs in recorder.logs[:-1]] == [row["loss"] for row in rows]


def test_what_is_no_callback_is_refused_before_anything_is_opened(tmp_path):
    with pytest.raises(UserError, match=r"callbacks: expected transformers\.TrainerCallback, got str"):
        forget("no/model", EXAMPLE, "ga", tmp_path / "run", callbacks=["wandb"])
    assert not (tmp_path / "run").exists()


def test_the_published_loop_fires_none(tmp_path):
    from unsee.methods.mmunlearner.method import MMUnlearner

    session = make(tmp_path, tune="full")
    session.callbacks = [Recorder()]
    with pytest.raises(UserError, match="fires no callbacks"):
        MMUnlearner(mode="as_released").unlearn(session)


def test_a_wish_of_another_process_counts(tmp_path, monkeypatch):
    session = make(tmp_path, epochs=3, batch_size=2)
    session.callbacks = [Recorder()]
    monkeypatch.setattr(
        "unsee.training.loop.processes.all_gather", lambda value: [value, True] if value is False else [value]
    )
    monkeypatch.setattr(Loop, "_save", lambda self, folder: None)
    run(session)
    assert session.notes["steps"] == 0


def test_the_published_loop_refuses_a_wrapper_that_it_would_ignore(tmp_path):
    from unsee.methods.mmunlearner.method import MMUnlearner

    session = make(tmp_path, tune="full")
    session.training = replace(session.training, robust="sam")
    with pytest.raises(UserError, match=r"knows no training\.robust"):
        MMUnlearner(mode="as_released").unlearn(session)
