"""Completion scripts, pressed in a real bash."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys

import pytest

from unsee.api import registry
from unsee.cli.main import main, verbs

pytest.importorskip("shtab")
PRESS = """
source {script}
function=$(complete -p unsee | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=({words}) COMP_CWORD=$(({count} - 1)) COMPREPLY=()
$function
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """Return the file with the script for bash, printed by a process that imports no torch."""
    probe = "import sys; from unsee.cli.main import main; code = main(['completion', 'bash']); assert 'torch' not in sys.modules; sys.exit(code)"
    text = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    file = tmp_path_factory.mktemp("bash") / "unsee.bash"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def press(script, tmp_path):
    """Return a function that gives the completions of a command line, the last word being the one before the cursor."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")

    def pressed(*words):
        quoted = " ".join(f"'{word}'" for word in ("unsee", *words))
        text = PRESS.format(script=script, words=quoted, count=len(words) + 1)
        done = subprocess.run(["bash", "--norc", "-c", text], capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout.split()

    return pressed


def test_commands_and_flags(press):
    assert set(press("")) >= set(verbs())
    assert press("sugg") == ["suggest"]
    assert press("forget", "--meth") == ["--method"]


@pytest.mark.parametrize(
    ("flag", "kind"), [("--method", "methods"), ("--benchmark", "benchmarks"), ("--recipe", "recipes")]
)
def test_names(press, flag, kind):
    assert press("forget", flag, "") == registry.names(kind)


def test_values_of_settings_with_few(press):
    assert press("forget", "--engine", "") == ["fast", "plain"]
    assert press("forget", "--tune", "f") == ["full"]
    assert press("export", "runs/x", "--to", "lm") == ["lmms-eval"]
    assert press("list", "me") == ["methods", "metrics"]
    assert press("forget", "--set", "training.warm") == ["training.warmup_steps="]


def test_run_folders(press, tmp_path):
    for name in ("runs/npo", "runs/ga"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.yaml").touch()
    (tmp_path / "runs" / "images").mkdir()
    assert press("eval", "--model", "ru") == ["runs/ga", "runs/npo"]
    assert press("compare", "runs/n") == ["runs/npo"]


def test_files(press, tmp_path):
    (tmp_path / "mine.yaml").touch()
    assert press("forget", "mi") == ["mine.yaml"]


def test_a_press_takes_less_than_a_third_of_a_second(press):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    press("forget", "--method", "n")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


@pytest.mark.parametrize(("shell", "check"), [("zsh", ["zsh", "-n"]), ("fish", ["fish", "--no-execute"])])
def test_other_shells(shell, check, tmp_path, capsys):
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "npo" in text
    assert "_unsee_runs" in text
    if shutil.which(shell):
        file = tmp_path / "script"
        file.write_text(text, encoding="utf-8")
        subprocess.run([*check, str(file)], check=True)


def test_unknown_shell(capsys):
    assert main(["completion", "bush"]) == 2
    assert "Did you mean bash" in capsys.readouterr().err
