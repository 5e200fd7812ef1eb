"""Output folders have one owner, own temporary files never count, and nothing is removed that unsee did not make."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import unsee
from helpers.folder import folder
from unsee import forget
from unsee.cli.main import main
from unsee.distributed import file_lock
from unsee.errors import InUseError, UserError
from unsee.testing.tiny import save_tiny
from unsee.training.trainable import save_trainable
from unsee.utils.files import (
    LOCK,
    OWNED,
    atomic_folder,
    atomic_write_text,
    foreign,
    owned_folder,
    remove_file,
    remove_folder,
    sweep_temporary,
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_folder"
SHORT = {"max_steps": 1, "stop": "never", "max_new_tokens": 8}
SOURCES = sorted(Path(unsee.__file__).parent.rglob("*.py"))

__all__ = ["folder"]


def hold(path: Path) -> subprocess.Popen[str]:
    """Start a process that owns the folder until it is ended."""
    code = (
        "import sys, time; from pathlib import Path; from unsee.distributed.file_lock import owner\n"
        "with owner(Path(sys.argv[1])): print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def held(tmp_path):
    """Return a folder that another process owns, and that process."""
    process = hold(tmp_path / "out")
    yield tmp_path / "out", process
    process.kill()
    process.wait()


def test_the_second_owner_is_told_who_is_at_it_and_a_dead_one_blocks_nobody(held):
    out, process = held
    with pytest.raises(InUseError, match=f"is in use by process {process.pid} on .* since 2"), file_lock.owner(out):
        pytest.fail("two owners")
    with pytest.raises(InUseError):
        file_lock.require_free(out)
    process.kill()
    process.wait()
    with file_lock.owner(out), file_lock.owner(out):  # it nests
        assert foreign(out) == []
    assert [path.name for path in out.iterdir()] == [LOCK]


COMMANDS = [
    "forget --model lab --data lab --method ga --out {out}",
    "forget --model lab --data lab --method ga --out {out} --resume",
    "eval --model lab --data lab --out {out} --set eval.limit=1",
    "continual --model lab --data lab --method ga --tasks 1 --out {out}",
    "demo --out {out} --methods ga",
    "train lab --out {out}",
    "compare {run} --out {out}",
    "export lab --to merged --out {out}",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_leaves_a_folder_in_use_alone(held, tmp_path, capsys, command):
    run = tmp_path / "run"
    run.mkdir()
    (run / "scores.json").write_text("{}")
    before = sorted(held[0].rglob("*"))
    assert main(command.format(out=held[0], run=run).split()) == 2
    assert f"in use by process {held[1].pid}" in capsys.readouterr().err
    assert sorted(held[0].rglob("*")) == before


def test_what_is_refused_inside_the_block_leaves_nothing_behind(tmp_path):
    with pytest.raises(UserError, match="no"), file_lock.owner(tmp_path / "new"):
        raise UserError("no")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_killed_while_its_first_file_was_written_blocks_nothing(model, tmp_path, resume):
    out = tmp_path / "x"
    out.mkdir()
    (out / ".run.yaml.abcd1234").write_text("mod")
    (out / ".run.yaml.0123abcd.unsee-part").write_text("mod")
    forget(model, EXAMPLE, "ga", out, training=SHORT, resume=resume)
    assert not list(out.glob(".run.yaml*"))
    assert (out / "model" / "README.md").is_file()


@pytest.mark.parametrize("command", ["eval --model {run} --data {data} --out {out}", "export {run} --to merged --out {out}",
                                     "export {run} --to peft --out {out}", "push {run} o/n --base o/b --dry-run", "compare {run} --out {out}"])  # fmt: skip
def test_a_run_that_was_killed_while_saving_is_not_judged(model, tmp_path, capsys, command):
    out = forget(model, EXAMPLE, "ga", tmp_path / "x", training=SHORT)
    record = out / "run.yaml"
    record.write_text(record.read_text().partition("result:")[0])
    (out / "scores.json").write_text("{}")
    assert main(command.format(run=out, data=EXAMPLE, out=tmp_path / "y").split()) == 2
    assert "has not ended" in capsys.readouterr().err
    assert not (tmp_path / "y").exists()


def test_a_record_that_was_cut_off_is_said(model, tmp_path, capsys):
    out = forget(model, EXAMPLE, "ga", tmp_path / "x", training=SHORT)
    record = out / "run.yaml"
    record.write_text(record.read_text().partition("record:")[0])
    with pytest.raises(UserError, match="is damaged: its part `record` is missing"):
        forget(model, EXAMPLE, "ga", out, training=SHORT, resume=True)


class TestRemoval:
    def test_only_files_py_removes(self):
        calls = re.compile(r"rmtree|\.unlink\(|\.rmdir\(|os\.remove|os\.unlink|removedirs")
        assert [str(path) for path in SOURCES if path.name != "files.py" and calls.search(path.read_text())] == []

    def test_own_folders_go_and_others_stay(self, tmp_path):
        mine, other = owned_folder(tmp_path / "mine"), tmp_path / "other"
        other.mkdir()
        for place in (mine, other):
            (place / "file").touch()
        remove_folder(mine)
        remove_folder(tmp_path / "never")
        assert not mine.exists()
        with pytest.raises(UserError, match=f"other was not made by unsee .it has no {OWNED}"):
            remove_folder(other)
        with pytest.raises(UserError, match="is not removed"):
            remove_file(other / "file")
        assert (other / "file").exists()

    def test_links_are_not_followed(self, tmp_path):
        target = owned_folder(tmp_path / "target")
        (target / "file").touch()
        (tmp_path / "link").symlink_to(target)
        with pytest.raises(UserError):
            remove_folder(tmp_path / "link")
        assert (target / "file").exists()

    def test_a_folder_that_exists_does_not_become_ours(self, tmp_path):
        (tmp_path / "other").mkdir()
        assert not (owned_folder(tmp_path / "other") / OWNED).exists()

    def test_sweeping_takes_only_own_temporary_files(self, tmp_path):
        for name in (".run.yaml.abcd1234", ".x.json.0a1b2c3d.unsee-part", ".bashrc.original", ".env", "run.yaml"):
            (tmp_path / name).touch()
        sweep_temporary(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {".bashrc.original", ".env", "run.yaml"}

    def test_sweeping_reaches_folders_below_that_have_no_owner_of_their_own(self, tmp_path):
        """A card is written into model/, and a demo into the folders of its rows."""
        for name in ("model", "row", "linked"):
            (tmp_path / "out" / name).mkdir(parents=True)
            (tmp_path / "out" / name / ".README.md.37bacece.unsee-part").touch()
        (tmp_path / "out" / "row" / LOCK).touch()
        (tmp_path / "out" / "linked").rename(tmp_path / "elsewhere")
        (tmp_path / "out" / "linked").symlink_to(tmp_path / "elsewhere")
        with file_lock.owner(tmp_path / "out"):
            left = {path.relative_to(tmp_path).parts for path in tmp_path.rglob(".README*")}
        assert left == {
            ("out", "row", ".README.md.37bacece.unsee-part"),
            ("elsewhere", ".README.md.37bacece.unsee-part"),
        }


class TestAtomicFolder:
    def test_it_appears_at_the_end_and_replaces_what_was_made_before(self, tmp_path):
        for text in ("old", "new"):
            with atomic_folder(tmp_path / "model") as part:
                (part / "weights").write_text(text)
                assert not (tmp_path / "model" / "weights").exists() or text == "new"
        assert (tmp_path / "model" / "weights").read_text() == "new"
        assert [path.name for path in tmp_path.iterdir()] == ["model"]

    def test_an_interruption_leaves_the_old_one(self, tmp_path):
        with atomic_folder(tmp_path / "model") as part:
            (part / "weights").write_text("old")
        with suppress(KeyboardInterrupt), atomic_folder(tmp_path / "model") as part:
            (part / "weights").write_text("torn")
            raise KeyboardInterrupt
        assert (tmp_path / "model" / "weights").read_text() == "old"
        with atomic_folder(tmp_path / "model") as part:
            assert [path.name for path in part.iterdir()] == [OWNED]

    def test_a_kill_while_it_is_exchanged_loses_neither(self, tmp_path, monkeypatch):
        with atomic_folder(tmp_path / "model") as part:
            (part / "weights").write_text("old")
        rename = Path.rename

        def killed(path, target):
            if path.name == "model.part":
                raise KeyboardInterrupt
            return rename(path, target)

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt), atomic_folder(tmp_path / "model") as part:
            (part / "weights").write_text("new")
            patch.setattr(Path, "rename", killed)
        assert {file.read_text() for file in tmp_path.rglob("weights")} == {"old", "new"}
        with suppress(KeyboardInterrupt), atomic_folder(tmp_path / "model") as part:
            assert (tmp_path / "model" / "weights").read_text() == "old"
            raise KeyboardInterrupt
        with atomic_folder(tmp_path / "model") as part:
            (part / "weights").write_text("newer")
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        assert (tmp_path / "model" / "weights").read_text() == "newer"

    def test_a_folder_of_somebody_else_is_refused_before_anything_is_written(self, tmp_path):
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "thesis.txt").touch()
        with pytest.raises(UserError, match="was not made by unsee"), atomic_folder(tmp_path / "model"):
            pytest.fail("must not start")
        assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_the_umask_holds(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        atomic_write_text(tmp_path / "deep" / "x", "private")
    finally:
        os.umask(before)
    assert (tmp_path / "deep" / "x").stat().st_mode & 0o777 == mode
    assert (tmp_path / "deep").stat().st_mode & 0o077 == 0o077 & ~umask


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_the_umask_holds_for_weights_too(tmp_path, umask, mode):
    """safetensors 0.8 makes files that nobody else can read, whatever the umask."""
    before = os.umask(umask)
    try:
        with atomic_folder(tmp_path / "model") as part:
            (part / "model.safetensors").touch(0o600)
        save_trainable(torch.nn.Linear(2, 2), tmp_path / "checkpoint")
    finally:
        os.umask(before)
    for file in ((tmp_path / "model" / "model.safetensors"), *(tmp_path / "checkpoint").iterdir()):
        assert file.stat().st_mode & 0o777 == mode, file


@pytest.mark.skipif(os.name == "nt", reason="Windows ends processes without a signal")
def test_sigterm_ends_a_command_in_order(tmp_path):
    code = (
        "import sys, time; from unsee.cli import main as cli; from unsee.cli.commands import list as verb\n"
        "verb.action = lambda options: (print('ready', flush=True), time.sleep(60))\n"
        "sys.argv = ['unsee', 'list', 'methods']; cli.script()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "ended by SIGTERM" in err
    assert "Traceback" not in err


@pytest.mark.skipif(os.name == "nt", reason="kills a process group leader as POSIX does")
def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    child = (
        "import os, sys, time; from unsee.utils.signals import end_with_parent; end_with_parent()\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "while True: time.sleep(0.05)"
    )
    parent = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE, bufsize=0)\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pid = int((tmp_path / "pid").read_text())
    process.kill()
    process.wait()
    wait_for(lambda: not alive(pid))


def test_a_child_that_ends_before_its_parent_ends_in_order():
    """The thread that waits for the parent must not be in a lock of the interpreter then."""
    code = "from unsee.utils.signals import end_with_parent; import time; end_with_parent(); time.sleep(0.3)"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    assert (child.wait(60), child.stderr.read()) == (0, b"")


@pytest.mark.skipif(os.name == "nt", reason="kills a process group leader as POSIX does")
def test_workers_of_a_pool_end_with_a_parent_that_is_killed(tmp_path):
    code = (
        "import os, time; from concurrent.futures import ProcessPoolExecutor; from pathlib import Path\n"
        "from unsee.utils.signals import exit_with_parent\n"
        f"def work(n): Path({str(tmp_path)!r}, str(os.getpid())).touch(); time.sleep(0.1)\n"
        "with ProcessPoolExecutor(2, initializer=exit_with_parent) as pool: list(pool.map(work, range(1000)))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    workers = [int(file.name) for file in tmp_path.iterdir()]
    assert all(map(alive, workers))
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(map(alive, workers)))


def test_every_pool_of_processes_ends_with_its_parent():
    pools = [line for path in SOURCES for line in path.read_text().splitlines() if "ProcessPoolExecutor(" in line]
    assert pools
    assert [line for line in pools if "initializer=exit_with_parent" not in line] == []


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def alive(pid):
    status = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
