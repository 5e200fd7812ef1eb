"""Judge responses with a language model, or safety by rules."""

from __future__ import annotations

import argparse
import os

from unsee.cli.commands._shared import OK, say_json
from unsee.errors import UserError


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("run", metavar="RUN", help="run folder that was judged with unsee eval")
    parser.add_argument("--url", metavar="URL", help="OpenAI-compatible address, up to and without /chat/completions")
    parser.add_argument("--judge", metavar="NAME", help="name of the model at that address")
    parser.add_argument("--key-env", metavar="VAR", help="environment variable with its key; nothing is written")


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from unsee.evaluation.judge_client import Endpoint
    from unsee.evaluation.judge_factuality import opinion

    if bool(options.url) != bool(options.judge):
        raise UserError("A judge needs both: --url with its address and --judge with the name of the model there.")
    if options.key_env and not options.url:
        raise UserError(
            "--key-env holds the key of a judge; without --url the rules judge. Give --url and --judge, or leave it out."
        )
    key = os.environ.get(options.key_env, "") if options.key_env else ""
    if options.key_env and not key:
        raise UserError(f"The environment variable {options.key_env} is empty; it should hold the key of the judge.")
    endpoint = Endpoint(url=options.url, model=options.judge, key=key) if options.url else None
    say_json(opinion(options.run, endpoint))
    return OK
