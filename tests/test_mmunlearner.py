"""MMUnlearner: the arithmetic of its steps, element by element, and what stays bit by bit."""

from __future__ import annotations

import pytest
import torch

from tiny import tiny_session
from unsee.api import Role, Training
from unsee.batching import answer_logits, collate
from unsee.engine import using
from unsee.errors import UserError
from unsee.losses import answer_nll
from unsee.masks import unpack
from unsee.methods.mmunlearner import MMUnlearner, _forget
from unsee.plan import Plan
from unsee.saliency import Sweep, saliency_mask
from unsee.tuning import prepare, trainable

ALL = ("vision", "projector", "language")
LR = 1e-2


def session_at(out, parts=ALL, tune="full", **settings):
    given = {"lr": LR, "max_steps": 1, "stop": "never", "scheduler": "constant", "clip": 0.0, **settings}
    training = Training(tune=tune, parts=parts, **given)
    session = tiny_session(out, training=training)
    session.model = prepare(session.model, session.family, training, 0)
    return session


def plain_sgd(monkeypatch):
    """Let the Trainer step by -lr * g."""

    def sgd(self, model=None):
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.SGD(weights, lr=self.args.learning_rate)
        return self.optimizer

    monkeypatch.setattr("transformers.Trainer.create_optimizer", sgd)


def gradient(session, targets):
    session.model.zero_grad()
    answer_nll(*answer_logits(session.model, collate(session, targets))).backward()
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
        for name, weight in trainable(session.model).items()
    }


def first_batch(session, method):
    forget = tuple(_forget(session))
    plan = Plan(forget, tuple(method._retain(session)), session.training, session.seed, ratio=method.retain_ratio)
    return plan.batch(0)


def bits_of(session, method):
    mask = saliency_mask(session, method._sweep(session.seed), modules=method.modules, also=method.also)
    return mask, {
        name: unpack(mask.entries[name].bits, tuple(weight.shape))
        if name in mask.entries
        else torch.zeros_like(weight, dtype=torch.bool)
        for name, weight in trainable(session.model).items()
    }


@pytest.mark.parametrize(("alpha", "ratio"), [(1.0, 1), (0.5, 1), (1.0, 3)])
@pytest.mark.parametrize("engine", ["fast", "plain"])
def test_joint_step_element_by_element(alpha, ratio, engine, tmp_path, monkeypatch):
    """Spec 8.4: theta' = theta - lr (-alpha m g_f + g_r); where m = 0 the step is that of retain alone."""
    plain_sgd(monkeypatch)
    session = session_at(tmp_path / "run")
    method = MMUnlearner(alpha=alpha, retain_ratio=ratio)
    forget, retain = first_batch(session, method)
    assert len(retain) == ratio * len(forget)
    before = {name: weight.detach().clone() for name, weight in trainable(session.model).items()}
    with using(engine):
        mask, bits = bits_of(session, method)
        g_f, g_r = gradient(session, forget), gradient(session, retain)
        method.unlearn(session)
    assert 0.2 < mask.report()["kept"] < 0.8
    for name, weight in trainable(session.model).items():
        expected = before[name] - LR * (g_r[name] - alpha * bits[name] * g_f[name])
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=2e-6)
        retain_only = before[name] - LR * g_r[name]
        torch.testing.assert_close(weight.detach()[~bits[name]], retain_only[~bits[name]], rtol=1e-4, atol=2e-6)
    assert session.history[0]["loss"] == pytest.approx(
        session.history[0]["retain_nll"] - alpha * session.history[0]["forget_nll"], abs=1e-5
    )


def test_clip_comes_after_the_mask(tmp_path, monkeypatch):
    """Defect 31: the norm of the whole step is the clip value."""
    plain_sgd(monkeypatch)
    session = session_at(tmp_path / "run", clip=0.01)
    before = {name: weight.detach().clone() for name, weight in trainable(session.model).items()}
    MMUnlearner().unlearn(session)
    step = [(weight.detach() - before[name]).flatten() for name, weight in trainable(session.model).items()]
    assert torch.cat(step).norm() / LR == pytest.approx(0.01, rel=1e-2)


def test_forget_step_leaves_what_is_outside_bit_identical(tmp_path, monkeypatch):
    """Spec 8.5, defects 30 and 42, with AdamW."""
    monkeypatch.setattr("unsee.methods.mmunlearner.retain_term", lambda *given: iter(()))
    session = session_at(tmp_path / "run", max_steps=2)
    _, bits = bits_of(session, MMUnlearner())
    before = {name: weight.detach().clone() for name, weight in session.model.named_parameters()}
    MMUnlearner().unlearn(session)
    moved = 0
    for name, weight in session.model.named_parameters():
        assert torch.equal(weight.detach()[~bits[name]], before[name][~bits[name]]), name
        moved += int((weight.detach() != before[name]).sum())
    assert moved > 1000


def test_adapters_are_refused_with_a_way_out(tmp_path):
    """Spec 8.7: before anything is computed."""
    with pytest.raises(UserError, match=r"training.tune=lora.*--tune full"):
        MMUnlearner().unlearn(session_at(tmp_path / "run", tune="lora", parts=("language",)))
    assert not (tmp_path / "run" / "work").exists()


def test_mask_of_untrained_parts_is_refused(tmp_path):
    with pytest.raises(UserError, match="nothing to mask"):
        MMUnlearner(modules=("vision",)).unlearn(session_at(tmp_path / "run", parts=("language",)))


@pytest.mark.parametrize("modules", [("vision",), ("projector", "language")])
def test_only_masked_modules_forget(modules, tmp_path, monkeypatch):
    monkeypatch.setattr("unsee.methods.mmunlearner.retain_term", lambda *given: iter(()))
    session = session_at(tmp_path / "run")
    before = {name: weight.detach().clone() for name, weight in session.model.named_parameters()}
    MMUnlearner(modules=modules).unlearn(session)
    changed = {name for name, weight in session.model.named_parameters() if not torch.equal(weight, before[name])}
    owners = {"vision" if "vision" in n else "projector" if "projector" in n else "language" for n in changed}
    assert owners == set(modules)


def test_random_mask_is_another_of_equal_size(tmp_path):
    sessions = [session_at(tmp_path / name) for name in ("a", "b")]
    for session, kind in zip(sessions, ("saliency", "random"), strict=True):
        MMUnlearner(mask=kind).unlearn(session)
    one, other = (session.notes["mask"] for session in sessions)
    assert one["kept"] == other["kept"]
    weights = [dict(session.model.named_parameters()) for session in sessions]
    assert not all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


def test_record_of_the_run(tmp_path):
    session = session_at(tmp_path / "run")
    MMUnlearner().unlearn(session)
    note = session.notes["mask"]
    assert set(note["modules"]) == set(ALL)
    assert note["used"] == {"target": 8, "preserve": 5}
    assert {"kept", "dead", "layers", "curve"} <= set(note)


def test_text_questions_are_not_trained_on_unless_asked_for(tmp_path):
    session = session_at(tmp_path / "run")
    roles = {target.example.role for target in MMUnlearner()._retain(session)}
    assert roles == {Role.RETAIN}
    more = {target.example.role for target in MMUnlearner(retain=("retain", "retain_text"))._retain(session)}
    assert more == {Role.RETAIN, Role.RETAIN_TEXT}
    with pytest.raises(UserError, match="no example of the roles stranger"):
        MMUnlearner(retain=("stranger",))._retain(session)


@pytest.mark.parametrize(("setting", "value"), [("gamma", -1.0), ("retain_ratio", 0), ("p_samples", 0)])
def test_impossible_settings(setting, value):
    with pytest.raises(UserError, match=setting.removeprefix("p_")):
        MMUnlearner(**{setting: value})


def test_sweep_takes_the_methods_settings():
    sweep = MMUnlearner(gamma=2.0, p_samples=10, granularity="batch", tolerance=0.0)._sweep(4)
    assert sweep == Sweep(gamma=2.0, samples=10, granularity="batch", tolerance=0.0, seed=4)
