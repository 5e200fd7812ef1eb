"""Check whether data is usable, row by row."""

from __future__ import annotations

import argparse

from unsee import config
from unsee.cli.commands._shared import (
    FAILED,
    OK,
    add_plugins,
    benchmark_options,
    benchmark_settings,
    plugin_option,
    say,
    say_json,
)
from unsee.errors import UserError


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("place", nargs="?", metavar="DATA", help="folder or table, or lab")
    parser.add_argument("--data", metavar="D", help="the same")
    parser.add_argument(
        "--model", default="", metavar="M", help="also encode every row for this model; reads no weights"
    )
    parser.add_argument(
        "--suppress",
        default="",
        metavar="LEDGER",
        help="also search for forgotten people: ledger, project of deletion requests, or a JSON file of fingerprints",
    )
    benchmark_options(parser)
    plugin_option(parser)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    data = options.data or options.place
    if not data:
        raise UserError("Which data is to be checked? Give --data FOLDER.")
    if options.place not in (None, data):
        raise UserError(f"Two data are given, {options.place} and --data {options.data}. Give one of them.")
    from unsee.workflows.check import check

    add_plugins(options)
    report = check(data, benchmark=benchmark_settings(options, "check"), model=options.model, suppress=options.suppress)
    say_json(config.plain(vars(report))) if options.json else say(report)
    return OK if report.usable else FAILED
