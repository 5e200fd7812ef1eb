"""Compare several methods on the embedded lab, with a report."""

from __future__ import annotations

import argparse
from pathlib import Path

from unsee.cli.commands._shared import OK, engine_option, say


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="folder for everything (default: runs/demo)")
    parser.add_argument("--full", action="store_true", help="the twelve rows of docs/results.md instead of four")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs per method (default: 1)")
    parser.add_argument(
        "--methods",
        metavar="A,B",
        help="these instead: any of `unsee list methods`, or npo_retain, reject_retain, pubg_retain",
    )
    parser.add_argument("--fresh", action="store_true", help="make every row anew, even if --out has it")
    engine_option(parser)


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    methods = None if options.methods is None else [name.strip() for name in options.methods.split(",")]
    from unsee.workflows.demo import demo

    report = demo(
        Path(options.out),
        full=options.full,
        seeds=options.seeds,
        methods=methods,
        fresh=options.fresh,
        engine=options.engine or "fast",
    )
    say(report)
    return OK
