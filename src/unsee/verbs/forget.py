"""Unlearn the forget role of the data."""

from __future__ import annotations

import argparse

from unsee import registry
from unsee.verbs._shared import OK, run_of, run_options, say


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    run_options(parser)
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="start from published settings, `unsee list recipes`; options: --set recipe.x=y",
    )
    parser.add_argument("--method", metavar="NAME", help="unlearning method; `unsee list methods`")
    parser.add_argument("--seed", type=int, metavar="S", help="start of every random stream (default: 0)")
    parser.add_argument("--tune", metavar="HOW", help="lora or full")
    parser.add_argument("--parts", metavar="A,B", help="parts to train: vision, projector, language")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted run in --out")


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    run = run_of(options)
    if run.method:
        registry.require("methods", run.method)
    from unsee.run import forget_run

    folder = forget_run(run, resume=options.resume)
    say(folder)
    return OK
