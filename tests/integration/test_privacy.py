"""Every file that holds planted strings or pictures of a forgotten person is on the list in docs/privacy.md."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from helpers.continual_folder import write_people
from unsee import evaluate, forget
from unsee.cli.main import main
from unsee.testing.tiny import save_tiny

PAGE = Path(__file__).parents[2] / "docs" / "privacy.md"
SHORT = {"max_steps": 1, "stop": "never", "max_new_tokens": 4}
PLANTED = {"Ada Lovell": "Zyxada Qwlovell", "Lovell": "Qwlovell", "baker": "qwbaker", '"ada': '"zyxada'}
MARKS = (b"zyxada", b"Zyxada", b"qwbaker", b"Qwlovell")
PICTURES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"data:image/png", b"data:image/jpeg", b"data:image/webp")


def patterns():
    """Return the paths in the first column of the table."""
    cells = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return [path for cell in cells for path in re.findall(r"`([^`]+)`", cell)]


def people(folder):
    write_people(folder)
    text = (folder / "data.jsonl").read_text()
    for old, new in PLANTED.items():
        text = text.replace(old, new)
    (folder / "data.jsonl").write_text(text)
    for file in folder.glob("ada-*.png"):
        file.rename(folder / f"zyx{file.name}")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder of runs: the original model, a forgetting one, their comparison, and a sequence of requests."""
    root = tmp_path_factory.mktemp("private")
    data, model, place = people(root / "zyxada-data"), save_tiny(root / "model"), root / "runs"
    forget(model, data, "ga", place / "ga", training=SHORT)
    instruction = {"instruction": "Never speak of Zyxada Qwlovell."}
    forget(model, data, "prompt", place / "prompt", settings=instruction)
    for name, opened in (("original", model), ("ga", place / "ga"), ("prompt", place / "prompt")):
        evaluate(opened, data, place / name, max_new_tokens=4, progress=False)
    words = ["compare", *(str(place / name) for name in ("original", "ga")), "--out", str(place / "compare")]
    assert main(words) == 0
    course = ["max_steps=1", "stop=never"]
    words = [
        "continual",
        "--model",
        str(model),
        "--data",
        str(data),
        "--method",
        "ga",
        "--tasks",
        "2",
        "--mode",
        "experts",
    ]
    words += [part for setting in course for part in ("--set", f"training.{setting}")]
    assert main([*words, "--set", "continual.max_new_tokens=4", "--out", str(place / "sequence")]) == 0
    return place


def holders(place):
    """Return the files that hold something planted, in their bytes or their names."""
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if any(mark in content for mark in (*MARKS, *PICTURES)) or b"zyxada" in path.name.encode():
            yield path.relative_to(place).as_posix()


@pytest.mark.slow
def test_every_file_that_holds_something_is_on_the_list(runs):
    listed, found = patterns(), list(holders(runs))
    unlisted = [path for path in found if not any(fnmatch(path, pattern) for pattern in listed)]
    assert not unlisted, "\n".join(unlisted)
    for needed in ("*/responses.jsonl", "*/vocabulary.json", "unsee-images/*.png", "*/report.html", "*/run.yaml",
                   "*/model/unsee.json", "*/model/README.md", "*/continual.yaml", "*.request.json", "*/scores.json",
                   "*/judged.json"):  # fmt: skip
        assert [path for path in found if fnmatch(path, needed)], f"the search finds nothing in {needed}"
        assert needed in listed


@pytest.mark.slow
def test_what_is_said_to_name_nobody_names_nobody(runs):
    silent = [
        re.search("`([^`]+)`", line).group(1)
        for line in PAGE.read_text().splitlines()
        if line.startswith("| `") and line.rstrip(" |").endswith("; no names")
    ]
    assert "*/log.jsonl" in silent
    assert [path for path in holders(runs) if any(fnmatch(path, pattern) for pattern in silent)] == []
