"""Search within a budget: what is tried, what is chosen, and what ends it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.evaluated import make_run
from helpers.folder import KEPT, folder, row, write
from helpers.sweeps import run_cells_here
from unsee.api import Training
from unsee.cli.main import main
from unsee.config import Run
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.utils.files import owned_folder
from unsee.workflows import trials
from unsee.workflows.trials import CHOICE, best_within, candidates, folder_of_trials

__all__ = ["folder"]

LAB = Run(model="lab", data="lab")


@pytest.fixture
def asked(monkeypatch):
    """Cells run in this process and are made up; yields their runs, in order. npo is good with a low rate, rmu fails."""
    runs = []

    def work(run, label, out, attack):
        runs.append(run)
        if run.method == "rmu":
            raise UserError("planted")
        good = run.method == "unsee" or (run.method == "npo" and run.training["lr"] < 1e-3)
        place = make_run(Path(run.out), "pubg" if good else "ga" if run.method else "original", seed=run.seed)
        if run.method:
            owned_folder(place / "model")

    run_cells_here(monkeypatch, work)
    return runs


def run_in(place: Path, **fields: object) -> Run:
    return replace(LAB, out=str(place / "run"), **fields)


@pytest.mark.parametrize("rate", ["abc", None, [1e-3]])
def test_a_rate_that_is_no_number_is_refused(rate):
    with pytest.raises(UserError, match="training: lr must be a number"):
        list(candidates(replace(LAB, method="npo", training={"lr": rate})))


def test_without_a_method_the_suggestion_and_unsee_are_tried():
    found = [(run.method, run.training["lr"], run.settings.get("shrink")) for run, _ in candidates(LAB)]
    expected = [
        ("pubg", 2e-3, None),
        ("unsee", 5e-4, 0.2),
        ("unsee", 5e-4, 0.0),
        ("pubg", 1e-3, None),
        ("unsee", 1e-3, 0.0),
    ]
    assert found == expected
    kept = {run.method: {**run.training, "lr": 0.0} for run, _ in candidates(LAB)}
    assert kept["unsee"] == {"lr": 0.0, "tune": "full", "epochs": 7, "max_steps": 250}
    assert kept["pubg"] == {"lr": 0.0, "epochs": 5, "max_steps": 80, "stop": "never"}


def test_what_the_user_sets_holds_for_every_try():
    given = replace(LAB, seed=4, training={"max_steps": 7})
    assert {(run.seed, run.training["max_steps"]) for run, _ in candidates(given)} == {(4, 7)}


def test_of_a_model_that_is_not_tiny_unsee_trains_adapters(monkeypatch):
    monkeypatch.setattr("unsee.workflows.suggest.parameters", lambda _: 7_000_000_000)
    found = [(run.method, run.training["lr"], "tune" in run.training) for run, _ in candidates(LAB)][:3]
    assert found == [("pubg", 1e-4, False), ("unsee", 5e-5, False), ("unsee", 5e-5, False)]


def test_a_named_method_tries_its_rate_a_third_and_three_times_of_it():
    run = replace(LAB, method="npo", settings={"beta": 0.2}, training={"lr": 3e-4})
    found = [(tried.settings, tried.training["lr"]) for tried, _ in candidates(run)]
    assert found == [({"beta": 0.2}, 3e-4), ({"beta": 0.2}, 1e-4), ({"beta": 0.2}, 9e-4)]


def test_without_a_rate_of_the_user_that_of_the_data_is_the_middle():
    lab_rate = open_benchmark("lab").suggested("npo")["lr"]
    assert lab_rate != Training().lr
    assert next(candidates(replace(LAB, method="npo")))[0].training["lr"] == lab_rate


def test_without_retain_rows_the_rates_of_the_suggestion_are_tried(folder):
    run = Run(model="lab", data=str(write(folder, [row()])))
    assert [(tried.method, tried.training["lr"]) for tried, _ in candidates(run)] == [
        ("npo", 2e-3),
        ("npo", 6.67e-4),
        ("npo", 6e-3),
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"settings": {"beta": 1.0}}, "method.. cannot be set"), ({"training": {"lr": 1e-3}}, "Leave training.lr out")],
)
def test_what_the_search_varies_is_not_taken(fields, message):
    with pytest.raises(UserError, match=message):
        list(candidates(replace(LAB, **fields)))


def test_the_best_is_taken_and_its_tries_stay_without_weights(asked, tmp_path, capsys):
    run = best_within(run_in(tmp_path, eval={"split": "report", "max_new_tokens": 8}), 60)
    assert (run.method, run.settings, run.training["lr"]) == ("unsee", {"shrink": 0.2}, 5e-4)
    assert run.eval == {"split": "report", "max_new_tokens": 8}
    assert [one.method for one in asked] == ["", "pubg", "unsee", "unsee", "pubg", "unsee"]
    assert {str(one.eval) for one in asked} == {"{'max_new_tokens': 8, 'split': 'selection'}"}
    place = folder_of_trials(run.out)
    assert not list(place.glob("cells/*/model"))
    assert len(json.loads((place / CHOICE).read_text())["tried"]) == 5
    assert "Chosen of 5 tries: unsee lr=0.0005 shrink=0.2." in capsys.readouterr().err


def test_the_same_call_goes_on_and_an_ended_search_is_not_repeated(asked, tmp_path, monkeypatch):
    real = trials._judged

    def killed(cell, *others):
        if cell.run.training["lr"] == 1e-4:
            raise KeyboardInterrupt
        return real(cell, *others)

    run = run_in(tmp_path, method="npo", training={"lr": 3e-4})
    monkeypatch.setattr(trials, "_judged", killed)
    with pytest.raises(KeyboardInterrupt):
        best_within(run, 60)
    monkeypatch.setattr(trials, "_judged", real)
    first = best_within(run, 60)
    assert len(asked) == 4  # original and three rates, each once
    assert best_within(run, 60) == first
    assert len(asked) == 4


@pytest.mark.parametrize(("retention", "tried"), [("days:30", "days:30"), ("until_verified", "keep"), ("keep", "keep")])
def test_the_answers_of_tries_are_due_as_those_of_the_run(asked, tmp_path, retention, tried):
    best_within(run_in(tmp_path, method="npo", training={"lr": 3e-4}, retention=retention), 60)
    assert {one.retention for one in asked} == {tried}


def test_tries_on_data_that_have_changed_choose_nothing(asked, tmp_path, monkeypatch):
    run = run_in(tmp_path, method="npo", training={"lr": 3e-4})
    best_within(run, 60)
    monkeypatch.setattr(trials.sweep, "require_same_data", lambda *_: (_ for _ in ()).throw(UserError("data changed")))
    with pytest.raises(UserError, match="data changed"):
        best_within(run, 60)


def test_a_budget_that_is_spent_ends_the_search_after_one_try(asked, tmp_path, capsys):
    run = best_within(run_in(tmp_path, method="npo", training={"lr": 3e-3}), 1e-9)
    assert run.training["lr"] == 3e-3
    assert len(asked) == 2
    assert "The budget allows 1 of 3 tries." in capsys.readouterr().err


def test_a_choice_without_questions_about_the_others_says_so(asked, tmp_path, monkeypatch, capsys):
    best_within(run_in(tmp_path / "a", method="npo"), 60)
    assert "kept of the others" not in capsys.readouterr().err
    monkeypatch.setattr(trials, "recalls", lambda _: {})
    best_within(run_in(tmp_path / "b", method="npo"), 60)
    assert "do not tell what is kept of the others: the tries are compared without it" in capsys.readouterr().err


def test_tries_that_fail_are_said(asked, tmp_path):
    with pytest.raises(UserError, match=r"None of 3 tries could be judged: planted\. Their logs are in .*run-tries"):
        best_within(run_in(tmp_path, method="rmu"), 60)


def test_too_few_questions_and_a_bad_budget_are_refused_before_anything_runs(asked, tmp_path, folder):
    data = str(write(folder, [row(), KEPT]))
    with pytest.raises(UserError, match="none of these is about what is to be forgotten"):
        best_within(Run(model="lab", data=data, out=str(tmp_path / "run")), 60)
    for minutes in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="a number of minutes above 0"):
            best_within(run_in(tmp_path), minutes)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "x").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        best_within(run_in(tmp_path), 60)
    assert asked == []


@pytest.mark.parametrize("more", [["--dry-run"], ["--recipe", "pubg"]])
def test_the_command_refuses_a_budget_where_nothing_is_chosen(more, capsys):
    words = ["forget", "--model", "lab", "--data", "lab", "--out", "x", "--budget", "5", *more]
    assert main(words) == 2
    assert "--budget tries settings" in capsys.readouterr().err


@pytest.mark.usefixtures("asked")
def test_the_command_runs_what_was_chosen(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr("unsee.workflows.forget.forget_run", lambda run, resume: begun.append(run) or Path(run.out))
    words = [
        "forget",
        "--model",
        "lab",
        "--data",
        "lab",
        "--out",
        str(tmp_path / "run"),
        "--budget",
        "60",
        "--ask",
        "0",
    ]
    assert main(words) == 0
    assert [(run.method, run.settings) for run in begun] == [("unsee", {"shrink": 0.2})]
