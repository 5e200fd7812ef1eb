"""The Dockerfile, as far as it can be checked without Docker."""

from __future__ import annotations

import shlex
import subprocess
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]


def instructions(text):
    """Yield the instructions of a Dockerfile, continued lines joined, without comments."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    for line in filter(str.strip, lines.splitlines()):
        name, _, rest = line.strip().partition(" ")
        yield name, rest.strip()


LINES = list(instructions((ROOT / "Dockerfile").read_text(encoding="utf-8")))


def test_what_is_copied_exists_and_is_not_ignored():
    sources = [
        word for name, rest in LINES if name == "COPY" and "--from" not in rest for word in shlex.split(rest)[:-1]
    ]
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"]
    assert {"src", "requirements/lock.txt", "requirements/torch.txt"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists()
        assert any(fnmatch(source, pattern) for pattern in kept)


def test_the_last_user_is_not_root():
    users = [rest for name, rest in LINES if name == "USER"]
    assert users[-1].isdigit()
    assert users[-1] != "0"


def test_every_installation_is_held_to_the_lock():
    installed = [rest for name, rest in LINES if name == "RUN" and "pip install" in rest]
    assert len(installed) == 3
    assert all("requirements/lock.txt" in line for line in installed)


def test_make_builds_for_cpu_and_for_cuda():
    def said(*words):
        return subprocess.run(
            ["make", "-n", "image", *words], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout

    assert "nvidia" not in said()
    assert "--build-arg BASE=nvidia/cuda" in said("CUDA=1")
