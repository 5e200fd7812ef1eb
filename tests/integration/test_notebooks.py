"""Notebooks: committed without outputs, and their code cells run in order (by `exec`, in place of a kernel)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = ("lab_in_five_minutes", "own_data")


def code_cells(name):
    book = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_output_is_committed(name):
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code_cells(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_cells_run_in_order(name, tmp_path, monkeypatch):
    shutil.copytree(EXAMPLES / "own_folder", tmp_path / "own_folder")
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in code_cells(name):
        exec(compile("".join(cell["source"]), name, "exec"), names)
    assert names["run"].verdict is not None
    assert (names["run"] / "scores.json").is_file()
    if name == "lab_in_five_minutes":
        before, after = (scores["unseen.leak"].value for scores in (names["original"], names["scores"]))
        assert before > 0.8 > 0.2 > after
        assert (tmp_path / "runs" / "notebook" / "report" / "report.html").is_file()
