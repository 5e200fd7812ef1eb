"""What several commands share: exit codes, the options that make a run, printing once."""

from __future__ import annotations

import argparse
from pathlib import Path

from unsee import config, devices
from unsee.config import Run

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done; could not be done, or data not usable; the user's mistake; Ctrl-C."""


def run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say model, data, place and settings of a run."""
    parser.add_argument("file", nargs="?", metavar="RUN.yaml", help="run file; options below win over it")
    parser.add_argument("--model", metavar="M", help="folder, hub id, run folder, lab or lab-gold")
    parser.add_argument("--data", metavar="D", help="folder or table with the data, or lab")
    parser.add_argument("--benchmark", metavar="NAME", help="layout of the data; default: recognise it")
    parser.add_argument("--out", metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="one setting, e.g. method.beta=0.2; repeatable"
    )
    engine_option(parser)


def engine_option(parser: argparse.ArgumentParser) -> None:
    """Add `--engine`."""
    parser.add_argument("--engine", metavar="HOW", help="fast (default), or plain: equal numbers without any fast path")


def run_of(options: argparse.Namespace) -> Run:
    """Return the run of the file, overridden by --set, overridden by the named options."""
    values = config.read_mapping(Path(options.file)) if options.file else {}
    values = config.merge(values, config.parse_overrides(options.set))
    given = vars(options)
    flags = {
        name: given[name]
        for name in ("model", "data", "benchmark", "out", "method", "seed", "engine")
        if given.get(name) is not None
    }
    for part, names in (("training", ("tune", "parts")), ("eval", ("likelihood", "backend", "measures", "gold", "clip"))):
        chosen = {name: given[name] for name in names if given.get(name) is not None}
        if chosen:
            flags[part] = chosen
    return Run.from_mapping(config.merge(values, flags), where=options.file or "the run")


def say(line: object) -> None:
    """Print a result once, however many processes found it."""
    if devices.is_main():
        print(line)
