"""Check whether data is usable, row by row."""

from __future__ import annotations

import argparse

from unsee import config
from unsee.cli.commands._shared import FAILED, OK, add_plugins, benchmark_of, data_options, plugin_option, say, say_json
from unsee.errors import UserError


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("place", nargs="?", metavar="DATA", help="folder or table, or lab")
    parser.add_argument("--data", metavar="D", help="the same")
    parser.add_argument(
        "--model", default="", metavar="M", help="also encode every row for this model; reads no weights"
    )
    parser.add_argument("--benchmark", default="", metavar="NAME", help="layout of the data; default: recognise it")
    parser.add_argument(
        "--suppress",
        default="",
        metavar="LEDGER",
        help="also search for forgotten people: ledger, project of deletion requests, or a JSON file of fingerprints",
    )
    data_options(parser)
    parser.add_argument(
        "--set", action="append", default=[], metavar="benchmark.X=Y", help="a setting of the benchmark; repeatable"
    )
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
    settings = config.merge(config.parse_overrides(options.set), {"benchmark": benchmark_of(vars(options))})
    if settings.keys() != {"benchmark"}:
        raise UserError("unsee check sets only the benchmark: --set benchmark.NAME=VALUE.")
    report = check(data, benchmark=settings["benchmark"], model=options.model, suppress=options.suppress)
    say_json(config.plain(vars(report))) if options.json else say(report)
    return OK if report.usable else FAILED
