"""What is made again for the backward pass has the same bits, and is not kept: every family, both ways of tuning."""

from __future__ import annotations

import copy
import gc
import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from transformers.activations import QuickGELUActivation
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from helpers.families import FAMILIES, session_of
from unsee.api import Training
from unsee.api.fast_paths import FAST, PLAIN
from unsee.compat import fast_paths as fast_path_trials
from unsee.compat import probes
from unsee.compat.probes import trial_fault
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import collate
from unsee.losses import answer_nll
from unsee.training import recompute
from unsee.training.recompute import recomputing, vision_rerun
from unsee.training.targets import forget_targets
from unsee.training.trainer import prepare

EVERYTHING = ("vision", "projector", "language")


@pytest.fixture(autouse=True)
def _every_size(monkeypatch):
    monkeypatch.setattr(recompute, "SMALLEST", 0)


def batch_of(name, tmp_path, tune):
    session = session_of(name, tmp_path, Training(tune=tune, parts=EVERYTHING, max_new_tokens=4))
    session.model = prepare(session.model, session.family, session.training, seed=0).train()
    return session, collate(session, forget_targets(session)[:2])


def gradients_of(model):
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def passed(session, batch, forward):
    with forward():
        loss = answer_nll(*answer_logits(session.model, batch))
    loss.backward()
    return loss.detach(), gradients_of(session.model)


@pytest.mark.parametrize("tune", ["lora", "full"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_gradients_have_the_same_bits(name, tune, tmp_path):
    session, batch = batch_of(name, tmp_path, tune)
    loss, gradients = passed(session, batch, nullcontext)
    with recomputing(session.model, FAST) as lean:
        again, same = passed(session, batch, lean)
    assert torch.equal(again, loss)
    assert same.keys() == gradients.keys()
    sums = (
        1e-6 if name == "aya_vision" and tune == "lora" else 0
    )  # its norm keeps more than its input: differentiated as one
    assert all(torch.allclose(same[key], gradients[key], atol=sums, rtol=sums) for key in same)


def loss_of(session, batch):
    plain = batch.plain(range(len(batch.rows)))
    return lambda: answer_nll(*answer_logits(session.model, plain))


def test_a_rerun_with_other_gradients_is_not_used(tmp_path, monkeypatch, capsys):
    session, batch = batch_of("llava", tmp_path, "full")
    session.model.eval()
    loss, gradients = passed(session, batch, nullcontext)

    class Doubled(recompute._Twice):
        @staticmethod
        def backward(ctx, *grads):
            return real.backward(ctx, *(None if grad is None else 2 * grad for grad in grads))

    real = recompute._Twice
    monkeypatch.setattr(recompute, "_Twice", Doubled)
    monkeypatch.setattr(probes, "trial_fault", trial_fault)  # conftest.py takes fast paths on trust
    fast_path_trials.forget()
    with recomputing(session.model, FAST) as lean, vision_rerun(session.model, FAST, lean, loss_of(session, batch)):
        again, same = passed(session, batch, lean)
    said = capsys.readouterr().err
    assert said.count("fast path 'vision_rerun' is off for LlavaForConditionalGeneration") == 1
    assert torch.equal(again, loss)
    assert all(torch.allclose(same[key], gradients[key], atol=1e-6) for key in gradients)
    fast_path_trials.forget()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_second_look_gives_the_same_gradients(name, tmp_path):
    session, batch = batch_of(name, tmp_path, "full")
    session.model.eval()
    loss, gradients = passed(session, batch, nullcontext)
    with recomputing(session.model, FAST) as lean, vision_rerun(session.model, FAST, lean, loss_of(session, batch)):
        again, same = passed(session, batch, lean)
    assert torch.equal(again, loss)
    assert same.keys() == gradients.keys()
    assert all(torch.allclose(same[key], gradients[key], atol=1e-6) for key in same)


def kept_bytes(session, batch, forward):
    """Bytes that autograd keeps, weights left out, each storage once."""
    weights = {weight.untyped_storage().data_ptr() for weight in session.model.parameters()}
    sizes, alive = {}, []

    def pack(x):
        alive.append(x)
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return x

    with pytest.MonkeyPatch.context() as patch:
        made = recompute._Registry.pack
        patch.setattr(recompute._Registry, "pack", lambda self, x: pack(y) if (y := made(self, x)) is x else y)
        with saved_tensors_hooks(pack, lambda x: x), forward():
            answer_nll(*answer_logits(session.model, batch))
    return sum(sizes.values())


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_less_is_kept(name, tmp_path):
    session, batch = batch_of(name, tmp_path, "lora")
    plain = kept_bytes(session, batch, nullcontext)
    with recomputing(session.model, FAST) as lean:
        assert kept_bytes(session, batch, lean) < 0.85 * plain


def test_nothing_is_left_behind(tmp_path):
    session, batch = batch_of("llava", tmp_path, "lora")
    passed(session, batch, nullcontext)
    before = [
        (type(m), len(m._forward_hooks), len(m._forward_pre_hooks), set(vars(m))) for m in session.model.modules()
    ]
    with recomputing(session.model, FAST) as lean, vision_rerun(session.model, FAST, lean, loss_of(session, batch)):
        passed(session, batch, lean)
    after = [(type(m), len(m._forward_hooks), len(m._forward_pre_hooks), set(vars(m))) for m in session.model.modules()]
    assert after == before


@pytest.mark.parametrize("off", ["engine", "checkpointing"])
def test_it_can_be_switched_off(off, tmp_path):
    session, _ = batch_of("llava", tmp_path, "lora")
    engine = PLAIN if off == "engine" else FAST
    with recomputing(session.model, engine, checkpointing=off == "checkpointing") as lean:
        assert lean is nullcontext


class Gated(nn.Module):
    """A gated block on a wide activation function."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.gate, self.up, self.down = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)
        self.function = QuickGELUActivation()

    def forward(self, x):
        y = self.norm(x)
        return x + self.down(self.function(self.gate(y)) * self.up(y))


def test_a_graph_that_is_let_go_is_freed(monkeypatch):
    recipes = []

    class Recipe(recompute._Recipe):
        def __init__(self, make):
            super().__init__(make)
            recipes.append(weakref.ref(self))

    monkeypatch.setattr(recompute, "_Recipe", Recipe)
    block, x = Gated(), torch.randn(3, 8)
    gc.disable()
    try:
        with recomputing(block, FAST) as lean:
            with lean():
                y = block(block(x))
            assert sum(recipe() is not None for recipe in recipes) == 6
            del y
            assert not any(recipe() for recipe in recipes)
    finally:
        gc.enable()


def test_a_frozen_norm_in_half_precision_keeps_its_input_alone():
    norm = LlamaRMSNorm(64).bfloat16()
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(20, 64).bfloat16().requires_grad_()
    sizes, found = [], []
    for trained in (True, False):
        norm.weight.requires_grad_(trained)
        with recomputing(norm, FAST) as lean, lean():
            kept = []
            with saved_tensors_hooks(lambda x, kept=kept: kept.append(x) or x, lambda x: x):
                y = norm(x)
        sizes.append(sum(one.nbytes for one in kept))
        found.append((y.detach(), torch.autograd.grad(y.float().square().sum(), x)[0]))
    assert sizes[1] == x.nbytes < sizes[0] / 3
    assert torch.equal(found[0][0], found[1][0])
    assert torch.allclose(found[0][1].float(), found[1][1].float(), rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("half", [False, True])
def test_both_backward_passes_of_one_graph(half):
    torch.manual_seed(0)
    block, x = Gated(), torch.randn(3, 8)
    found = []
    with recomputing(block, FAST) as lean:
        for forward in (nullcontext, lean):
            with torch.autocast("cpu", torch.bfloat16, enabled=half), forward():
                loss = block(block(x)).float().square().sum()
            weights = list(block.parameters())
            once = torch.autograd.grad(loss, weights, retain_graph=True)
            found.append([*once, *torch.autograd.grad(loss, weights)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_an_input_changed_in_place_is_noticed():
    block, x = Gated(), torch.randn(3, 8)
    with recomputing(block, FAST) as lean, lean():
        y = block.norm(x)
        loss = block.gate(y).sum()
    x.add_(1)
    with pytest.raises(RuntimeError, match="in place"):
        loss.backward()


class ScaledNorm(nn.LayerNorm):
    """A norm that may be given more than its input."""

    def forward(self, x, scale=1.0):
        return super().forward(x) * scale


def test_a_norm_that_is_given_more_is_left_alone():
    norm, linear, x = ScaledNorm(8), nn.Linear(8, 8), torch.randn(3, 8)
    with recomputing(norm, FAST) as lean:
        found = []
        for forward in (nullcontext, lean):
            with forward():
                loss = linear(norm(x, scale=3.0)).square().sum()
            found.append(torch.autograd.grad(loss, [linear.weight, norm.weight]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("kind", ["images", "two"])
def test_norms_of_other_inputs_do_not_stop_the_run(kind):
    class ImageNorm(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class PairNorm(nn.LayerNorm):
        def forward(self, x, y):
            return super().forward(x) + y

    norm = (ImageNorm if kind == "images" else PairNorm)(4).requires_grad_(False)
    x = torch.randn(2, 4, 3, 3) if kind == "images" else torch.randn(2, 4)
    inputs = [x.requires_grad_()] if kind == "images" else [x.requires_grad_(), x]
    wanted = torch.autograd.grad(norm(*inputs).square().sum(), x)[0]
    with recomputing(norm, FAST) as lean:
        with lean():
            loss = norm(*inputs).square().sum()
        assert torch.allclose(torch.autograd.grad(loss, x)[0], wanted, atol=1e-6)


def test_an_output_changed_in_place_is_kept():
    block, x = Gated(), torch.randn(3, 8)

    def gradient(forward):
        with forward():
            y = block.norm(x)
            y.mul_(2)
            loss = block.gate(y).sum()
        return torch.autograd.grad(loss, block.gate.weight)[0]

    with recomputing(block, FAST) as lean:
        assert torch.equal(gradient(lean), gradient(nullcontext))


def test_a_copy_made_meanwhile_is_a_model_of_its_own():
    block, x = Gated(), torch.randn(3, 8)
    with recomputing(block, FAST) as lean, lean():
        twin = copy.deepcopy(block)
        twin.gate.weight.data.zero_()
        assert not torch.equal(twin(x), block(x))
        assert type(twin.function).__name__ == "QuickGELUActivation"
