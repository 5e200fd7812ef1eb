"""The matrix of versions: what counts as passed, failed and not run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from scripts import matrix

ROOT = Path(__file__).parents[2]


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Make no environment; return the settings of one that could be made, and all commands in `called`."""
    state = {"pip": [], "index": True, "smoke": (True, "3 passed, 0 failed"), "called": []}

    def pip(name, *words):
        state["called"].append(words)
        return state["pip"].pop(0) if state["pip"] else True

    def venv(command, **_):
        (tmp_path / Path(command[-1]).name).mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(matrix, "FOLDER", tmp_path)
    monkeypatch.setattr(matrix, "pip", pip)
    monkeypatch.setattr(matrix.subprocess, "run", venv)
    monkeypatch.setattr(matrix, "index_answers", lambda: state["index"])
    monkeypatch.setattr(matrix, "smoke", lambda name: state["smoke"])
    monkeypatch.setattr(matrix, "versions", lambda name: "3.11.7, torch 2.13.0")
    return state


def test_all_passed(world, capsys):
    assert matrix.main([]) == 0
    text = capsys.readouterr().out
    assert text.count("| 3.11.7, torch 2.13.0 | 3 passed, 0 failed |") == 3
    assert text.endswith("environment oldest: passed\nenvironment locked: passed\nenvironment newest: passed\n")


def test_failed_tests_fail(world, capsys):
    world["smoke"] = (False, "2 passed, 1 failed")
    assert matrix.main(["newest"]) == 1
    assert "environment newest: FAILED" in capsys.readouterr().out


def test_an_index_that_does_not_answer_is_told_and_fails_nothing(world, capsys):
    world.update(pip=[False], index=False)
    assert matrix.main(["newest"]) == 3
    assert "environment newest: not run: could not install" in capsys.readouterr().out


def test_a_hiccup_is_tried_again(world):
    world["pip"] = [False]
    assert matrix.main(["newest"]) == 0


def test_what_cannot_be_installed_though_the_index_answers_fails(world, capsys):
    world["pip"] = [False, False]
    assert matrix.main(["newest"]) == 1
    assert "environment newest: FAILED to install" in capsys.readouterr().out


def test_an_environment_is_kept_until_its_source_changes_and_the_newest_never(world, monkeypatch):
    def installs(name):
        world["called"].clear()
        matrix.main([name])
        return len(world["called"])

    assert [installs("locked"), installs("locked")] == [2, 0]
    monkeypatch.setattr(matrix, "TORCH", "torch==2.12.0")
    assert installs("locked") == 2
    assert [installs("newest"), installs("newest")] == [1, 1]


def test_unknown_environments_are_refused(world):
    with pytest.raises(SystemExit, match="No such environment: old"):
        matrix.main(["old"])


def test_lower_bounds_are_what_the_oldest_environment_has():
    """A bound below it has not been tried; one above it would have changed it."""
    lines = (ROOT / "requirements" / "oldest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and ";" not in line)
    text = (ROOT / "pyproject.toml").read_text().partition("[project.scripts]")[0]
    bounds = re.findall(r'^\s+"([\w-]+)>=([\d.]+)', text, re.MULTILINE)
    assert len(bounds) > 20

    def same(one, other):
        return one.rstrip(".0") == other.rstrip(".0") or one.split(".") == other.split(".")[: len(one.split("."))]

    wrong = {
        name: (low, pins[name.lower()])
        for name, low in bounds
        if name.lower() in pins and not same(low, pins[name.lower()])
    }
    assert not wrong


def test_lock_files_name_no_index_and_no_torch():
    for name in ("lock.txt", "oldest.txt"):
        text = (ROOT / "requirements" / name).read_text()
        assert not re.search(r"https?://|--|^(torch|triton|nvidia|cuda)", text, re.MULTILINE)
        assert len(re.findall(r"^[\w.-]+==[\w.]+( ; .+)?$", text, re.MULTILINE)) == len(text.splitlines()) - 1
