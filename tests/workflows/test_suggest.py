"""Suggestions: what to start with, from the data's roles and the model's size."""

from __future__ import annotations

import json

import pytest
import yaml

from helpers.folder import KEPT, folder, row, write
from helpers.run import EXAMPLE
from unsee import suggest
from unsee.cli import main
from unsee.config import Run
from unsee.data import tables
from unsee.errors import UserError
from unsee.testing.tiny import save_tiny
from unsee.workflows.suggest import beside_retain_rows, parameters

__all__ = ["folder"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny") / "tiny")


def test_with_retain_rows_a_retain_term_and_steps_enough(model, folder):
    found = suggest(model, write(folder, [row(), KEPT]))
    assert found.run.method == "pubg"
    assert found.run.settings["retain_weight"] == 2.0
    assert found.run.training == {"lr": 2e-3, "epochs": 320, "max_steps": 80, "stop": "never"}
    assert found.reasons[0] == "data: 1 rows to forget, 1 to keep, 0 on held-out images"


def test_many_forget_rows_are_seen_several_times(model, folder):
    rows = [row(id=f"r{place}") for place in range(400)]
    training = suggest(model, write(folder, [*rows, KEPT])).run.training
    assert (training["max_steps"], training["epochs"]) == (300, 3)


def test_forget_rows_without_a_picture_are_not_trained_on_and_do_not_count(model, folder):
    pictured = [row(id=f"r{place}") for place in range(400)]
    told = [row(id=f"t{place}", image="") for place in range(400)]
    training = suggest(model, write(folder, [*pictured, *told, KEPT])).run.training
    assert (training["max_steps"], training["epochs"]) == (300, 3)


def test_without_retain_rows_a_bounded_loss(model, folder):
    found = suggest(model, write(folder, [row()]))
    assert (found.run.method, dict(found.run.settings), found.run.training["lr"]) == ("npo", {}, 2e-3)
    assert "no retain rows" in found.reasons[1]


def test_the_printed_run_file_is_ready_to_start(model, tmp_path, capsys):
    words = ["suggest", "--model", str(model), "--data", str(EXAMPLE), "--out", str(tmp_path / "run")]
    assert main.main(words) == 0
    said = capsys.readouterr().out
    assert said.count("# ") == 3
    run = Run.from_mapping(yaml.safe_load(said))
    assert (run.method, run.model, run.out) == ("pubg", str(model), str(tmp_path / "run"))
    assert main.main(["suggest", "--model", str(model)]) == 2


def test_the_number_of_parameters_is_that_of_the_weights(model):
    from unsee.testing.tiny import tiny_model

    assert parameters(model) == sum(weight.numel() for weight in tiny_model().parameters())


def _started(monkeypatch, words):
    """Return the run that a command would start."""
    runs = []
    monkeypatch.setattr("unsee.workflows.forget.forget_run", lambda run, **_: runs.append(run) or run.out)
    assert main.main(["forget", *words, "--ask", "0"]) == 0
    return runs[0]


def test_forget_without_method_starts_the_suggestion_with_settings_on_top(model, tmp_path, monkeypatch, capsys):
    words = ["--model", str(model), "--data", str(EXAMPLE), "--out", str(tmp_path / "o")]
    run = _started(monkeypatch, [*words, "--set", "training.lr=5e-4", "--seed", "3"])
    assert (run.method, run.seed, run.training["lr"], run.training["max_steps"]) == ("pubg", 3, 5e-4, 80)
    assert "rows to forget" in capsys.readouterr().err


def test_methods_get_a_retain_term_unless_the_paper_is_wanted(model, tmp_path, monkeypatch, capsys):
    words = ["--model", str(model), "--data", str(EXAMPLE), "--out", str(tmp_path / "o"), "--method", "npo"]
    run = _started(monkeypatch, words)
    assert (run.settings, run.training) == ({"retain_weight": 1.0}, {"stop": "never"})
    assert "--variant paper" in capsys.readouterr().err
    assert _started(monkeypatch, [*words, "--variant", "paper"]).settings == {}
    assert _started(monkeypatch, [*words, "--set", "method.retain_weight=0"]).settings == {"retain_weight": 0}
    file = tmp_path / "run.json"
    file.write_text(
        json.dumps({"model": str(model), "data": str(EXAMPLE), "method": "npo", "out": str(tmp_path / "o")})
    )
    assert _started(monkeypatch, [str(file)]).settings == {}, "a run file means what it says"
    capsys.readouterr()
    assert main.main(["forget", str(file), "--variant", "paper"]) == 2
    assert "nothing is added to a run file" in capsys.readouterr().err
    assert main.main(["forget", *words, "--variant", "papr"]) == 2


def test_ascent_beside_retain_rows_gets_a_floor(model, tmp_path, monkeypatch, capsys):
    words = ["--model", str(model), "--data", str(EXAMPLE), "--out", str(tmp_path / "o"), "--method"]
    run = _started(monkeypatch, [*words, "grad_diff", "--set", "method.alpha=0.5"])
    assert (run.settings, run.training) == ({"alpha": 0.5, "ga_floor": -1.0}, {"stop": "never"})
    assert "grad_diff ran with method.ga_floor=-1 and training.stop=never" in capsys.readouterr().err
    assert _started(monkeypatch, [*words, "kl"]).settings == {"ga_floor": -1.0, "weight": 3.0}
    assert _started(monkeypatch, [*words, "kl", "--set", "method.weight=1"]).settings == {"weight": 1}
    assert _started(monkeypatch, [*words, "kl", "--variant", "paper"]).settings == {}


def test_nothing_is_added_without_retain_rows_or_for_other_methods(folder):
    data = str(write(folder, [row()]))
    for method in ("npo", "ga", "kl"):
        run = Run(model="m", data=data, method=method)
        assert beside_retain_rows(run) == (run, "")


@pytest.mark.parametrize("method", [(), ("--method", "npo")])
def test_a_run_decodes_every_picture_once_before_it_starts(model, tmp_path, monkeypatch, method):
    decoded, decode = [], tables.decode_image
    monkeypatch.setattr(tables, "decode_image", lambda source: decoded.append(source) or decode(source))
    words = ["forget", "--model", str(model), "--data", str(EXAMPLE), "--out", str(tmp_path / "o"), *method]
    assert main.main([*words, "--dry-run"]) == 0
    assert len(decoded) == len(set(decoded)) == len(list((EXAMPLE / "images").iterdir()))


def test_data_that_cannot_be_used_are_refused_by_suggest_and_left_to_the_run(model, folder):
    with pytest.raises(UserError, match="no image is to be forgotten"):
        suggest(model, write(folder, [KEPT]))
    run = Run(model="m", data=str(write(folder, [row(answer=""), KEPT])), method="npo")
    assert beside_retain_rows(run) == (run, "")
    with pytest.raises(UserError, match="row 1: the answer is empty"):
        suggest(model, folder)
