"""Attack a model: what of the forgotten can be brought back."""

from __future__ import annotations

import argparse

from unsee import config
from unsee.api import registry
from unsee.cli.commands._shared import (
    OK,
    add_plugins,
    benchmark_of,
    data_options,
    engine_option,
    plugin_option,
    say,
    say_json,
)


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--model", required=True, metavar="RUN", help="run folder, folder, hub id or packaged model")
    parser.add_argument("--data", default="", metavar="D", help="data of the request (default: those of the run)")
    parser.add_argument("--benchmark", default="", metavar="NAME", help="layout of the data; default: recognise it")
    data_options(parser)
    parser.add_argument(
        "--gold", default="", metavar="M", help="model that never saw the forget set: what counts is above it"
    )
    parser.add_argument(
        "--original", default="", metavar="M", help="model before unlearning (default: the one that the run names)"
    )
    parser.add_argument(
        "--attack", action="append", default=[], metavar="NAME", help="`unsee list attacks`; repeatable (default: all)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="ATTACK.NAME=VALUE", help="e.g. relearning.steps=0,10; repeatable"
    )
    parser.add_argument("--quick", action="store_true", help="fewer variants: about a minute per model on the lab")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="start of every random stream (default: 0)")
    parser.add_argument(
        "--split",
        default="all",
        metavar="PART",
        help="part of the questions to test: all, or attacks (docs/attacks.md)",
    )
    parser.add_argument("--out", default="", metavar="DIR", help="folder of attacks.json (default: the run folder)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    engine_option(parser)
    plugin_option(parser)


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    add_plugins(options)
    for name in options.attack:
        registry.require("attacks", name)
    from unsee.workflows.attack import attack, line

    findings = attack(
        options.model,
        options.data,
        gold=options.gold,
        attacks=options.attack,
        benchmark=benchmark_of(vars(options)),
        settings=config.parse_overrides(options.set),
        quick=options.quick,
        seed=options.seed,
        out=options.out,
        original=options.original,
        split=options.split,
        engine=options.engine or "",
    )
    if options.json:
        say_json(findings)
    else:
        say("\n".join(line(name, result) for name, result in findings.items()))
    return OK
