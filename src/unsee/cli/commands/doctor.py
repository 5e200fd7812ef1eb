"""Diagnose this installation, for bug reports: versions, device, memory, models."""

from __future__ import annotations

import argparse

from unsee.cli.commands._shared import FAILED, OK, say, say_json


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--folder", default="runs", metavar="DIR", help="where run folders are to go (default: runs)")
    parser.add_argument(
        "--no-trial", action="store_true", help="do not unlearn and answer on the lab model (some seconds)"
    )
    parser.add_argument("--json", action="store_true", help="print the diagnosis as JSON")


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from unsee.workflows.doctor import doctor

    diagnosis = doctor(options.folder, trial=not options.no_trial)
    say_json(diagnosis.to_mapping()) if options.json else say(diagnosis)
    return OK if diagnosis.healthy else FAILED
