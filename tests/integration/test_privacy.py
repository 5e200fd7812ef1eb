"""Every file that holds planted strings or pictures of a forgotten person is on the list in docs/privacy.md."""

from __future__ import annotations

import re
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
from safetensors import safe_open

from helpers.continual_folder import write_people
from unsee import evaluate, forget
from unsee.cli.main import main
from unsee.testing.tiny import save_tiny
from unsee.workflows.private_files import FILES, LEVELS
from unsee.workflows.purge import purge

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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNSEE_KEYS", str(root / "keys"))
        requested(place / "requests", model, data)
    return place


def requested(project, model, data):
    """Receive, approve and unlearn a deletion request."""
    place = ["--project", str(project)]
    words = ["--model", str(model), "--data", str(data), "--name", "Zyxada Qwlovell"]
    assert main(["request", "add", *place, *words]) == 0
    (file,) = (project / "requests").iterdir()
    assert main(["request", "approve", file.name, *place]) == 0
    settings = (project / "project.yaml").read_text().replace("training: {}", "training: {max_steps: 1, epochs: 1}")
    (project / "project.yaml").write_text(settings.replace("- relearning\n", ""))
    assert main(["request", "run", *place]) in (0, 3)


def holders(place):
    """Return the files that hold something planted, in their bytes or their names."""
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if any(mark in content for mark in (*MARKS, *PICTURES)) or b"zyxada" in path.name.encode():
            yield path.relative_to(place).as_posix()


def test_every_kind_of_private_file_is_on_the_page():
    private = [
        pattern.replace("**", "x").replace("*", "")
        for kind in FILES
        if kind.level != "weights"
        for pattern in kind.pattern.split("|")
    ]
    listed = patterns()
    assert [path for path in private if not any(fnmatch(f"runs/a/{path}", pattern) for pattern in listed)] == []


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


@pytest.mark.slow
def test_after_a_purge_of_all_levels_nothing_is_held(runs, tmp_path, monkeypatch):
    place = Path(shutil.copytree(runs, tmp_path / "runs"))
    assert list(holders(place))
    assert list(features(place))
    monkeypatch.setenv("UNSEE_KEYS", str(runs.parent / "keys"))
    project = ["--project", str(place / "requests")]
    (request,) = (place / "requests" / "requests").iterdir()
    assert main(["request", "close", request.name, *project, "--decision", "withdrawn", "--reason", "withdrawn"]) == 0
    assert main(["request", "purge", "--yes", *project]) == 0
    assert list(holders(place / "requests")) == ["project.yaml"]  # the path of the data, for later requests
    shutil.rmtree(place / "requests")
    planned = {item.path for item in purge([place], levels=LEVELS).removed}
    assert {place / name for name in holders(place)} <= planned
    purge([place], levels=LEVELS, apply=True)
    assert list(holders(place)) == []
    assert list(features(place)) == []
    assert not list(place.rglob("*.png"))
    assert {path.name for path in place.rglob("*")} >= {"scores.json", "run.yaml", "summary.json", "continual.json"}


def features(place):
    """Return the safetensors keys that begin with an image's hash."""
    for path in place.rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            yield from (key for key in file.keys() if re.match("[0-9a-f]{16}", key))  # noqa: SIM118


def test_the_levels_on_the_list_are_those_of_purge():
    lines = PAGE.read_text().partition("## Removing it")[0].splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| `")]
    for names, level in [row[:2] for row in rows if len(row) == 4]:
        for pattern in re.findall(r"`([^`]+)`", names):
            if pattern in ("unsee-images/*.png", "*-base/*"):  # beside the runs, so no file of a run folder
                continue
            path = Path(pattern.removeprefix("*/").replace("cache/*", "cache/responses/*.jsonl").replace("*", "x"))
            known = {f"{kind.level}{', rewritten' * (kind.rewrite is not None)}" for kind in FILES if kind.fits(path)}
            assert known == ({level} if level != "stays" else set()), pattern
