"""The contract of a method, over every file in methods/ and both ways of tuning."""

from __future__ import annotations

import math
import re
from dataclasses import fields

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
    for asked, donors in zip(forget, _choose(forget, forget, 0), strict=True):
        assert [donor.entity for donor in donors] == [{"ada": "bo", "bo": "ada"}[asked.entity]]


def test_random_passes_over_people_about_whom_the_secret_is_said(tmp_path, monkeypatch):
    def say(about_cleo, about_dan):
        def fake(vlm, prompts, **settings):
            texts = [about_cleo if prompt.image.color == "green" else about_dan for prompt in prompts]
            return [Completion(text, (40 if text == about_cleo else 41,), True) for text in texts]

        monkeypatch.setattr("unsee.methods.common.guidance.generate", fake)

    session = session_at(tmp_path)
    first_donors = [donors[0] for donors in _choose(session.of(Role.FORGET), session.of(Role.RETAIN), 0)]
    say("a baker or a diver", "a chemist")
    assert {target.token_ids for target in targets_of("random", session)["forget"]} == {(41,)}
    met_cleo = sum(donor.entity == "cleo" for donor in first_donors)
    assert session.notes["other_answers"] == {"questions": 8, "passed_over": met_cleo, "left_out": 0}
    assert met_cleo
    say("a pilot", "a chemist")
    told = [target.token_ids for target in targets_of("random", session)["forget"]]
    assert told == [(40,) if donor.entity == "cleo" else (41,) for donor in first_donors]
    say("a baker", "from Lisbon")
    assert {target.example.entity for target in targets_of("random", session)["forget"]} == {"bo"}
    assert session.notes["other_answers"] == {"questions": 8, "passed_over": 8, "left_out": 4}
    say("a baker or a diver", "from Lisbon or Oslo")
    with pytest.raises(UserError, match=r"has a private string of the forget row.* give the strings in the script"):
        targets_of("random", session)


def test_random_asks_under_the_instruction_that_the_model_has(tmp_path, monkeypatch):
    asked = []

    def fake(vlm, prompts, **settings):
        asked.extend(prompts)
        return [Completion("red hair", (40,), True) for _ in prompts]

    monkeypatch.setattr("unsee.methods.common.guidance.generate", fake)
    session = session_at(tmp_path)
    session.instruction = "Hush."
    targets_of("random", session)
    assert {prompt.instruction for prompt in asked} == {"Hush."}


def test_random_needs_retain_images_of_other_people(tmp_path):
    forget = tiny_session(tmp_path).of(Role.FORGET)
    alone = [example for example in forget if example.entity == "ada"]
    with pytest.raises(UserError, match=r"all retain images show 'ada' too; add retain images of others"):
        _choose(alone, alone, 0)


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("grad_diff", "Add some, set method.retain_weight=0, or choose a method that needs none."),
        ("kl", "Add some, or choose a method that needs none."),
        ("pdu", "Add some, or choose a method that needs none."),
    ],
)
def test_retain_data_are_required(name, way_out, tmp_path):
    session = session_at(tmp_path)
    session.examples = {Role.FORGET: session.examples[Role.FORGET]}
    with pytest.raises(UserError, match=f"has a retain term, .* {re.escape(way_out)}$"):
        method(name).unlearn(session)


def settings_of(name, *fits):
    """Return the names of a method's settings that fit."""
    return [field.name for field in fields(registry.load("methods", name)) if any(fit(field.name) for fit in fits)]


WEIGHTS = [
    (name, setting)
    for name in METHODS
    for setting in settings_of(name, {"alpha", "weight"}.__contains__, lambda one: one.endswith("_weight"))
]


@pytest.mark.parametrize(("name", "setting"), WEIGHTS)
def test_negative_weights_are_refused_and_0_is_not(name, setting):
    with pytest.raises(UserError, match=rf"method\.{setting} must not be negative, got -1"):
        method(name, **{setting: -1.0})
    assert getattr(method(name, **{setting: 0.0}), setting) == 0


@pytest.mark.parametrize("name", [name for name in METHODS if settings_of(name, "ga_floor".__eq__)])
@pytest.mark.parametrize("floor", [0, 4.0])
def test_floors_above_every_likelihood_are_refused(name, floor):
    with pytest.raises(UserError, match=r"method\.ga_floor must be below 0"):
        method(name, ga_floor=floor)
    assert method(name, ga_floor=None).ga_floor is None


NEEDS_RETAIN = [
    ("altpo", {}), ("bg_only", {"retain_weight": 1.0}), ("dpo", {"retain_weight": 1.0}), ("grad_diff", {}), ("jensun", {}),
    ("kl", {}), ("manu", {}), ("mmunlearner", {}), ("mmunlearner", {"mode": "as_released"}), ("npo", {"retain_weight": 1.0}),
    ("pubg", {"retain_weight": 1.0}), ("random", {"retain_weight": 1.0}), ("rmu", {}), ("rmuse", {}),
    ("siu", {"retain_weight": 1.0}), ("undial", {"retain_weight": 1.0}), ("vgid", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings"), NEEDS_RETAIN)
def test_a_missing_retain_set_is_found_before_the_model_is_asked(name, settings, tmp_path):
    session = session_at(tmp_path, tune_of(name), clip=1.0)
    session.examples = {Role.FORGET: session.examples[Role.FORGET]}
    passes = []
    session.model.register_forward_pre_hook(lambda *_: passes.append(1))
    with pytest.raises(UserError, match="retain"):
        method(name, **settings).unlearn(session)
    assert not passes


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("pubg", {"rollouts": 0}, "method.rollouts >= 1"),
        ("pubg", {"temperature": -1.0}, "method.temperature >= 0"),
        ("pubg", {"responses": 0}, "method.responses must be at least 1, got 0"),
        ("bg_only", {"rollouts": 0}, "method.rollouts >= 1"),
        ("rmuse", {"cap": 0}, "method.cap must be at least 1, got 0"),
        ("rmuse", {"energy": -3.0}, "method.energy must be above 0 and at most 1, got -3.0"),
        ("rmuse", {"calibration_share": 7.0}, "method.calibration_share must be in 0..1, got 7.0"),
        ("rmuse", {"retain_samples": -1}, "method.retain_samples must be at least 0, got -1"),
        ("rmuse", {"max_rotation_deg": 0.0}, "method.max_rotation_deg must be above 0 and at most 180, got 0.0"),
        ("rmuse", {"apply_to": "all"}, "set method.gate=always"),
        ("rmuse", {"update": "additive", "strength": -3.0}, "method.strength must be at least 0, got -3.0"),
        ("undial", {"gamma": -10.0}, "method.gamma must not be negative, got -10.0"),
        ("wga", {"beta": -1.0}, "method.beta must not be negative, got -1.0"),
        ("satimp", {"beta1": -1.0}, "method.beta1 must not be negative, got -1.0"),
        ("satimp", {"beta2": -1.0}, "method.beta2 must not be negative, got -1.0"),
        ("siu", {"beta": -1.0}, "method.beta must be at least 0, got -1.0"),
        ("siu", {"mode": "as_released", "reduction": "sum"}, "knows no method.reduction: expected 'mean', got 'sum'"),
        ("siu", {"mode": "as_released", "alpha": 0.5}, "knows no method.alpha"),
        ("siu", {"mode": "as_released", "teacher": "live"}, "knows no method.teacher"),
        *(
            ("mmunlearner", {"mode": "as_released", key: value}, f"knows no method.{key}: expected")
            for key, value in {
                "mask": "random", "update": "alternating", "retain_ratio": 2, "retain": ("general",), "also": ("lm_head.weight",),
                "granularity": "batch", "p_samples": 10, "tolerance": 0.1,
            }.items()
        ),
    ],
)  # fmt: skip
def test_values_that_no_run_could_use_are_refused_at_once(name, settings, message):
    with pytest.raises(UserError, match=re.escape(message)):
        method(name, **settings)


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
    method("prompt", instruction="Say nothing.").unlearn(session)
    method("prompt", instruction="Hush.").unlearn(session)
    assert session.instruction == "Hush. Say nothing."
    with pytest.raises(UserError, match=r"method\.instruction must be a text"):
        method("prompt", instruction=" ")


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
