"""Compare several runs in a leaderboard and a report."""

from __future__ import annotations

import argparse
from pathlib import Path

from unsee import config
from unsee.cli.commands._shared import OK, say
from unsee.config import paths
from unsee.distributed.file_lock import owner
from unsee.errors import UserError


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders that were judged with unsee eval")
    parser.add_argument(
        "--out", default="runs/compare", metavar="DIR", help="folder for report.html (default: runs/compare)"
    )


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    runs = [run for run in map(Path, options.runs) if not _beside_runs(run)]
    if not runs:
        raise UserError(f"None of {', '.join(options.runs)} is a run folder. Give the --out of `unsee eval`.")
    for run in runs:
        config.require_ended(paths.require_run(run))
        if not (run / "scores.json").is_file():
            raise UserError(
                f"{run} has no scores.json. Judge it first: unsee eval --model {run} --data ... --out {run}"
            )
    from unsee.report import compare

    with owner(Path(options.out)):
        say(compare(runs, Path(options.out)))
    return OK


def _beside_runs(path: Path) -> bool:
    """Tell whether a path of `runs/*` is no run: a file, shared data, an earlier comparison."""
    if path.is_file():
        return True
    shared = path.name in paths.SHARED and not (path / config.RECORD).exists()
    return path.is_dir() and not (path / "scores.json").exists() and (shared or (path / "leaderboard.json").exists())
