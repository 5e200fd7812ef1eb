"""Every weight, direction and reduction that a method offers is in its loss: worked out again, row by row, from plain logits."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch.nn.functional import logsigmoid

from unsee.api import Training, registry
from unsee.inference.batching import collate, target_ids
from unsee.inference.encoder import encoder
from unsee.methods.common.refusal_targets import refusal_targets
from unsee.testing.tiny import tiny_session
from unsee.training.recording import recording
from unsee.training.trainer import prepare


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
        made = calls[0].objective(collate(session, forget), collate(session, retain) if retain else None)
        return forget, retain, [{key: value.detach() for key, value in part.items()} for part in made]

    return given


def logprobs(session, target, *, start=False):
    """Return log p of the whole vocabulary at each answer token, and the tokens; of one row, by the plain model."""
    ids = target_ids(session.processor, session.family, target)
    inputs = dict(encoder(session.processor, session.family).row(target.example.question, target.example.image))
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


def test_ga_floor_leaves_out_what_is_below_it(session, parts_of):
    forget, _, _ = parts_of("ga")
    low, high = sorted(float(said(session, target).mean()) for target in forget)
    _, _, parts = parts_of("ga", ga_floor=(low + high) / 2)
    assert total(parts) == pytest.approx(high / 2, rel=1e-4)


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
    _, _, (joint, _) = parts_of("pubg", **settings, ga_floor=(low + high) / 2)
    assert float(joint["forget_log_p"]) == pytest.approx(high / 2, rel=1e-4)


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
