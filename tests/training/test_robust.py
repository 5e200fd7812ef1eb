"""Wrappers around any loss: gradients against formulas, no effect at strength 0, resumable."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file

from helpers.training import make, nll, run
from unsee.errors import TrainingError, UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import collate
from unsee.losses import answer_nll
from unsee.methods.finetune import Finetune
from unsee.models.steering.hooks import decoder_layers
from unsee.training.batch_plan import Plan
from unsee.training.callbacks import TrainingMonitor
from unsee.training.latent import Latent
from unsee.training.loop import Loop
from unsee.training.robust import Average, noise, sam_shift, shifted
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainable import WEIGHTS, trainable
from unsee.training.trainer import minimise
from unsee.utils.seeds import seed_of

ONE = {"tune": "full", "batch_size": 2, "max_steps": 1}


def difference(session):
    """Return the objective of gradient difference, with a retain weight of 2."""

    def objective(forget, retain):
        forget_nll = answer_nll(*answer_logits(session.model, forget))
        yield {"loss": -forget_nll, "forget_nll": forget_nll}
        retain_nll = answer_nll(*answer_logits(session.model, retain))
        yield {"loss": 2 * retain_nll, "retain_nll": retain_nll}

    return objective


def loop_gradients(session, objective):
    """Return the gradients of one batch as the loop makes them, and the batch."""
    plan = Plan(forget_targets(session), retain_targets(session), session.training, session.seed)
    loop = Loop(session, plan, objective, apart=True, forward=nullcontext)
    loop._prepare(None)
    forget, retain = loop.batches[0]
    loop.backpropagate(forget, retain, 1)
    return [weight.grad.clone() for weight in trainable(session.model).values()], forget, retain


def by_hand(session, batch):
    """Return the gradients of the cross-entropy of a batch."""
    weights = list(trainable(session.model).values())
    return torch.autograd.grad(answer_nll(*answer_logits(session.model, batch)), weights, allow_unused=True)


def summed(*terms):
    """Return the sum of weighted gradient lists; None counts as 0."""
    return [
        sum(factor * grad for (factor, _), grad in zip(terms, grads, strict=True) if grad is not None)
        for grads in zip(*(grads for _, grads in terms), strict=True)
    ]


def require_close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, torch.as_tensor(other).expand_as(one), rtol=1e-4, atol=1e-6)


def test_sam_takes_the_forget_gradient_uphill_and_the_retain_gradient_in_place(tmp_path):
    session = make(tmp_path, robust="sam", robust_rho=0.5, **ONE)
    found, forget, retain = loop_gradients(session, difference(session))
    weights = list(trainable(session.model).values())
    ascent = [None if grad is None else -grad for grad in by_hand(session, forget)]
    norm = sum(float(grad.double().square().sum()) for grad in ascent if grad is not None) ** 0.5
    shift = [torch.zeros_like(w) if g is None else 0.5 * g / norm for w, g in zip(weights, ascent, strict=True)]
    plain, kept = by_hand(session, forget), by_hand(session, retain)
    with shifted(weights, shift):
        there = by_hand(session, forget)
    require_close(found, summed((-1, there), (2, kept)))
    assert max(float((a - b).abs().max()) for a, b in zip(there, plain, strict=True) if a is not None) > 1e-3


def test_smoothing_averages_forget_gradients_at_noisy_weights(tmp_path):
    session = make(tmp_path, robust="smoothing", robust_sigma=0.05, robust_draws=2, **ONE)
    found, forget, retain = loop_gradients(session, difference(session))
    weights = list(trainable(session.model).values())
    noisy = []
    for draw in range(2):
        with shifted(weights, noise(weights, 0.05, seed_of(session.seed, "smoothing", forget.index, draw))):
            noisy.append(by_hand(session, forget))
    require_close(found, summed((-0.5, noisy[0]), (-0.5, noisy[1]), (2, by_hand(session, retain))))


def test_noise_has_the_standard_deviation_asked_for():
    (drawn,) = noise([torch.nn.Parameter(torch.zeros(200, 200))], 0.3, 1)
    assert float(drawn.std()) == pytest.approx(0.3, rel=0.02)
    assert float(drawn.mean()) == pytest.approx(0, abs=0.01)


def test_sam_shift_has_length_rho_and_stays_where_there_is_no_gradient():
    shift = sam_shift([torch.tensor([3.0]), torch.tensor([0.0, 4.0])], 0.1)
    assert torch.allclose(torch.cat(shift), torch.tensor([0.06, 0.0, 0.08]))
    assert torch.equal(sam_shift([torch.zeros(2)], 0.1)[0], torch.zeros(2))


@pytest.mark.parametrize("tune", ["lora", "full"])
@pytest.mark.parametrize(
    "strength",
    [
        {"robust": "sam", "robust_rho": 0.0},
        {"robust": "smoothing", "robust_sigma": 0.0, "robust_draws": 1},
        {"robust": "averaging", "robust_mix": 0.0},
        {"robust": "lat", "robust_radius": 0.0, "robust_attack_steps": 1},
    ],
)
def test_strength_zero_is_plain_training(tmp_path, tune, strength):
    settings = {"tune": tune, "batch_size": 2, "max_steps": 2, "dropout": 0.1 if tune == "lora" else 0.0}
    if strength["robust"] in ("sam", "lat"):
        settings["dropout"] = 0.0  # their two passes draw twice
    sessions = [make(tmp_path / "a", **settings), make(tmp_path / "b", **settings, **strength)]
    plain, wrapped = (run(session, difference(session)) for session in sessions)
    assert all(torch.equal(plain[name], wrapped[name]) for name in plain)
    assert sessions[0].history == sessions[1].history


@pytest.mark.parametrize("robust", ["sam", "smoothing", "averaging", "lat"])
def test_wrapped_training_resumes_with_the_same_weights(tmp_path, robust):
    settings = {"batch_size": 2, "max_steps": 2, "checkpoint_every": 1, "dropout": 0.1, "robust": robust}
    settings |= {"robust_sigma": 0.01, "robust_rho": 0.1}
    whole = run(make(tmp_path / "whole", **settings))
    session = make(tmp_path / "cut", **settings)

    def killed(forget, retain):
        if forget.index == 1:
            raise KeyboardInterrupt
        return nll(session)(forget, retain)

    with pytest.raises(KeyboardInterrupt):
        run(session, killed)
    again = run(make(tmp_path / "cut", resume=True, **settings))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def attacked(session, batch, steps, radius):
    """Return the shift that the attack finds against -CE of a batch, its limits, and the loss without and with it."""
    latent = Latent(decoder_layers(session.model)[0], radius)
    losses = []

    def backpropagate():
        loss = -answer_nll(*answer_logits(session.model, batch))
        losses.append(float(loss.detach()))
        loss.backward()

    latent.attack(backpropagate, steps)
    with latent.applied():
        return latent, losses[0], float(-answer_nll(*answer_logits(session.model, batch)).detach())


def test_latent_attack_has_a_gradient_and_undoes_some_of_the_forgetting(tmp_path):
    session = make(tmp_path, robust="lat", **ONE)
    batch = collate(session, forget_targets(session)[:2])
    latent, plain, worst = attacked(session, batch, 3, 0.1)
    (shift_btd,), (limit_bt1,) = latent.shifts_btd, latent.limits_bt1
    lengths_bt = shift_btd.detach().norm(dim=-1)
    assert (lengths_bt > 0.5 * limit_bt1[..., 0]).float().mean() > 0.5
    assert (lengths_bt <= limit_bt1[..., 0] * (1 + 1e-5)).all()
    assert worst > plain + 1e-3  # the answer is likelier under the shift


def test_one_latent_step_is_the_normed_gradient_of_the_state(tmp_path):
    session = make(tmp_path, **ONE)
    batch = collate(session, forget_targets(session)[:1])
    latent, _, _ = attacked(session, batch, 1, 0.1)
    seen = []
    keep = decoder_layers(session.model)[0].register_forward_hook(lambda _, __, output: seen.append(output))
    loss = -answer_nll(*answer_logits(session.model, batch))
    keep.remove()
    grad = torch.autograd.grad(loss, seen[0])[0].double().numpy()
    norm = (grad**2).sum(-1, keepdims=True) ** 0.5
    length = 0.1 * (seen[0].detach().double().numpy() ** 2).sum(-1, keepdims=True) ** 0.5
    wanted = torch.tensor(length * grad / norm.clip(1e-30)).float()  # a step of 2.5 radii ends on the sphere
    assert torch.allclose(latent.shifts_btd[0].detach(), wanted, atol=1e-5)


def test_lat_takes_the_forget_gradient_under_the_attack_and_the_retain_gradient_without(tmp_path):
    session = make(tmp_path, robust="lat", robust_radius=0.3, robust_attack_steps=2, robust_layer=0, **ONE)
    found, forget, retain = loop_gradients(session, difference(session))
    latent, _, _ = attacked(session, forget, 2, 0.3)
    session.model.zero_grad()
    with latent.applied():
        there = by_hand(session, forget)
    require_close(found, summed((-1, there), (2, by_hand(session, retain))))
    plain = by_hand(session, forget)
    assert max(float((a - b).abs().max()) for a, b in zip(there, plain, strict=True) if a is not None) > 1e-3


@pytest.mark.parametrize("robust", ["sam", "smoothing"])
def test_the_weights_kept_after_a_broken_loss_are_not_the_shifted_ones(robust, tmp_path):
    session = make(tmp_path, robust=robust, robust_rho=0.5, robust_sigma=0.1, **ONE)
    before = {name: weight.detach().clone() for name, weight in trainable(session.model).items()}

    def objective(forget, retain):
        loss = answer_nll(*answer_logits(session.model, forget))
        changed = any(not torch.equal(before[name], weight) for name, weight in trainable(session.model).items())
        yield {"loss": loss * (float("nan") if changed else 1.0), "forget_nll": loss}

    with pytest.raises(TrainingError, match="weights before this step are in"):
        run(session, objective)
    kept = load_file(tmp_path / "last_good" / WEIGHTS)
    assert all(torch.equal(kept[name], weight) for name, weight in before.items())


def test_the_mean_is_applied_for_checks_alone(tmp_path, monkeypatch):
    applied, checked = [], []
    enter, check = Average.applied, TrainingMonitor.check
    monkeypatch.setattr(Average, "applied", lambda average: applied.append(1) or enter(average))
    monkeypatch.setattr(TrainingMonitor, "check", lambda monitor, step: checked.append(step) or check(monitor, step))
    session = make(tmp_path, robust="averaging", batch_size=2, max_steps=5, stop="forgotten", check_every=2)
    monkeypatch.setattr("unsee.training.callbacks.unlearning_success", lambda *_: 0.5)
    run(session)
    assert checked == [2, 4]
    assert len(applied) == 2


def test_average_is_the_mean_of_the_weights_after_each_step():
    model = torch.nn.Linear(1, 1, bias=False)
    average = Average(model, 0.5)
    for step, value in enumerate([1.0, 2.0, 6.0], 1):
        model.weight.data.fill_(value)
        average.update(step)
    with average.applied():
        assert model.weight.item() == pytest.approx((6 + 3) / 2)
    assert model.weight.item() == 6


@pytest.mark.parametrize("yielded", [False, True])
def test_loss_in_one_piece_is_wrapped_as_a_whole(tmp_path, yielded):
    session = make(tmp_path, robust="smoothing", robust_sigma=0.05, robust_draws=1, **ONE)

    def objective(forget, retain):
        forget_nll, retain_nll = (answer_nll(*answer_logits(session.model, side)) for side in (forget, retain))
        whole = {"loss": 2 * retain_nll - forget_nll, "forget_nll": forget_nll, "retain_nll": retain_nll}
        return iter([whole]) if yielded else whole

    found, forget, retain = loop_gradients(session, objective)
    weights = list(trainable(session.model).values())
    with shifted(weights, noise(weights, 0.05, seed_of(session.seed, "smoothing", forget.index, 0))):
        there, kept = by_hand(session, forget), by_hand(session, retain)
    require_close(found, summed((-1, there), (2, kept)))
    plain = by_hand(session, retain)
    assert max(float((a - b).abs().max()) for a, b in zip(kept, plain, strict=True) if a is not None) > 1e-3


def test_terms_that_are_none_of_the_forget_side_or_stand_after_the_kept_ones_are_refused(tmp_path):
    session = make(tmp_path, robust="sam", **ONE)
    before = {name: weight.clone() for name, weight in session.model.state_dict().items()}

    def backwards(forget, retain):
        yield from reversed(list(difference(session)(forget, retain)))

    with pytest.raises(UserError, match="must come before terms"):
        run(session, backwards)
    with pytest.raises(UserError, match="this method has none"):
        Finetune().unlearn(session)
    assert all(torch.equal(before[name], weight) for name, weight in session.model.state_dict().items())


def test_impossible_combinations_are_refused_before_training(tmp_path):
    with pytest.raises(UserError, match="no single step to go back to"):
        make(tmp_path, robust="averaging", guard="collapse")
    with pytest.raises(UserError, match="robust_mix must be in"):
        make(tmp_path, robust_mix=1.5)
    with pytest.raises(UserError, match="Turn one of them off"):
        make(tmp_path, robust="lat", gradient_checkpointing=True)
    with pytest.raises(UserError, match=r"robust_layer=2 is no decoder layer .* has 0 to 1;"):
        run(make(tmp_path, robust="lat", robust_layer=2, **ONE))
    with pytest.raises(UserError, match="robust_rho must not be negative"):
        make(tmp_path, robust_rho=-1.0)
    session = make(tmp_path, robust="sam", **ONE)
    before = {name: weight.clone() for name, weight in session.model.state_dict().items()}
    with pytest.raises(UserError, match="masks gradients"):
        minimise(session, nll(session), forget=forget_targets(session), separate=True)
    assert all(torch.equal(before[name], weight) for name, weight in session.model.state_dict().items())
