"""Smoke test of an environment: every family unlearns, is judged and compared; the demo's first rows.

With the other tests marked `smoke` (resume, export, adapters in plain PEFT, two processes) this is what runs in an environment of
other versions than the locked ones: `pytest -m smoke`.
"""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path

import pytest

from helpers.families import FAMILIES, family, save_family
from unsee import compare, evaluate, forget
from unsee.api import registry
from unsee.workflows.demo import demo

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_folder"
SHORT = {"max_steps": 1, "batch_size": 2, "stop": "never", "max_new_tokens": 4, "lr": 1e-3}
QUESTIONS = 16
pytestmark = [pytest.mark.smoke, pytest.mark.slow]


@cache
def one_per_file():
    """Return one tiny model for every file in `models/families/`."""
    return {type(family(name)).__module__.rpartition(".")[2]: name for name in FAMILIES}


@pytest.mark.parametrize("file", registry.names("models"))
def test_a_family_unlearns_and_is_judged_and_compared(file, tmp_path):
    model = save_family(one_per_file()[file], tmp_path / "model")
    asked = {"limit": 2, "max_new_tokens": 4}
    evaluate(model, EXAMPLE, tmp_path / "original", stage="original", **asked)
    run = forget(model, EXAMPLE, "npo", tmp_path / "npo", training=SHORT)
    evaluate(run, EXAMPLE, run, likelihood=True, **asked)
    page = compare([tmp_path / "original", run], tmp_path / "both")
    summary = json.loads((page.parent / "summary.json").read_text())
    assert set(summary) == {"original", "npo"}
    assert "loss" in json.loads((run / "log.jsonl").read_text().splitlines()[0])


def test_the_first_rows_of_the_demo(tmp_path, monkeypatch):
    """Fewer questions of each kind than the demo asks, or this test would take most of the smoke's time."""
    monkeypatch.setattr("unsee.evaluation.evaluate.evaluate", partial(evaluate, limit=QUESTIONS))
    demo(tmp_path, methods=["reject"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["original"]["unseen"]["leak"] > 0.8
    assert summary["gold"]["unseen"]["leak"] < 0.1
    assert summary["reject"]["unseen"]["refusal"] > 0.5
