"""Python in docs/commands.md: its examples run from top to bottom, in a folder with the images they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


@pytest.mark.slow
def test_the_examples_of_the_page_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for number, name in enumerate(("ada", "bo")):
        Image.new("RGB", (32, 32), (200 * number, 90, 40)).save(tmp_path / "images" / f"{name}.png")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["run"] == Path("runs/npo")
    assert names["scores"]["forget.leak"].n == 1
    assert names["original"]["unseen.leak"].value > 0.5  # the lab knows its people
    section = PAGE.read_text(encoding="utf-8").partition("\n## Python\n")[2].partition("\n## ")[0]
    assert 20 < len(section.splitlines()) <= 120
