"""The package as others get it: lazy, complete, installable."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import unsee
import unsee.api
from unsee.cli.commands.list import KINDS

ROOT = Path(__file__).parents[2]
NAMING = (".py", ".md", ".sh", ".yaml", ".html", ".js")
HEAVY = ("torch", "transformers", "peft", "numpy", "scipy", "matplotlib")
CALLS = {
    "import": "import unsee, unsee.api, unsee.config, unsee.api.registry, unsee.data.check; dir(unsee)",
    "processes": "from unsee.distributed import processes; processes.world(), processes.barrier()",
    "fast paths": "from unsee.compat import fast_paths; fast_paths.status()",
    **{
        words: f"from unsee.cli import main\ntry: assert main.main({words.split()}) == {code}\nexcept SystemExit: pass"
        for words, code in {
            "--help": 0,
            "forget --help": 0,
            **{f"list {kind}": 0 for kind in KINDS},
            "check own_folder": 0,
            "forget --model nowhere --data lab --method npo --out x": 2,
            "forget --model lab --data nowhere --method npo --out x": 2,
            "eval --model nowhere --data lab --out x": 2,
            "eval --model lab --data nowhere --out x": 2,
        }.items()
    },
    "continual": "import unsee.workflows.continual, unsee.cli.commands.continual",
}


def test_nothing_heavy_is_loaded_before_it_is_needed():
    """One fresh interpreter makes the calls one after another, and says after each what it has loaded."""
    code = "import sys\n" + "".join(
        f"{call}\nprint('LOADED', {name!r}, *[name for name in {HEAVY!r} if name in sys.modules], sep='|')\n"
        for name, call in CALLS.items()
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "examples"
    )
    found = [line.split("|")[1:] for line in done.stdout.splitlines() if line.startswith("LOADED|")]
    *light, with_statistics = found
    assert [*light, with_statistics[:1]] == [[name] for name in CALLS]
    assert "torch" not in with_statistics


def test_verbs_stay_functions_when_their_modules_are_imported():
    import unsee.workflows.check
    import unsee.workflows.forget

    assert unsee.check is sys.modules["unsee.workflows.check"].check
    assert unsee.forget is sys.modules["unsee.workflows.forget"].forget
    assert callable(unsee.load)
    assert set(unsee.__all__) <= set(dir(unsee))


@pytest.mark.parametrize("name", unsee.__all__)
def test_every_public_function_is_there_and_documented(name):
    function = getattr(unsee, name)
    assert callable(function)
    assert function.__doc__


def test_version_is_said_once():
    assert f'version = "{unsee.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_every_verb_is_documented():
    from unsee.cli.main import verbs

    text = (ROOT / "docs" / "commands.md").read_text()
    assert all(f"## unsee {verb}" in text for verb in verbs())


def test_every_page_is_in_the_navigation_of_the_site():
    nav = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    assert sorted(re.findall(r"- (\w+\.md)", nav)) == sorted(
        ["index.md", "reference.md", *(page.name for page in (ROOT / "docs").glob("*.md"))]
    )


def test_every_public_name_is_on_the_reference_page():
    tuples = [
        ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "docs" / "hooks.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and node.targets[0].id in ("FUNCTIONS", "CLASSES", "TYPES")
    ]
    places = [name.rpartition(".") for names in tuples for name in names]
    told = [getattr(importlib.import_module(f"unsee.{module}"), name) for module, _, name in places]
    public = [getattr(package, name) for package in (unsee, unsee.api) for name in package.__all__]
    assert [one for one in public if callable(one) and one.__module__.startswith("unsee") and one not in told] == []


def test_every_page_that_is_named_anywhere_exists():
    read = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    read += [
        file
        for folder in ("src", "scripts", "configs", "examples", "perf")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in NAMING
    ]
    assert {
        (file.name, page)
        for file in read
        for page in re.findall(r"docs/[\w-]+\.md", file.read_text("utf-8"))
        if not (ROOT / page).is_file()
    } == set()


def test_tables_of_the_documentation_are_whole():
    """Every line of a table is a row of it; another one would end the table or show as text."""
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), ROOT / "perf" / "README.md"):
        for table in re.findall(r"^\|[-:| ]+\|\n((?:.+\n)+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            rows = table.splitlines()
            assert [
                row for row in rows if not ((row.startswith("|") and row.endswith("|")) or row.startswith("<!--"))
            ] == [], page


def test_documented_commands_name_existing_options(capsys):
    """Every `unsee VERB ... --option` in the docs is known to the parser."""
    from unsee.cli import main

    _, verbs = main.parsers(main.verbs())
    for file in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        blocks = "\n".join(re.findall(r"^```.*?^```", file.read_text(), re.MULTILINE | re.DOTALL))
        for verb, rest in re.findall(r"^\s*unsee ([a-z]+)\b(.*)$", blocks, re.MULTILINE):
            assert verb in verbs, f"{file.name}: {verb}"
            inner = [
                part for one in verbs[verb]._actions if isinstance(one.choices, dict) for part in one.choices.values()
            ]
            known = {name for part in (verbs[verb], *inner) for one in part._actions for name in one.option_strings}
            assert set(re.findall(r"(?<!\S)--[a-z0-9-]+", rest.partition("#")[0])) <= known, (
                f"{file.name}: {verb} {rest}"
            )


def test_documented_imports_exist():
    """Every `from unsee... import ...` and `unsee.name(` of the docs finds its names."""
    for file in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        text = file.read_text(encoding="utf-8")
        for module, names in re.findall(r"from (unsee[\w.]*) import ([\w, ]+)", text):
            for name in names.split(","):
                assert hasattr(importlib.import_module(module), name.strip()), f"{file.name}: {module}.{name.strip()}"
        for name in re.findall(r"\bunsee\.(\w+)\(", text):
            assert hasattr(unsee, name), f"{file.name}: unsee.{name}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build from a copy, so that nothing of an earlier build gets in."""
    source = tmp_path_factory.mktemp("source")
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", source / "src", ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(source / "dist"),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next((source / "dist").glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_everything_that_is_read_at_run_time(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = [
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "unsee").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert "unsee/py.typed" in wanted
    assert sorted(set(wanted) - held) == []
    assert not any(name.startswith(("tests/", "perf/")) for name in held)


@pytest.mark.slow
def test_the_wheel_works_where_the_sources_are_not(wheel, tmp_path):
    place = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(place),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(place)}

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "unsee", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    where = [sys.executable, "-c", "import unsee; print(unsee.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(place))
    assert "forget" in run("--help")
    assert "pubg" in run("list", "methods")
    assert "usable" in run("check", str(ROOT / "examples" / "own_folder"))
    run("demo", "--methods", "prompt", "--out", "story")
    assert (tmp_path / "story" / "report.html").stat().st_size > 10_000
