"""What runs without the modules and calls that only POSIX systems have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

import unsee
from unsee.data import row_store
from unsee.utils import memory

HIDDEN = """
import os, signal, sys
import psutil  # transformers needs it; its edition for Linux would miss what is hidden here
for name in ("fcntl", "resource", "pwd", "grp"):
    sys.modules[name] = None  # importing it raises ImportError
for name in ("pread", "getuid", "geteuid", "fchmod", "fork", "killpg", "setsid"):
    delattr(os, name)
"""
PIECES = """
from pathlib import Path
from unsee.cli import main
from unsee.data import row_store, shared_cache
from unsee.distributed import file_lock
from unsee.evaluation import judge_http
from unsee.utils import files, signals
from unsee.api.fast_paths import FAST
from unsee.workflows import sweep
place = Path(sys.argv[1])
with file_lock.owner(place / "out"):
    files.atomic_write_text(place / "out" / "x", "y")
    with files.atomic_folder(place / "out" / "model") as part:
        (part / "w").write_text("1")
with file_lock.claimed(files.owned_folder(place / "claims") / "x") as ours:
    assert ours
os.environ["UNSEE_CACHE"] = str(place / "cache")
rows = shared_cache.shared_rows(place / "out", "a.jsonl", FAST)
rows.put({"k": 1})
assert shared_cache.shared_rows(place / "out", "a.jsonl", FAST).get("k") == 1
signals.raise_on_sigterm()
print("done")
"""


def run(code, place, *words):
    """Run code without POSIX modules; its locks are soft ones, which wait for lock files that a POSIX process left."""
    command = [sys.executable, "-c", HIDDEN + code, *map(str, (place, *words))]
    environment = {**os.environ, "XDG_CACHE_HOME": str(place / "home")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_files_locks_and_caches_need_no_posix(tmp_path):
    done = run(PIECES, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done\n")


@pytest.mark.slow
def test_a_run_needs_no_posix(tmp_path):
    code = (
        "sys.path.insert(0, sys.argv[2])\nfrom pathlib import Path; from unsee.testing.tiny import save_tiny; from unsee import forget\n"
        "import unsee.utils.memory; unsee.utils.memory._STATUS = unsee.utils.memory._RESET = Path('/nowhere')\n"
        "model = save_tiny(Path(sys.argv[1]) / 'model')\n"
        "forget(model, sys.argv[3], 'ga', Path(sys.argv[1]) / 'ga', training={'max_steps': 1, 'stop': 'never'})\n"
        "print('done')"
    )
    example = Path(__file__).parents[2] / "examples" / "own_folder"
    done = run(code, tmp_path, Path(__file__).parents[1], example)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done\n")


def test_peak_memory_without_proc_and_resource(monkeypatch):
    monkeypatch.setattr(memory, "_STATUS", Path("/nowhere"))
    with_resource = memory.peak_gib()
    monkeypatch.setattr(memory, "find_spec", lambda name: None)
    assert 0.05 < memory.peak_gib() <= with_resource + 0.5
    assert memory.free_bytes("cpu") > 2**20


def test_large_tables_are_read_without_pread(monkeypatch, tmp_path):
    monkeypatch.setattr(row_store, "IN_MEMORY", 0)
    file = tmp_path / "x.jsonl"
    file.write_text("".join(f'{{"n": {n}}}\n' for n in range(500)))
    if "pread" in vars(os):
        monkeypatch.delattr(os, "pread")
    rows, found = row_store.open_rows(file), {}

    def read(start):
        found.update((n, rows[n]["n"]) for n in range(start, 500, 4))

    threads = [Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: n for n in range(500)}


def test_nothing_imports_posix_modules_at_its_top():
    sources = Path(unsee.__file__).parent.rglob("*.py")
    lines = {line for path in sources for line in path.read_text().splitlines()}
    assert not lines & {f"import {name}" for name in ("fcntl", "resource", "pwd", "grp", "termios")}
