"""Examples in docstrings give what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import unsee

SOURCE = Path(unsee.__file__).parent
SHOWING = [file for file in sorted(SOURCE.rglob("*.py")) if ">>> " in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize("file", SHOWING, ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_examples_of_a_module(file):
    module = import_module(".".join(file.relative_to(SOURCE.parent).with_suffix("").parts))
    found = doctest.testmod(module)
    assert found.failed == 0
    assert found.attempted
