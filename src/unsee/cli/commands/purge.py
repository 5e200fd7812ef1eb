"""Remove what runs keep about the people that were to be forgotten."""

from __future__ import annotations

import argparse
from pathlib import Path

from unsee.cli.commands._shared import OK, say, say_json


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "places", nargs="+", metavar="PLACE", help="run folder, sequence, demo, sweep, comparison, or folder of runs"
    )
    parser.add_argument(
        "--level",
        action="append",
        metavar="A,B",
        help="what goes: answers, requests, caches, checkpoints (default: these four), weights; repeatable",
    )
    parser.add_argument("--due", action="store_true", help="only runs whose `retention: days:N` has passed")
    parser.add_argument("--yes", action="store_true", help="remove; without it files are only listed")
    parser.add_argument("--json", action="store_true", help="print counts and bytes by level as JSON, without any name")


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from unsee.workflows.purge import purge, require_outside

    levels = None
    if options.level is not None:
        levels = [name.strip() for text in options.level for name in text.split(",") if name.strip()]
    for path in options.places:
        require_outside(path, levels)
    purged = purge([Path(path) for path in options.places], levels=levels, apply=options.yes, due=options.due)
    say_json(purged.record()) if options.json else say(purged)
    return OK
