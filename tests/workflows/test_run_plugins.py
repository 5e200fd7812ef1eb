"""Runs with plugins: recorded with their hash, refused when it differs, and the same from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helpers.run import EXAMPLE
from unsee import config, forget
from unsee.api import registry
from unsee.cli import main
from unsee.testing.tiny import save_tiny

PLUGIN = EXAMPLE.parent / "plugin"
SHORT = {"max_steps": 1, "stop": "never", "lr": 1e-3, "max_new_tokens": 4}
SETTINGS = [word for name, value in SHORT.items() for word in ("--set", f"training.{name}={value}")]


@pytest.fixture(autouse=True)
def _no_plugins(monkeypatch):
    monkeypatch.setattr(registry, "_ADDED", {})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def file(tmp_path):
    """Return a copy of the example's method."""
    copy = tmp_path / "fixed_answer.py"
    copy.write_text((PLUGIN / "unsee_example" / "fixed_answer.py").read_text())
    return copy


def test_a_run_with_a_plugin_is_resumed_with_the_same_code_only(model, file, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    words = ["--model", str(model), "--data", str(EXAMPLE), "--out", str(out), *SETTINGS]
    assert main.main(["forget", "--ask", "0", *words, "--plugin", str(file), "--method", "fixed_answer"]) == 0
    written = config.read_mapping(out / "run.yaml")
    assert written["method"] == {"name": "fixed_answer", "sentence": "I do not know."}
    assert written["plugins"] == list(registry.pin("methods", "fixed_answer"))
    assert main.main(["forget", "--ask", "0", str(out / "run.yaml"), "--resume"]) == 0

    text, trace = file.read_text(), tmp_path / "trace"
    file.write_text(f"{text}\n__import__('pathlib').Path({str(trace)!r}).touch()\n")
    registry._ADDED.clear()
    capsys.readouterr()
    assert main.main(["forget", "--ask", "0", str(out / "run.yaml"), "--resume"]) == 2
    assert f"The plugin {file} has changed" in capsys.readouterr().err
    assert not trace.exists()
    assert (
        main.main(["forget", "--ask", "0", *words, "--plugin", str(file), "--method", "fixed_answer", "--resume"]) == 2
    )
    assert "Restore the plugin" in capsys.readouterr().err
    assert main.main(["forget", "--ask", "0", *words, "--method", "ga", "--resume"]) == 2


def test_a_method_instance_gives_the_run_of_the_command_line(model, file, tmp_path):
    registry.add(file)
    mine = registry.load("methods", "fixed_answer")(sentence="Hush.")
    by_instance = config.read(forget(model, EXAMPLE, mine, tmp_path / "a", training=SHORT) / "run.yaml")
    by_file = config.read(
        forget(model, EXAMPLE, str(file), tmp_path / "b", settings={"sentence": "Hush."}, training=SHORT) / "run.yaml"
    )
    assert by_instance.settings == by_file.settings == {"sentence": "Hush."}
    assert by_instance.plugins == by_file.plugins
    weights = [(tmp_path / name / "model" / "adapter_model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


def test_a_file_as_method_writes_below_runs(model, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert forget(model, EXAMPLE, str(file), training=SHORT) == Path("runs/fixed_answer")
    assert forget(model, EXAMPLE, f"{file}:FixedAnswer", training=SHORT) == Path("runs/fixedanswer")


def test_a_fault_inside_a_method_is_an_error_with_its_line(model, file, tmp_path, capsys):
    text = file.read_text().replace("minimise(session, objective, forget=targets)", "session.nothing_like_it()")
    file.write_text(text)
    line = text[: text.index("session.nothing")].count("\n") + 1
    words = ["--model", str(model), "--data", str(EXAMPLE), "--out", str(tmp_path / "o"), *SETTINGS]
    assert main.main(["forget", "--ask", "0", *words, "--method", str(file)]) == 2
    said = capsys.readouterr().err
    assert f"failed at {file}, line {line}: AttributeError" in said
    assert "Traceback" not in said


def test_a_family_from_a_plugin_is_recorded(model, file, tmp_path, monkeypatch):
    families = tmp_path / "other.py"
    families.write_text(
        "from unsee.models.families.llava import Llava as Base\n\n\nclass Other(Base):\n    model_types = ('other',)\n"
    )
    registry.add(families)
    cls = registry.load("models", "other")
    assert registry.pin_of_family(cls) == registry.pin("models", "other")
    assert registry.pin_of_family(cls.__mro__[1]) == ()


def test_a_metric_is_recorded_beside_the_scores(model, tmp_path, capsys):
    words = ["eval", "--model", str(model), "--data", str(EXAMPLE), "--out", str(tmp_path), "--measures", "brevity"]
    short = ["--set", "eval.max_new_tokens=4", "--set", "eval.limit=1"]
    metric = PLUGIN / "unsee_example" / "brevity.py"
    assert main.main([*words, *short]) == 2
    assert "Unknown measure 'brevity'" in capsys.readouterr().err
    for more in ([], ["--all"]):  # it was asked for, so it is shown
        assert main.main([*words, *short, "--plugin", str(metric), *more]) == 0
        assert "retain.brevity" in capsys.readouterr().out
    assert config.read_mapping(tmp_path / "judged.json")["plugins"][0].startswith(f"{metric}#sha256=")


@pytest.mark.slow
def test_the_example_package_works_when_it_is_installed(model, tmp_path):
    """Install it without its dependencies into an environment of its own, beside this one's packages."""
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    source = tmp_path / "source"
    (source / "unsee_example").mkdir(parents=True)
    for part in ("pyproject.toml", *(f"unsee_example/{name}.py" for name in ("__init__", "fixed_answer", "brevity"))):
        (source / part).write_text((PLUGIN / part).read_text())
    subprocess.run([*pip, "--target", str(site), str(source)], check=True, capture_output=True)
    paths = [str(site), *(path for path in sys.path if path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

    def unsee(*words: str) -> str:
        command = [sys.executable, "-m", "unsee", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    version = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["version"]
    assert f"[package unsee-example {version}]" in unsee("list", "methods")
    assert "better: neither" in unsee("list", "metrics", "brevity")
    words = ("--model", str(model), "--data", str(EXAMPLE), "--out", "run", *SETTINGS)
    unsee("forget", "--ask", "0", *words, "--method", "fixed_answer")
    [spec] = config.read_mapping(Path(tmp_path / "run" / "run.yaml"))["plugins"]
    assert spec.startswith("unsee_example.fixed_answer:FixedAnswer#sha256=")
    unsee("forget", "--ask", "0", "run/run.yaml", "--resume")
    said = unsee("eval", "--model", "run", "--measures", "brevity", "--all", "--set", "eval.max_new_tokens=4")
    assert "forget.brevity" in said


def test_data_that_a_plugin_reads_are_exported(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text("from unsee.benchmarks.folder import Folder\n\n\nclass Mine(Folder):\n    name = 'mine'\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.yaml").write_text(f"model: lab\ndata: {EXAMPLE}\nbenchmark: mine\nplugins: [{file}]\nresult: {{}}\n")
    words = ["export", str(run), "--to", "vlmevalkit", "--out", str(tmp_path / "out")]
    assert main.main(words) == 2
    assert f"which are not loaded by themselves: --plugin {file}\n" in capsys.readouterr().err
    assert main.main([*words, "--plugin", str(file)]) == 0
    assert [file.name for file in (tmp_path / "out").glob("*.tsv")] == ["unsee_out.tsv"]
