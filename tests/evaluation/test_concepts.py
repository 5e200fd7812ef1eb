"""Fluency and C-Dis ask for the original model's answers under both models; the same model changes nothing."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from fixtures.mmubench import build
from unsee import forget
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.evaluation import mmubench
from unsee.evaluation.mmubench import concepts
from unsee.testing.tiny import save_tiny

SHORT = {"max_steps": 4, "stop": "never", "rank": 2, "lr": 1e-2, "max_new_tokens": 4}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("concepts")
    (root / "data").mkdir()
    build(root / "data")
    forget(save_tiny(root / "model"), root / "data", "ga", root / "run", training=SHORT)
    return root


@pytest.fixture
def spoken(monkeypatch):
    """Let the original model say the name, as one that knows the concept does."""
    said = mmubench._responses

    def speak(loaded, asked, length, batch_size):
        del length, batch_size
        return [(row, "It is Donald Trump , I think .") for row, _ in said(loaded, asked, 1, 4)]

    monkeypatch.setattr(mmubench, "_responses", speak)


@pytest.mark.usefixtures("spoken")
def test_the_same_model_has_no_distance_and_its_own_fluency(made):
    report = concepts(made / "run", start=made / "run", max_new_tokens=4)
    assert report.c_dis == pytest.approx(0.0, abs=1e-6)
    assert report.fluency == pytest.approx(report.fluency_start, rel=1e-5)
    assert (report.answers, report.named, report.empty) == (2, 2, 0)
    assert json.loads((made / "run" / "concepts.json").read_text())["fluency"] == report.fluency


@pytest.mark.usefixtures("spoken")
def test_an_unlearned_model_is_at_a_distance_and_names_are_dropped_from_fluency(made):
    report = concepts(made / "run", max_new_tokens=4)
    assert report.c_dis > 0
    assert report.fluency != pytest.approx(report.fluency_start, rel=1e-3)
    assert report.fluency_uniform != report.fluency


def test_only_tokens_of_the_name_are_masked(made):
    loaded = mmubench.load(made / "model")
    (row,) = [one for one in open_benchmark(made / "data").examples("eval") if one.id == "execcuatedata/1"]
    mask = mmubench._name_mask(loaded, row, "trumpet, Trump.")
    assert 0 < sum(mask) < len(mask)
    assert not mask[0]
    assert not any(mmubench._name_mask(loaded, row, "A trumpet."))


def test_a_name_within_a_longer_form_that_does_not_match_is_masked(made):
    loaded = mmubench.load(made / "model")
    (row,) = [one for one in open_benchmark(made / "data").examples("eval") if one.id == "execcuatedata/1"]
    forms = replace(row, private={"name": ("Donald", "Donald Trump")})
    assert any(mmubench._name_mask(loaded, forms, "Donald Trumps"))


def test_tokens_are_those_of_the_answer_without_the_end(made):
    loaded = mmubench.load(made / "model")
    (row,) = [one for one in open_benchmark(made / "data").examples("eval") if one.id == "execcuatedata/1"]
    told = [(row, "It is Bo .")]
    (tokens,) = mmubench._likelihoods(loaded, told, 4)
    assert len(tokens) == len(mmubench._name_mask(loaded, *told[0]))
    assert all(value < 0 and math.isfinite(value) for value in tokens)


def test_a_folder_that_is_no_run_and_data_without_concepts_are_said(made):
    with pytest.raises(UserError, match="is no run folder"):
        concepts(made / "model")
    with pytest.raises(UserError, match="no questions for a name"):
        concepts(made / "run", data="lab:hazards", max_new_tokens=2)
