"""Suggest a method and settings to start with, as a run file."""

from __future__ import annotations

import argparse

from unsee.cli.commands._shared import OK, benchmark_of, data_options, plugin_option, say
from unsee.errors import UserError
from unsee.models.location import folder_of


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--model", metavar="M", help="folder, hub id, run folder or lab (needed)")
    parser.add_argument("--data", metavar="D", help="folder or table with the data, or lab (needed)")
    parser.add_argument("--benchmark", metavar="NAME", help="layout of the data; default: recognise it")
    data_options(parser)
    plugin_option(parser)
    parser.add_argument("--out", default="", metavar="DIR", help="output folder to write into the run file")


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if not options.model or not options.data:
        raise UserError("Give --model and --data: the suggestion depends on both.")
    folder_of(options.model)
    from unsee.workflows.suggest import suggest

    say(
        suggest(
            options.model, options.data, out=options.out, benchmark=benchmark_of(vars(options)), plugins=options.plugin
        )
    )
    return OK
