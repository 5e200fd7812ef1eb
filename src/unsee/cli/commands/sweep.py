"""Run a grid of runs, each once, and compare them."""

from __future__ import annotations

import argparse
from pathlib import Path

from unsee.cli.commands._shared import FAILED, OK, cells_options, say, tell_unfinished


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("grid", metavar="GRID.yaml", help="base run and axes, see docs/running.md")
    cells_options(parser)


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from unsee.workflows.sweep import sweep

    states = sweep(options.grid, options.out, launcher=options.launcher, jobs=options.jobs, plugins=options.plugin)
    tell_unfinished(states)
    say(Path(options.out) / "compare" / "report.html" if "done" in states.values() else options.out)
    return FAILED if "failed" in states.values() else OK
