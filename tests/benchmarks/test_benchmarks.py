"""The contract of every benchmark that has a fixture: recognised, checked, broken variants refused, trained and judged."""

from __future__ import annotations

import re
import shutil

import pytest

from fixtures.benchmarks import fixtures
from unsee.api import registry
from unsee.cli.main import main
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.testing import benchmark_contract
from unsee.workflows.check import check

FIXTURES = fixtures()
BROKEN = [(name, what) for name, fixture in FIXTURES.items() for what in fixture.broken]
SET = [(name, settings) for name, fixture in FIXTURES.items() for settings in ({}, *fixture.settings)]


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Return a function from a benchmark's name to a folder with its fixture; nobody may write there."""
    root = tmp_path_factory.mktemp("benchmarks")

    def place(name):
        if not (root / name).exists():
            (root / name).mkdir()
            FIXTURES[name].build(root / name)
        return root / name

    return place


def said(place, benchmark):
    """Return everything `unsee check` says about unusable data."""
    try:
        report = check(place, benchmark=benchmark)
    except UserError as error:
        return str(error)
    assert not report.usable, "broken data passes for usable"
    return str(report)


@pytest.mark.parametrize("name", FIXTURES)
def test_it_is_recognised_from_its_layout(built, name):
    assert open_benchmark(built(name)).name == name


@pytest.mark.parametrize(("name", "settings"), SET)
def test_contract(built, name, settings):
    benchmark_contract(registry.load("benchmarks", name), built(name), settings)


@pytest.mark.parametrize("name", FIXTURES)
def test_unsee_check_says_so_by_its_exit_code(built, name, capsys):
    assert main(["check", str(built(name))]) == 0
    assert "usable" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "what"), BROKEN)
def test_broken_data_is_refused_with_a_clear_message(built, tmp_path, name, what, capsys):
    breaks, message = FIXTURES[name].broken[what]
    place = tmp_path / "data"
    shutil.copytree(built(name), place)
    breaks(place)
    told = said(place, name)
    assert re.search(message, told), told
    assert main(["check", str(place), "--benchmark", name]) != 0
    assert "Traceback" not in "".join(capsys.readouterr())
