"""Bases whose linear layers are held in few bits: what is stored, what trains, what a saved run opens to."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from helpers.families import vlm_of
from unsee.api import Training, registry
from unsee.api.fast_paths import engine_named
from unsee.compat.tensors import plain_tensors
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import collate
from unsee.models import quantized_base
from unsee.models.checkpoint import load, open_model, open_switchable, read_sidecar, save_model
from unsee.testing.tiny import save_tiny, tiny_model, tiny_session
from unsee.training.targets import own_answers
from unsee.training.trainer import prepare

CLASSES = {name: registry.load("methods", name) for name in registry.names("methods")}
ON_LOW_BITS = [
    name
    for name, cls in CLASSES.items()
    if "lora" in cls.trial.tunes and not cls(**cls.trial.settings).needs().full_weights
]
CPU = torch.device("cpu")
KINDS = [
    pytest.param(
        kind,
        marks=pytest.mark.skipif(find_spec(package) is None, reason=f"{package}, which holds {kind}, is not there"),
    )
    for kind, package in quantized_base.PACKAGES.items()
]
NF4 = (-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0)
NF4 += (0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0)
"""The levels of QLoRA, appendix E (https://arxiv.org/abs/2305.14314)."""


def session_on(kind, out, **training):
    """Return a session of two steps on a quantised tiny model, and the folder of the base."""
    base = save_tiny(out / "base")
    session = tiny_session(
        out / "session", training=Training(quantization=kind, max_steps=2, stop="never", lr=1e-2, **training)
    )
    session.model = load(base, quantization=kind).model
    session.model = prepare(session.model, session.family, session.training, 0)
    return session, base


def logits(session, model):
    """Return the logits of all answers."""
    every = [example for examples in session.examples.values() for example in examples]
    with torch.no_grad():
        return answer_logits(model, collate(replace(session, model=model), own_answers(every)))[0]


@pytest.mark.parametrize("kind", KINDS)
def test_bits_round_as_published(kind):
    """Every weight is the nearest level times the scale of its block (nf4) or its row (int8)."""
    model = tiny_model().float()
    name = "model.language_model.layers.0.mlp.up_proj"
    before = model.get_submodule(name).weight.detach().clone()
    quantized_base.round_trip(model, kind)
    after = model.get_submodule(name).weight
    if kind == "int8":
        level = before.abs().amax(1, keepdim=True) / 127.5
        assert ((after - before).abs() <= 0.55 * level).all()
        assert len(after[0].unique()) > 16
        return
    blocks = before.reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks / scale)[..., None].sub(torch.tensor(NF4)).abs().argmin(-1)
    expected = (torch.tensor(NF4)[nearest] * scale).reshape(before.shape)
    assert (after - expected).abs().max() < 0.02 * before.abs().max()  # the scales are rounded, too


@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_what_is_said(kind):
    model = tiny_model().float()
    said, largest = quantized_base.held_bytes(model, kind)
    full = sum(weight.nbytes for weight in model.parameters())
    head = model.get_output_embeddings().weight
    before = head.detach().clone()
    quantized_base.quantize(model, kind, CPU)
    held = sum(plain.nbytes for weight in model.parameters() for plain in plain_tensors(weight))
    assert torch.equal(model.get_output_embeddings().weight, before)
    assert said == pytest.approx(held, rel=0.3 if kind == "nf4" else 0.02)  # nf4 keeps a code book per layer
    assert said < full
    assert largest == 4 * 32 * 64
    assert quantized_base.kind_of(model) == kind


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_train_and_a_saved_run_is_the_model_in_memory(kind, tmp_path):
    """Only adapters change; merged in full or on the quantised base, the saved model has the same logits."""
    session, base = session_on(kind, tmp_path)
    frozen = {
        name: [plain.clone() for plain in plain_tensors(weight)]
        for name, weight in session.model.named_parameters()
        if not weight.requires_grad
    }
    before = logits(session, session.model)
    registry.load("methods", "npo")(retain_weight=1.0).unlearn(session)
    session.model.eval()
    now = logits(session, session.model)
    assert (now - before).abs().max() > 0.1
    weights = dict(session.model.named_parameters())
    assert all(
        torch.equal(a, b)
        for name, old in frozen.items()
        for a, b in zip(old, plain_tensors(weights[name]), strict=True)
    )

    run = tmp_path / "run"
    save_model(session.model, session.processor, run, base=base)
    assert read_sidecar(run)["quantization"] == kind
    merged, held = open_model(run).model, open_model(run, quantized=True).model
    assert quantized_base.kind_of(merged) == "none"
    assert quantized_base.kind_of(held) == kind
    assert torch.allclose(logits(session, merged), now, atol=1e-3)
    assert torch.allclose(logits(session, held), now, atol=1e-5)
    assert open_switchable(run) is None
    with pytest.raises(UserError, match="adapter already"):
        prepare(held, session.family, session.training, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_engines_agree_and_checkpointing_changes_nothing(kind, tmp_path):
    """Reference answers, split batches and recomputation go through quantised layers alike."""
    found = []
    for name, engine, checkpointing in (("a", "fast", False), ("b", "plain", False), ("c", "fast", True)):
        session, _ = session_on(kind, tmp_path / name, gradient_checkpointing=checkpointing)
        session.engine = engine_named(engine)
        registry.load("methods", "kl")().unlearn(session)
        found.append([row["loss"] for row in session.history])
    assert found[0] == pytest.approx(found[1], rel=2e-3)
    assert found[0] == pytest.approx(found[2], rel=2e-3)
    assert all(map(math.isfinite, found[0]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ON_LOW_BITS)
def test_every_method_runs(kind, name, tmp_path):
    """Every method that does not refuse one trains adapters on a quantised base."""
    session, _ = session_on(kind, tmp_path)
    cls = registry.load("methods", name)
    method = cls(**cls.trial.settings)
    method.unlearn(session)
    assert all(weight.isfinite().all() for weight in session.model.parameters() if weight.requires_grad)
    if method.needs().trains:
        assert session.notes["steps"] == 2
        assert any(weight.abs().max() > 0 for name, weight in session.model.named_parameters() if ".lora_B." in name)


@pytest.mark.fast
def test_a_model_whose_weights_are_experts_is_refused(monkeypatch):
    monkeypatch.setattr(quantized_base, "find_spec", lambda _: True)
    model = vlm_of("qwen3_vl_moe").model
    for name in [name for name, module in model.named_modules() if hasattr(module, "gate_up_proj")]:
        module = model.get_submodule(name)
        module.gate_up_proj = torch.nn.Parameter(module.gate_up_proj.repeat(1, 1, 40))
    for refused in (
        lambda: quantized_base.quantize(model, "int8", CPU),
        lambda: quantized_base.held_bytes(model, "nf4"),
    ):
        with pytest.raises(UserError, match=r"would leave \d\d% of the weights in full: those of the experts"):
            refused()


def test_full_tuning_is_refused():
    with pytest.raises(UserError, match="only adapters train"):
        Training(tune="full", quantization="nf4")


@pytest.mark.fast
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_missing_package_is_named(kind, monkeypatch):
    monkeypatch.setattr(quantized_base, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=rf"pip install {quantized_base.PACKAGES[kind]}"):
        quantized_base.require(kind)
