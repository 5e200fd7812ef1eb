"""The worked example of docs/deletion_requests.md, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_worked_example(tmp_path: Path) -> None:
    """Three requests, two batches, receipts that hold, and no name left in the end."""
    project = tmp_path / "project"
    environment = {
        **os.environ,
        "UNSEE_KEYS": str(tmp_path / "keys"),
        "UNSEE": f"{sys.executable} -m unsee",
        "PYTHON": sys.executable,
    }
    done = subprocess.run(
        ["bash", ROOT / "examples" / "deletion_requests.sh", project],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "NO BASELINE: not found in the model" in done.stderr
    assert "one of the pictures is of somebody who is to be kept" in done.stderr
    assert done.stdout.count("the receipt holds") == 2
    assert "none was changed or is missing" in done.stdout
    receipts = [json.loads(file.read_text()) for file in (project / "receipts").glob("*.json")]
    for receipt in receipts:
        assert receipt["surfaces"]["unseen"]["verdict"] == "erased"
        assert receipt["surfaces"]["unseen"]["before"]["hits"] > 0.8 * receipt["surfaces"]["unseen"]["before"]["n"]
    for file in project.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [name for name in (b"Grapukos", b"Sifutrik", b"Maren Holt") if name in content], file
