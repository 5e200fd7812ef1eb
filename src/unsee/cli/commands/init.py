"""Write a commented run file for the data at hand."""

from __future__ import annotations

import argparse

from unsee.cli.commands._shared import OK, benchmark_of, data_options, plugin_option, say
from unsee.models.location import folder_of


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("data", metavar="DATA", help="folder or table with the data, or lab")
    parser.add_argument("--model", default="", metavar="M", help="folder, hub id, run folder or lab")
    parser.add_argument("--benchmark", metavar="NAME", help="layout of the data; default: recognise it")
    data_options(parser)
    plugin_option(parser)
    parser.add_argument("--out", default="run.yaml", metavar="FILE", help="run file to write (default: run.yaml)")


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if options.model:
        folder_of(options.model)
    from unsee.workflows.init import init

    say(init(options.data, options.model, options.out, benchmark=benchmark_of(vars(options)), plugins=options.plugin))
    return OK
