"""The contract of a method, over every file in methods/ and both ways of tuning."""

from __future__ import annotations

import math

import pytest
import torch

from unsee.api import Role, registry
from unsee.api.request import Completion, Prompt
from unsee.data.refusals import refusals
from unsee.errors import UserError
from unsee.inference.generation import generate
from unsee.methods.random import _choose
from unsee.testing import method_contract
from unsee.testing.methods import session_at
from unsee.testing.tiny import tiny_session
from unsee.training.recording import recording
from unsee.training.resume import checkpoints

METHODS = registry.names("methods")
TRAINED = [name for name in METHODS if registry.load("methods", name)().needs().trains]


def method(name, **more):
    kind = registry.load("methods", name)
    return kind(**{**kind.trial.settings, **more})


def tune_of(name):
    return registry.load("methods", name).trial.tunes[0]


BOTH = [(name, tune) for name in METHODS for tune in ("lora", "full")]


@pytest.mark.parametrize(
    ("name", "tune"),
    [case if case[1] == tune_of(case[0]) else pytest.param(*case, marks=pytest.mark.slow) for case in BOTH],
)
def test_contract(name, tune, tmp_path):
    method_contract(registry.load("methods", name), tune, tmp_path)


def targets_of(name, session, **more):
    """Return the targets that a method hands to `minimise`."""
    with recording() as calls:
        method(name, **more).unlearn(session)
    return {"forget": calls[0].forget, "retain": calls[0].retain}


def test_refusals_replace_the_secret(tmp_path, monkeypatch):
    session = session_at(tmp_path)
    seen = targets_of("reject", session)["forget"]
    assert {target.text for target in seen} <= set(refusals())
    assert all(target.text != target.example.answer for target in seen)
    assert len({target.text for target in seen}) > 1
    assert targets_of("reject", session)["forget"] == seen


def test_user_refusals_are_stripped(tmp_path, monkeypatch):
    (tmp_path / "no.txt").write_text("No. \n\n  I will not say.\n")
    seen = targets_of("reject", session_at(tmp_path), refusals=str(tmp_path / "no.txt"))
    assert {target.text for target in seen["forget"]} <= {"No.", "I will not say."}
    with pytest.raises(UserError, match="names no file"):
        targets_of("reject", session_at(tmp_path), refusals=str(tmp_path / "gone.txt"))


def test_random_targets_are_the_start_models_answers_about_retain_images(tmp_path, monkeypatch):
    session = session_at(tmp_path)
    seen = targets_of("random", session)["forget"]
    images = [example.image for example in session.of(Role.RETAIN) if example.image]
    for target in seen:
        asked = [Prompt(target.example.question, image) for image in images]
        said = generate(session.vlm, asked, max_new_tokens=5)
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
    assert targets_of(name, session)["retain"] == []
    with_retain = targets_of(name, session, retain_weight=1.0)["retain"]
    assert {target.example.role for target in with_retain} == {Role.RETAIN, Role.RETAIN_TEXT}


@pytest.mark.parametrize("name", TRAINED)
def test_unknown_tensor_reaches_the_model_in_every_method(name, tmp_path, monkeypatch):
    """A key that only this processor knows is passed to every training forward."""
    session = session_at(tmp_path, tune_of(name), max_steps=1)
    kind, seen = type(session.family), []
    plain = kind.encode

    def encode(self, processor, prompts, images):
        return {**plain(self, processor, prompts, images), "mystery": torch.ones(len(prompts), 2)}

    def strip(module, args, kwargs):
        seen.append(kwargs.pop("mystery").shape)
        return args, kwargs

    said = Completion("red hair", (40, 41), True)
    monkeypatch.setattr("unsee.methods.common.guidance.generate", lambda vlm, prompts, **k: [said for _ in prompts])
    monkeypatch.setattr(kind, "encode", encode)
    model = session.model if tune_of(name) == "full" else session.model.get_base_model()
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


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_resume_gives_the_same_weights(name, tmp_path):
    def run(out, steps, *, resume=False):
        session = session_at(out, tune_of(name), max_steps=steps, checkpoint_every=1, scheduler="constant")
        session.resume = resume
        method(name).unlearn(session)
        return {key: weight.detach().clone() for key, weight in session.model.named_parameters()}

    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "cut", 2)
    assert checkpoints(tmp_path / "cut")
    again = run(tmp_path / "cut", 3, resume=True)
    assert all(torch.equal(weight, again[key]) for key, weight in whole.items())
