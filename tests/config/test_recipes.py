"""Recipes: every one resolves to valid settings of its method, training and benchmark, from Python and from the command line."""

from __future__ import annotations

import argparse
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import yaml

from unsee import config, recipes
from unsee.api import Training, registry
from unsee.cli.commands import _shared, forget
from unsee.cli.main import main
from unsee.config import Run
from unsee.errors import UserError
from unsee.methods.common.published import require_unset
from unsee.methods.mmunlearner.method import OURS_IN_TRAINING
from unsee.recipes.rmuse import rmuse
from unsee.utils.grouping import by_key

NAMES = registry.names("recipes")


def variants(name):
    """Yield every combination of a recipe's choices that has an effect."""
    choices = {key: get_args(hint) for key, hint in recipes.options_of(name).items() if get_origin(hint) is Literal}
    for values in product(*choices.values()):
        options = dict(zip(choices, values, strict=True))
        try:
            made(name, **options)
        except UserError as error:
            if "has no effect" not in str(error):
                raise
            continue
        yield options


def made(name, **options):
    return recipes.recipe(name, model="M", data="D", out="O", options=options)


@pytest.mark.parametrize("name", NAMES)
def test_every_combination_is_a_valid_run(name):
    """Settings are those of the method, training of `Training`, and the run survives YAML."""
    for options in variants(name):
        run = made(name, **options)
        assert (run.model, run.data, run.out) == ("M", "D", "O")
        config.build(registry.load("methods", run.method), run.settings, where=f"{name} {options}")
        config.build(Training, run.training, where=f"{name} {options}")
        config.build(config.EvalConfig, run.eval, where=f"{name} {options}")
        layout, values = config.name_and_settings(run.benchmark)
        if layout:
            config.build(registry.load("benchmarks", layout).settings_type, values, where=f"{name} {options}")
        told = yaml.safe_dump(run.to_mapping())
        assert Run.from_mapping(config.parse_yaml(told, where=name)).to_mapping() == config.plain(run.to_mapping())


@pytest.mark.parametrize("family", ["llava", "qwen"])
def test_published_code_gets_no_setting_that_it_would_ignore(family):
    run = made("mllmu", mode="as_released", family=family)
    config.build(registry.load("methods", "mmunlearner"), run.settings, where="mllmu")
    require_unset(config.build(Training, run.training, where="mllmu"), "training", OURS_IN_TRAINING)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pubg", {"method": "ga", "retain_weight": 1.0}, "recipe.retain_weight=1 has no effect: ga has no retain term"),
        (
            "safeeraser",
            {"loss": "gd", "refusals": "x.txt"},
            "recipe.refusals has no effect: the loss gd draws no refusals",
        ),
        ("rmllmu", {"method": "ga", "ablation": "without_acs"}, "recipe.ablation=without_acs has no effect"),
        ("mmubench", {"method": "ga", "concept": "bo"}, "recipe.concept=bo has no effect: ga has no such setting"),
        ("mmubench", {"method": "po", "taken_for": ""}, "recipe.taken_for= has no effect: po has no such setting"),
        ("mmubench", {"method": "ga", "mode": "as_released"}, "recipe.mode=as_released has no effect"),
        ("mmubench", {"concept": "bo", "taken_for": ""}, "recipe.concept=bo has no effect: recipe.taken_for is empty"),
        ("mllmu", {"method": "ga", "family": "qwen"}, "recipe.family=qwen has no effect"),
        ("mllmu", {"family": "qwen"}, "it counts only with method=mmunlearner and mode=as_released"),
    ],
)
def test_options_without_effect_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        made(name, **options)


def test_every_recipe_is_listed_with_a_line(capsys):
    assert main(["list", "recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all(len(line.split()) > 4 for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_every_choice_changes_some_run(name):
    runs = [(options, repr(made(name, **options).to_mapping())) for options in variants(name)]
    for option in runs[0][0]:
        others = by_key((tuple(item for item in options.items() if item[0] != option), run) for options, run in runs)
        assert any(len(set(alike)) > 1 for alike in others.values()), option


def test_unknown_names_options_and_values_get_the_known_ones():
    with pytest.raises(UserError, match=r"Unknown recipe 'mlmu'. Did you mean mllmu"):
        made("mlmu")
    with pytest.raises(UserError, match=r"Unknown option of the recipe mllmu 'ratoi'. Did you mean ratio"):
        made("mllmu", ratoi=5)
    with pytest.raises(UserError, match="recipe mllmu: ratio must be one of 5, 10, 15, got 7"):
        made("mllmu", ratio=7)


@pytest.mark.parametrize(
    ("name", "options", "method", "settings", "training"),
    [
        ("mllmu", {}, "mmunlearner", {"modules": ("language",)}, {"tune": "full", "lr": 1e-5, "epochs": 1, "batch_size": 4}),
        ("mllmu", {"method": "npo", "ratio": 10}, "npo", {"beta": 0.1}, {"tune": "lora", "rank": 16, "dropout": 0.05}),
        ("mllmu", {"mode": "as_released"}, "mmunlearner", {"allow_noop_mask": True}, {"tune": "lora", "scheduler": "constant"}),
        ("mllmu", {"mode": "as_released", "family": "qwen"}, "mmunlearner", {"p_text": "released"}, {"tune": "full"}),
        ("mllmu", {"mode": "as_released", "method": "ga"}, "ga", {}, {"scheduler": "linear", "clip": 0.0}),
        ("mllmu", {"mode": "as_released", "method": "kl"}, "kl", {}, {"scheduler": "constant", "clip": 0.0}),
        ("clear", {"protocol": "clear", "method": "grad_diff"}, "grad_diff", {}, {"tune": "full", "epochs": 5, "accumulate": 4}),
        ("mmubench", {}, "siu", {"substitutes": {"donald trump": "Jacob Campbell"}}, {"rank": 128, "alpha": 256, "lr": 3e-4}),
        ("mmubench", {"method": "po"}, "reject", {}, {"max_steps": 7, "batch_size": 4, "accumulate": 2}),
        ("pubg", {}, "pubg", {"queries": "open"}, {"lr": 1e-4, "stop": "forgotten", "parts": ("language",)}),
        ("pubg", {"method": "reject"}, "reject", {}, {"lr": 3e-5, "epochs": 3, "warmup_steps": 20}),
        ("rmllmu", {"ablation": "without_acs"}, "rmuse", {"update": "additive", "tau": 0.75}, {}),
        ("rmllmu", {"method": "ga"}, "ga", {}, {"rank": 16, "lr": 1e-5}),
        ("safeeraser", {}, "reject", {"prompt_decouple_weight": 1.0}, {"rank": 32, "alpha": 256, "epochs": 10}),
    ],
)  # fmt: skip
def test_published_values(name, options, method, settings, training):
    run = made(name, **options)
    assert run.method == method
    assert {key: run.settings[key] for key in settings} == settings
    assert {key: run.training[key] for key in training} == training


def test_ratios_and_layouts_reach_the_benchmark():
    assert made("mllmu", ratio=15).benchmark == {"name": "mllmu", "ratio": 15}
    assert made("rmllmu", ratio=10, method="ga").benchmark == {"name": "rmllmu", "ratio": 10}
    assert made("clear", ratio=1).benchmark == {"name": "clear", "ratio": 1, "train": "both"}
    assert made("clear", method="ga").benchmark == {"name": "clear", "ratio": 5, "train": "captions"}
    assert made("clear", method="ga", protocol="clear").benchmark["train"] == "both"
    assert made("mmubench", method="ga").benchmark == {"name": "mmubench", "forget_rows": "ga"}


def test_a_recipe_from_python_is_the_function_of_its_file():
    assert made("rmuse", ablation="without_rrs") == rmuse(model="M", data="D", out="O", ablation="without_rrs")


def typed(*words):
    parser = argparse.ArgumentParser()
    forget.options(parser)
    return _shared.run_of(parser.parse_args(words))


def test_on_the_command_line_flags_win_over_the_recipe():
    plain = typed("--recipe", "mllmu", "--model", "M", "--data", "D", "--out", "O")
    assert plain.to_mapping() == made("mllmu").to_mapping()
    other = typed(
        "--recipe", "mllmu", "--model", "M", "--data", "D", "--out", "O", "--method", "npo", "--seed", "3",
        "--set", "recipe.ratio=10", "--set", "training.lr=1e-4", "--set", "method.beta=0.2", "--tune", "full",
    )  # fmt: skip
    assert (other.method, other.seed, other.settings["beta"]) == ("npo", 3, 0.2)
    assert other.benchmark == {"name": "mllmu", "ratio": 10}
    assert (other.training["lr"], other.training["tune"], other.training["rank"]) == (1e-4, "full", 16)


def test_an_option_may_be_emptied():
    """Any concept but the released one has no released substitute."""
    run = typed("--recipe", "mmubench", "--model", "M", "--data", "D", "--out", "O", "--set", "recipe.taken_for=")
    assert "substitutes" not in run.settings
    named = typed("--recipe", "mmubench", "--set", "recipe.taken_for=Al Moe", "--set", "recipe.concept=Bo_Winter")
    assert named.settings["substitutes"] == {"Bo_Winter": "Al Moe"}


def test_a_run_file_wins_over_the_recipe(tmp_path):
    (tmp_path / "run.yaml").write_text("model: other\ntraining: {epochs: 2}\n")
    run = typed(str(tmp_path / "run.yaml"), "--recipe", "pubg", "--data", "D", "--out", "O")
    assert (run.model, run.training["epochs"], run.training["lr"]) == ("other", 2, 1e-4)


def test_options_of_no_recipe_are_an_error(capsys):
    assert main(["forget", "--model", "M", "--data", "lab", "--out", "O", "--set", "recipe.ratio=5"]) == 2
    assert "needs --recipe" in capsys.readouterr().err
    assert main(["forget", "--recipe", "mllmu", "--model", "M", "--data", "D", "--out", "O", "--method", "gaa"]) == 2
    assert "method must be one of mmunlearner" in capsys.readouterr().err


def test_the_table_has_a_row_for_every_recipe():
    root = Path(__file__).parents[2]
    printed = subprocess.run(
        [sys.executable, "scripts/recipes_table.py"], cwd=root, capture_output=True, text=True, check=True
    )
    head, _, *rows = printed.stdout.splitlines()
    assert head.startswith("| recipe | options, default first |")
    assert [row.split("`")[1] for row in rows] == registry.names("recipes")
    assert "`ratio`: 5, 1, 10" in rows[0]
