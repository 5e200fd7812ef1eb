"""Commands that are killed at random moments go on to the same results (see kills.py for the large campaign)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.kills import campaign, table


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_killed_commands_go_on_to_the_same_results(tmp_path: Path) -> None:
    """`UNSEE_KILLS` trials (default: one for each job), in `UNSEE_KILLS_DIR`, where they are kept."""
    kills, folder = int(os.environ.get("UNSEE_KILLS", "15")), os.environ.get("UNSEE_KILLS_DIR", str(tmp_path))
    trials = campaign(kills, Path(folder))
    assert len(trials) >= kills
    failed = [trial for trial in trials if trial.message]
    assert not failed, table(trials)
