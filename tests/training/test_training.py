"""The training loop: what trains, in what order, when it stops, and that nothing is lost."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from helpers.training import make, nll, run
from unsee.api import Training
from unsee.api.fast_paths import engine_named
from unsee.distributed import processes
from unsee.errors import TrainingError, UserError
from unsee.inference.answer_logits import answer_logits, answer_logprob
from unsee.inference.batching import collate
from unsee.losses import answer_nll, npo_loss
from unsee.testing.tiny import tiny_session
from unsee.training.batch_plan import Plan
from unsee.training.callbacks import TrainingMonitor
from unsee.training.loop import _Batches
from unsee.training.precision import half
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainable import trainable
from unsee.training.trainer import minimise, plan_batches, prepare
from unsee.utils import terminal


@pytest.mark.parametrize("tune", ["lora", "full"])
@pytest.mark.parametrize("part", ["vision", "projector", "language"])
def test_only_the_chosen_part_trains(tmp_path, tune, part):
    session = make(tmp_path, tune=tune, parts=(part,), max_steps=1)
    before = {name: weight.detach().clone() for name, weight in session.model.named_parameters()}
    after = run(session)
    place = {"vision": "vision_tower", "projector": "multi_modal_projector", "language": "language_model"}[part]
    changed = [name for name in after if not torch.equal(before[name], after[name])]
    assert changed
    assert all(place in name or (part == "language" and "lm_head" in name) for name in changed)
    if tune == "lora":
        assert all("lora" in name and "lm_head" not in name for name in changed)
        assert {weight.dtype for weight in trainable(session.model).values()} == {torch.float32}
    assert session.notes["trainable"] == sum(weight.numel() for weight in trainable(session.model).values())


def test_unknown_part_is_refused(tmp_path):
    session = tiny_session(tmp_path, training=Training(parts=("projector",)))
    session.model.model.multi_modal_projector = torch.nn.Identity()
    with pytest.raises(UserError, match="matches no weight"):
        prepare(session.model, session.family, session.training, 0)


def test_second_adapter_is_refused(tmp_path):
    session = make(tmp_path)
    with pytest.raises(UserError, match="carries an adapter already"):
        prepare(session.model, session.family, session.training, 0)


def test_start_of_lora_is_the_start_model(tmp_path):
    session = tiny_session(tmp_path)
    batch = collate(session, forget_targets(session))
    before, _ = answer_logits(session.model, batch)
    adapted = prepare(session.model, session.family, session.training, 0)
    assert torch.equal(answer_logits(adapted, batch)[0], before)


@pytest.mark.smoke
@pytest.mark.parametrize("tune", ["lora", "full"])
def test_resume_after_a_kill_in_mid_epoch_gives_the_same_weights(tmp_path, tune):
    settings = {"tune": tune, "epochs": 3, "batch_size": 2, "checkpoint_every": 3, "dropout": 0.1}
    whole = run(make(tmp_path / "whole", **settings))
    session = make(tmp_path / "cut", **settings)
    calls = []

    def killed(forget, retain):
        calls.append(forget.index)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return nll(session)(forget, retain)

    with pytest.raises(KeyboardInterrupt):
        run(session, killed)
    resumed = make(tmp_path / "cut", resume=True, **settings)
    seen = []

    def watched(forget, retain):
        seen.append(forget.index)
        return nll(resumed)(forget, retain)

    again = run(resumed, watched)
    assert seen[0] == 3
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    rows = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows == resumed.history


def test_half_written_checkpoint_is_not_used(tmp_path):
    session = make(tmp_path, checkpoint_every=1, batch_size=2)

    def killed(forget, retain):
        if forget.index == 3:
            raise KeyboardInterrupt
        return nll(session)(forget, retain)

    with pytest.raises(KeyboardInterrupt):
        run(session, killed)
    (tmp_path / "checkpoints" / "checkpoint-3" / "complete").unlink()
    resumed = make(tmp_path, resume=True, checkpoint_every=1, batch_size=2)
    first = []
    run(resumed, lambda forget, retain: (first.append(forget.index), nll(resumed)(forget, retain))[1])
    assert first[0] == 2


def test_same_seed_same_batches_other_seed_others(tmp_path):
    session = make(tmp_path)
    forget, retain = tuple(forget_targets(session)), tuple(retain_targets(session))
    training = Training(epochs=3, batch_size=3)

    def ids(seed):
        plan = Plan(forget, retain, training, seed)
        return [[t.example.id for side in plan.batch(i) for t in side] for i in range(len(plan))]

    assert ids(0) == ids(0) != ids(1)
    batches = [Plan(forget, retain, training, 0).batch(i) for i in range(3)]
    assert sorted(t.example.id for f, _ in batches for t in f) == sorted(t.example.id for t in forget)
    assert all(len(r) == 3 for _, r in batches)
    drawn = [t.example.id for i in range(5) for t in Plan(forget, retain, training, 0).batch(i)[1]]
    assert all(sorted(drawn[i : i + 5]) == sorted(t.example.id for t in retain) for i in (0, 5, 10))


def test_epochs_and_steps(tmp_path):
    session = make(tmp_path, epochs=2, batch_size=3, accumulate=2)
    count = []
    run(session, lambda forget, retain: (count.append(1), nll(session)(forget, retain))[1])
    assert len(count) == 6
    assert session.notes["steps"] == 3
    assert session.notes["epochs"] == 2.0
    assert session.notes["stop_reason"] == "all steps done"
    capped = make(tmp_path / "b", epochs=2, batch_size=3, max_steps=2)
    run(capped)
    assert capped.notes["steps"] == 2


@pytest.mark.parametrize(
    ("scheduler", "curve"),
    [
        ("linear", lambda k, n: 1 - k / n),
        ("cosine", lambda k, n: 0.5 * (1 + math.cos(math.pi * k / n))),
        ("constant", lambda k, n: 1.0),
    ],
)
def test_learning_rate_follows_the_curve_per_step(tmp_path, scheduler, curve):
    session = make(tmp_path, epochs=3, scheduler=scheduler)
    run(session)
    rates = [row["lr"] for row in session.history]
    assert rates == pytest.approx([1e-3 * curve(k, 6) for k in range(6)])


def test_accumulation_scales_the_final_loss_only(tmp_path):
    """NPO with 4 batches of 2 equals one batch of 8: nothing is divided inside the sigmoid."""
    grads = []
    for size, accumulate in ((8, 1), (2, 4)):
        session = make(tmp_path / str(size), batch_size=size, accumulate=accumulate, scheduler="constant", clip=0.0)

        def objective(forget, retain, session=session):
            logp = answer_logprob(session.model, forget).sum_b
            return {"loss": npo_loss(logp, logp.detach() + torch.arange(len(logp)) * 0 + 1.0)}

        run(session, objective)
        assert session.notes["steps"] == 1
        grads.append(session.history[0]["grad_norm"])
    assert grads[0] == pytest.approx(grads[1], rel=1e-4)


def terms(session, seen=None):
    """The objective of `nll`, term by term; `seen` gets the gradient norm found after each yield."""

    def objective(forget, retain):
        for name, batch in (("forget", forget), ("retain", retain)):
            loss = answer_nll(*answer_logits(session.model, batch))
            yield {"loss": loss, name: loss}
            if seen is not None:
                grads = [weight.grad for weight in trainable(session.model).values() if weight.grad is not None]
                seen.append(float(torch.nn.utils.get_total_norm(grads)) if grads else 0.0)

    return objective


@pytest.mark.parametrize("settings", [{}, {"batch_size": 2, "accumulate": 3}, {"gradient_checkpointing": True}])
def test_terms_apart_give_the_weights_of_their_sum(tmp_path, settings):
    whole = run(one := make(tmp_path / "whole", **settings))
    apart = run(two := make(tmp_path / "apart", **settings), terms(two))
    assert all(torch.allclose(whole[name], apart[name], atol=1e-6) for name in whole)
    assert one.history[0]["loss"] == pytest.approx(two.history[0]["loss"], rel=1e-5)
    assert two.history[0]["loss"] == pytest.approx(two.history[0]["forget"] + two.history[0]["retain"], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "separate", "apart"), [("fast", False, True), ("plain", False, False), ("plain", True, True)]
)
def test_a_term_is_backpropagated_when_yielded(tmp_path, name, separate, apart):
    session, seen = make(tmp_path, max_steps=1), []
    session.engine = engine_named(name)
    minimise(
        session,
        terms(session, seen),
        forget=forget_targets(session),
        retain=retain_targets(session),
        separate=separate,
    )
    assert [norm > 0 for norm in seen] == [apart, apart]


def test_nan_stops_before_the_step_names_it_and_keeps_the_weights(tmp_path):
    session = make(tmp_path, batch_size=2)
    start = {name: weight.detach().clone() for name, weight in trainable(session.model).items()}
    good, met = {}, []

    def objective(forget, retain):
        parts = nll(session)(forget, retain)
        if forget.index == 1:
            good.update({name: weight.detach().clone() for name, weight in trainable(session.model).items()})
            met.extend([*forget.examples, *retain.examples])
            return {"loss": parts["loss"] * float("nan")}
        return parts

    with pytest.raises(TrainingError, match=r"loss is not a finite number at step 2 \(examples .*-.*\)") as told:
        run(session, objective)
    assert all(example.id in str(told.value) for example in met)
    assert any(not torch.equal(start[name], good[name]) for name in start)
    assert all(torch.equal(weight, good[name]) for name, weight in trainable(session.model).items())
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "last_good" / "trainable.safetensors")
    assert all(torch.equal(saved[name], good[name]) for name in good)


def test_infinite_gradient_stops_the_run(tmp_path):
    session = make(tmp_path)

    def objective(forget, retain):
        loss = nll(session)(forget, retain)["loss"]
        return {"loss": (loss - loss.detach()).abs().sqrt()}

    with pytest.raises(TrainingError, match="gradient is not a finite number at step 1"):
        run(session, objective)


def test_loss_without_gradient_is_refused(tmp_path):
    session = make(tmp_path, batch_size=4)
    with pytest.raises(TrainingError, match="no gradient"):
        run(session, lambda forget, retain: {"loss": nll(session)(forget, retain)["loss"] * 0.0})


def test_samples_beyond_the_floor_of_the_first_batch_do_not_end_the_run(tmp_path):
    session = make(tmp_path, batch_size=4)

    def objective(forget, retain):
        loss = nll(session)(forget, None)["loss"]
        return {"loss": loss.detach() + (loss - loss.detach()) * forget.index}

    minimise(session, objective, forget=forget_targets(session))
    norms = [row["grad_norm"] for row in session.history]
    assert norms[0] == 0
    assert norms[1] > 0


class Stepped:
    """Stands in for DeepSpeed: steps, and tells this norm."""

    def __init__(self, optimizer, norm):
        self.steps = optimizer
        self.norm = norm

    def backward(self, loss):
        loss.backward()

    def grad_norm(self):
        return self.norm


@pytest.mark.parametrize(("norm", "message"), [(0.0, "no gradient"), (float("nan"), "gradient is not a finite")])
def test_gradients_are_checked_under_deepspeed(tmp_path, monkeypatch, norm, message):
    monkeypatch.setattr(processes, "sharding", lambda: "zero3")
    monkeypatch.setattr("unsee.training.trainer.require_possible", lambda *_: None)
    monkeypatch.setattr("unsee.training.loop.Zero", lambda _, optimizer, __: Stepped(optimizer, norm))
    with pytest.raises(TrainingError, match=message):
        run(make(tmp_path))


def test_error_in_the_objective_is_not_swallowed(tmp_path):
    session = make(tmp_path)

    def objective(forget, retain):
        raise MemoryError("planted")

    with pytest.raises(MemoryError, match="planted"):
        run(session, objective)


def test_nothing_to_forget_is_refused(tmp_path):
    session = make(tmp_path)
    with pytest.raises(UserError, match="nothing to forget"):
        minimise(session, nll(session), forget=[])


def test_stop_rule_ends_the_run_and_is_logged(tmp_path):
    """A random model names nobody: USR is 1 at the first check."""
    session = make(tmp_path, epochs=5, stop="forgotten", check_every=1)
    run(session)
    assert session.notes["steps"] == 1
    assert session.notes["stop_reason"] == "forgotten at step 1 (USR 1.0 on 8 seen questions)"
    assert session.history[-1]["usr"] == 1.0


def test_no_generation_within_a_step(tmp_path, monkeypatch):
    session = make(tmp_path, epochs=1)
    monkeypatch.setattr("unsee.training.stop_rule.generate", lambda *a, **k: pytest.fail("generated"))
    run(session)


def test_gradient_checkpointing_trains_the_adapters_alike(tmp_path):
    weights = [run(make(tmp_path / str(on), gradient_checkpointing=on, max_steps=2)) for on in (False, True)]
    assert any(weight.abs().sum() > 0 for name, weight in weights[1].items() if "lora_B" in name)
    for name in weights[0]:
        assert torch.allclose(weights[0][name], weights[1][name], atol=1e-5)


def test_small_steps_reach_almost_every_weight(tmp_path):
    """fp32 weights: a step of 1e-5 is not rounded away."""
    session = make(tmp_path, tune="full", lr=1e-5, max_steps=1)
    before = {name: weight.detach().clone() for name, weight in trainable(session.model).items()}
    after = run(session)
    layers = [name for name in before if "layers" in name]
    changed = sum(int((before[name] != after[name]).sum()) for name in layers)
    assert changed > 0.99 * sum(before[name].numel() for name in layers)


def test_bf16_autocast_leaves_fp32_weights(tmp_path):
    session = make(tmp_path, precision="bf16", max_steps=2)
    run(session)
    assert {weight.dtype for weight in session.model.parameters()} == {torch.float32}
    assert math.isfinite(session.history[-1]["loss"])


@pytest.mark.parametrize(("precision", "wanted"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_no_weight_stays_float16(tmp_path, precision, wanted):
    session = tiny_session(tmp_path, training=Training(precision=precision))
    model = prepare(session.model.half(), session.family, session.training, 0)
    assert {weight.dtype for weight in model.parameters() if not weight.requires_grad} == {wanted}
    assert {weight.dtype for weight in trainable(model).values()} == {torch.float32}


def test_emulated_bf16_is_not_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not half(Training())


def test_resumed_run_stops_where_the_uninterrupted_one_stops(tmp_path, monkeypatch):
    """The checks of the stop rule replay alike; the stopping step leaves no checkpoint to go on from."""
    settings = {"epochs": 4, "batch_size": 2, "stop": "forgotten", "check_every": 2, "checkpoint_every": 1}

    def planted(session, probes):
        norm = sum(weight.abs().sum().item() for name, weight in trainable(session.model).items() if "lora_B" in name)
        return 1.0 if norm > limit else 0.5

    monkeypatch.setattr("unsee.training.callbacks.unlearning_success", planted)
    limit = float("inf")
    probe = make(tmp_path / "probe", **settings, max_steps=4)
    run(probe)
    limit = 0.99 * sum(w.abs().sum().item() for name, w in trainable(probe.model).items() if "lora_B" in name)
    whole = make(tmp_path / "whole", **settings)
    weights = run(whole)
    assert whole.notes["stop_reason"].startswith("forgotten at step")
    session = make(tmp_path / "cut", **settings)

    def killed(forget, retain):
        if forget.index == 3:
            raise KeyboardInterrupt
        return nll(session)(forget, retain)

    with pytest.raises(KeyboardInterrupt):
        run(session, killed)
    resumed = make(tmp_path / "cut", resume=True, **settings)
    again = run(resumed)
    assert resumed.notes["stop_reason"] == whole.notes["stop_reason"]
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    twice = make(tmp_path / "cut", resume=True, **settings)
    run(twice)
    assert twice.notes["stop_reason"] == whole.notes["stop_reason"]
    assert twice.history == resumed.history


def test_batches_made_ahead_are_those_of_the_plan(tmp_path):
    """On a GPU the next batch is made in the background; here the thread is put in by hand."""
    session = make(tmp_path, batch_size=2)
    plan = plan_batches(session, forget_targets(session), retain_targets(session))
    plain, ahead = _Batches(session, plan), _Batches(session, plan)
    assert plain.ahead is None
    ahead.ahead = ThreadPoolExecutor(1)
    for index in [0, 1, 2, len(plan) - 1, 1]:
        for one, other in zip(plain[index], ahead[index], strict=True):
            assert one.targets == other.targets
            assert torch.equal(one.inputs["input_ids"], other.inputs["input_ids"])
    assert ahead.next[0] == 2


def test_the_plan_says_which_retain_targets_are_met(tmp_path):
    session = make(tmp_path, batch_size=2, max_steps=1)
    met = plan_batches(session, forget_targets(session), retain_targets(session)).met()
    seen = []

    def objective(forget, retain):
        seen.extend(target.key for target in retain.targets)
        return nll(session)(forget, retain)

    run(session, objective)
    assert {target.key for target in met} == set(seen)
    assert len(met) < len(retain_targets(session))


def test_batches_by_image_hold_one_image_and_miss_nothing(tmp_path):
    session = tiny_session(tmp_path)
    targets = forget_targets(session)
    images = {target.example.image.key for target in targets}
    size = len(targets) // len(images)
    orders = []
    for by_image in (False, True):
        plan = Plan(targets, (), Training(batch_size=size, by_image=by_image, epochs=2), 3)
        epoch = [plan.batch(index)[0] for index in range(plan.per_epoch)]
        assert sorted(t.example.id for batch in epoch for t in batch) == sorted(t.example.id for t in targets)
        orders.append([{target.example.image.key for target in batch} for batch in epoch])
        assert epoch != [plan.batch(index)[0] for index in range(plan.per_epoch, 2 * plan.per_epoch)]
    assert all(len(keys) == 1 for keys in orders[1])
    assert any(len(keys) > 1 for keys in orders[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": 99, "epochs": 1}, "training.max_steps=99 has no effect: training.epochs=1 ends after 2 steps."),
        ({"max_steps": 2, "check_every": 5}, "training.check_every=5 has no effect: the run has 2 steps."),
        ({"max_steps": 2, "check_every": 5, "stop": "never"}, ""),
        ({"max_steps": 2, "epochs": 1}, ""),
    ],
)
def test_settings_that_the_number_of_steps_leaves_without_effect_are_told(
    tmp_path, capsys, monkeypatch, settings, message
):
    monkeypatch.setattr(terminal, "_NOTED", set())
    session = tiny_session(tmp_path, training=Training(**settings))
    targets = forget_targets(session)
    session.training = replace(session.training, batch_size=-(-len(targets) // 2))
    plan_batches(session, targets, ())
    assert capsys.readouterr().err == (f"unsee: {message}\n" if message else "")


@pytest.mark.parametrize(("private", "told"), [(True, False), (False, True)])
def test_a_stop_rule_without_anything_to_look_for_is_told(tmp_path, capsys, monkeypatch, private, told):
    monkeypatch.setattr(terminal, "_NOTED", set())
    session = tiny_session(tmp_path, training=Training(max_steps=1))
    targets = [
        target if private else replace(target, example=replace(target.example, private={}))
        for target in forget_targets(session)
    ]
    TrainingMonitor(session, plan_batches(session, targets, ()))
    assert ("training.stop=forgotten has no effect: no forget row" in capsys.readouterr().err) == told
