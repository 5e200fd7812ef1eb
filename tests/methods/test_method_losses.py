"""Every weight, direction and reduction that a method offers is in its loss: worked out again, row by row, from plain logits."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import jensenshannon
from torch.nn.functional import logsigmoid

from helpers.families import ALL, family, processor_of
from unsee.api import Training, registry
from unsee.api.request import Prompt, Target
from unsee.errors import UserError
from unsee.inference.batching import collate, target_ids
from unsee.inference.encoder import encoder
from unsee.methods import smfa
from unsee.methods.common.guidance import INSTRUCTION
from unsee.methods.common.refusal_targets import refusal_targets
from unsee.methods.smfa import SMFA, sculpted
from unsee.methods.task_vector import negate
from unsee.methods.vgid import VGID, Noised, Noising
from unsee.testing.methods import session_at
from unsee.testing.tiny import tiny_session
from unsee.training.recording import recording
from unsee.training.targets import forget_targets
from unsee.training.trainable import trainable
from unsee.training.trainer import prepare
from unsee.utils import terminal
from unsee.utils.seeds import seed_of


@pytest.fixture
def session(tmp_path):
    training = Training(lr=1e-3, max_steps=2, batch_size=2, stop="never", max_new_tokens=5)
    made = tiny_session(tmp_path, training=training)
    made.model = prepare(made.model, made.family, training, made.seed)
    return made


@pytest.fixture
def parts_of(session):
    """Return a function that gives targets and loss parts of a method on a model that has left the original model."""

    def given(name, **settings):
        with recording() as calls:
            registry.load("methods", name)(**settings).unlearn(session)
        torch.manual_seed(1)
        for weight_name, weight in session.model.named_parameters():
            if "lora_B" in weight_name:
                torch.nn.init.normal_(weight, std=0.2)
        forget, retain = calls[0].forget[1:3], calls[0].retain[:3]
        made = list(calls[0].objective(collate(session, forget), collate(session, retain) if retain else None))
        weights = trainable(session.model).values()
        given.slopes = torch.autograd.grad(made[0]["loss"], weights, retain_graph=True, allow_unused=True)
        return forget, retain, [{key: value.detach() for key, value in part.items()} for part in made]

    return given


def logprobs(session, target, *, start=False, instruction=""):
    """Return log p of the whole vocabulary at each answer token, and the tokens; of one row, by the plain model."""
    ids = target_ids(session.processor, session.family, target)
    inputs = dict(encoder(session.processor, session.family).row(Prompt.of(target.example, instruction)))
    begin = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([ids])], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.no_grad():
        if start:
            with session.model.disable_adapter():
                logits_btv = session.model(**inputs).logits
        else:
            logits_btv = session.model(**inputs).logits
    return logits_btv[0, begin - 1 : -1].float().log_softmax(-1), ids


def said(session, target, **more):
    """Return log p of each answer token."""
    every_av, ids = logprobs(session, target, **more)
    return every_av[range(len(ids)), list(ids)]


def mean(values):
    return float(torch.stack(list(values)).mean())


def nll(session, targets):
    return -mean(said(session, target).mean() for target in targets)


def total(parts):
    return sum(float(part["loss"]) for part in parts)


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_sum"])
def test_ga(reduction, session, parts_of):
    forget, _, parts = parts_of("ga", reduction=reduction)
    rows = [said(session, target) for target in forget]
    wanted = mean(row.mean() if reduction == "token_mean" else row.sum() for row in rows)
    assert total(parts) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", ["ga", "grad_diff", "kl"])
def test_what_is_below_the_floor_has_no_gradient_and_is_logged_as_it_is(name, session, parts_of):
    forget, _, (ascent, *kept) = parts_of(name)
    free = slope(parts_of)
    low, high = sorted(float(said(session, target).mean()) for target in forget)
    for floor, share in ((low - 1, 1.0), ((low + high) / 2, None), (high + 1, 0.0)):
        _, _, (held, *same) = parts_of(name, ga_floor=floor)
        assert float(held["loss"]) == pytest.approx((low + high) / 2, rel=1e-4)
        assert held == ascent
        assert same == kept
        assert slope(parts_of) == pytest.approx(share * free) if share is not None else 0 < slope(parts_of) != free


def slope(parts_of):
    """Return the norm of the last gradient of the first part."""
    return float(torch.nn.utils.get_total_norm([grad for grad in parts_of.slopes if grad is not None]))


def test_grad_diff(session, parts_of):
    forget, retain, parts = parts_of("grad_diff", alpha=0.3, retain_weight=0.7)
    assert total(parts) == pytest.approx(-0.3 * nll(session, forget) + 0.7 * nll(session, retain), rel=1e-4)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_kl(direction, session, parts_of):
    forget, retain, parts = parts_of("kl", weight=0.6, kl_direction=direction)
    divergences = []
    for target in retain:
        start_av, now_av = logprobs(session, target, start=True)[0], logprobs(session, target)[0]
        p_av, q_av = (start_av, now_av) if direction == "forward" else (now_av, start_av)
        divergences.append((p_av.exp() * (p_av - q_av)).sum(-1).mean())
    assert mean(divergences) > 0.01
    assert total(parts) == pytest.approx(-nll(session, forget) + 0.6 * mean(divergences), rel=1e-4)


def test_npo(session, parts_of):
    forget, retain, parts = parts_of("npo", beta=0.4, retain_weight=0.5)
    ratios = [said(session, target).sum() - said(session, target, start=True).sum() for target in forget]
    wanted = -(2 / 0.4) * mean(logsigmoid(-0.4 * ratio) for ratio in ratios) + 0.5 * nll(session, retain)
    assert total(parts) == pytest.approx(wanted, rel=1e-4)


def test_simnpo(session, parts_of):
    settings = {"beta": 2.5, "margin": 0.3, "forget_weight": 0.6, "retain_weight": 0.5}
    forget, retain, parts = parts_of("simnpo", **settings)
    fading = mean(logsigmoid(2.5 * (-said(session, target).mean() - 0.3)) for target in forget)
    assert total(parts) == pytest.approx(-0.6 * (2 / 2.5) * fading + 0.5 * nll(session, retain), rel=1e-4)


def test_dpo(session, parts_of):
    forget, retain, parts = parts_of("dpo", beta=0.4, retain_weight=0.5)
    refused = {target.example.id: target for target in refusal_targets(session)}

    def above(target):
        return said(session, target).sum() - said(session, target, start=True).sum()

    gaps = [above(refused[target.example.id]) - above(target) for target in forget]
    wanted = -(2 / 0.4) * mean(logsigmoid(0.4 * gap) for gap in gaps) + 0.5 * nll(session, retain)
    assert total(parts) == pytest.approx(wanted, rel=1e-4)


def test_altpo(session, parts_of):
    chosen, retain, parts = parts_of("altpo", alternates=2, beta=0.4, retain_weight=0.5)

    def above(target):
        return said(session, target).sum() - said(session, target, start=True).sum()

    gaps = [above(target) - above(Target(example=target.example)) for target in chosen]
    assert all(target.token_ids for target in chosen)
    wanted = -(2 / 0.4) * mean(logsigmoid(0.4 * gap) for gap in gaps) + 0.5 * nll(session, retain)
    assert total(parts) == pytest.approx(wanted, rel=1e-4)


def test_pdu(session, parts_of):
    forget, retain, parts = parts_of("pdu", forget_weight=0.6, retain_weight=0.5, retain_bound=0.2)
    flat = []
    for target in forget:
        logits_av = logprobs(session, target)[0].double().numpy()  # logits but for a constant per token
        flat.append(torch.tensor(((logits_av.max(-1) - logits_av.mean(-1)) ** 2).mean()))
    assert total(parts) == pytest.approx(0.6 * mean(flat) + 0.5 * (nll(session, retain) - 0.2), rel=1e-4)


def test_pdu_raises_the_dual_above_the_bound_and_lowers_it_below(session):
    method = registry.load("methods", "pdu")(dual_step=2.0, dual_warmup_epochs=1, retain_bound=0.5)
    row = {"retain_dual": 1.5, "retain_nll": 0.75, "epoch": 1.0}
    for change, wanted in (({}, 2.0), ({"retain_nll": 0.25}, 1.0), ({"retain_nll": -9.0}, 0.0), ({"epoch": 0.9}, 1.5)):
        session.history[:] = [{**row, **change}]
        assert method._dual(session) == wanted


def test_pdu_dual_follows_the_retain_loss_through_a_run_and_a_resume(tmp_path):
    def run(out, steps, resume=False):
        training = Training(
            lr=1e-3, max_steps=steps, batch_size=2, stop="never", checkpoint_every=1, scheduler="constant"
        )
        session = tiny_session(out, training=training, resume=resume)
        session.model = prepare(session.model, session.family, training, session.seed)
        registry.load("methods", "pdu")(dual_warmup_epochs=0, retain_bound=0.1).unlearn(session)
        return [row["retain_dual"] for row in session.history], [row["retain_nll"] for row in session.history]

    duals, losses = run(tmp_path / "whole", 3)
    assert duals == pytest.approx([1.0, 1 + losses[0] - 0.1, 1 + losses[0] + losses[1] - 0.2])
    run(tmp_path / "cut", 2)
    assert run(tmp_path / "cut", 3, resume=True)[0] == duals


@pytest.mark.parametrize(("warmup", "told"), [(5.0, True), (0.0, False)])
def test_pdu_tells_that_its_dual_never_moves(tmp_path, capsys, monkeypatch, warmup, told):
    monkeypatch.setattr(terminal, "_NOTED", set())
    session = tiny_session(tmp_path, training=Training(max_steps=2, batch_size=2, stop="never"))
    with recording():
        session.model = prepare(session.model, session.family, session.training, session.seed)
        registry.load("methods", "pdu")(dual_warmup_epochs=warmup).unlearn(session)
    assert ("pdu: the dual variable stays 1, for the run ends after" in capsys.readouterr().err) == told


def states(session, target, layer, *, start=False):
    """Return the layer's output at the answer tokens of one row, read from a hook on the plain model."""
    seen = []
    inner = session.model.get_base_model().model.language_model.layers[layer]
    handle = inner.register_forward_hook(lambda _, __, output: seen.append(output))
    _, ids = logprobs(session, target, start=start)
    handle.remove()
    return seen[0][0, -len(ids) :].double().numpy()


def test_rmu(session, parts_of):
    settings = {"layer": 1, "coefficient": 3.0, "forget_weight": 0.6, "retain_weight": 0.5, "update": "all"}
    forget, retain, parts = parts_of("rmu", **settings)
    generator = torch.Generator().manual_seed(seed_of(session.seed, "rmu"))
    drawn = torch.rand(32, generator=generator).double().numpy()
    control = 3.0 * drawn / (drawn**2).sum() ** 0.5
    away = mean(torch.tensor(((states(session, target, 1) - control) ** 2).mean()) for target in forget)
    apart = [(states(session, target, 1) - states(session, target, 1, start=True)) ** 2 for target in retain]
    kept = mean(torch.tensor(one.mean()) for one in apart)
    assert kept > 1e-3
    assert total(parts) == pytest.approx(0.6 * away + 0.5 * kept, rel=1e-4)
    assert session.notes["rmu"]["norm"] == pytest.approx(
        mean(torch.tensor(numpy.linalg.norm(states(session, target, 1, start=True), axis=-1).mean()) for target in
             forget_targets(session)), rel=1e-3)  # fmt: skip


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_rmu_trains_down_projections_only_and_holds_the_same_reference_in_both_ways(tune, tmp_path):
    session = session_at(tmp_path, tune)
    registry.load("methods", "rmu")(coefficient=3.0).unlearn(session)
    assert {name.split(".mlp.")[1].split(".")[0] for name in trainable(session.model)} == {"down_proj"}
    assert session.history[0]["retain_rmu"] == pytest.approx(0, abs=1e-9)
    assert session.history[1]["retain_rmu"] > 0


def test_rmu_refuses_layers_and_parts_without_what_it_needs(tmp_path):
    with pytest.raises(UserError, match="This model has 0 to 1"):
        registry.load("methods", "rmu")(layer=2).unlearn(session_at(tmp_path))
    with pytest.raises(UserError, match="finds no trainable down projection"):
        registry.load("methods", "rmu")().unlearn(session_at(tmp_path, parts=("projector",)))


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_task_vector_is_the_fine_tuning_backwards(tune, tmp_path):
    session = session_at(tmp_path, tune)
    before = {name: weight.detach().clone() for name, weight in trainable(session.model).items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unsee.methods.task_vector.negate", lambda *_: None)
        registry.load("methods", "task_vector")().unlearn(session)
    learned = {name: weight.detach().clone() for name, weight in trainable(session.model).items()}
    assert session.history[1]["forget_nll"] < session.history[0]["forget_nll"]
    negate(session.model, before if tune == "full" else {}, 0.5)
    for name, weight in trainable(session.model).items():
        if tune == "full":
            wanted = before[name].double().numpy() - 0.5 * (learned[name] - before[name]).double().numpy()
        else:
            wanted = (-0.5 if "lora_B" in name else 1.0) * learned[name].double().numpy()
        assert torch.allclose(weight.detach().double(), torch.tensor(wanted), atol=1e-6)


def test_task_vector_refuses_to_go_on_from_an_adapter(session):
    session.training = replace(session.training, adapter="somewhere")
    with pytest.raises(UserError, match="negates a whole adapter"):
        registry.load("methods", "task_vector")().unlearn(session)


def test_task_vector_refuses_a_guard_that_would_look_at_the_learner(session):
    session.training = replace(session.training, guard="collapse")
    with pytest.raises(UserError, match=r"training\.guard looks at the model while task_vector learns"):
        registry.load("methods", "task_vector")().unlearn(session)


@pytest.mark.parametrize(
    ("name", "settings", "above", "below"),
    [("wga", {"beta": 0.7}, 0.7, 0), ("satimp", {"beta1": 2.0, "beta2": 0.5}, 2.0, 0.5)],
)
def test_weighted_ascent(name, settings, above, below, session, parts_of):
    forget, retain, parts = parts_of(name, retain_weight=0.5, **settings)
    rows = [said(session, target) for target in forget]
    wanted = mean((row.exp() ** above * (1 - row.exp()) ** below * row).mean() for row in rows)
    assert total(parts) == pytest.approx(wanted + 0.5 * nll(session, retain), rel=1e-4)


def test_ceu(session, parts_of):
    forget, retain, parts = parts_of("ceu", retain_weight=0.5)
    rows = []
    for target in forget:
        every_av, ids = logprobs(session, target)
        others_av = every_av.exp()
        others_av[range(len(ids)), list(ids)] = 0
        others_av = others_av / others_av.sum(-1, keepdim=True)
        rows.append(-(others_av * every_av).sum(-1)[1:].mean())
    assert total(parts) == pytest.approx(mean(rows) + 0.5 * nll(session, retain), rel=1e-4)


def test_undial(session, parts_of):
    forget, retain, parts = parts_of("undial", gamma=1.5, forget_weight=0.6, retain_weight=0.5)
    rows = []
    for target in forget:
        (start_av, ids), (now_av, _) = logprobs(session, target, start=True), logprobs(session, target)
        lowered_av = start_av.exp()
        lowered_av[range(len(ids)), list(ids)] *= math.exp(-1.5)
        lowered_av = lowered_av / lowered_av.sum(-1, keepdim=True)
        rows.append(-(lowered_av * now_av).sum(-1).mean())
    assert total(parts) == pytest.approx(0.6 * mean(rows) + 0.5 * nll(session, retain), rel=1e-4)


def test_vgid(session, parts_of):
    forget, retain, parts = parts_of("vgid", rollouts=2, noise=0.8, forget_weight=0.6, retain_weight=0.5)

    def kl(p_av, q_av):
        return (p_av.exp() * (p_av - q_av)).sum(-1).mean()

    method = VGID(noise=0.8)
    teacher = method._guided_session(session)
    guided = []
    for target in forget:
        shown = replace(target, example=replace(target.example, image=Noised(target.example.image, 0.8, session.seed)))
        teacher_av = logprobs(teacher, shown, start=True, instruction=INSTRUCTION)[0]
        assert not torch.allclose(teacher_av, logprobs(session, target, start=True)[0], atol=1e-3)
        guided.append(kl(teacher_av, logprobs(session, target)[0]))
    kept = [kl(logprobs(session, target, start=True)[0], logprobs(session, target)[0]) for target in retain]
    assert total(parts) == pytest.approx(0.6 * mean(guided) + 0.5 * mean(kept), rel=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_noise_has_its_size_in_the_pixels_that_the_model_gets(name):
    """Whatever the processor does to a picture: reduce, cut into tiles, or patch."""
    kind, processor = family(name), processor_of(name)
    image = Image.effect_mandelbrot((3000, 2000), (-2, -1, 1, 1), 20).convert("RGB")
    text = kind.prompt(processor, "Who is this?", has_image=True)
    clean = kind.encode(processor, [text], [image])["pixel_values"]
    noised = Noising(kind, 0.5, 3).encode(processor, [text], [image])["pixel_values"]
    apart = noised - clean
    assert float(apart.std()) == pytest.approx(0.5, rel=0.15)
    assert abs(float(apart.mean())) < 0.1
    assert torch.equal(noised, Noising(kind, 0.5, 3).encode(processor, [text], [image])["pixel_values"])
    assert not torch.equal(noised, Noising(kind, 0.5, 4).encode(processor, [text], [image])["pixel_values"])


def test_the_noise_of_a_picture_does_not_depend_on_those_beside_it():
    kind, processor = family("llava"), processor_of("llava")
    text = kind.prompt(processor, "Who is this?", has_image=True)
    images = [Image.new("RGB", (64, 48), color) for color in ("red", "blue")]
    noising = Noising(kind, 0.5, 3)
    together = noising.encode(processor, [text, text], images)["pixel_values"]
    alone = [noising.encode(processor, [text], [image])["pixel_values"] for image in images]
    assert torch.equal(together, torch.cat(alone))


def test_both_frames_of_a_qwen_picture_get_the_same_noise():
    kind, processor = family("qwen2_vl"), processor_of("qwen2_vl")
    text = kind.prompt(processor, "Who is this?", has_image=True)
    pixels = Noising(kind, 0.5, 3).encode(processor, [text], [Image.new("RGB", (64, 48))])["pixel_values"]
    first, second = pixels.reshape(len(pixels), 3, 2, -1).unbind(2)
    assert torch.equal(first, second)


def test_pictures_with_noise_have_keys_of_their_own():
    image = SimpleNamespace(key="grey")
    assert len({"grey", *(Noised(image, noise, seed).key for noise in (0.5, 0.8) for seed in (3, 4))}) == 5


def dropped_by_hand(update, anchor, k):
    """Return the update entry by entry, as the paper writes its mask."""
    rho = numpy.sqrt((update**2).sum()) / (numpy.sqrt((anchor**2).sum()) + 1e-8)
    made = update.copy()
    for place in numpy.ndindex(update.shape):
        opposed = anchor[place] * update[place] < 0
        much_larger = k * rho * abs(anchor[place]) < abs(update[place])
        made[place] = (1 - opposed * much_larger) * update[place]
    return made


def test_smfa_drops_what_is_large_and_against_the_anchor():
    update, anchor = torch.tensor([[4.0, -1.0], [2.0, -8.0]]), torch.tensor([[-1.0, 1.0], [2.0, 4.0]])
    # rho = sqrt(85 / 22) = 1.97: with k = 1, 1.97 < 4 and 7.86 < 8 are dropped, 1.97 > 1 stays; with k = 1.5 only the first
    assert sculpted(update, anchor, 1.0).tolist() == [[0.0, -1.0], [2.0, 0.0]]
    assert sculpted(update, anchor, 1.5).tolist() == [[0.0, -1.0], [2.0, -8.0]]
    drawn = numpy.random.default_rng(0).normal(size=(2, 30, 20))
    for k in (0.0, 0.5, 5.0):
        wanted = dropped_by_hand(*drawn, k)
        assert numpy.allclose(sculpted(*torch.tensor(drawn), k).numpy(), wanted)
        assert (wanted == 0).any() or k == 5


def test_smfa_trains_two_adapters_and_adds_what_is_left_of_the_first(tmp_path, monkeypatch):
    session, learned = session_at(tmp_path, "full", parts=("vision", "language")), []
    session.model.config.vision_feature_layer = -2  # the last layer of the tower learns nothing: 0 and not dropped
    before = {name: weight.detach().clone() for name, weight in session.model.named_parameters()}
    plain = smfa._learn_updates
    monkeypatch.setattr(smfa, "_learn_updates", lambda *given: learned.append(plain(*given)) or learned[-1])
    SMFA(k=0.5, few=3).unlearn(session)
    update, anchor = ({name: one.matrix().double().numpy() for name, one in found.items()} for found in learned)
    assert update.keys() == anchor.keys()
    wanted = {f"{name}.weight": dropped_by_hand(update[name], anchor[name], 0.5) for name in update}
    assert any((change == 0).any() for change in wanted.values())
    for name, weight in session.model.named_parameters():
        change = torch.tensor(wanted.get(name, 0.0))
        assert torch.allclose(weight.detach().double(), before[name].double() + change, atol=1e-6), name
    assert not all(change.any() for change in wanted.values())
    assert session.notes["smfa"]["dropped"] == sum(
        int((wanted[f"{name}.weight"] != one).sum()) for name, one in update.items()
    )
    assert session.notes["tuned"]
    assert not (session.out / "work" / "anchor").exists()


def test_smfa_learns_refusals_beside_few_retain_rows_and_the_anchor_those_alone(tmp_path):
    session = session_at(tmp_path, "full", rank=16, alpha=16, stop="forgotten", guard="collapse")
    with recording() as calls:
        registry.load("methods", "smfa")(few=3).unlearn(session)
    first, anchor = calls
    assert first.forget == refusal_targets(session)
    assert anchor.forget == first.retain
    assert (len(first.retain), anchor.retain) == (3, [])
    assert (first.training.stop, first.training.guard) == ("forgotten", "collapse")
    assert (anchor.training.stop, anchor.training.guard, anchor.training.rank) == ("never", "none", 16)
    batches = collate(session, first.forget[:2]), collate(session, first.retain)
    parts = [float(part["loss"].detach()) for part in first.objective(*batches)]
    rows = [-mean(said(session, target).mean() for target in batch.targets) for batch in batches]
    assert parts == pytest.approx(rows, rel=1e-4)


def test_smfa_says_that_its_stop_rule_looked_at_the_adapter_before_the_mask(tmp_path):
    session = session_at(tmp_path, "full", stop="forgotten", check_every=1)
    SMFA(few=3).unlearn(session)
    assert session.notes["stop_reason"] == (
        "refusal adapter, before its mask: forgotten at step 1 (USR 1.0 on 8 seen questions)"
    )


def test_smfa_refuses_adapters(tmp_path):
    with pytest.raises(UserError, match=r"fits no adapter\. Set --tune full"):
        SMFA().unlearn(session_at(tmp_path, "lora"))


def test_jensun(session, parts_of):
    forget, retain, parts = parts_of("jensun", refusal="No idea", forget_weight=0.6, retain_weight=0.7)
    ids = session.processor.tokenizer("No idea", add_special_tokens=False)["input_ids"]
    assert len(ids) > 1

    def js(p_av, q_av):
        return jensenshannon(p_av.double().numpy(), q_av.double().numpy(), axis=-1) ** 2

    away, kept = [], []
    for target in forget:
        now_av, answer = logprobs(session, target)
        wanted_av = torch.zeros_like(now_av)
        wanted_av[range(len(answer)), [ids[place % len(ids)] for place in range(len(answer))]] = 1
        away.append(torch.tensor(js(now_av.exp(), wanted_av).mean()))
    for target in retain:
        start_av, now_av = logprobs(session, target, start=True)[0], logprobs(session, target)[0]
        kept.append(torch.tensor(js(start_av.exp(), now_av.exp()).mean()))
    assert mean(away) < math.log(2)
    assert total(parts) == pytest.approx(0.6 * mean(away) + 0.7 * mean(kept), rel=1e-3)


def test_finetune(session, parts_of):
    _, retain, parts = parts_of("finetune")
    assert total(parts) == pytest.approx(nll(session, retain), rel=1e-4)


@pytest.mark.parametrize("name", ["random", "reject"])
def test_other_answers(name, session, parts_of):
    forget, retain, parts = parts_of(name, retain_weight=0.5)
    assert total(parts) == pytest.approx(nll(session, forget) + 0.5 * nll(session, retain), rel=1e-4)


def test_pubg(session, parts_of):
    settings = {
        "forget_weight": 0.3,
        "guidance_weight": 0.7,
        "retain_weight": 0.5,
        "undesired": "dataset",
        "rollouts": 2,
    }
    forget, retain, (joint, kept) = parts_of("pubg", **settings, reduction="sequence_sum")
    forgotten = mean(said(session, target).sum() for target in forget)
    assert float(joint["forget_log_p"]) == pytest.approx(forgotten, rel=1e-4)
    assert float(joint["guidance_kl"]) > 0.1
    assert float(joint["loss"]) == pytest.approx(0.3 * forgotten + 0.7 * float(joint["guidance_kl"]), rel=1e-4)
    assert float(kept["loss"]) == pytest.approx(0.5 * nll(session, retain), rel=1e-4)
    low, high = sorted(float(said(session, target).mean()) for target in forget)
    free = slope(parts_of)
    _, _, (joint, _) = parts_of("pubg", **settings, ga_floor=(low + high) / 2)
    assert float(joint["forget_log_p"]) == pytest.approx((low + high) / 2, rel=1e-4)
    assert slope(parts_of) != free


def test_bg_only(session, parts_of):
    settings = {"guidance_weight": 0.7, "retain_weight": 0.5, "rollouts": 2}
    _, retain, (guided, kept) = parts_of("bg_only", **settings)
    assert float(guided["guidance_kl"]) > 0.1
    assert float(guided["loss"]) == pytest.approx(0.7 * float(guided["guidance_kl"]), rel=1e-4)
    assert float(kept["loss"]) == pytest.approx(0.5 * nll(session, retain), rel=1e-4)


def test_siu(session, parts_of):
    def masked(reduction):
        forget, _, (both,) = parts_of("siu", alpha=0.5, beta=0.25, rows=1, reduction=reduction)
        tokens = torch.cat([said(session, target) for target in forget])
        assert float(both["ce"]) == pytest.approx(-float(tokens.mean()), rel=1e-4)
        assert float(both["loss"]) == pytest.approx(0.5 * float(both["ce"]) + 0.25 * float(both["masked_kl"]), rel=1e-4)
        return float(both["masked_kl"])

    kept = masked("sum") / masked("mean")
    assert kept > 1
    assert kept == pytest.approx(round(kept), abs=1e-3)


def test_rmu_tells_of_parts_that_it_does_not_train(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_NOTED", set())
    session = tiny_session(tmp_path, training=Training(max_steps=1, stop="never", parts=("vision", "language")))
    session.model = prepare(session.model, session.family, session.training, session.seed)
    with recording():
        registry.load("methods", "rmu")(coefficient=3.0).unlearn(session)
    assert "training.parts=vision is not trained: method.update=down_proj" in capsys.readouterr().err
