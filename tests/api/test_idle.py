"""Settings that can have no effect: refused where they are given, told where other runs share them."""

from __future__ import annotations

import argparse
import re
import shlex
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from unsee import config, recipes
from unsee.api import Training, registry
from unsee.api.idle import idle_for_method, idle_in_run, require_effect, without_effect
from unsee.cli.commands import _shared, forget
from unsee.errors import UserError

ROOT = Path(__file__).parents[2]
UNMASKED = {
    "gamma": 2.0,
    "modules": ["vision"],
    "also": ["norm.weight"],
    "p_samples": 9,
    "p_text": "released",
    "tolerance": 0.1,
}
RELEASED = {"mode": "as_released", "allow_noop_mask": True}
METHODS = [
    ("rmuse", {}, "strength", 2.0),
    ("rmuse", {"mode": "safe"}, "strength", 2.0),
    ("rmuse", {}, "tau_margin", 0.05),
    ("rmuse", {"mode": "safe", "tau": 0.5}, "tau_margin", 0.05),
    ("rmuse", {"gate": "always", "mode": "safe"}, "tau_margin", 0.05),
    ("rmuse", {"update": "additive"}, "max_rotation_deg", 60.0),
    ("rmuse", {"gate": "off"}, "tau", 0.5),
    ("rmuse", {"gate": "always"}, "score", "contrast"),
    ("rmuse", {"gate": "always"}, "scoring_layer", 2),
    ("rmuse", {"protect": False, "gate": "off"}, "energy", 0.5),
    ("rmuse", {"protect": False, "score": "contrast"}, "cap", 8),
    ("pubg", {"undesired": "dataset"}, "responses", 2),
    ("pubg", {"forget_weight": 0.0}, "ga_floor", -4.0),
    ("pubg", {"temperature": 0.0}, "rollouts", 2),
    ("bg_only", {"temperature": 0.0}, "rollouts", 2),
    ("vgid", {"temperature": 0.0}, "rollouts", 2),
    ("unsee", {"temperature": 0.0}, "rollouts", 2),
    ("altpo", {"temperature": 0.0}, "alternates", 2),
    ("pubg", {"guidance_weight": 0.0}, "instruction", "Say nothing."),
    ("pubg", {"guidance_weight": 0.0}, "kl_direction", "reverse"),
    ("pubg", {"guidance_weight": 0.0}, "teacher", "live"),
    *((name, {}, "prompt_decouple_pairing", "random") for name in ("ga", "grad_diff", "kl", "reject")),
    ("siu", {}, "retain_ratio", 4),
    ("siu", {"beta": 0.0}, "reduction", "sum"),
    ("siu", {"beta": 0.0}, "teacher", "live"),
    *(("unsee", {"retain_weight": 0.0}, name, value) for name, value in
      {"shrink": 0.3, "retain_ratio": 1, "forms": ["cloze"], "kept": 0.1, "noise": 0.2, "located": "mlp"}.items()),
    ("unsee", {"shrink": 0.0}, "noise", 0.2),
    ("unsee", {"shrink": 0.0}, "located", "mlp"),
    ("unsee", {"scope": "picture"}, "name_share", 0.5),
    ("manu", {"mode": "as_released"}, "threshold", 0.2),
    ("mmunlearner", {}, "released_like", "clear"),
    ("mmunlearner", {}, "released_precision", "fp32"),
    ("mmunlearner", {}, "allow_noop_mask", True),
    ("mmunlearner", {"mode": "as_released", "tune": "full"}, "allow_noop_mask", True),
    *(("mmunlearner", RELEASED, name, value) for name, value in
      {"gamma": 2.0, "modules": ["vision"], "p_text": "released", "released_precision": "fp32"}.items()),
    *(("mmunlearner", {"mask": "none"}, name, value) for name, value in UNMASKED.items()),
    ("mmunlearner", {"mask": "none"}, "granularity", "batch"),
    ("mmunlearner", {"modules": ["vision"]}, "p_text", "released"),
    ("pdu", {"dual_step": 0.0}, "retain_bound", 0.5),
    ("pdu", {"dual_step": 0.0}, "dual_warmup_epochs", 1.0),
    ("jensun", {"retain_weight": 0.0}, "teacher", "live"),
    ("jensun", {"forget_weight": 0.0}, "refusal", "No."),
    *((name, {"guidance_weight": 0.0}, setting, value) for name in ("pubg", "bg_only")
      for setting, value in {"rollouts": 3, "temperature": 0.5}.items()),
    ("kl", {"weight": 0.0}, "kl_direction", "reverse"),
    ("kl", {"weight": 0.0}, "teacher", "live"),
    ("vgid", {"forget_weight": 0.0}, "noise", 0.2),
    ("vgid", {"forget_weight": 0.0}, "instruction", "Say nothing."),
    ("undial", {"forget_weight": 0.0}, "gamma", 2.0),
    ("undial", {"forget_weight": 0.0}, "teacher", "live"),
    ("rmu", {"forget_weight": 0.0}, "coefficient", 2.0),
    ("simnpo", {"forget_weight": 0.0}, "beta", 2.0),
    ("simnpo", {"forget_weight": 0.0}, "margin", 1.0),
    ("grad_diff", {"alpha": 0.0}, "ga_floor", -4.0),
]  # fmt: skip
"""Method, other settings (tune: of the training), setting, value."""
ACTING = [
    ("rmuse", {"update": "additive", "strength": 2.0}),
    ("rmuse", {"mode": "safe", "tau_margin": 0.05}),
    ("rmuse", {"score": "contrast", "tau_margin": 0.05}),
    ("rmuse", {"tau": "auto", "tau_margin": 0.05, "max_rotation_deg": 60.0}),
    ("rmuse", {"protect": False, "energy": 0.5}),
    ("altpo", {"temperature": 0.0, "alternates": 1}),
    ("vgid", {"temperature": 0.0}),
    ("mmunlearner", {"mask": "random", "gamma": 2.0, "p_text": "released"}),
    ("unsee", {"retain_weight": 0.0}),
]
"""Settings that act, or that nobody gave."""
TRAININGS = [
    ("npo", {"tune": "full"}, "rank", 16),
    ("npo", {"tune": "full"}, "alpha", 32),
    ("npo", {"tune": "full"}, "dropout", 0.1),
    ("npo", {}, "robust_rho", 0.1),
    ("npo", {"robust": "sam"}, "robust_sigma", 0.1),
    ("npo", {"robust": "sam"}, "robust_draws", 2),
    ("npo", {"robust": "lat"}, "robust_mix", 0.5),
    ("npo", {"robust": "sam"}, "robust_layer", 2),
    ("npo", {"robust": "sam"}, "robust_radius", 0.5),
    ("npo", {"robust": "sam"}, "robust_attack_steps", 2),
    ("npo", {"robust": "smoothing", "robust_sigma": 0.0}, "robust_draws", 2),
    ("npo", {"robust": "lat", "robust_radius": 0.0}, "robust_attack_steps", 2),
    ("npo", {"stop": "never"}, "check_every", 5),
    ("task_vector", {}, "check_every", 5),
    ("unsee", {}, "check_every", 5),
]


def made(name, settings, training):
    return {
        "method": config.build(registry.load("methods", name), settings, where=name),
        "training": config.build(Training, training, where="training"),
    }


def split(name, others):
    """Return the settings of a method and those of its training, with the tuning that it takes."""
    tune = others.get("tune", "lora" if others == RELEASED else registry.load("methods", name).trial.tunes[0])
    return {key: value for key, value in others.items() if key != "tune"}, {"tune": tune}


def required(parts, **arguments):
    require_effect(parts, idle_in_run(parts["method"], parts["training"]), **arguments)


@pytest.mark.parametrize(("name", "others", "setting", "value"), METHODS)
def test_settings_of_methods_without_effect_are_refused(name, others, setting, value):
    settings, training = split(name, others)
    required(made(name, settings, training))
    with pytest.raises(
        UserError, match=rf"method\.{setting}=.* has no effect: it counts only .* or leave method\.{setting} out"
    ):
        required(made(name, {**settings, setting: value}, training))


@pytest.mark.parametrize(("name", "others"), ACTING)
def test_settings_that_act_or_that_nobody_gave_are_not_refused(name, others):
    required(made(name, *split(name, others)))


@pytest.mark.parametrize(("name", "others", "setting", "value"), TRAININGS)
def test_settings_of_the_training_without_effect_are_refused_unless_suggested(name, others, setting, value):
    required(made(name, {}, others))
    parts = made(name, {}, {**others, setting: value})
    with pytest.raises(UserError, match=rf"training\.{setting}=.* has no effect"):
        required(parts)
    required(parts, neutral={"training": Training(**{setting: value})})
    required(parts, only={"method.beta"})


def test_settings_of_the_training_that_some_methods_read_are_not_refused_for_them():
    required(made("smfa", {}, {"tune": "full", "rank": 16, "alpha": 16}))
    required(made("unsee", {"kept": 0.1}, {"check_every": 5}))
    required(made("npo", {}, {"stop": "never", "guard": "collapse", "check_every": 5}))


def test_methods_without_training_steps_tell_of_settings_that_they_do_not_read():
    parts = made("prompt", {}, {"lr": 1e-3, "stop": "never"})
    required(parts)
    told = list(without_effect(parts, idle_for_method(parts["method"], parts["training"])))
    assert [message.partition("=")[0] for message in told] == ["training.lr", "training.stop"]
    parts = made("ga", {}, {"stop": "never", "max_new_tokens": 8})
    assert len(list(without_effect(parts, idle_for_method(parts["method"], parts["training"])))) == 1


def test_every_name_is_a_setting():
    cases = [(name, split(name, others)) for name, others, *_ in METHODS] + [
        (name, ({}, others)) for name, others, *_ in TRAININGS
    ]
    for name, (settings, training) in cases:
        parts = made(name, settings, training)
        for path, needed in (*idle_in_run(**parts), *idle_for_method(**parts)):
            part, _, setting = path.partition(".")
            assert setting in {field.name for field in fields(parts[part])}
            assert needed


def test_a_setting_at_the_top_has_no_part_and_a_list_its_default():
    @dataclass(frozen=True, kw_only=True)
    class Settings:
        names: tuple[str, ...] = ()

    require_effect({"": Settings()}, [("names", "on Mondays")])
    with pytest.raises(
        UserError, match=r"^names=\('x',\) has no effect: it counts only on Mondays\. Set that, or leave names out\."
    ):
        require_effect({"": Settings(names=("x",))}, [("names", "on Mondays")])


def recipe_cases():
    for name in registry.names("recipes"):
        choices = {key: get_args(hint) for key, hint in recipes.options_of(name).items() if get_origin(hint) is Literal}
        for values in product(*choices.values()):
            try:
                run = recipes.recipe(
                    name, model="M", data="D", out="O", options=dict(zip(choices, values, strict=True))
                )
            except UserError as error:
                if "has no effect" not in str(error):
                    raise
                continue  # the recipe itself refuses it
            yield run


def test_recipes_give_no_setting_without_effect():
    for run in recipe_cases():
        required(made(run.method, run.settings, run.training))


def documented_commands():
    """Return the arguments of every `unsee forget` of the documentation that names a method of unsee."""
    commands = []
    for page in sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for command in re.findall(r"^unsee forget (.*)$", text, re.MULTILINE):
            named = re.search(r"--method ([a-z_]+)", command)
            if named and named[1] in registry.names("methods") and "--plugin" not in command:
                commands.append(pytest.param(shlex.split(command, comments=True), id=f"{page.name}: {command[:60]}"))
    return commands


@pytest.mark.parametrize("words", documented_commands())
def test_commands_of_the_documentation_give_no_setting_without_effect(words):
    parser = argparse.ArgumentParser()
    forget.options(parser)
    options, _ = parser.parse_known_args(words)
    run = _shared.run_of(options)
    required(made(run.method, run.settings, run.training))
