"""MMUnlearner: the arithmetic of its steps, element by element, and what stays bit by bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.mmunlearner import ALL, LR, session_at
from unsee.api import Role
from unsee.api.fast_paths import engine_named
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import collate
from unsee.losses import answer_nll
from unsee.methods.mmunlearner import released as released_code
from unsee.methods.mmunlearner.masks import Mask, unpack
from unsee.methods.mmunlearner.method import MMUnlearner, _forget, _ForgetSteps
from unsee.methods.mmunlearner.released import Released, ReleasedAdamW, _ratio, first_match_labels, whole_text_labels
from unsee.methods.mmunlearner.saliency import Sweep, maskable, saliency_mask
from unsee.training.batch_plan import Plan
from unsee.training.trainable import trainable


def plain_sgd(monkeypatch):
    """Let the loop step by -lr * g."""
    monkeypatch.setattr(
        "unsee.training.loop.make_optimizer",
        lambda model, training: torch.optim.SGD(trainable(model).values(), lr=training.lr),
    )


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
    """One step: theta' = theta - lr (-alpha m g_f + g_r); where m = 0 the step is that of retain alone."""
    plain_sgd(monkeypatch)
    session = session_at(tmp_path / "run")
    method = MMUnlearner(alpha=alpha, retain_ratio=ratio)
    forget, retain = first_batch(session, method)
    assert len(retain) == ratio * len(forget)
    before = {name: weight.detach().clone() for name, weight in trainable(session.model).items()}
    session.engine = engine_named(engine)
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


def test_without_a_mask_the_forget_gradient_reaches_every_weight(tmp_path, monkeypatch):
    """The control: the same step with m = 1 everywhere, norms and heads included."""
    plain_sgd(monkeypatch)
    session, method = session_at(tmp_path / "run"), MMUnlearner(mask="none")
    forget, retain = first_batch(session, method)
    before = {name: weight.detach().clone() for name, weight in trainable(session.model).items()}
    g_f, g_r = gradient(session, forget), gradient(session, retain)
    method.unlearn(session)
    assert session.notes["mask"] == "none"
    for name, weight in trainable(session.model).items():
        expected = before[name] - LR * (g_r[name] - g_f[name])
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=2e-6)


def test_clip_comes_after_the_mask(tmp_path, monkeypatch):
    """Defect 31: the norm of the whole step is the clip value."""
    plain_sgd(monkeypatch)
    session = session_at(tmp_path / "run", clip=0.01)
    before = {name: weight.detach().clone() for name, weight in trainable(session.model).items()}
    MMUnlearner().unlearn(session)
    step = [(weight.detach() - before[name]).flatten() for name, weight in trainable(session.model).items()]
    assert torch.cat(step).norm() / LR == pytest.approx(0.01, rel=1e-2)


def test_forget_step_leaves_what_is_outside_bit_identical(tmp_path, monkeypatch):
    """docs/defects.md 30 and 42, with AdamW."""
    monkeypatch.setattr("unsee.methods.mmunlearner.method.retain_term", lambda *given: iter(()))
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
    """Before anything is computed."""
    with pytest.raises(UserError, match=r"training.tune=lora.*--tune full"):
        MMUnlearner().unlearn(session_at(tmp_path / "run", tune="lora", parts=("language",)))
    assert not (tmp_path / "run" / "work").exists()


def test_mask_of_untrained_parts_is_refused(tmp_path):
    with pytest.raises(UserError, match="nothing to mask"):
        MMUnlearner(modules=("vision",)).unlearn(session_at(tmp_path / "run", parts=("language",)))


@pytest.mark.parametrize("modules", [("vision",), ("projector", "language")])
def test_only_masked_modules_forget(modules, tmp_path, monkeypatch):
    monkeypatch.setattr("unsee.methods.mmunlearner.method.retain_term", lambda *given: iter(()))
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


def test_a_head_gets_a_mask_if_it_is_named(tmp_path):
    session = session_at(tmp_path / "run")
    plain, more = (MMUnlearner(also=also)._mask(session).entries.keys() for also in ((), ("lm_head.weight",)))
    assert more - plain == {"lm_head.weight"}


def test_random_mask_is_drawn_by_the_seed_of_the_run(tmp_path, monkeypatch):
    session, seeds = session_at(tmp_path / "run"), []
    monkeypatch.setattr(Mask, "shuffled", lambda self, seed: seeds.append(seed) or self)
    session.seed = 3
    MMUnlearner(mask="random")._mask(session)
    assert seeds == [3]


def test_record_of_the_run(tmp_path):
    session = session_at(tmp_path / "run")
    MMUnlearner().unlearn(session)
    note = session.notes["mask"]
    assert set(note["modules"]) == set(ALL)
    assert note["used"] == {"target": 8, "preserve": 5}
    assert {"kept", "dead", "layers", "curve", "remarks"} <= set(note)
    assert note["settled"] is False


def test_text_questions_are_not_trained_on_unless_asked_for(tmp_path):
    session = session_at(tmp_path / "run")
    roles = {target.example.role for target in MMUnlearner()._retain(session)}
    assert roles == {Role.RETAIN}
    more = {target.example.role for target in MMUnlearner(retain=("retain", "retain_text"))._retain(session)}
    assert more == {Role.RETAIN, Role.RETAIN_TEXT}
    with pytest.raises(UserError, match="none of the roles stranger"):
        MMUnlearner(retain=("stranger",))._retain(session)


@pytest.mark.parametrize(("setting", "value"), [("gamma", -1.0), ("retain_ratio", 0), ("p_samples", 0)])
def test_impossible_settings(setting, value):
    with pytest.raises(UserError, match=setting.removeprefix("p_")):
        MMUnlearner(**{setting: value})


def test_sweep_takes_the_methods_settings():
    sweep = MMUnlearner(gamma=2.0, p_samples=10, granularity="batch", tolerance=0.0)._sweep(4)
    assert sweep == Sweep(gamma=2.0, samples=10, granularity="batch", tolerance=0.0, seed=4)


def test_alternating_forget_step_leaves_what_is_outside_bit_identical(tmp_path, monkeypatch):
    """docs/defects.md 30: the forget moments know nothing of the retain steps; here those only move the head."""

    def head_only(session, retain, weight):
        yield {"loss": session.model.get_parameter("lm_head.weight").sum() * 1e-3}

    monkeypatch.setattr("unsee.methods.mmunlearner.method.retain_term", head_only)
    session = session_at(tmp_path / "run", max_steps=2)
    _, bits = bits_of(session, MMUnlearner())
    before = {name: weight.detach().clone() for name, weight in session.model.named_parameters()}
    MMUnlearner(update="alternating").unlearn(session)
    moved = 0
    for name, weight in session.model.named_parameters():
        if name != "lm_head.weight":
            assert torch.equal(weight.detach()[~bits[name]], before[name][~bits[name]]), name
            moved += int((weight.detach() != before[name]).sum())
    assert moved > 1000


def test_alternating_steps_are_two_adamws(tmp_path):
    """By hand: a masked forget step with its own AdamW, then a retain step with another at the moved weights."""
    session = session_at(tmp_path / "run", clip=1.0)
    method = MMUnlearner(update="alternating")
    forget, retain = first_batch(session, method)
    _, bits = bits_of(session, method)
    other = session_at(tmp_path / "hand")
    weights = trainable(other.model)
    for targets, sign, masked in ((forget, -1.0, True), (retain, 1.0, False)):
        found = gradient(other, targets)
        for name, weight in weights.items():
            weight.grad = sign * found[name] * (bits[name] if masked else 1)
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        torch.optim.AdamW(weights.values(), lr=LR, weight_decay=0.0).step()
    method.unlearn(session)
    for name, weight in trainable(session.model).items():
        # Softmax does not depend on a key's bias: its gradient is rounding, by whose sign AdamW steps.
        if name.endswith("k_proj.bias"):
            continue
        clear = (weight - weights[name]).abs() < 1e-5
        assert clear.float().mean() > 0.99, name


@pytest.mark.parametrize(("scheduler", "wanted"), [("linear", [4, 3, 2, 1]), ("constant", [4, 4, 4, 4])])
def test_rate_of_the_forget_steps_follows_the_schedule(scheduler, wanted, tmp_path):
    session, rates = session_at(tmp_path / "run", scheduler=scheduler, clip=1.0), []
    forgetting = _ForgetSteps(session, 4)
    for _ in wanted:
        rates.append(forgetting.optimizer.param_groups[0]["lr"])
        for weight in forgetting.weights:
            weight.grad = torch.ones_like(weight)
        forgetting.step()
    assert rates == pytest.approx([LR * quarters / 4 for quarters in wanted])
    assert all(weight.grad is None for weight in forgetting.weights)


def test_alternating_says_what_it_cannot(tmp_path):
    with pytest.raises(UserError, match=r"accumulate=1.*joint"):
        MMUnlearner(update="alternating").unlearn(session_at(tmp_path / "run", accumulate=2))


def test_alternating_run_starts_anew_when_resumed(tmp_path):
    """Its second optimizer is in no checkpoint, so only a fresh start gives the weights of an uninterrupted run."""
    whole = session_at(tmp_path / "a", max_steps=2)
    MMUnlearner(update="alternating").unlearn(whole)
    cut = session_at(tmp_path / "b", max_steps=2, checkpoint_every=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unsee.training.loop.seal", lambda folder: None)
        MMUnlearner(update="alternating").unlearn(cut)
    again = session_at(tmp_path / "b", max_steps=2, checkpoint_every=1)
    again.resume = True
    MMUnlearner(update="alternating").unlearn(again)
    weights = dict(again.model.named_parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in whole.model.named_parameters())


def test_sharded_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("unsee.distributed.processes.sharding", lambda: "fsdp2")
    with pytest.raises(UserError, match=r"spread over processes.*ddp"):
        MMUnlearner().unlearn(session_at(tmp_path / "run"))


# as_released: the published defects, measured


def released(session, **more):
    return Released(session=session, gamma=1.0, alpha=1.0, like=more.get("like", "mllmu"))


def released_mask(session):
    return released(session).make_mask(maskable(session, ("language",), also=("",)))


def adamw(session):
    return torch.optim.AdamW(trainable(session.model).values(), lr=1e-3, eps=1e-6, weight_decay=0.0)


def moved_by(session, action):
    before = {name: weight.detach().clone() for name, weight in session.model.named_parameters()}
    action()
    return {name: weight.detach() - before[name] for name, weight in session.model.named_parameters()}


@pytest.mark.parametrize(
    ("dtype", "grad", "step"),
    [
        (torch.float16, 1e-3, 31.2),
        (torch.float16, 1e-4, 3.1),
        (torch.float16, 1e-5, 0.32),
        (torch.bfloat16, 1e-4, 0.758),
        (torch.bfloat16, 1e-5, 0.242),
        (torch.float32, 1e-4, 0.760),
        (torch.float32, 1e-5, 0.240),
        (torch.float32, 1e-6, 0.031),
    ],
)
def test_released_optimizer_adds_epsilon_before_the_bias_correction(dtype, grad, step):
    """First step in units of lr, as transformers 4.46.3 takes it; torch.optim.AdamW in fp16 would take 987 at 1e-3."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=dtype))
    weight.grad = torch.full((1,), grad, dtype=dtype)
    ReleasedAdamW([weight], lr=1e-4).step()
    assert -weight.item() / 1e-4 == pytest.approx(step, rel=0.02)


def test_released_optimizer_is_adam_when_epsilon_is_small_beside_the_gradient():
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizers = [ReleasedAdamW([weights[0]], lr=1e-2), torch.optim.AdamW([weights[1]], lr=1e-2, weight_decay=0.0)]
    for step in range(1, 6):
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = torch.tensor([1.0, -10.0, 100.0]) / step
            optimizer.step()
    assert torch.allclose(weights[0], weights[1], atol=1e-5)


def test_released_ascends_on_everything_outside_the_mask(tmp_path):
    """Defect 2 (42): embeddings, norms, head and the whole vision tower move on a forget step."""
    session = session_at(tmp_path / "run")
    mask, run = released_mask(session), released(session)
    moved = moved_by(session, lambda: run.forget_step(adamw(session), mask, _forget(session)[:4]))
    outside = {name for name, step in moved.items() if name not in mask.entries and step.abs().max() > 0}
    assert {"model.language_model.embed_tokens.weight", "model.language_model.norm.weight", "lm_head.weight"} <= outside
    assert any("vision_tower" in name for name in outside)
    share = sum(moved[name].count_nonzero() for name in outside) / sum(step.count_nonzero() for step in moved.values())
    assert share > 0.5


def test_released_moments_move_masked_weights(tmp_path):
    """Defect 3 (30): a forget step moves weights with m = 0, by the momentum of retain steps."""
    session = session_at(tmp_path / "run")
    mask, run, optimizer = released_mask(session), released(session), adamw(session)
    forget, retain = _forget(session)[:4], MMUnlearner()._retain(session)
    fresh = moved_by(session, lambda: run.forget_step(optimizer, mask, forget))
    run.retain_step(optimizer, retain)
    later = moved_by(session, lambda: run.forget_step(optimizer, mask, forget))
    for name, entry in mask.entries.items():
        closed = ~unpack(entry.bits, entry.shape)
        assert not fresh[name][closed].any()
        if closed.any():
            assert (later[name][closed] != 0).float().mean() > 0.5, name
            assert later[name][closed].abs().mean() > 1e-4


def test_released_clips_before_the_mask(tmp_path):
    """Defect 4 (31): what is left of the norm after the mask is the root of the gradient mass it keeps, below the clip."""
    session = session_at(tmp_path / "run", parts=("language",))
    mask, run = released_mask(session), released(session)
    grads = {}

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            grads.update({name: weight.grad.clone() for name, weight in trainable(session.model).items()})

    spy = Spy(trainable(session.model).values(), lr=0.0)
    row = run.forget_step(spy, mask, _forget(session)[:4])
    assert row["forget_norm"] > 1
    left = torch.cat([grad.flatten() for grad in grads.values()]).norm()
    assert left < 0.98
    optimizer = adamw(session)
    optimizer.zero_grad()
    run.loss(_forget(session)[:4]).backward()
    free = {name: weight.grad for name, weight in trainable(session.model).items()}
    mass = {
        name: (grad * unpack(mask.entries[name].bits, tuple(grad.shape)) if name in mask.entries else grad)
        for name, grad in free.items()
    }
    kept = sum(grad.square().sum() for grad in mass.values()) / sum(grad.square().sum() for grad in free.values())
    assert left == pytest.approx(float(kept.sqrt()), rel=1e-3)


@pytest.mark.parametrize("like", ["mllmu", "clear"])
def test_released_retain_steps_are_clipped_by_one_of_the_scripts(like, tmp_path, monkeypatch):
    session, loss = session_at(tmp_path / "run"), Released.loss
    monkeypatch.setattr(Released, "loss", lambda self, targets: 100 * loss(self, targets))
    weights = list(trainable(session.model).values())
    before = [weight.detach().clone() for weight in weights]
    run = Released(session=session, gamma=1.0, alpha=1.0, like=like)
    run.retain_step(torch.optim.SGD(weights, lr=1.0), _forget(session)[:1])
    moved = torch.nn.utils.get_total_norm([weight.detach() - old for weight, old in zip(weights, before, strict=True)])
    assert moved == pytest.approx(1.0, rel=1e-3) if like == "mllmu" else moved > 10


def test_released_forget_gradient_has_its_weight(tmp_path):
    norms = []
    for alpha in (1.0, 3.0):
        session = session_at(tmp_path / str(alpha))
        run = Released(session=session, gamma=1.0, alpha=alpha, like="mllmu")
        optimizer = torch.optim.SGD(list(trainable(session.model).values()), lr=0.0)
        norms.append(run.forget_step(optimizer, None, _forget(session)[:1])["forget_norm"])
    assert norms[1] == pytest.approx(3 * norms[0], rel=1e-4)


def test_released_labels_are_mostly_not_the_answer(tmp_path):
    """Defect 6 (3): image placeholders and the question are prediction targets."""
    session = session_at(tmp_path / "run")
    batch = collate(session, _forget(session)[:4])
    labels = whole_text_labels(batch)
    right = batch.labels_bt != -100
    image = labels == session.processor.image_token_id
    assert int(image.sum()) == 16 * 4
    assert (right & (labels != -100)).sum() == right.sum()
    assert right.sum() < 0.5 * (labels != -100).sum()


def test_released_answer_search_hits_the_question_and_keeps_all_on_a_miss(tmp_path):
    """Defects 8 and 9 (5): the first occurrence may be in the question, and a miss trains on everything, pads included."""
    session = session_at(tmp_path / "run")
    target = _forget(session)[0]
    twice = replace(target, example=replace(target.example, question="What? baker Is it so?", answer="baker"))
    batch = collate(session, [twice])
    eos = session.processor.tokenizer.eos_token_id
    found = first_match_labels(batch, eos)
    chosen = (found != -100).nonzero()[:, 1]
    right = (batch.labels_bt != -100).nonzero()[:, 1]
    assert chosen.max() < right.min()
    ids = torch.tensor([[1, 5, 6, 2]])
    lost = replace(batch, rows=({"input_ids": ids, "labels": torch.tensor([[-100, -100, 9, 2]])},))
    assert torch.equal(first_match_labels(lost, eos), ids)


def test_released_half_precision_fisher_loses_the_mask(tmp_path):
    """Defect 5 (43): fp16 squares vanish, and 0/0 is never kept where fp32 keeps about half."""
    shares = {}
    for name, kind in (("fp32", torch.float32), ("fp16", torch.float16)):
        f_t, f_p = (
            (torch.randn(20_000, generator=torch.Generator().manual_seed(seed)) * 1e-5).to(kind) ** 2 for seed in (0, 1)
        )
        shares[name] = _ratio(f_t, f_p, 1.0, "language").kept / 20_000
    assert shares["fp16"] == 0
    assert shares["fp32"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("like", ["mllmu", "clear"])
def test_released_run(like, tmp_path):
    session = session_at(tmp_path / "run", max_steps=-1, batch_size=2, epochs=1, clip=1.0)
    session.examples[Role.FORGET] = session.examples[Role.FORGET][:2]
    MMUnlearner(mode="as_released", released_like=like, released_precision="fp32").unlearn(session)
    assert [("forget_nll" in row) for row in session.history] == [True, False]
    assert session.notes["steps"] == 2
    assert set(session.notes["mask"]["modules"]) == {"language"}
    assert (session.out / "log.jsonl").read_text().count("\n") == 2
    assert all(torch.isfinite(weight).all() for weight in session.model.parameters())


def test_released_runs_beyond_its_first_epoch_and_with_more_to_forget_than_to_keep(tmp_path):
    """Defects 13 and 14 are never reproduced."""
    session = session_at(tmp_path / "run", max_steps=-1, batch_size=2, epochs=2, clip=1.0)
    MMUnlearner(mode="as_released", released_precision="fp32").unlearn(session)
    assert [("forget_nll" in row) for row in session.history] == [True] * 4


def test_released_stops_at_the_limit_of_steps(tmp_path):
    session = session_at(tmp_path / "run", max_steps=3, batch_size=2, epochs=9, clip=1.0)
    MMUnlearner(mode="as_released", released_precision="fp32").unlearn(session)
    assert [row["step"] for row in session.history] == [1, 2, 3]
    assert session.notes["epochs"] == 1.5


def test_released_precision(tmp_path):
    session = session_at(tmp_path / "run", max_steps=1, clip=1.0)
    MMUnlearner(mode="as_released", released_precision="bf16").unlearn(session)
    assert {weight.dtype for weight in session.model.parameters()} == {torch.bfloat16}
    assert MMUnlearner(mode="as_released")._released_type(session) == torch.float16


def test_released_lora_is_an_error_unless_asked_for(tmp_path):
    """Defect 1 (41)."""
    session = session_at(tmp_path / "run", tune="lora", parts=("language",), clip=1.0)
    with pytest.raises(UserError, match=r"matches none.*allow_noop_mask"):
        MMUnlearner(mode="as_released").unlearn(session)
    MMUnlearner(mode="as_released", allow_noop_mask=True).unlearn(session)
    assert session.notes["mask"] == "unmasked"
    assert session.notes["steps"] == 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("guard", "collapse"), ("accumulate", 2), ("clip", 0.5), ("warmup_steps", 2), ("weight_decay", 0.1), ("precision", "bf16"),
        ("report_to", ("wandb",)), ("scheduler", "cosine"),
    ],
)  # fmt: skip
def test_released_refuses_training_settings_that_it_would_ignore(setting, value, tmp_path):
    session = session_at(tmp_path / "run", **{"clip": 1.0, setting: value})
    with pytest.raises(UserError, match=rf"mode=as_released.*training\.{setting}"):
        MMUnlearner(mode="as_released").unlearn(session)


@pytest.mark.parametrize(("most", "passes"), [(1, 0.333), (4, 1.333), (-1, 2)])
def test_released_tells_how_many_passes_were_made(most, passes, tmp_path):
    session = session_at(tmp_path / "run", max_steps=most, batch_size=2, epochs=2, clip=1.0)
    kept = session.examples[Role.RETAIN]
    session.examples = {**session.examples, Role.RETAIN: [*kept, *(replace(row, id=f"{row.id}+") for row in kept)][:5]}
    MMUnlearner(mode="as_released", released_precision="fp32").unlearn(session)
    assert session.notes["epochs"] == passes
    assert session.notes["steps"] == round(passes * 3)


def test_released_recomputes_activations_if_asked(tmp_path, monkeypatch):
    seen = []
    for name, wanted in (("a", False), ("b", True)):
        session = session_at(tmp_path / name, clip=1.0, gradient_checkpointing=wanted)
        backward = released_code._backward
        monkeypatch.setattr(
            released_code,
            "_backward",
            lambda loss, s=session, b=backward: (seen.append(s.model.is_gradient_checkpointing), b(loss)),
        )
        MMUnlearner(mode="as_released", released_precision="fp32").unlearn(session)
        assert set(seen) == {wanted}
        assert session.model.is_gradient_checkpointing is False
        seen.clear()
        monkeypatch.undo()
