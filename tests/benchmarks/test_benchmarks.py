"""The contract of every benchmark that has a fixture: recognised, checked, broken variants refused, trained and judged."""

from __future__ import annotations

import re
import shutil

import pytest

from fixtures.benchmarks import fixtures
from unsee.cli.main import main
from unsee.data.check import fingerprint
from unsee.data.open import described, open_benchmark
from unsee.errors import UserError
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
def test_usable_data_passes_the_check(built, name, settings):
    report = check(built(name), benchmark={"name": name, **settings})
    assert report.problems == ()
    assert "forget" in report.counts


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


@pytest.mark.parametrize("name", FIXTURES)
def test_the_vocabulary_is_the_same_whether_examples_were_asked_for_first_or_not(built, name):
    first, later = (open_benchmark(built(name), name) for _ in range(2))
    asked_first = first.vocabulary()
    later.examples("eval")
    assert asked_first == later.vocabulary()


@pytest.mark.parametrize(("name", "settings"), SET)
def test_examples_are_the_same_every_time(built, name, settings):
    one, two = (open_benchmark(built(name), {"name": name, **settings}) for _ in range(2))
    assert fingerprint(one) == fingerprint(two)
    assert fingerprint(open_benchmark(built(name), described(one))) == fingerprint(one)


@pytest.mark.parametrize(("name", "settings"), SET)
def test_every_image_decodes_to_rgb_and_has_a_key_of_its_content(built, name, settings):
    opened = open_benchmark(built(name), {"name": name, **settings})
    pictures = {}
    for split in ("train", "eval"):
        for example in opened.examples(split):
            if example.image is not None:
                picture = example.image.load()
                assert picture.mode == "RGB"
                pictures.setdefault(example.image.key, picture.tobytes())
                assert pictures[example.image.key] == picture.tobytes()
    assert len(pictures) > 2


@pytest.mark.parametrize("name", FIXTURES)
def test_an_unknown_setting_gets_the_known_ones(built, name):
    with pytest.raises(UserError, match=f"setting of benchmark {name}"):
        open_benchmark(built(name), {"name": name, "nonsense": 1})
