"""The original model: cached, live and second copy say the same; what is kept on disk is found again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from unsee.api import Training
from unsee.api.fast_paths import PLAIN
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import collate
from unsee.losses import IGNORE
from unsee.methods.common import reference_model
from unsee.methods.common.reference_model import StartLogits, StartLogprobs, start_logprobs
from unsee.testing.tiny import tiny_session
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainable import trainable
from unsee.training.trainer import prepare


def made(out, tune="lora", **more):
    training = Training(tune=tune, **more)
    session = tiny_session(out, training=training)
    session.model = prepare(session.model, session.family, training, session.seed)
    return session


def disturb(session):
    """Change all trainable weights, as training would."""
    with torch.no_grad():
        for weight in trainable(session.model).values():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.1)


def forwards(session, monkeypatch):
    calls = []
    forward = session.model.forward
    monkeypatch.setattr(session.model, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    return calls


def test_a_sample_without_labels_has_no_values():
    values_bax, labels_ba = torch.ones(2, 3, 4), torch.tensor([[IGNORE] * 3, [IGNORE, 5, 6]])
    samples = reference_model._split(values_bax, labels_ba)
    assert [(values.shape, labels.tolist()) for values, labels in samples] == [((0, 4), []), ((2, 4), [5, 6])]


@pytest.mark.parametrize("tune", ["lora", "full"])
@pytest.mark.parametrize("split", [1, 10**6])
def test_kept_states_say_what_the_start_model_said(tmp_path, tune, split, monkeypatch):
    monkeypatch.setattr("unsee.inference.batching.WORTH_SPLITTING", split)
    session = made(tmp_path, tune)
    targets = [*retain_targets(session), *forget_targets(session)[:3]]
    targets += [replace(target, text="Of this image I say nothing .") for target in targets[-2:]]
    batch = collate(session, targets)
    said, labels = answer_logits(session.model, batch)
    start = StartLogits(session, targets, teacher="cached")
    if tune == "lora":
        start(targets, labels)
    disturb(session)
    calls = forwards(session, monkeypatch)
    mask = labels != -100
    assert torch.allclose(start(targets, labels)[mask], said[mask], atol=1e-5)
    assert torch.allclose(start(targets[3:5], labels[3:5])[mask[3:5]], said[3:5][mask[3:5]], atol=1e-5)
    assert not calls
    assert start.head.plain
    states = next(iter(start._outputs.values()))[0]
    assert states.shape[-1] == 32 < said.shape[-1]


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_a_head_with_something_behind_it_keeps_logits(tmp_path, tune, monkeypatch):
    session = made(tmp_path, tune)
    inner = session.model.get_base_model() if tune == "lora" else session.model
    forward = inner.forward

    def capped(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = torch.tanh(output.logits / 3) * 3
        return output

    monkeypatch.setattr(inner, "forward", capped)
    targets = forget_targets(session)[:4]
    said, labels = answer_logits(session.model, collate(session, targets))
    start = StartLogits(session, targets, teacher="cached")
    assert torch.allclose(start(targets, labels)[labels != -100], said[labels != -100], atol=1e-5)
    assert start.head.plain is False


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_values_are_computed_ahead_so_that_no_later_batch_changes_their_last_bits(tmp_path, tune, monkeypatch):
    """A resumed run meets a target in another batch than the run that was cut off did."""
    session = made(tmp_path, tune)
    targets = [*forget_targets(session), *retain_targets(session)]
    labels = answer_logits(session.model, collate(session, targets[1:4]))[1]
    start, other = StartLogits(session, targets), StartLogits(session, targets)
    monkeypatch.setattr(reference_model, "answer_logits", None)  # no forward pass from here on
    first = other(targets[:1], answer_logits(session.model, collate(session, targets[:1]))[1])
    assert first.isfinite().all()
    assert torch.equal(start(targets[1:4], labels), other(targets[1:4], labels))


@pytest.mark.parametrize("teacher", ["auto", "cached"])
def test_what_does_not_fit_is_not_computed_to_its_end(tmp_path, teacher, monkeypatch):
    session = made(tmp_path, "lora")
    targets = [replace(target, text=f"{target.text} {n}") for n in range(20) for target in forget_targets(session)]
    monkeypatch.setattr(reference_model, "CACHE_BYTES", 100_000)
    calls = forwards(session, monkeypatch)
    start = StartLogits(session, targets, teacher=teacher)
    assert (len(start._outputs), len(calls) > 1) == ((0, False) if teacher == "auto" else (len(targets), True))


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_without_room_the_teacher_is_asked_again(tmp_path, tune, monkeypatch):
    monkeypatch.setattr(reference_model, "CACHE_BYTES", 0)
    session = made(tmp_path, tune)
    targets = forget_targets(session)[:2]
    said, labels = answer_logits(session.model, collate(session, targets))
    start = StartLogits(session, targets)
    disturb(session)
    assert torch.allclose(start(targets, labels)[labels != -100], said[labels != -100], atol=1e-5)
    assert (start._model is session.model) == (tune == "lora")


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_plain_engine_asks_a_second_model(tmp_path, tune):
    fast, plain = made(tmp_path / "a", tune), made(tmp_path / "b", tune)
    targets = forget_targets(fast)[:4]
    batch = collate(fast, targets)
    one = StartLogprobs(fast, targets)
    plain.engine = PLAIN
    other = StartLogprobs(plain, targets)
    logits = StartLogits(plain, targets)
    assert one.second is None
    assert other.second is not None
    disturb(plain)
    assert torch.allclose(one(batch), other(batch), atol=1e-4)
    labels = answer_logits(fast.model, batch)[1]
    kept = StartLogits(fast, targets)(targets, labels)
    mask = labels != -100
    assert torch.allclose(kept[mask], logits(targets, labels)[mask], atol=1e-5)


def test_a_second_model_is_asked_without_the_adapter_that_was_loaded(tmp_path):
    """With `training.adapter` the reference is the base, in either engine."""
    fast, plain = made(tmp_path / "a"), made(tmp_path / "b")
    targets = forget_targets(fast)[:4]
    plain.engine = PLAIN
    for session in (fast, plain):
        disturb(session)
    batch = collate(fast, targets)
    assert torch.allclose(StartLogprobs(fast, targets)(batch), StartLogprobs(plain, targets)(batch), atol=1e-4)


def test_likelihoods_are_shared_by_runs_with_equal_weights(tmp_path, monkeypatch):
    first = made(tmp_path / "runs" / "a")
    targets = forget_targets(first)
    asked = start_logprobs(first, targets)
    assert len(list((tmp_path / "runs" / "cache" / "likelihoods").iterdir())) == 1
    second = made(tmp_path / "runs" / "b", tune="full", lr=1e-3)
    calls = forwards(second, monkeypatch)
    assert start_logprobs(second, targets) == asked
    assert not calls
    other = [replace(target, text="This is somebody else .") for target in targets]
    assert start_logprobs(second, other) != asked
    assert calls


def test_likelihoods_of_other_weights_or_precision_are_not_taken(tmp_path):
    first = made(tmp_path / "a")
    targets = forget_targets(first)[:3]
    asked = start_logprobs(first, targets)
    changed = made(tmp_path / "b", tune="full")
    disturb(changed)
    assert start_logprobs(changed, targets) != asked
    half = made(tmp_path / "c", precision="bf16")
    assert start_logprobs(half, targets) != asked


def test_a_live_copy_is_never_made_by_the_fast_engine(tmp_path, monkeypatch):
    monkeypatch.setattr(reference_model, "_second", None)
    session = made(tmp_path, "full")
    StartLogprobs(session, forget_targets(session))
    StartLogits(session, retain_targets(session))
