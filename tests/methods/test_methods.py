"""The contract of a method, over every file in methods/ and both ways of tuning."""

from __future__ import annotations

import dataclasses
import inspect
import math

import pytest
import torch

from helpers.tiny import Drawn, tiny_processor, tiny_session
from unsee.api import Role, Training, registry
from unsee.api.request import Generated, Request
from unsee.data.refusals import refusals
from unsee.errors import UserError
from unsee.inference.generation import generate
from unsee.methods.random import _choose
from unsee.models.checkpoint import open_model, save_model
from unsee.training.trainer import prepare

METHODS = registry.names("methods")
SETTINGS = {"pubg": {"undesired": "dataset", "rollouts": 2}, "bg_only": {"rollouts": 2}}
UNTRAINED = {"prompt", "rmuse"}
FULL_ONLY = {"mmunlearner"}


def method(name, **more):
    return registry.load("methods", name)(**{**SETTINGS.get(name, {}), **more})


def session_at(out, tune="lora", **settings):
    training = Training(**{"tune": tune, "lr": 1e-3, "max_steps": 2, "stop": "never", "max_new_tokens": 5, **settings})
    session = tiny_session(out, training=training)
    session.model = prepare(session.model, session.family, training, session.seed)
    return session


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", METHODS)
def test_every_number_of_a_method_is_finite(name, value):
    cls = registry.load("methods", name)
    numbers = [field.name for field in dataclasses.fields(cls) if "float" in str(field.type)]
    for number in numbers:
        with pytest.raises(UserError, match=rf"method\.{number} must be a finite number, got {value}"):
            method(name, **{number: value})


def weights(session):
    return {name: weight.detach().clone() for name, weight in session.model.named_parameters()}


def say(session):
    asked = [Request("Who is this?", Drawn(color)) for color in ("red", "blue", "green")]
    return generate(session.model, session.processor, session.family, asked, max_new_tokens=6)


@pytest.mark.parametrize("tune", ["lora", "full"])
@pytest.mark.parametrize("name", METHODS)
def test_contract(name, tune, tmp_path):
    """Finite, changed, frozen parts untouched, images in every forward, two runs alike, saved model says the same."""
    if name in FULL_ONLY and tune == "lora":
        with pytest.raises(UserError, match="--tune full"):
            method(name).unlearn(session_at(tmp_path, tune))
        return
    session = session_at(tmp_path / "a", tune)
    base = session.model.get_base_model() if tune == "lora" else session.model
    pixels = []

    def watch(module, args, kwargs):
        if kwargs.get("past_key_values") is None and (kwargs["input_ids"] == base.config.image_token_id).any():
            pixels.append("pixel_values" in kwargs or "mm_encoder_outputs" in kwargs)

    hook = base.register_forward_pre_hook(watch, with_kwargs=True)
    before = weights(session)
    method(name).unlearn(session)
    hook.remove()
    after = weights(session)
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    assert all(torch.isfinite(weight).all() for weight in after.values())
    assert bool(changed) == (name not in UNTRAINED)
    assert all(session.model.get_parameter(key).requires_grad for key in changed)
    assert not [key for key in changed if "vision_tower" in key or "projector" in key]
    if name not in UNTRAINED:
        assert pixels
        assert all(pixels)
        assert session.notes["steps"] == len(session.history) == 2

    again = session_at(tmp_path / "b", tune)
    method(name).unlearn(again)
    assert all(torch.equal(after[key], value) for key, value in weights(again).items())

    tiny_session(tmp_path).model.save_pretrained(tmp_path / "base")
    tiny_processor().save_pretrained(tmp_path / "base")
    save_model(session.model, session.processor, tmp_path / "run" / "model", base=tmp_path / "base")
    loaded = open_model(tmp_path / "run")
    session.processor, saved = loaded.processor, say(session)
    session.model = loaded.model
    assert [answer.text for answer in say(session)] == [answer.text for answer in saved]


@pytest.mark.parametrize("name", METHODS)
def test_settings_are_frozen_and_documented(name):
    kind = registry.load("methods", name)
    assert kind.__doc__
    with pytest.raises(dataclasses.FrozenInstanceError):
        method(name).anything = 1
    source = inspect.getsource(kind)
    for field in dataclasses.fields(kind):
        after = source.split(f"    {field.name}: ", 1)[1].splitlines()
        assert any(line.strip().startswith('"""') for line in after[1:2]), field.name


def targets_of(name, session, monkeypatch, **more):
    """Return the forget targets a method passes to `minimise`."""
    seen = {}

    def fake(session, objective, *, forget, retain=()):
        seen.update(forget=list(forget), retain=list(retain), objective=objective)

    module = registry.load("methods", name).__module__
    monkeypatch.setattr(f"{module}.minimise", fake)
    method(name, **more).unlearn(session)
    return seen


def test_refusals_replace_the_secret(tmp_path, monkeypatch):
    session = session_at(tmp_path)
    seen = targets_of("reject", session, monkeypatch)["forget"]
    assert {target.text for target in seen} <= set(refusals())
    assert all(target.text != target.example.answer for target in seen)
    assert len({target.text for target in seen}) > 1
    assert targets_of("reject", session, monkeypatch)["forget"] == seen


def test_user_refusals_are_stripped(tmp_path, monkeypatch):
    (tmp_path / "no.txt").write_text("No. \n\n  I will not say.\n")
    seen = targets_of("reject", session_at(tmp_path), monkeypatch, refusals=str(tmp_path / "no.txt"))
    assert {target.text for target in seen["forget"]} <= {"No.", "I will not say."}
    with pytest.raises(UserError, match="names no file"):
        targets_of("reject", session_at(tmp_path), monkeypatch, refusals=str(tmp_path / "gone.txt"))


def test_random_targets_are_the_start_models_answers_about_retain_images(tmp_path, monkeypatch):
    session = session_at(tmp_path)
    seen = targets_of("random", session, monkeypatch)["forget"]
    images = [example.image for example in session.of(Role.RETAIN) if example.image]
    for target in seen:
        asked = [Request(target.example.question, image) for image in images]
        said = generate(session.model, session.processor, session.family, asked, max_new_tokens=5)
        assert target.token_ids in {answer.token_ids for answer in said}


def test_random_never_takes_answers_about_the_same_person(tmp_path):
    forget = tiny_session(tmp_path).of(Role.FORGET)
    for asked, donor in zip(forget, _choose(forget, forget, 0), strict=True):
        assert asked.entity != donor.entity


@pytest.mark.parametrize("name", ["grad_diff", "kl"])
def test_retain_data_are_required(name, tmp_path):
    session = session_at(tmp_path)
    session.examples = {Role.FORGET: session.examples[Role.FORGET]}
    with pytest.raises(UserError, match="has a retain term"):
        method(name).unlearn(session)


@pytest.mark.parametrize("name", ["npo", "reject", "random", "pubg", "bg_only"])
def test_retain_weight_adds_the_retain_answers(name, tmp_path, monkeypatch):
    session = session_at(tmp_path)
    assert targets_of(name, session, monkeypatch)["retain"] == []
    with_retain = targets_of(name, session, monkeypatch, retain_weight=1.0)["retain"]
    assert {target.example.role for target in with_retain} == {Role.RETAIN, Role.RETAIN_TEXT}


@pytest.mark.parametrize("name", sorted(set(METHODS) - UNTRAINED))
def test_unknown_tensor_reaches_the_model_in_every_method(name, tmp_path, monkeypatch):
    """A key that only this processor knows is passed to every training forward."""
    session = session_at(tmp_path, "full" if name in FULL_ONLY else "lora", max_steps=1)
    kind, seen = type(session.family), []
    plain = kind.encode

    def encode(self, processor, prompts, images):
        return {**plain(self, processor, prompts, images), "mystery": torch.ones(len(prompts), 2)}

    def strip(module, args, kwargs):
        seen.append(kwargs.pop("mystery").shape)
        return args, kwargs

    said = Generated("red hair", (40, 41), True)
    monkeypatch.setattr(
        "unsee.methods.common.guidance.generate", lambda m, p, f, requests, **k: [said for _ in requests]
    )
    monkeypatch.setattr(kind, "encode", encode)
    model = session.model if name in FULL_ONLY else session.model.get_base_model()
    model.register_forward_pre_hook(strip, with_kwargs=True)
    method(name).unlearn(session)
    assert seen


def test_npo_reference_is_the_start_model(tmp_path, monkeypatch):
    session = session_at(tmp_path, max_steps=1)
    method("npo").unlearn(session)
    assert session.history[0]["npo"] == pytest.approx(2 / 0.1 * math.log(2), rel=1e-5)


def test_kl_is_zero_at_the_start(tmp_path):
    session = session_at(tmp_path, max_steps=1)
    method("kl").unlearn(session)
    assert session.history[0]["retain_kl"] == pytest.approx(0.0, abs=1e-6)
    assert session.history[0]["loss"] == pytest.approx(-session.history[0]["forget_nll"], abs=1e-5)


def test_prompt_only_sets_the_instruction(tmp_path):
    session = session_at(tmp_path)
    method("prompt", instruction="Hush.").unlearn(session)
    assert session.instruction == "Hush."
