"""Check the receipt of a deletion request."""

from __future__ import annotations

import argparse
from pathlib import Path

from unsee.cli.commands._shared import FAILED, OK, say


def options(parser: argparse.ArgumentParser) -> None:
    """Add the action of the command, with its options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(parser))
    text = "check signature, model and ledger of a receipt"
    verify = actions.add_parser("verify", help=text, description=text, allow_abbrev=False)
    verify.add_argument("receipt", metavar="FILE", help="the *.receipt.json")
    verify.add_argument("--model", default="", metavar="M", help="model that it should be about; its files are hashed")
    verify.add_argument("--key", default="", metavar="KEY", help="public key to trust, or its file (default: your own)")
    verify.add_argument("--project", default="", metavar="DIR", help="also check that it stands in this ledger")
    verify.add_argument("--ask", action="store_true", help="also ask the model again (needs --project and --model)")


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from unsee.workflows.requests.project import Project
    from unsee.workflows.requests.receipt import verify

    verification = verify(
        options.receipt,
        model=options.model,
        trusted=options.key,
        project=Project(folder=Path(options.project)) if options.project else None,
        ask=options.ask,
    )
    say(verification)
    return OK if verification.good else FAILED
