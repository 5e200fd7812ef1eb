"""Print the JSON schema of run files, grids, leaderboards and requests, for editors and validators."""

from __future__ import annotations

import argparse
from typing import Final

from unsee.cli.commands._shared import OK, add_plugins, plugin_option, say_json

KINDS: Final = ("run", "continual", "sweep", "requests", "roles", "leaderboard")
"""Kinds of file."""


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "kind",
        nargs="?",
        default="any",
        metavar="KIND",
        help=f"{', '.join(KINDS)}; default: any of them",
    )
    plugin_option(parser)


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from unsee.workflows.settings_schema import schema

    add_plugins(options)
    say_json(schema(options.kind))
    return OK
