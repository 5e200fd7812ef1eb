"""A commented run file for the data at hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
import yaml

from helpers.folder import KEPT, folder, row, write
from helpers.run import EXAMPLE
from unsee import config
from unsee.cli import main
from unsee.errors import UserError
from unsee.testing.tiny import save_tiny
from unsee.workflows.init import init
from unsee.workflows.suggest import suggest
from unsee.workflows.validate import validate_run

__all__ = ["folder"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny") / "tiny")


def lines_without_a_word(text):
    """Return the settings that no comment explains, neither behind them nor above; names are explained above their section."""
    lines = text.splitlines()
    return [
        line
        for above, line in pairwise(lines)
        if line.strip()
        and not line.strip().startswith(("#", "name:"))
        and "  # " not in line
        and not above.strip().startswith("#")
    ]


def test_the_file_holds_the_suggestion_and_a_word_on_every_line(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a long path would be broken over two lines
    file = init(EXAMPLE, model, "mine.yaml")
    text = file.read_text(encoding="utf-8")
    assert config.read(file) == suggest(model, EXAMPLE, out="runs/mine").run
    assert lines_without_a_word(text) == []
    assert max(map(len, text.splitlines())) <= 120
    assert text.startswith(f"# Start it with: unsee forget {file}")
    assert "retain_weight: 2.0" in text


def test_the_file_can_be_started(model, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    data = write(folder, [row(), KEPT])
    assert main.main(["init", str(data), "--model", str(model)]) == 0
    found = validate_run(config.read(tmp_path / "run.yaml"))
    assert (found.run.method, found.training.max_steps) == ("pubg", 80)
    assert found.run.out == f"runs/{data.stem}"


def test_the_model_can_be_named_later(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = init(write(folder, [row()]), out="run.yaml")
    text = file.read_text(encoding="utf-8")
    assert "unsee forget run.yaml --model MODEL" in text
    assert "model" not in yaml.safe_load(text)
    assert config.read(file).training["lr"] == 1e-4


def test_the_lab_has_a_model_of_its_own(tmp_path):
    assert config.read(init("lab", out=tmp_path / "lab.yaml")).model == "lab"


@pytest.mark.parametrize(
    ("data", "model"), [("lab:documents", "lab-documents"), ("lab:english", "lab-smol"), ("x", "")]
)
def test_requests_of_the_lab_have_models_of_their_own_once_packaged(tmp_path, monkeypatch, data, model):
    def stop(model, *_, **__):
        raise UserError(f"<{model}>")

    monkeypatch.setattr("unsee.workflows.init.suggest", stop)
    for packaged, wanted in ((("lab", "lab-documents", "lab-smol"), model), (("lab",), "")):
        monkeypatch.setattr("unsee.models.builtin.PACKAGED", packaged)
        with pytest.raises(UserError, match=f"^<{wanted}>$"):
            init(data, out=tmp_path / "run.yaml")


def test_nothing_is_overwritten(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text("mine\n", encoding="utf-8")
    with pytest.raises(UserError, match="not overwritten"):
        init(EXAMPLE, out=file)
    assert file.read_text(encoding="utf-8") == "mine\n"


def test_data_that_cannot_be_used_leave_no_file(tmp_path):
    with pytest.raises(UserError):
        init(tmp_path / "nothing", out=tmp_path / "run.yaml")
    assert not (tmp_path / "run.yaml").exists()
