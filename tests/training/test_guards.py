"""The collapse guard: sees a collapse, gives sound weights back, leaves a sound run alone."""

from __future__ import annotations

import errno
import json
from dataclasses import replace

import pytest
import torch
from transformers import TrainerCallback

from unsee.api import Training
from unsee.api.request import Completion
from unsee.errors import NotFiniteError, TrainingError
from unsee.inference.answer_logits import answer_logits
from unsee.losses import answer_nll
from unsee.testing.tiny import tiny_session
from unsee.training import collapse_guard
from unsee.training.collapse_guard import spread
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainable import trainable
from unsee.training.trainer import minimise, prepare


def make(out, **settings):
    given = {"lr": 1e-3, "stop": "never", "max_new_tokens": 6, "check_every": 1, "guard": "collapse", **settings}
    training = Training(**given)
    session = tiny_session(out, training=training, resume=False)
    session.model = prepare(session.model, session.family, training, session.seed)
    return session


def descend(session, sign=1.0, seen=None):
    """Go down (or up) on the retain answers."""

    def objective(forget, retain):
        if seen is not None:
            seen.append({name: weight.detach().clone() for name, weight in trainable(session.model).items()})
        return {"loss": sign * answer_nll(*answer_logits(session.model, retain))}

    minimise(session, objective, forget=forget_targets(session), retain=retain_targets(session))


@pytest.fixture
def fluent(monkeypatch):
    """Answers that are language, whatever the random model says."""
    said = []

    def answer(vlm, requests, **_):
        said.append(list(requests))
        return [Completion("a sound answer", (1, 2, 3), ended=True) for _ in requests]

    monkeypatch.setattr(collapse_guard, "generate", answer)
    return said


@pytest.mark.parametrize(("tune", "lr", "times", "least"), [("lora", 0.002, 1.0, 0.3), ("full", 0.05, 2.0, 0.5)])
def test_a_collapse_ends_the_run_with_the_weights_before(tune, lr, times, least, tmp_path, fluent, monkeypatch):
    monkeypatch.setattr(
        collapse_guard, "TIMES", times
    )  # the head of a tiny model is frozen under LoRA and says nothing very wrong
    monkeypatch.setattr(collapse_guard, "LEAST", least)
    session, seen = make(tmp_path, tune=tune, lr=lr, epochs=50), []
    descend(session, sign=-1.0, seen=seen)
    steps = session.notes["steps"]
    assert 1 < steps < 100
    reason = session.notes["stop_reason"]
    assert reason.startswith(f"collapsed at step {steps} (loss on ")
    assert reason.endswith("weights of the check before")
    last = seen[-1]  # before the step after which the collapse was found
    assert all(torch.equal(weight, last[name]) for name, weight in trainable(session.model).items())
    start = json.loads((tmp_path / "work" / "guard.json").read_text())["start_retain_ce"]
    losses = [row["guard_ce"] for row in session.history]
    assert losses[-1] > max(times * start, start + least) >= max(losses[:-1])
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["guard_ce"] == losses[-1]


@pytest.mark.parametrize("check_every", [3, 0])
def test_the_last_weights_are_looked_at_too(check_every, tmp_path, fluent, monkeypatch):
    steps = 4 if check_every else 1  # an epoch has more
    session, seen = make(tmp_path, max_steps=steps, check_every=check_every), []
    monkeypatch.setattr(collapse_guard.CollapseGuard, "_why", lambda guard: "planted" if len(seen) == steps else "")
    descend(session, seen=seen)
    assert session.notes["stop_reason"] == f"collapsed at step {steps} (planted); weights of the check before"
    last = seen[-1]  # after step 3, or at the start
    assert all(torch.equal(weight, last[name]) for name, weight in trainable(session.model).items())


def test_output_that_is_no_number_is_a_collapse(tmp_path, monkeypatch):
    rounds = []

    def answer(_vlm, requests, **_):
        rounds.append(len(requests))
        if len(rounds) > 1:
            raise NotFiniteError("request 1", 0)
        return [Completion("a sound answer", (1,), ended=True) for _ in requests]

    monkeypatch.setattr(collapse_guard, "generate", answer)
    session, seen = make(tmp_path, max_steps=1), []
    descend(session, seen=seen)
    assert session.notes["stop_reason"].startswith("collapsed at step 1 (the output on ")
    assert session.notes["stop_reason"].endswith(" questions is not finite); weights of the check before")
    assert all(torch.equal(weight, seen[0][name]) for name, weight in trainable(session.model).items())


@pytest.mark.parametrize("event", ["on_step_end", "on_epoch_end"])
def test_the_weights_at_which_a_callback_ends_the_run_are_looked_at_too(event, tmp_path, fluent, monkeypatch):
    def end(_self, _args, state, control, **_):
        control.should_training_stop |= state.global_step >= 2

    steps = 2  # an epoch, after which no check is due
    session, seen = make(tmp_path, epochs=3, batch_size=5, check_every=5), []
    session.callbacks = [type("End", (TrainerCallback,), {event: end})()]
    monkeypatch.setattr(collapse_guard.CollapseGuard, "_why", lambda _: "planted")
    descend(session, seen=seen)
    assert session.notes["stop_reason"] == f"collapsed at step {steps} (planted); weights of the check before"
    assert all(torch.equal(weight, seen[0][name]) for name, weight in trainable(session.model).items())


def test_a_full_disk_at_a_check_is_named(tmp_path, fluent, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(collapse_guard, "save_trainable", full)
    with pytest.raises(TrainingError, match=r"disk of .*last_good is full: the weights of this check need"):
        descend(make(tmp_path, max_steps=1))


def test_a_sound_run_goes_to_its_end(tmp_path, fluent):
    session = make(tmp_path, epochs=2)
    descend(session)
    assert session.notes["stop_reason"] == "all steps done"
    losses = [row["guard_ce"] for row in session.history]
    assert losses[-1] < losses[0]
    assert {row["guard_degenerate"] for row in session.history} == {0.0}
    asked = fluent[0]
    roles = [len(forget_targets(session)), len(retain_targets(session))]
    assert len(asked) == min(16, roles[0]) + min(16, roles[1])


@pytest.mark.parametrize(
    ("start", "bad", "ends"),
    [
        ("a sound answer", "", True),
        ("a sound answer", "no no no no no no no no no no", True),
        ("a sound answer", "yes", False),
        ("", "", False),  # as the original model does
    ],
)
def test_answers_that_are_no_language(start, bad, ends, tmp_path, monkeypatch):
    said = iter([start])

    def answer(vlm, requests, **_):
        often = next(said, bad)
        texts = [often if place % 4 == 0 else "a sound answer" for place in range(len(requests))]
        return [Completion(text, (1,), ended=True) for text in texts]

    monkeypatch.setattr(collapse_guard, "generate", answer)
    session = make(tmp_path, epochs=1)
    descend(session)
    assert session.notes["stop_reason"].startswith("collapsed at step 1 (") is ends
    assert ("answers empty or repeating" in session.notes["stop_reason"]) is ends


@pytest.mark.parametrize("share_kept", [True, False])
def test_the_start_is_not_measured_anew_on_resuming(share_kept, tmp_path, fluent):
    session = make(tmp_path, epochs=1, checkpoint_every=1)
    calls = []

    def killed(forget, retain):
        calls.append(forget.index)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"loss": answer_nll(*answer_logits(session.model, retain))}

    with pytest.raises(KeyboardInterrupt):
        minimise(session, killed, forget=forget_targets(session), retain=retain_targets(session))
    start = json.loads((tmp_path / "work" / "guard.json").read_text())
    assert start["start_degenerate"] == 0
    if not share_kept:  # as earlier versions wrote it
        del start["start_degenerate"]
        (tmp_path / "work" / "guard.json").write_text(json.dumps(start))
    again = replace(make(tmp_path, epochs=1, checkpoint_every=1), resume=True)
    descend(again)
    assert json.loads((tmp_path / "work" / "guard.json").read_text()) == start
    assert again.notes["stop_reason"] == "all steps done"


def test_what_stays_is_looked_at_even_if_nothing_is_trained_on_it(tmp_path, fluent):
    session = make(tmp_path, epochs=1)

    def objective(forget, retain):
        assert retain is None
        return {"loss": answer_nll(*answer_logits(session.model, forget))}

    minimise(session, objective, forget=forget_targets(session))
    assert session.history[-1]["guard_ce"] > 0
    assert len(fluent[0]) == min(16, len(forget_targets(session))) + min(16, len(retain_targets(session)))


def test_without_the_guard_nobody_is_asked(tmp_path, fluent):
    session = make(tmp_path, epochs=1, guard="none")
    descend(session)
    assert not fluent
    assert "guard_ce" not in session.history[-1]
    assert not (tmp_path / "last_good").exists()


def test_probes_are_distinct_and_spread(tmp_path):
    targets = retain_targets(tiny_session(tmp_path, training=Training()))
    chosen = spread([*targets, *targets], 3)
    assert len({one.key for one in chosen}) == 3
    assert chosen[0].key == targets[0].key
    assert spread([], 3) == []
