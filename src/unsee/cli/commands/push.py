"""Upload a run's model to the Hugging Face Hub, private by default."""

from __future__ import annotations

import argparse

from unsee.cli.commands._shared import OK, add_plugins, plugin_option, say


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("repo", metavar="OWNER/NAME", help="repository; made if it does not exist")
    parser.add_argument("--merged", action="store_true", help="the whole checkpoint instead of the adapter")
    parser.add_argument("--base", default="", metavar="ID", help="hub id of the base model, if it was a local folder")
    parser.add_argument(
        "--public",
        action="store_true",
        help="make a new repository public, or use one that is (default: private ones only)",
    )
    parser.add_argument(
        "--with", dest="extras", default="", metavar="A,B", help="also upload scores, responses, images"
    )
    parser.add_argument(
        "--allow", default="", metavar="A,B", help="strings that may go although the data call them private"
    )
    parser.add_argument(
        "--anyway", action="store_true", help="also a model that still leaks, or whose leak was never measured"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be uploaded; upload nothing")
    plugin_option(parser)


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    add_plugins(options)
    from unsee.exporting.hub import push
    from unsee.workflows.requests.manage import note_child, require_ledger
    from unsee.workflows.verdict import require_silent

    if not (options.anyway or options.dry_run):
        require_silent(options.run)
    if not options.dry_run:
        require_ledger(options.run)
    extras = [name.strip() for name in options.extras.split(",") if name.strip()]
    upload = push(
        options.run,
        options.repo,
        merged=options.merged,
        base=options.base,
        private=not options.public,
        extras=extras,
        allow=[text.strip() for text in options.allow.split(",") if text.strip()],
        dry_run=options.dry_run,
    )
    say(upload)
    if upload.done:
        note_child(options.run, "push", options.repo)
    return OK
