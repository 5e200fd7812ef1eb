"""Each benchmark with the method it belongs to, on a tiny model: forget by its recipe, eval, compare, from the command line."""

from __future__ import annotations

import json

import pytest
import yaml

from fixtures.benchmarks import fixtures
from unsee.cli.main import main
from unsee.evaluation.judge_safety import read_run, safety_of
from unsee.testing.tiny import save_tiny

FIXTURES = fixtures()
TINY = ["training.rank=2", "training.alpha=4", "training.precision=fp32", "training.max_new_tokens=4"]
STEPS = ["training.max_steps=2", "training.batch_size=2", "training.accumulate=1"]
PLAIN = [*TINY, *STEPS, "training.stop=never"]
RUNS = {
    "mmubench": (["--recipe", "mmubench"], [*TINY, "method.steps=2"], ["forget.em", "unseen.em", "unseen.diversity"]),
    "safeeraser": (["--recipe", "safeeraser"], [*TINY, *STEPS], ["forget.rr_proxy", "unseen.rr_proxy", "benign.sarr_proxy"]),
    "rmllmu": (
        ["--recipe", "rmllmu"],
        ["method.layers=[0, 1]", "method.retain_samples=8", "training.max_new_tokens=4"],
        ["forget.ril", "unseen.ril", "retain.rcr", "retain.choice"],
    ),
    "icu": (["--method", "npo"], [*TINY, *STEPS, "benchmark.task=1", "training.stop=never"], ["forget.fact", "forget_text.cloze", "unseen.leak"]),
    "mllmu": (
        ["--method", "grad_diff"], [*PLAIN, "benchmark.ratio=10", "benchmark.protocol=released"],
        ["forget.choice.likelihood", "forget.choice.first_character", "forget_text.cloze", "forget_text.cloze.substring", "unseen.rougeL",
         "retain.bleu@open", "retain_text.choice", "general.choice.prob", "general_text.cloze"],
    ),
    "clear": (
        ["--method", "npo"], PLAIN,
        ["forget.choice.likelihood", "forget.truth_ratio", "forget_text.rougeL_recall", "retain.name", "general.answer_prob"],
    ),
    "fiubench": (["--method", "ga"], PLAIN, ["forget.truth_ratio", "forget.keywords", "forget.fact", "retain.rougeL"]),
    "umu": (
        ["--method", "kl"], [*PLAIN, "benchmark.protocol=released"],
        ["forget.both.choice.wrong", "forget.both.rougeL", "retain.both.cloze", "general.both.choice", "retain.choice.text_nearest"],
    ),
    "offside": (["--method", "npo"], [*PLAIN, "benchmark.relearn=true"], ["forget.choice", "unseen.rouge1", "retain.choice.prob", "general.bleu"]),
}  # fmt: skip
"""Benchmark -> recipe or method, settings that make it small, scores that must be there."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


SLOW = ("fiubench", "icu", "offside", "umu")
"""Those whose loader and measures have quick tests of their own."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in RUNS]
)
def test_forget_eval_and_compare(name, model, tmp_path, capsys):
    """A run starts from the recipe, is judged by its benchmark's measures, and stands in a report beside the original model."""
    how, settings, scores = RUNS[name]
    data, run, start = tmp_path / "data", tmp_path / "run", tmp_path / "start"
    data.mkdir()
    FIXTURES[name].build(data)
    chosen = [word for setting in settings for word in ("--set", setting)]
    assert (
        main(["forget", *how, "--model", str(model), "--data", str(data), "--out", str(run), "--ask", "0", *chosen])
        == 0
    )
    record = yaml.safe_load((run / "run.yaml").read_text())
    assert record["benchmark"]["name"] == name
    short = ["--set", "eval.limit=1", "--set", "eval.max_new_tokens=4"]
    assert main(["eval", "--model", str(run), *short]) == 0
    assert main(["eval", "--model", str(model), "--data", str(data), "--out", str(start), *short]) == 0
    found = json.loads((run / "scores.json").read_text())
    assert [key for key in scores if found.get(key, {}).get("value") is None] == []
    assert main(["compare", str(start), str(run), "--out", str(tmp_path / "both")]) == 0
    assert (tmp_path / "both" / "report.html").stat().st_size > 10_000
    capsys.readouterr()
    if name == "safeeraser":
        report = safety_of(run, *read_run(run), None).to_json()
        assert report["asr_proxy"]["value"] is None
        assert report["specificity"] is None
        assert report["sarr_proxy"]["n"] == 1
