"""The estimate holds for every family: language adapters within 20 % of a real run, others at least counted and said."""

from __future__ import annotations

import pytest

from helpers.estimate import SHORT, SLOW, taken
from helpers.families import FAMILIES, save_family
from helpers.run import EXAMPLE
from unsee import estimate

QUICK = ("mllama",)


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=SLOW) for name in FAMILIES])
def test_language_adapters_within_a_fifth(name, tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEE_CACHE", "off")
    model = save_family(name, tmp_path / "model")
    settings = {**SHORT, "max_steps": 1, "batch_size": 2}
    guess = estimate(model, EXAMPLE, "ga", tmp_path / "run", training=settings)
    real = taken(monkeypatch, "ga", model, EXAMPLE, "ga", tmp_path / "run", training=settings)
    assert 0.8 < guess.memory / real < 1.2, f"estimated {guess.memory}, took {real}\n{guess}"


def test_a_vision_tower_that_needs_values_is_said_to_be_left_out(tmp_path):
    model = save_family("qwen2_vl", tmp_path / "model")
    parts = ["vision", "projector", "language"]
    guess = estimate(model, EXAMPLE, "ga", tmp_path / "run", training={**SHORT, "parts": parts})
    assert any("vision tower of this model cannot be run without values" in remark for remark in guess.remarks)


def test_a_trained_vision_tower_that_needs_values_keeps_the_language_models_activations(tmp_path):
    folder, settings = save_family("qwen2_5_vl", tmp_path / "model"), {**SHORT, "batch_size": 2}
    tower, language = (
        estimate(folder, EXAMPLE, "ga", tmp_path / "run", training={**settings, "parts": parts})
        for parts in (["vision", "projector"], ["language"])
    )
    assert any("cannot be run without values" in remark for remark in tower.remarks)
    assert tower.activations > 0.5 * language.activations > 0
