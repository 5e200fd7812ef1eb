"""The walk of docs/own_data.md: every command of its last section, on a tiny model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unsee.cli import main
from unsee.testing.tiny import save_tiny

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_command_of_the_walk_works(tmp_path, monkeypatch):
    model = save_tiny(tmp_path / "tiny")
    text = (ROOT / "docs" / "own_data.md").read_text().partition("## From the table to the end")[2]
    commands = re.findall(r"^unsee +(.+?) *(?:#.*)?$", text, re.M)
    assert [line.split()[0] for line in commands] == [
        *("check", "forget", "forget", "eval", "eval", "attack", "compare", "export")
    ]
    monkeypatch.chdir(tmp_path)
    for line in commands:
        words = line.replace("MODEL", str(model)).replace("examples", str(ROOT / "examples")).split()
        extra = ["--set", "training.max_steps=2"] if words[0] == "forget" else []
        extra += ["--set", "eval.max_new_tokens=8"] if words[0] in ("forget", "eval") else []
        extra += (
            ["--anyway"] if words[0] == "export" else []
        )  # a random model knows nobody, so nothing can be said of it
        assert main.main([*words, *extra]) == 0, line
    assert (tmp_path / "runs/compare/answers.html").is_file()
    assert (tmp_path / "merged/config.json").is_file()
