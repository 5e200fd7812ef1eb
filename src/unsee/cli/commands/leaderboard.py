"""Give every method the same search, and rank the chosen settings on other questions."""

from __future__ import annotations

import argparse
from pathlib import Path

from unsee.cli.commands._shared import FAILED, OK, cells_options, say, tell_unfinished


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("file", metavar="FILE.yaml", help="methods and what each tries, see docs/running.md")
    cells_options(parser)


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from unsee.workflows.leaderboard import leaderboard

    states = leaderboard(
        options.file, options.out, launcher=options.launcher, jobs=options.jobs, plugins=options.plugin
    )
    tell_unfinished(states)
    say(Path(options.out) / "leaderboard.html")
    return OK if all(state == "done" for state in states.values()) else FAILED
