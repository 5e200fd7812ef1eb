"""One function for a layer and its adapter says what peft says, or leaves it to peft."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn

from families import FAMILIES, session_of
from unsee import engine, fused
from unsee.api import Training
from unsee.batching import answer_logits, collate
from unsee.losses import answer_nll
from unsee.targets import forget_targets
from unsee.training import prepare


@pytest.fixture
def calls(monkeypatch):
    """How often the one function was used."""
    found = []
    made = fused._Sum.forward

    def forward(ctx, *args):
        found.append(args[0].dtype)
        return made(ctx, *args)

    monkeypatch.setattr(fused._Sum, "forward", staticmethod(forward))
    return found


def gradients(model):
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def scattered(model):
    """Give B other values than zero, or half of the gradients would be zero."""
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(weight, std=0.2)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_the_loss_and_gradients_of_peft(name, tmp_path, calls):
    parts = ("vision", "projector", "language")
    session = session_of(name, tmp_path, Training(tune="lora", parts=parts, max_new_tokens=4))
    session.model = prepare(session.model, session.family, session.training, seed=0).train()
    scattered(session.model)
    batch = collate(session, forget_targets(session)[:2])

    def step():
        loss = answer_nll(*answer_logits(session.model, batch))
        loss.backward()
        return loss.detach(), gradients(session.model)

    loss, wanted = step()
    assert not calls
    with fused.fused(session.model):
        again, found = step()
    layers = [module for module in session.model.modules() if type(module) is LoraLinear]
    assert len(calls) >= len(layers) > 0
    assert torch.allclose(again, loss, atol=1e-5)
    assert found.keys() == wanted.keys()
    for key, grad in wanted.items():
        assert torch.allclose(found[key], grad, atol=1e-5 + 1e-4 * float(grad.abs().max())), key


class Two(nn.Module):
    """Two layers, the first without a bias."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8, bias=False), nn.Linear(8, 4)

    def forward(self, x):
        return self.second(self.first(x).tanh())


def adapted(**settings):
    torch.manual_seed(0)
    model = get_peft_model(Two(), LoraConfig(r=2, lora_alpha=6, target_modules=["first", "second"], **settings))
    scattered(model)
    return model


@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 5, 6)])
def test_inputs_of_any_shape(shape, calls):
    model, x = adapted(), torch.randn(shape, requires_grad=True)
    wanted = model(x)
    wanted_grad = torch.autograd.grad(wanted.sum(), x)[0]
    with fused.fused(model):
        found = model(x)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert torch.allclose(torch.autograd.grad(found.sum(), x)[0], wanted_grad, atol=1e-6)
    assert len(calls) == (2 if len(shape) > 1 else 0)


def test_a_half_precision_base_under_autocast(calls):
    model = adapted()
    for name, weight in model.named_parameters():
        if ".lora_" not in name:
            weight.data = weight.data.bfloat16()
    x = torch.randn(50, 6).bfloat16()

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            y = model(x)
        y.float().square().mean().backward()
        return y, gradients(model)

    y, wanted = step()
    with fused.fused(model):
        z, found = step()
    assert calls == [torch.bfloat16] * 2
    assert z.dtype == y.dtype == torch.bfloat16
    assert torch.allclose(z.float(), y.float(), atol=0.03)
    for key, grad in wanted.items():
        assert found[key].dtype == torch.float32
        assert (found[key] - grad).norm() < 0.03 * grad.norm(), key


@pytest.mark.parametrize(
    "kind",
    ["dropout", "dora", "lora_bias", "disabled", "merged", "two", "no_grad", "mixed", "base_trained", "plain engine"],
)
def test_what_is_not_plain_is_left_to_peft(kind, calls):
    settings = {"dropout": {"lora_dropout": 0.5}, "dora": {"use_dora": True}, "lora_bias": {"lora_bias": True}}
    model, x = adapted(**settings.get(kind, {})), torch.randn(3, 6)
    model.train()
    if kind == "merged":
        model.merge_adapter()
    if kind == "two":
        model.add_adapter("other", LoraConfig(r=2, target_modules=["first", "second"]))
        model.base_model.set_adapter(["default", "other"])
    if kind == "base_trained":
        model.base_model.model.first.base_layer.weight.requires_grad_(True)
        model.base_model.model.second.base_layer.weight.requires_grad_(True)
    half = torch.autocast("cpu", torch.bfloat16, enabled=kind == "mixed")
    disabled = model.disable_adapter() if kind == "disabled" else torch.set_grad_enabled(kind != "no_grad")
    with half, disabled:
        torch.manual_seed(2)
        wanted = model(x)
        torch.manual_seed(2)
        with engine.using("plain" if kind == "plain engine" else "fast"), fused.fused(model):
            found = model(x)
    assert not calls
    assert torch.equal(found, wanted)


def test_layers_are_peft_s_own_again():
    model = adapted()
    with fused.fused(model):
        assert type(model.base_model.model.first) is not LoraLinear
    assert type(model.base_model.model.first) is LoraLinear
